"""Many edits of the same rows: the one way to run them, at the cost of what the edits can reach.

A list of edits is run in one of three ways, the cheapest that was proved on the model's own example:

- ``cone``: only the blocks from the first edited one on, in them only the positions that an edit can reach, and in
  the last block and after it only what is read (`cone`, `packed`);
- ``blocks``: the blocks from the first edited one on, all positions (`entry`);
- ``whole``: everything.

All give what one whole pass for each list gives, to rounding. What was used, and why not more, is in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, Unsupported
from prosect.core.markup import card
from prosect.core.progress import say, step
from prosect.data.batch import Batch
from prosect.model import whole
from prosect.model.apply import Bound
from prosect.model.check import relative
from prosect.model.clean import all_positions, blocks_in_order, record
from prosect.model.cone import Change, Cone, cone
from prosect.model.cost import Cost, packed
from prosect.model.edits import Edit
from prosect.model.entry import After
from prosect.model.kept import Kept, key
from prosect.model.packed import Packed, Part
from prosect.model.proof import bar
from prosect.model.reads import Positions, Reads

if TYPE_CHECKING:
    from prosect.model.model import Model

Metric = Callable[[Tensor, Batch], Tensor]
"""(main output for some rows at what is read, those rows) → one number for each of them, from that row alone."""

Way = Literal["cone", "blocks", "whole"]
FEWEST = 4
"""Lists of edits from which on a pass without edits, which cones need, is worth its cost."""


@dataclass(frozen=True)
class Swept:
    """The scores of a sweep and how they came about.

    Attributes:
        scores: one number for each list of edits and each row, float64.
        ways: how many lists were run in which way.
        reasons: why lists were not run over their cones, with how many.
        passes: how many passes of the model there were, those without edits included.
        forwards: computing in whole passes of one row, attention left out; one for each list and row would be
            ``scores.size``.
        planned_mb: the most memory that one pass was planned to take, with what is held meanwhile.
        control: the largest error of passes over cones without an edit, relative to the output of the pass without
            edits; None where there were none.
    """

    scores: Float[np.ndarray, "edits rows"]
    ways: dict[Way, int]
    reasons: dict[str, int]
    passes: int
    forwards: float
    planned_mb: float
    control: float | None

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [
            ("lists of edits", len(self.scores)),
            ("rows", self.scores.shape[1]),
        ]
        rows += [(f"run as {way}", count) for way, count in self.ways.items()]
        rows += [("passes", self.passes), ("forwards", f"{self.forwards:.1f} for {self.scores.size} cells")]
        rows += [(f"{count} not over their cones", why) for why, count in self.reasons.items()]
        return card("a sweep", rows)


def swept(
    model: Model,
    edits: Sequence[Sequence[Edit]],
    batch: object,
    metric: Metric,
    budget_mb: int | float = 512.0,
    reads: Positions | None = None,
    keep: Path | None = None,
) -> Swept:
    """One number for each list of edits and each row, and how they were computed.

    Args:
        model: what is run.
        edits: lists of edits; an empty one is the model as it is.
        batch: the rows, as `Model.batch` takes them.
        metric: output and batch → (rows,). It may be called on some of the rows at a time.
        budget_mb: memory that a pass may take, as planned, with what is held of the pass without edits; at least
            one row is run at a time, whatever it takes.
        reads: positions of the output that the metric is handed, as edits count them; it then gets
            (rows, reads, ...), and nothing that only other positions need is computed. None hands it all.
        keep: a folder for the scores of finished passes. The same sweep with the same folder goes on where it was
            and ends with the same numbers. Tensors are told apart by content, functions by name alone.

    Raises:
        BadInput: a row, position or head that is not there; a budget that is not positive.
        ShapeMismatch: a value that does not fit, a metric that does not give one number for each row.
        NotFinite: the metric gave NaN or infinity.
        Unsupported: reads of inputs without positions.
        Conflict: the folder holds another sweep.
    """
    if not budget_mb > 0:
        raise BadInput(f"a budget of {budget_mb} MB", "more than 0")
    rows = model.batch(batch)  # type: ignore[arg-type]
    bound = [tuple(model.runner.bind(listed, rows)) for listed in edits]
    read = Reads.of(reads, rows)
    kept = None
    if keep is not None:
        settings = [float(budget_mb), None if read.columns is None else read.columns.tolist()]
        kept = Kept(keep, key(model, edits, rows, metric, settings))
    return _Sweep(model, rows, bound, metric, budget_mb, read, kept).run()


def expected(
    model: Model, edits: Sequence[Sequence[Edit]], batch: object, reads: Positions | None = None
) -> float:
    """What `swept` would compute, in whole passes of one row, without computing it.

    What an edit puts in does not matter, only where. Arguments and errors are those of `swept`.
    """
    rows = model.batch(batch)  # type: ignore[arg-type]
    bound = [tuple(model.runner.bind(listed, rows)) for listed in edits]
    return _Sweep(model, rows, bound, lambda output, _: output, 512.0, Reads.of(reads, rows), None).expected()


class _Sweep:
    """A sweep under way."""

    def __init__(
        self,
        model: Model,
        batch: Batch,
        bound: list[tuple[Bound, ...]],
        metric: Metric,
        budget_mb: int | float,
        reads: Reads,
        kept: Kept | None,
    ) -> None:
        self.model, self.batch, self.bound, self.metric = model, batch, bound, metric
        self.budget, self.reads, self.kept = budget_mb, reads, kept
        self.count = None if reads.columns is None else int(reads.columns.shape[1])
        self.scores = np.full((len(bound), len(batch)), np.nan)
        self.number = self.passes = 0
        self.forwards, self.planned, self.control = 0.0, 0.0, None  # type: float, float, float | None
        self.ways: dict[Way, int] = {"cone": 0, "blocks": 0, "whole": 0}
        self.reasons: dict[str, int] = {}
        self.made: dict[tuple[object, ...], Cone] = {}

    def run(self) -> Swept:
        """Every list in the cheapest way there is for it."""
        cones, rest = self._sorted()
        total = len(self.bound) * len(self.batch)
        with step("edits", total=total, unit="rows") as self.progress:
            failed = self._cones(cones) if cones else []
            self._wholes([*rest, *failed])
        for why, count in self.reasons.items():
            say(f"{count} of {len(self.bound)} lists of edits were not run over their cones: {why}")
        ways = {way: count for way, count in self.ways.items() if count}
        return Swept(
            self.scores, ways, self.reasons, self.passes, self.forwards, self.planned / 2**20, self.control
        )

    def _sorted(self) -> tuple[dict[int, dict[int, tuple[Change, ...]]], list[int]]:
        """Lists that can be run over their cones, with what they change in each row; and all others."""
        every = list(range(len(self.bound)))
        mask = self.batch.mask
        try:
            if len(every) < FEWEST:
                raise Unsupported(
                    f"{len(every)} lists of edits", f"at least {FEWEST} for a pass without edits to pay"
                )
            placing = self.model.placing
            if mask is None or not all_positions(self.batch):
                raise Unsupported("inputs that do not all have rows and positions", "token ids")
        except Unsupported as reason:
            return {}, self._because(str(reason), every)
        real, cones, rest = mask.cpu().numpy(), {}, []
        for number, edits in enumerate(self.bound):
            try:
                cones[number] = placing.changes(edits, len(self.batch), real)
            except Unsupported as reason:
                rest += self._because(str(reason), [number])
        if len(cones) < FEWEST:  # the rest of them do not pay for it either
            rest = sorted([*rest, *self._because(f"fewer than {FEWEST} lists that could be", list(cones))])
            cones = {}
        return cones, rest

    def _because(self, why: str, numbers: list[int]) -> list[int]:
        if numbers:
            self.reasons[why] = self.reasons.get(why, 0) + len(numbers)
        return numbers

    def _cones(self, changes: dict[int, dict[int, tuple[Change, ...]]]) -> list[int]:
        """Run lists over their cones; those of a batch whose control fails are given back."""
        assert self.batch.mask is not None
        length = int(self.batch.mask.shape[1])
        blocks = blocks_in_order(self.model)
        cost = Cost.of(self.model, blocks, length)
        room = int(self.budget * 2**20)
        held = max(1, cost.recording(1, self.count))
        some = max(1, int(0.5 * room / held))
        for first in range(0, len(self.batch), some):
            chunk = range(first, min(first + some, len(self.batch)))
            if not self._chunk(chunk, changes, cost, room, len(blocks)):
                why = f"a pass without edits over cones was off by {self.control:.2g} on these rows"
                return self._because(why, list(changes))
        self.ways["cone"] += len(changes)
        return []

    def _chunk(
        self,
        chunk: range,
        changes: dict[int, dict[int, tuple[Change, ...]]],
        cost: Cost,
        room: int,
        layers: int,
    ) -> bool:
        """Some rows under all lists; whether the control held."""
        batch = self.batch.select(list(chunk))
        reads = self.reads.of_rows(chunk)
        runner: Packed | None = None
        causal = self.model.placing.causal
        parts = [self._part(number, chunk, of, layers, causal) for number, of in changes.items()]
        inside = room - cost.clean(len(chunk), self.count) - cost.working
        for some in packed(parts, cost, max(inside, 1), self.count):
            spent = (
                cost.clean(len(chunk), self.count)
                + cost.working
                + sum(cost.part(p, self.count) for p in some)
            )
            self.planned = max(self.planned, spent, cost.recording(len(chunk), self.count))
            cells = [(part.number, part.rows) for part in some]
            if self._known("cone", cells):
                continue
            if runner is None:
                clean = record(self.model, batch, reads)
                runner = Packed(self.model, self.model.placing, clean, chunk.start, len(self.batch), reads)
                self._spent(len(chunk))
                control = self._control(chunk, layers, causal)
                error = (
                    relative(runner.run([control])[0], clean.output[:1])
                    if clean.causal or not causal
                    else np.inf
                )
                self.control = max(self.control or 0.0, error)
                self._spent(cost.forwards([control]))
                if not error <= bar(self.model):
                    return False
            outputs = runner.run(some)
            self._spent(cost.forwards(some))
            self._done(
                "cone",
                cells,
                [self._measured(o, p.number, p.rows) for o, p in zip(outputs, some, strict=True)],
            )
        return True

    def _spent(self, rows: int | float) -> None:
        """Count a pass over cones, of which the runner knows nothing."""
        self.passes, self.forwards = self.passes + 1, self.forwards + rows
        self.model.runner.meter.add(rows)

    def expected(self) -> float:
        """What `run` would compute, in whole passes of one row."""
        cones, rest = self._sorted()
        total = float(sum(self._share(whole.enter_after(self.model, self.bound[n])) for n in rest)) * len(
            self.batch
        )
        if cones:
            assert self.batch.mask is not None
            blocks = blocks_in_order(self.model)
            cost = Cost.of(self.model, blocks, int(self.batch.mask.shape[1]))
            rows, causal = range(len(self.batch)), self.model.placing.causal
            parts = (self._part(number, rows, of, len(blocks), causal) for number, of in cones.items())
            total += len(self.batch) + cost.forwards(parts)
        return total

    def _share(self, layer: int | None) -> float:
        """How much of a whole pass is left behind a block."""
        return 1.0 if layer is None else 1.0 - (layer + 1) / (self.model.n_layers or 1)

    def _part(
        self, number: int, rows: range, changes: dict[int, tuple[Change, ...]], layers: int, causal: bool
    ) -> Part:
        cones = []
        for row in rows:
            length, read = self._row(row)
            what = (changes.get(row, ()), length, None if read is None else tuple(read))
            if what not in self.made:  # many lists change a row in the same places
                self.made[what] = cone(what[0], layers, length, read, causal)
            cones.append(self.made[what])
        return Part(number, self.bound[number], tuple(rows), tuple(cones))

    def _row(self, row: int) -> tuple[int, np.ndarray | None]:
        """Columns of a row up to its last real one, and those that are read."""
        assert self.batch.mask is not None
        length = int(self.batch.mask[row].nonzero().max()) + 1
        return length, None if self.reads.columns is None else self.reads.columns[row]

    def _control(self, rows: range, layers: int, causal: bool) -> Part:
        """The first row without an edit, computed as if there were one in the first block."""
        length, read = self._row(rows[0])
        made = cone([Change(0, "stream", (length // 3,))], layers, length, read, causal)
        return Part(-1, (), (rows[0],), (made,))

    def _wholes(self, numbers: list[int]) -> None:
        """Run lists in passes of all positions."""
        groups: dict[int | None, list[int]] = {}
        for number in sorted(numbers):
            groups.setdefault(whole.enter_after(self.model, self.bound[number]), []).append(number)
        for layer, those in sorted(groups.items(), key=lambda pair: -1 if pair[0] is None else pair[0]):
            self.ways["whole" if layer is None else "blocks"] += len(those)
            self._whole(layer, those)

    def _whole(self, layer: int | None, numbers: list[int]) -> None:
        lists = [(number, self.bound[number]) for number in numbers]
        routed = any(b.entry.place.inside for _, listed in lists for b in listed)
        fit = whole.rows_that_fit(self.model, self.batch, self.budget, routed)
        each = whole.bytes_of_row(self.model, self.batch, routed)
        after: After | None = None
        for cells in whole.plan(lists, len(self.batch), fit):
            named = [(cell.number, tuple(cell.rows)) for cell in cells]
            self.planned = max(self.planned, each * sum(len(rows) for _, rows in named))
            if self._known("whole", named):
                continue
            if layer is not None and after is None:
                after = After(layer, self._stream(layer, fit))
            outputs = whole.run(self.model, self.batch, cells, routed, after)
            rows = sum(len(r) for _, r in named)
            self.passes, self.forwards = self.passes + 1, self.forwards + self._share(layer) * rows
            taken = [self.reads.taken(o, r) for o, (_, r) in zip(outputs, named, strict=True)]
            self._done(
                "whole", named, [self._measured(o, *cell) for o, cell in zip(taken, named, strict=True)]
            )

    def _stream(self, layer: int, fit: int) -> Tensor:
        """What a block gives for every row without edits, so many rows at a time."""
        site, count = f"resid_post.{layer}", len(self.batch)
        groups = [list(range(i, min(i + fit, count))) for i in range(0, count, fit)]
        self.passes, self.forwards = self.passes + len(groups), self.forwards + count
        runs = [self.model.run(self.batch.select(g), [site], finite=False, stop_early=True) for g in groups]
        return torch.cat([run[site] for run in runs])

    def _known(self, kind: str, cells: list[tuple[int, tuple[int, ...]]]) -> bool:
        """Whether a pass was finished before; its scores are then in place."""
        found = (
            None
            if self.kept is None
            else self.kept.get(f"{kind}-{self.number:06d}", sum(len(rows) for _, rows in cells))
        )
        if found is not None:
            self._place(cells, found)
            self.number += 1
        return found is not None

    def _done(self, kind: str, cells: list[tuple[int, tuple[int, ...]]], scores: list[np.ndarray]) -> None:
        values = np.concatenate(scores)
        if self.kept is not None:
            self.kept.put(f"{kind}-{self.number:06d}", values)
        self.number += 1
        self._place(cells, values)

    def _place(self, cells: list[tuple[int, tuple[int, ...]]], values: np.ndarray) -> None:
        start = 0
        for number, rows in cells:
            self.scores[number, list(rows)] = values[start : start + len(rows)]
            start += len(rows)
        self.progress.advance(start)
        self.progress.note(f"{self.forwards:.1f} forwards")

    def _measured(self, output: Tensor, number: int, rows: Sequence[int]) -> np.ndarray:
        some = self.batch if len(rows) == len(self.batch) else self.batch.select(list(rows))
        value = self.metric(output, some)
        if not isinstance(value, Tensor) or tuple(value.shape) != (len(some),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeMismatch(f"{got} from the metric", f"({len(some)},): one number for each row")
        numbers = np.asarray(value.detach().double().cpu().numpy())
        if not np.isfinite(numbers).all():
            words = ", ".join(b.words for b in self.bound[number]) or "no edit"
            bad = numbers[~np.isfinite(numbers)][0]
            raise NotFinite(f"{bad} from the metric under {words}", "finite numbers")
        return numbers
