"""One pass of a model: read sites, make edits, leave nothing behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prosect.core.errors import BadInput, NotFinite
from prosect.data.batch import Batch
from prosect.model.apply import Block, Bound, bind
from prosect.model.boundary import main_output
from prosect.model.edits import Edit
from prosect.model.forward import Forward, settled
from prosect.model.meter import Meter
from prosect.model.sitemap import Place, SiteMap, Wanted
from prosect.model.sites import Site
from prosect.model.taps import Stop, Taps
from prosect.model.trace import Trace


class Runner:
    """Runs one module with its map of sites.

    Args:
        module: what is run.
        sites: its map.

    Attributes:
        meter: what has run.
    """

    def __init__(self, module: nn.Module, sites: SiteMap) -> None:
        self.module, self.sites, self.forward = module, sites, Forward(module)
        self.meter = Meter()
        self._running = False
        self._overwritten: frozenset[str] = frozenset()

    def trace(
        self,
        batch: Batch,
        capture: Sequence[str],
        edits: Sequence[Edit],
        grad: bool,
        finite: bool,
        stop_early: bool,
        skipped: int = 0,
    ) -> Trace:
        """One pass over ``batch``, already on the module's device. See `Model.run`; ``skipped`` as in `go`."""
        bound = self.bind(edits, batch)
        blocks = [(Block.of(batch), bound)] if bound else []
        passed = self.go(batch, blocks, capture, grad, stop_early, skipped=skipped)
        if finite:
            self.check_finite(passed, batch)
        return Trace(batch, passed.values, grad, passed.output, self.sites)

    def bind(self, edits: Sequence[Edit], batch: Batch) -> list[Bound]:
        """Find the sites of edits and check them against ``batch``; nothing has run if this raises."""
        if not edits:
            return []
        lengths = None if batch.mask is None else batch.lengths
        out = []
        for edit in edits:
            site = self.sites.site(edit.site)
            out.append(bind(edit, site, self.sites.entry(site), len(batch), lengths))
        return out

    def go(
        self,
        batch: Batch,
        blocks: Sequence[tuple[Block, Sequence[Bound]]],
        capture: Sequence[str] = (),
        grad: bool = False,
        stop_early: bool = False,
        routed: bool = False,
        skipped: int = 0,
    ) -> Passed:
        """One pass whose rows are cut into blocks with edits of their own.

        A site that the model overwrites after it was read is read as a copy: the pass is made once more.

        Args:
            batch: every row of the pass.
            blocks: which rows get which edits; none for a pass that edits nothing.
            capture: names of sites.
            grad: keep the graph.
            stop_early: leave once everything captured has been read.
            routed: send attention through the function that can be tapped even if nothing in it is.
            skipped: blocks at the beginning that are not computed, because what they gave is given.
        """
        if self._running:
            raise BadInput(
                "a pass started from within a pass of the same model",
                "one pass at a time",
                "edits of one run",
            )
        wanted = self.sites.wanted(capture)
        positions = None if batch.mask is None else int(batch.mask.shape[1])
        arguments = self.forward.arguments(batch)
        counted = False
        while True:
            rows = [b for b, _ in blocks]
            taps = Taps(
                wanted,
                rows,
                len(batch),
                positions,
                grad,
                self._overwritten,
                stop_early,
                self.forward.looks_for_hooks,
            )
            for block, edits in blocks:
                for bound in edits:
                    taps.edit(block, bound)
            output, stopped = self._once(taps, arguments, grad, routed)
            if not counted:  # a second time is for a site that was found out to be overwritten, once for all
                share = self._share(wanted if stopped else {}, skipped)
                self.meter.add(share * len(batch), share * len(batch) if grad else 0.0)
                counted = True
            if not stopped:
                taps.check_counts()
            written = frozenset(name for name, got in taps.got.items() if got.overwritten)
            if written <= self._overwritten:
                return Passed({name: got.value for name, got in taps.got.items()}, output, stopped)
            self._overwritten |= written

    def _share(self, wanted: Mapping[Place, Sequence[Wanted]], skipped: int) -> float:
        """How much of a whole pass one was, in blocks: up to the last site wanted, all of it where that is none."""
        layers = self.sites.layers
        if not layers:
            return 1.0
        reached = max((reach(w.site, layers) for sites in wanted.values() for w in sites), default=layers)
        return max(reached - skipped, 0) / layers

    def check_finite(self, passed: Passed, batch: Batch) -> None:
        """Refuse NaN and infinity at real positions.

        Raises:
            NotFinite: the first site that holds one is named, with its rows.
        """
        every = {id(t): t for t in passed.values.values()}  # what leaves a block is what enters the next
        if passed.output is not None:
            every[id(passed.output)] = passed.output
        with torch.no_grad():
            sums = [t.sum().item() for t in every.values() if t.is_floating_point()]
        if math.isfinite(sum(sums)):
            return  # a sum is finite only if every term is
        for name, value in passed.values.items():
            layout = self.sites.entry(self.sites.site(name)).info.layout
            _check(f"site {name}", value, batch, axis=2 if layout == "pattern" else 1)
        if passed.output is not None:
            _check("the output", passed.output, batch, axis=1)

    def _once(
        self, taps: Taps, arguments: dict[str, object], grad: bool, routed: bool
    ) -> tuple[Tensor | None, bool]:
        self._running = True
        try:
            with settled(self.module, grad), taps.installed(self.module, routed):
                return main_output(self.forward(arguments)), False
        except Stop:
            return None, True
        finally:
            self._running = False


@dataclass(frozen=True)
class Passed:
    """What a pass gave: sites in the order they were met, the main output, whether it stopped early."""

    values: dict[str, Tensor]
    output: Tensor | None
    stopped: bool


def reach(site: Site, layers: int) -> int:
    """How many of a model's blocks have run when a site is met."""
    if site.kind == "embeddings":
        return 0
    if site.layer is None or site.layer >= layers:
        return layers
    return site.layer if site.kind == "resid_pre" else site.layer + 1


def _check(what: str, value: Tensor, batch: Batch, axis: int) -> None:
    """Refuse what is not finite, unless it is at padding; ``axis`` is that of positions, if there is one."""
    if not value.is_floating_point():
        return
    bad = ~torch.isfinite(value.detach())
    mask = batch.mask
    if mask is not None and bad.ndim > axis and (bad.shape[0], bad.shape[axis]) == tuple(mask.shape):
        shape = [1] * bad.ndim
        shape[0], shape[axis] = mask.shape
        bad &= mask.to(bad.device).reshape(shape)
    if not bool(bad.any()):
        return
    rows = bad.reshape(bad.shape[0], -1).any(dim=1).nonzero().flatten().tolist()
    named = ", ".join(str(r) for r in rows[:8]) + (" ..." if len(rows) > 8 else "")
    raise NotFinite(
        f"NaN or infinity at {what} in row{'s' if len(rows) != 1 else ''} {named}",
        "finite activations",
        "float32, other inputs, or finite=False to look at them",
    )
