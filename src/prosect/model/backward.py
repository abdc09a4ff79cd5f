"""Backward rules: gradients under which a network is simpler than it is, as contexts around passes.

The forward pass stays what it was, bit for bit; only what flows back changes. Each rule acts on the operations of
the pass, whatever classes or kernels they come from, and counts: every module that it claims to cover must have been
covered in each pass, and an operation that it would have to cover and cannot is refused by name. A rule
that silently misses half of the network (matching ``nn.LayerNorm`` and not a family's own RMSNorm, or one attention
kernel of several) gives numbers that mean nothing.

    with frozen_norms(model):
        trace = model.run(batch, sites, grad=True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prosect.core.errors import BadInput, Unsupported
from prosect.model import backward_functions as f
from prosect.model.attention import routed

if TYPE_CHECKING:
    from prosect.model.model import Model

NORMS = {"layer_norm", "rms_norm"}
SCALES = {"rsqrt", "sqrt", "std", "norm", "vector_norm"}
OTHER_NORMS = {"normalize", "group_norm", "instance_norm", "local_response_norm", "std_mean", "var_mean"}
FUSED = {"scaled_dot_product_attention", "flex_attention", "multi_head_attention_forward"}
PRODUCTS = {"mul", "__mul__", "__rmul__", "multiply"}
IN_PLACE = {"mul_", "__imul__", "multiply_"}
THROUGH_ZERO = {
    "gelu",
    "silu",
    "relu",
    "relu_",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "mish",
    "hardswish",
    "tanh",
}


@dataclass
class Coverage:
    """What a rule met and covered in its last pass.

    Attributes:
        rule: its name.
        met: calls of modules that it claims to cover.
        covered: those in which it changed an operation.
        operations: operations it changed.
        passes: passes so far.
    """

    rule: str
    met: int = 0
    covered: int = 0
    operations: int = 0
    passes: int = 0


class _Rule:
    """One rule: which modules it claims, and what it does to an operation.

    Attributes:
        claims: whether the calls of a module must be covered.
        act: (name of the operation, the operation, arguments, whether a claimed module is running, whether an
            activation module is) → its result, or NotImplemented to leave it alone.
        optional: whether a pass may have nothing to cover, as long as it covers all or nothing.
    """

    def __init__(
        self,
        name: str,
        claims: Callable[[nn.Module], bool],
        act: Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], bool, bool], Any],
        optional: bool = False,
    ) -> None:
        self.coverage = Coverage(name)
        self.claims, self.act, self.optional = claims, act, optional
        self.open: list[list[Any]] = []
        self.missed: list[str] = []

    def start(self) -> None:
        c = self.coverage
        c.met = c.covered = c.operations = 0
        c.passes += 1
        self.open, self.missed = [], []

    def leave(self, path: str) -> None:
        _, count = self.open.pop()
        self.coverage.met += 1
        self.coverage.covered += count > 0
        if count == 0:
            self.missed.append(path)
        elif self.open:
            self.open[-1][1] += count

    def finish(self, model: str) -> None:
        c = self.coverage
        if self.missed and not (self.optional and c.covered == 0):
            raise Unsupported(
                f"{c.rule} on {model}, where it covered {c.covered} of {c.met} (not {', '.join(self.missed[:3])})",
                "every one of them",
                "another rule, or the gradient as it is",
            )
        if c.met == 0 and not self.optional:
            raise Unsupported(f"{c.rule} on {model}, which has nothing for it to cover", "a model that has")


class _Mode(TorchFunctionMode):
    """Sends the operations of a pass through the rules."""

    def __init__(self, rules: list[_Rule]) -> None:
        super().__init__()
        self.rules, self.active, self.activations = rules, False, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.active:
            name = getattr(func, "__name__", "")
            for rule in self.rules:
                out = rule.act(name, func, args, kwargs, bool(rule.open), self.activations > 0)
                if out is not NotImplemented:
                    rule.coverage.operations += 1
                    if rule.open:
                        rule.open[-1][1] += 1
                    return out
        return func(*args, **kwargs)


@contextmanager
def frozen_norms(model: Model) -> Iterator[Coverage]:
    """Norms whose scale counts as a constant: they are linear on the way back.

    Covers layer norm and root-mean-square norms, as functions or written out, in every module whose class is
    named a norm.

    Raises:
        Unsupported: a norm that was not covered, in the pass that met it.
    """
    with _applied(model, [_norms()]) as (found,):
        yield found


@contextmanager
def softmax_temperature(model: Model, temperature: int | float = 2.0) -> Iterator[Coverage]:
    """Attention whose softmax has, on the way back, the slope that it has at a higher temperature.

    The gradient is that of softmax(scores / T), while probabilities are those of softmax(scores): less
    saturated, so that queries and keys are not missed (GIM uses T = 2). At 1 it is the gradient itself.

    Raises:
        Unsupported: attention that cannot be tapped, or was not covered.
        BadInput: a temperature that is not positive.
    """
    if not temperature > 0:
        raise BadInput(f"a temperature of {temperature}", "more than 0")
    with _applied(model, [_attention(model, float(temperature))], route=True) as (found,):
        yield found


@contextmanager
def frozen_attention(model: Model) -> Iterator[Coverage]:
    """Attention whose probabilities count as constants: gradients reach values, not queries and keys.

    Raises:
        Unsupported: attention that cannot be tapped, or was not covered.
    """
    with _applied(model, [_attention(model, None)], route=True) as (found,):
        yield found


@contextmanager
def half_gates(model: Model) -> Iterator[Coverage]:
    """Products of two activations within an MLP (gate times up) that give each factor half its gradient.

    Without it both factors get the whole of what they share, and a gated layer counts twice.

    Raises:
        Unsupported: an MLP in which no two activations are multiplied.
    """
    with _applied(model, [_gates(model)]) as (found,):
        yield found


@contextmanager
def identity_activations(model: Model) -> Iterator[Coverage]:
    """Activation functions of MLPs that count as multiplication by the number they multiplied by: f(x) / x.

    Raises:
        Unsupported: an MLP without an activation function that is zero at zero.
    """
    with _applied(model, [_activations(model)]) as (found,):
        yield found


@contextmanager
def relp(model: Model) -> Iterator[tuple[Coverage, ...]]:
    """The rules of layer-wise relevance propagation for transformers, together (Jafari et al. 2025, "RelP").

    Frozen norms, frozen attention, activation functions as their ratio, and half the gradient for each factor of a
    gate, where MLPs have gates. Multiplied by the difference of activations this gives relevance patching.

    Raises:
        Unsupported: something that one of them claims was not covered.
    """
    rules = [_norms(), _attention(model, None), _gates(model, optional=True), _activations(model)]
    with _applied(model, rules, route=True) as found:
        yield found


@contextmanager
def _applied(model: Model, rules: list[_Rule], route: bool = False) -> Iterator[tuple[Coverage, ...]]:
    """The rules at work in every pass of the model while the block lasts."""
    root, mode = model.module, _Mode(rules)
    paths = {id(m): path or type(m).__name__ for path, m in root.named_modules()}
    claimed = {id(m): [r for r in rules if r.claims(m)] for m in root.modules()}

    def enter(m: nn.Module, _args: Any) -> None:
        if m is root:
            mode.active, mode.activations = True, 0
            for rule in rules:
                rule.start()
        for rule in claimed[id(m)]:
            rule.open.append([m, 0])
        mode.activations += _is_activation(m)

    def leave(m: nn.Module, args: Any, output: Any) -> Any:
        mode.activations -= _is_activation(m)
        if output is None:  # the pass was left
            mode.active = mode.active and m is not root
            return None
        changed = output
        if _is_activation(m) and args and isinstance(changed, Tensor):
            for rule in rules:
                out = rule.act("activation module", m, (args[0], changed), {}, bool(rule.open), False)
                if out is not NotImplemented:
                    changed = out
                    rule.coverage.operations += 1
                    rule.open[-1][1] += 1
        for rule in claimed[id(m)]:
            rule.leave(paths[id(m)])
        if m is root:
            mode.active = False
            for rule in rules:
                rule.finish(model.name)
        return None if changed is output else changed

    with ExitStack() as stack:
        for m in root.modules():
            stack.callback(m.register_forward_pre_hook(enter).remove)
            stack.callback(m.register_forward_hook(leave, always_call=True).remove)
        if route:
            stack.enter_context(routed(root, lambda _m, _q, x, _a: x))
        stack.enter_context(mode)
        yield tuple(rule.coverage for rule in rules)


def _norms() -> _Rule:
    def act(name: str, func: Any, args: Any, kwargs: Any, within: bool, _: bool) -> Any:
        if name not in NORMS | SCALES | OTHER_NORMS or not f.needs_gradient(args, kwargs):
            return NotImplemented
        if name in NORMS:
            return f.frozen_norm(name, func, args, kwargs)
        if name == "rsqrt" or (name in SCALES and within):
            return f.held(func(*args, **kwargs))
        raise Unsupported(
            f"{name} {'in a norm' if within else 'outside any norm'}, whose scale cannot be frozen",
            "layer norms and root-mean-square norms",
            "the gradient as it is",
        )

    return _Rule(
        "frozen_norms",
        lambda m: "norm" in type(m).__name__.lower() and "batch" not in type(m).__name__.lower(),
        act,
    )


def _attention(model: Model, temperature: float | None) -> _Rule:
    names = [name for name in model.sites.names() if name.startswith("probs.")]
    inside = {id(model.sites.entry(model.sites.site(name)).place.module) for name in names}
    rule = "frozen_attention" if temperature is None else "softmax_temperature"
    if not inside:
        raise Unsupported(f"{rule} on {model.name}", "a model whose attention can be tapped")

    def act(name: str, func: Any, args: Any, kwargs: Any, within: bool, _: bool) -> Any:
        if name in FUSED and f.needs_gradient(args, kwargs):
            raise Unsupported(f"{name}, a kernel whose softmax cannot be reached", "attention in the open")
        if not within or name not in ("softmax", "_softmax"):
            return NotImplemented
        if temperature is None:
            return f.held(func(*args, **kwargs))
        return f.tempered(func, args, kwargs, temperature)

    return _Rule(rule, lambda m: id(m) in inside, act)


def _mlps(model: Model, rule: str) -> set[int]:
    names = [name for name in model.sites.names() if name.startswith("mlp_out.")]
    found = {id(model.sites.entry(model.sites.site(name)).place.module) for name in names}
    if not found:
        raise Unsupported(f"{rule} on {model.name}", "a model whose MLPs are known")
    return found


def _gates(model: Model, optional: bool = False) -> _Rule:
    inside = set() if optional and not _has_mlps(model) else _mlps(model, "half_gates")

    def act(name: str, func: Any, args: Any, kwargs: Any, within: bool, activation: bool) -> Any:
        if not within or activation or name not in PRODUCTS | IN_PLACE:
            return NotImplemented
        if len(args) != 2 or not all(_computed(x) for x in args) or args[0].shape != args[1].shape:
            return NotImplemented
        if name in IN_PLACE:
            raise Unsupported("a product of two activations made in place", "one whose factors are kept")
        return f.halved(*args)

    return _Rule("half_gates", lambda m: id(m) in inside, act, optional)


def _activations(model: Model) -> _Rule:
    inside = _mlps(model, "identity_activations") if _has_mlps(model) else set()

    def act(name: str, func: Any, args: Any, kwargs: Any, within: bool, activation: bool) -> Any:
        if not within or activation:
            return NotImplemented
        if name == "activation module":
            if type(func).__name__ in ("Sigmoid", "Softplus"):
                return NotImplemented
            return f.as_ratio(args[0], args[1])
        if name in THROUGH_ZERO and _computed(args[0]):
            return f.as_ratio(args[0], func(*args, **kwargs))
        return NotImplemented

    return _Rule("identity_activations", lambda m: id(m) in inside, act, optional=not inside)


def _has_mlps(model: Model) -> bool:
    return any(name.startswith("mlp_out.") for name in model.sites.names())


def _computed(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and not isinstance(x, nn.Parameter)


def _is_activation(m: nn.Module) -> bool:
    home = type(m).__module__
    return home in ("torch.nn.modules.activation", "transformers.activations") and not isinstance(
        m, nn.MultiheadAttention
    )
