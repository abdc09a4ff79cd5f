"""Taps: where a pass reads and changes tensors, how often each was met, and what was read.

A tap sits at one physical place and serves every site that lies there, under whatever name. Hooks live only
as long as the pass: they are removed whatever happens in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.model.apply import Block, Bound, make
from prosect.model.attention import routed
from prosect.model.boundary import main_input, main_output, with_main_input, with_main_output
from prosect.model.sitemap import Entry, Place, Wanted
from prosect.model.sites import Layout, Site


class Stop(Exception):
    """Raised inside a pass when everything wanted has been read; never leaves `model.run`."""


@dataclass
class Tap:
    """Everything that happens at one place during one pass."""

    place: Place
    wanted: Sequence[Wanted] = ()
    edits: list[tuple[Block, Bound]] = field(default_factory=list)
    fired: int = 0


@dataclass
class Got:
    """A tensor that was read, and its version then: a later one means that the model overwrote it."""

    value: Tensor
    version: int

    @property
    def overwritten(self) -> bool:
        """Whether the model has written into it since."""
        return self.value._version != self.version


class Taps:
    """The taps of one pass.

    Args:
        wanted: the sites to read, by where they lie.
        blocks: the rows of the pass, cut by which edits they get; none where there are no edits.
        rows: how many rows the pass has.
        positions: length of the axis of positions; None for inputs without positions.
        grad: whether what is read stays in the graph.
        clone: sites to copy when they are read, because the model overwrites them.
        stop: leave the pass once everything wanted has been read.
        hooks: reach modules by torch's hooks alone.
    """

    def __init__(
        self,
        wanted: Mapping[Place, Sequence[Wanted]],
        blocks: Sequence[Block],
        rows: int,
        positions: int | None,
        grad: bool = False,
        clone: frozenset[str] = frozenset(),
        stop: bool = False,
        hooks: bool = False,
    ) -> None:
        self.hooks = hooks
        self.blocks, self.rows, self.positions = blocks, rows, positions
        self.grad, self.clone, self.stop = grad, clone, stop
        self.taps = {place: Tap(place, sites) for place, sites in wanted.items()}
        self.got: dict[str, Got] = {}
        self._names = {w.site.name for sites in wanted.values() for w in sites} if stop else set()
        self._root: nn.Module | None = None

    def edit(self, block: Block, bound: Bound) -> None:
        """Make an edit on the rows of ``block``."""
        place = bound.entry.place
        self.taps.setdefault(place, Tap(place)).edits.append((block, bound))

    @contextmanager
    def installed(self, module: nn.Module, route: bool = False) -> Iterator[None]:
        """Hooks in place; attention routed where its inside is tapped, or if told to.

        Raises:
            Unsupported: gradients through a quantised model.
        """
        self._root = module
        if self.grad:
            _check_differentiable(module)
        if not self.taps and not route:
            yield
            return
        places: dict[nn.Module, tuple[list[Tap], list[Tap]]] = {}
        taps = self.taps.values()
        # what is written through comes first
        for tap in (*[t for t in taps if t.place.through], *[t for t in taps if not t.place.through]):
            if tap.place.side in ("in", "out"):
                ins, outs = places.setdefault(tap.place.module, ([], []))
                (ins if tap.place.side == "in" else outs).append(tap)
        undo: list[Callable[[], object]] = []
        try:
            for at, (ins, outs) in places.items():
                undo.append(self._put(at, ins, outs))
            if route or any(tap.place.inside for tap in taps):
                with routed(module, self._inside):
                    yield
            else:
                yield
        finally:
            for back in undo:
                back()

    def _put(self, at: nn.Module, ins: Sequence[Tap], outs: Sequence[Tap]) -> Callable[[], object]:
        """Have a module meet its taps; gives what undoes it.

        Its forward is wrapped, which costs a small model a tenth of what torch's hooks do. Hooks they are where
        others have hung theirs on it, which come first, and in models that look for hooks to choose their kernels.
        """
        if self.hooks or at._forward_hooks:
            pre = at.register_forward_pre_hook(partial(_before, self, ins), with_kwargs=True)
            post = at.register_forward_hook(partial(_after, self, outs))
            return partial(_removed, pre, post)
        kept = vars(at).get("forward")
        vars(at)["forward"] = partial(_around, self, ins, outs, at.forward)
        return partial(_restore, at, kept)

    def check_counts(self) -> None:
        """Every site met as often as its name says.

        Raises:
            BadInput: a site met never, or several times without saying which.
            Unsupported: a site inside a kernel that computes several modules as one.
        """
        for tap in self.taps.values():
            for wanted in tap.wanted:
                if tap.fired != 1 or wanted.site.call is not None:  # the usual case needs no look
                    self._check_count(tap, wanted.site)
            for _, bound in tap.edits:
                self._check_count(tap, bound.site)

    def _check_count(self, tap: Tap, site: Site) -> None:
        if tap.fired == 0 and not site.conditional:
            _check_fused(self._root, tap.place.module, site)
        if site.call is None and tap.fired != 1 and not (site.conditional and tap.fired == 0):
            raise _miscounted(site, tap.fired)
        if site.call is not None and site.call >= tap.fired and not site.conditional:
            raise _miscounted(site, tap.fired)

    def meet(self, tap: Tap, raw: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The tensor to use in place of ``raw``; reads are taken on the way."""
        call, tap.fired = tap.fired, tap.fired + 1
        x = self._edited(tap, call, raw) if tap.edits else raw
        if x is not raw and allowed is not None:
            x = torch.where(allowed, x, raw)
        if tap.place.through and x is not raw:
            x = _written_through(tap, raw, x)
        for wanted in tap.wanted:
            if wanted.site.call in (None, call):
                x = self._read(wanted, x, tap.place.through)
        if self.stop and self._names <= self.got.keys():
            raise Stop
        return x

    def _edited(self, tap: Tap, call: int, raw: Tensor) -> Tensor:
        due = [(block, bound) for block, bound in tap.edits if bound.site.call in (None, call)]
        if not due:
            return raw
        whole = len(self.blocks) == 1
        x = raw.clone() if (self.grad and tap.place.through) or not whole else raw
        for block, bound in due:
            seen, layout = self.seen(x, bound.site, bound.entry)
            if layout == "module" and seen.shape[0] != self.rows:
                raise Unsupported(
                    f"{bound.words}, where the tensor is {tuple(seen.shape)} in a pass of {self.rows} rows",
                    "a site whose first axis is the rows of the batch",
                )
            if whole:
                x = make(bound, seen, block, layout).reshape(raw.shape)
            else:
                x.view(seen.shape)[block.at] = make(bound, seen[block.at], block, layout)
        return x

    def _read(self, wanted: Wanted, x: Tensor, through: bool) -> Tensor:
        """Keep a reference; with gradients, what the model goes on with is made from what is kept."""
        name, factor = wanted.site.name, wanted.entry.factor
        seen, _ = self.seen(x, wanted.site, wanted.entry)
        if factor != 1.0:
            kept = seen * factor
            if self.grad:  # what the model goes on with is made from what is kept
                kept = kept if kept.requires_grad else kept.detach().requires_grad_(True)
                x = (kept / factor).reshape(x.shape)
            else:
                kept = kept.detach()
        elif self.grad and x.is_floating_point():
            if through:
                x.requires_grad_(True)
                kept = x
            else:
                kept = seen if seen.requires_grad else seen.detach().requires_grad_(True)
                x = (kept.clone() if name in self.clone else kept).reshape(x.shape)
        else:
            kept = seen.detach() if seen.requires_grad else seen
            kept = kept.clone() if name in self.clone else kept
        self.got[name] = Got(kept, kept._version)
        return x

    def seen(self, x: Tensor, site: Site, entry: Entry) -> tuple[Tensor, Layout]:
        """``x`` with the axes that the site promises, and how they are read.

        Raises:
            ShapeMismatch: a named site whose tensor does not have the batch's rows and positions.
        """
        layout = entry.info.layout
        if layout == "pattern":
            return x, layout
        rows, positions = self.rows, self.positions
        flattened = positions is not None and x.ndim == 2 and x.shape[0] == rows * positions != rows
        if flattened and positions is not None:
            x = x.reshape(rows, positions, x.shape[-1])
        if layout == "module":
            known = positions is not None and x.ndim >= (3 if x.is_floating_point() else 2)
            return x, "stream" if known and x.shape[:2] == (rows, positions) else "module"
        if x.shape[0] != rows or x.ndim < 3 or positions not in (None, x.shape[1]):
            raise ShapeMismatch(
                f"{tuple(x.shape)} at {site}", f"{rows} rows of {positions or 'some'} positions"
            )
        if entry.split and entry.info.heads is not None:
            x = x.reshape(*x.shape[:-1], entry.info.heads, x.shape[-1] // entry.info.heads)
        return x, layout

    def _inside(self, module: nn.Module, quantity: str, x: Tensor, allowed: Tensor | None) -> Tensor:
        tap = self.taps.get(Place(module, quantity))  # type: ignore[arg-type]
        return x if tap is None else self.meet(tap, x, allowed)


def _written_through(tap: Tap, raw: Tensor, new: Tensor) -> Tensor:
    """Write ``new`` into ``raw`` itself, so that the skip around the next module sees it too."""
    try:
        return raw.copy_(new)
    except RuntimeError as error:
        raise Unsupported(
            f"an edit at {tap.edits[0][1].site}, whose tensor cannot be written to ({error})",
            "a residual stream of its own",
            "resid_pre or resid_post",
        ) from error


def _check_fused(root: nn.Module | None, module: nn.Module, site: Site) -> None:
    """Say so where a module did not run because one of torch's own computes it with its weights alone.

    Raises:
        Unsupported: it is inside such a kernel.
    """
    for path, outer in () if root is None else root.named_modules():
        own = type(outer).__module__.startswith("torch.nn.modules")
        container = isinstance(outer, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        if own and not container and outer is not module and any(m is module for m in outer.modules()):
            raise Unsupported(
                f"site {site}, inside the fused kernel of a {type(outer).__name__}",
                "a site at the boundary of a module that runs by itself",
                path,
            )


def _check_differentiable(module: nn.Module) -> None:
    """Refuse gradients through weights that are stored as integers.

    Raises:
        Unsupported: a module is quantised; the first is named.
    """
    for path, m in module.named_modules():
        packed = ".quantized" in type(m).__module__ or "bitsandbytes" in type(m).__module__
        weight = m._parameters.get("weight", m._buffers.get("weight"))
        stored = isinstance(weight, Tensor) and (
            weight.is_quantized or weight.dtype in (torch.int8, torch.uint8)
        )
        if packed or stored:
            raise Unsupported(
                f"gradients through {path or 'a model'}, a quantised {type(m).__name__}",
                "weights in a floating dtype",
                "load(..., dtype='bfloat16') of the model that was not quantised, or patching, which needs none",
            )


def _miscounted(site: Site, fired: int) -> BadInput:
    if fired == 0:
        return BadInput(
            f"site {site}, which did not run", "one call in each pass", f"{site.base}? for what need not run"
        )
    hint = f"{site.base}@0 to {site.base}@{fired - 1}"
    return BadInput(
        f"site {site}, which ran {fired} times", "one call in each pass, or a call by number", hint
    )


def _entering(taps: Taps, tap: Tap, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = main_input(args, kwargs)
    if x is None:
        raise Unsupported(f"the input of {type(tap.place.module).__name__}", "a module given a tensor")
    new = taps.meet(tap, x)
    return (args, kwargs) if new is x else with_main_input(args, kwargs, new)


def _leaving(taps: Taps, tap: Tap, output: Any) -> Any:
    x = main_output(output)
    if x is None:
        raise Unsupported(f"the output of {type(tap.place.module).__name__}", "a module that gives a tensor")
    new = taps.meet(tap, x)
    return output if new is x else with_main_output(output, new)


def _around(
    taps: Taps,
    ins: Sequence[Tap],
    outs: Sequence[Tap],
    forward: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """In place of a module's forward."""
    for tap in ins:
        args, kwargs = _entering(taps, tap, args, kwargs)
    output = forward(*args, **kwargs)
    for tap in outs:
        output = _leaving(taps, tap, output)
    return output


def _before(
    taps: Taps, ins: Sequence[Tap], _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for tap in ins:
        args, kwargs = _entering(taps, tap, args, kwargs)
    return args, kwargs


def _after(taps: Taps, outs: Sequence[Tap], _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    for tap in outs:
        output = _leaving(taps, tap, output)
    return output


def _removed(*handles: RemovableHandle) -> None:
    for handle in handles:
        handle.remove()


def _restore(module: nn.Module, kept: Any) -> None:
    """Give a module back its own forward, or the one that somebody else had put there."""
    if kept is None:
        del vars(module)["forward"]
    else:
        vars(module)["forward"] = kept
