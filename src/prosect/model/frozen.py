"""Linearised analyses: attention patterns and the scales of norms held still, so that no gradient flows through them.

With patterns and scales fixed, what a transformer's blocks hand on is linear but for the MLPs: the form in which
attribution graphs (Ameisen et al. 2025, "Circuit Tracing", section 2) and direct attributions are read. Norms are
recognised by what they do, not by their class, so that a family's own RMSNorm is frozen like nn.LayerNorm; and
every pass counts the normalisations that happen in it, wherever they are, and fails by name if one was missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prosect.core.errors import BadInput, Unsupported
from prosect.model.boundary import main_input, main_output, with_main_output
from prosect.model.edits import Edit, freeze
from prosect.model.model import Model
from prosect.model.probe import Probe, probe
from prosect.model.trace import Trace
from prosect.model.unembed import Norm, measure

NORMALISING = {
    *("rsqrt", "rsqrt_", "layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm"),
    *("native_layer_norm", "normalize", "local_response_norm"),
}
"""Functions of torch that norms of every kind call: one call is one normalisation."""


@dataclass
class FrozenNorms:
    """What was frozen, and what the passes so far met.

    Attributes:
        paths: the norms whose scale is held, by module path.
        left: modules that normalise and were left as they are, as the user allowed.
        passes: how many whole passes were made.
        met: normalisations in the last pass that were frozen.
    """

    paths: tuple[str, ...]
    left: tuple[str, ...] = ()
    passes: int = 0
    met: int = 0
    _open: list[str] = field(default_factory=list, repr=False)
    _missed: dict[str, str] = field(default_factory=dict, repr=False)
    _normalised: dict[str, int] = field(default_factory=dict, repr=False)
    _frozen: dict[str, int] = field(default_factory=dict, repr=False)


class _Normalisations(TorchFunctionMode):
    """Counts the normalisations of a pass by the module they happen in."""

    def __init__(self, state: FrozenNorms) -> None:
        super().__init__()
        self.state = state

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in NORMALISING and self.state._open:
            inside = self.state._open[-1]
            if inside in self.state.paths:
                self.state._normalised[inside] = self.state._normalised.get(inside, 0) + 1
            elif inside not in self.state.left:
                self.state._missed.setdefault(inside, name)
        return func(*args, **(kwargs or {}))


@contextmanager
def frozen_norms(model: Model, left: Sequence[str] = ()) -> Iterator[FrozenNorms]:
    """Hold the scale of every norm at what it is in each pass: values stay to the last bit, gradients do not see it.

    A norm gives gain · (x - mean) / scale(x) + bias. Inside the context its gradient is that of
    gain · (x - mean) / s with s a constant for each position. Parameters of norms get no gradient.

    Args:
        model: open.
        left: paths of modules that normalise within themselves and may stay as they are (a state-space mixer's
            gated norm, say); they are recorded.

    Raises:
        Unsupported: on entering, a norm of another form; in a pass, a normalisation that was not frozen: the
            module in which it happened is named.
        BadInput: ``left`` names no module of the model, or the model has no norm.
    """
    paths = dict(model.module.named_modules())
    absent = [path for path in left if path not in paths]
    if absent:
        raise BadInput(f"left={absent[0]!r}", "paths of modules", "model.sites.names(paths=True)")
    norms = _norms(model, set(left))
    if not norms:
        raise BadInput(f"{model.name}, in which no norm ran", "a model with norms")
    state = FrozenNorms(tuple(norms), tuple(left))
    with ExitStack() as stack:
        for path, module in paths.items():
            enter = module.register_forward_pre_hook(_entering(state, path), with_kwargs=True)
            leave = module.register_forward_hook(
                _leaving(state, path, norms.get(path)), with_kwargs=True, always_call=True
            )
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(_Normalisations(state))
        yield state


def _norms(model: Model, left: set[str]) -> dict[str, Norm]:
    """Every norm that runs, by path, with what it was measured to do.

    Raises:
        Unsupported: a module that normalises, and is not of a form that can be frozen.
    """
    seen = FrozenNorms(())
    with ExitStack() as stack:
        for path, module in model.module.named_modules():
            enter = module.register_forward_pre_hook(_entering(seen, path), with_kwargs=True)
            leave = module.register_forward_hook(
                _leaving(seen, path, None), with_kwargs=True, always_call=True
            )
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(_Normalisations(seen))
        widths = _run_widths(model)
    modules = dict(model.module.named_modules())
    found: dict[str, Norm] = {}
    for path in seen._missed:
        if path in left:
            continue
        norm = _measured(modules[path], widths.get(path))
        if norm is None:
            raise Unsupported(
                f"a normalisation inside {path or 'the model'}, a {type(modules[path]).__name__}",
                "norms that are modules giving gain · (x - mean) / scale + bias",
                f"frozen_norms(model, left=[{path!r}]) to leave it as it is",
            )
        found[path] = norm
    return found


def _run_widths(model: Model) -> dict[str, int]:
    """The last axis of what every module of the model is given, in a pass over its example."""
    seen: Probe = probe(model.module, model.example)
    widths: dict[str, int] = {}
    for path, module in model.module.named_modules():
        tensors = [x for x in seen.inputs.get(id(module), []) if x is not None and x.ndim]
        if tensors:
            widths[path] = int(tensors[0].shape[-1])
    return widths


def _measured(module: nn.Module, width: int | None) -> Norm | None:
    """What a module does as a norm; None if it is none, or of another form."""
    if width is None:
        return None
    try:
        found = measure(module, width)
    except Exception:  # it wants other arguments, or another shape
        return None
    return found if found is not None and found.scaled else None


def _entering(state: FrozenNorms, path: str) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if path == "":
            state._open.clear()
            state._missed.clear()
            state._normalised.clear()
            state._frozen.clear()
        state._open.append(path)

    return hook


def _leaving(state: FrozenNorms, path: str, norm: Norm | None) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if state._open:
            state._open.pop()
        x, y = main_input(args, kwargs), main_output(output)
        if path == "" and state.paths and y is not None:
            _check(state)
        if norm is None or x is None or y is None:
            return None
        state._frozen[path] = state._frozen.get(path, 0) + 1
        return with_main_output(output, _held(norm, x, y))

    return hook


def _held(norm: Norm, x: Tensor, y: Tensor) -> Tensor:
    """``y``, with the gradient of the norm at a fixed scale."""
    gain, bias = (t.to(x.device, torch.promote_types(x.dtype, torch.float32)) for t in (norm.gain, norm.bias))
    wide = x.to(gain.dtype)
    centred = wide - wide.mean(dim=-1, keepdim=True) if norm.centred else wide
    numerator = gain * centred
    with torch.no_grad():  # the scale as it was, the constant under its root included
        given = y.to(gain.dtype) - bias
        inverse = (given * numerator).sum(-1, keepdim=True) / numerator.pow(2).sum(-1, keepdim=True)
    linear = (numerator * torch.nan_to_num(inverse)).to(y.dtype)
    return y.detach() + (linear - linear.detach())


def _check(state: FrozenNorms) -> None:
    """Every normalisation of the pass was frozen.

    Raises:
        Unsupported: one was not.
    """
    if state._missed:
        path, name = next(iter(state._missed.items()))
        raise Unsupported(
            f"{name} in {path or 'the model'}, a normalisation that was not frozen",
            f"the {len(state.paths)} norms that were",
            f"frozen_norms(model, left=[{path!r}]) to leave it as it is",
        )
    met = {path for path, n in state._normalised.items() if n}
    if met != set(state._frozen):
        path = sorted(met ^ set(state._frozen))[0]
        raise Unsupported(
            f"{len(met)} norms met and {len(state._frozen)} frozen, not {path}", "the same norms"
        )
    state.passes += 1
    state.met = sum(state._frozen.values())


def frozen_patterns(model: Model, of: Trace | None = None) -> list[Edit]:
    """Edits that hold every attention pattern, with no gradient through it.

    Args:
        model: open.
        of: a run whose ``probs`` are put in place, captured for every layer that attends; by default each pass
            keeps its own.

    Returns:
        One `freeze` of ``probs`` for each layer that attends.

    Raises:
        Unsupported: attention runs somewhere that has no ``probs``: which, and why.
        BadInput: ``of`` lacks a layer's ``probs``.
    """
    paths = {id(m): path for path, m in model.module.named_modules()}
    served = {}
    for name in model.sites.names():
        if name.startswith("probs."):
            served[id(model.sites.entry(model.sites.site(name)).place.module)] = name
    seen = probe(model.module, model.example)
    missed = [paths[m] for m in seen.attending if m not in served]
    if missed or not served:
        why = next(
            (w for n, w in model.sites.refused.items() if n.startswith("probs.")), "it has no such site"
        )
        where = f" in {sorted(missed)[0]}" if missed else ""
        raise Unsupported(
            f"attention{where} of {model.name} whose pattern cannot be held: {why}",
            "attention whose probabilities are sites",
            "model.sites.refused",
        )
    names = list(served.values())
    if of is None:
        return [freeze(name) for name in names]
    lacking = [name for name in names if name not in of.sites]
    if lacking:
        raise BadInput(f"a run without {lacking[0]}", f"one that captured {', '.join(names)}")
    return [freeze(name, of[name]) for name in names]
