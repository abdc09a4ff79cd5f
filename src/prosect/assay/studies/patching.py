"""Where a behaviour runs through a network: every place patched on explore, some of them claimed and measured anew.

The places with the largest effects on explore are chosen, which makes their figures too large on average; so they
are claimed beside places drawn at random, and what the report calls their effect is measured on pairs that nobody
had seen, against the same patch from an unrelated row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prosect.assay import plans
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, folds
from prosect.core.exhibits import Exhibit, SiteCell
from prosect.core.pictures import HeatMap
from prosect.core.records import Component, Description, Draw, Hypothesis, Measured, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.data.contrasts import ContrastSource
from prosect.describe.patched import PatchEffect
from prosect.model.edits import zero
from prosect.model.patching import PatchMap, denoising, noising
from prosect.model.patching.cells import Donor, cell_edit
from prosect.model.patching.nodes import nodes_of
from prosect.model.patching.pairs import Pairs
from prosect.model.patching.scores import RowScores
from prosect.model.sweep import expected
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations

METHOD = "patching@1"


class Patching:
    """The study of one behaviour by activation patching.

    Args:
        spec: the run's; its ``patch`` table says what is patched.
        run: where the map is kept.
        subject: the model and its contrasts.
    """

    name = "patching"

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject) -> None:
        self.spec, self.run, self.subject = spec, run, subject
        assert isinstance(subject.source, ContrastSource)  # whoever opens this study opens pairs
        self.source: ContrastSource = subject.source
        self.seed = Seed(spec.seed).child("patching")
        nodes_of(
            subject.model, list(spec.patch.sites), spec.patch.each
        )  # unknown sites are refused before anything runs

    def explore(self) -> None:
        """Patch every place on explore."""
        self.seen: dict[str, Any] = self.run.json_step("patch-map", {"study": self.name}, self._look)

    def _look(self) -> dict[str, Any]:
        asked, model = self.spec.patch, self.subject.model
        (batch,) = self.source.batches("explore", rows=len(self.source.parts["explore"]))
        moved = batch.to(model.device)
        patch = noising if asked.way == "noising" else denoising
        with self.subject.metered("explore"):
            found: PatchMap = patch(
                model,
                moved,
                self.source.counterfactual(batch).to(model.device),
                self.source.metric,
                list(asked.sites),
                each=asked.each,
                seed=self.seed.integer,
                budget_mb=asked.budget_mb,
                reads=[-1],
            )
        control = (
            np.full_like(found.effects.mean, np.nan) if found.mismatched is None else found.mismatched.mean
        )
        return {
            "nodes": found.nodes,
            "positions": found.positions,
            "gap": found.gap.model_dump(mode="json"),
            "effects": _plain(found.effects.mean),
            **_ends(found.effects),
            "control": _plain(control),
            "notes": found.notes,
            "nothing": found.ends.nothing,
            "everything": found.ends.everything,
            "units": len(set(batch.units.tolist())),
            "labels": self._labels(batch),
        }

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Every place patched twice on explore, once from an unrelated row; on the folds what will be claimed."""
        asked, model = self.spec.patch, self.subject.model
        (batch,) = self.source.batches("explore", rows=len(self.source.parts["explore"]))
        moved = batch.to(model.device)
        pairs = Pairs.of(model, moved, self.source.counterfactual(batch).to(model.device))
        nodes, base = nodes_of(model, list(asked.sites), asked.each), pairs.base(asked.way)
        own = Donor(dict(model.run(base, list(dict.fromkeys(n.site for n in nodes))).values))
        edits = [cell_edit(n, s, pairs, asked.way, own) for n in nodes for s in pairs.spans("each")]
        lists = [[e] for e in edits if e is not None]
        rows, every = len(batch), [e for e in edits if e is not None]
        first = [[zero("resid_pre.0")]] if "resid_pre.0" in model.sites else []
        ends = [[], every, every, *first]
        once, total = (expected(model, [*ends, *lists * n], base, [-1]) for n in (1, 2))
        each = (total - once) / len(lists)
        claims, test, length = (
            min(asked.chosen + asked.random, len(lists)),
            folds(parts),
            parts["explore"].length,
        )
        held = sum(v.numel() * v.element_size() for v in own.values.values())
        return Planned(
            ", ".join(asked.sites),
            (
                Work(f"{len(lists)} places, patched twice, and all at once", total, length),
                Work("both runs, and what they hold", 3.0 * rows, length),
            ),
            (
                Work(
                    f"{claims} places, patched twice", test.rows * (3 + 2 * claims * each / rows), test.length
                ),
            ),
            2 * held,
        )

    def _labels(self, batch: Batch) -> list[str]:
        """A name for each position: its token, where all rows share it."""
        assert batch.mask is not None
        tokens = batch.tensors["input_ids"]
        out = []
        for p in range(tokens.shape[1]):
            here = set(tokens[batch.mask[:, p], p].tolist())
            same = len(here) == 1 and self.source.tokenizer is not None
            out.append(f"{p} {self.source.tokenizer.decode(list(here))}" if same else str(p))
        return out

    @property
    def gap(self) -> Measured:
        """What the metric changes by between the two runs, on explore."""
        return Measured.model_validate(self.seen["gap"])

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """The places with the largest effects, and as many drawn at random from the others."""
        if round > 1 or not self.usable:
            return []
        return [self._claim(cell, draw, fold) for cell, draw in self.cells]

    @property
    def usable(self) -> bool:
        """Whether the two runs differ: effects are shares of what they differ by."""
        low, high = self.gap.low, self.gap.high
        return bool(self.gap.estimate) and low is not None and high is not None and (low > 0 or high < 0)

    @property
    def cells(self) -> list[tuple[tuple[int, int], Draw]]:
        """(node, position) of each claim, and how it came to be."""
        effects = np.array(self.seen["effects"], dtype=float)
        order = np.argsort(-np.abs(np.nan_to_num(effects)), axis=None, kind="stable")
        order = order[np.isfinite(effects.ravel()[order])]
        chosen, rest = order[: self.spec.patch.chosen], order[self.spec.patch.chosen :]
        drawn = self.seed.child("draw").numpy().permutation(rest)[: self.spec.patch.random]
        listed: list[tuple[int, Draw]] = [(int(i), "chosen") for i in chosen]
        listed += [(i, "random") for i in sorted(drawn.tolist())]
        return [((i // effects.shape[1], i % effects.shape[1]), draw) for i, draw in listed]

    def _component(self, cell: tuple[int, int]) -> Component:
        node = self.seen["nodes"][cell[0]]
        info = self.subject.model.sites.info(nodes_of(self.subject.model, node)[0].site)
        position = int(self.seen["positions"][cell[1]])
        return Component(
            decomposition=f"place@{node}",
            index=position,
            reads=(node,),
            writes=(node,),
            width=info.width or 1,
        )

    def _claim(self, cell: tuple[int, int], draw: Draw, fold: str) -> Hypothesis:
        node, position = self.seen["nodes"][cell[0]], int(self.seen["positions"][cell[1]])
        gap = self.gap.estimate or 1.0
        share = float(self.seen["effects"][cell[0]][cell[1]]) / gap
        effect = PatchEffect(node, position, self.spec.patch.way, gap, 1 if share >= 0 else -1)
        stranger = PatchEffect(node, position, effect.way, gap, effect.sign, True)
        what = "the counterfactual run's" if effect.way == "noising" else "the clean run's"
        other = "the counterfactual's" if effect.way == "noising" else "the clean input's"
        move = f"moves the answer toward {other}" if share >= 0 else f"moves the answer further from {other}"
        return Hypothesis(
            round=1,
            component=self._component(cell),
            side="effect",
            description=Description(
                words=f"{what} value of {node} at position {position} {move}", effect=effect.executable()
            ),
            explainer=METHOD,
            draw=draw,
            tests=(plans.patches(self.spec, fold, stranger=stranger.executable()),),
            scope=self.subject.scope,
            explored={"effect": abs(share)},
        )

    # -- what is shown -----------------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """No organism says which places carry a behaviour in these units."""
        return None

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """The map of every place, and a card for each that was claimed."""
        nodes, shape = self.seen["nodes"], (len(self.seen["nodes"]), len(self.seen["positions"]))
        claimed = [cell for cell, _ in self.cells] if self.usable else []
        gap = self.gap.estimate or 1.0
        unit = "share of the gap between the runs" if self.usable else self.source.asks
        scale = gap if self.usable else 1.0
        picture = HeatMap(
            title=f"{self.spec.patch.way.capitalize()} every place",
            about=(
                f"mean over {self.seen['units']} explored pairs of what patching one place does to the "
                f"{self.source.asks}; the control takes the value from an unrelated pair"
            ),
            rows=tuple(nodes),
            columns=tuple(self.seen["labels"][int(p)] for p in self.seen["positions"]),
            values=_scaled(self.seen["effects"], scale),
            control=_scaled(self.seen["control"], scale),
            low=_scaled(self.seen["low" if scale > 0 else "high"], scale),
            high=_scaled(self.seen["high" if scale > 0 else "low"], scale),
            unit=unit,
            n=self.seen["units"],
            claimed=tuple(claimed),
        )
        exhibits = [
            Exhibit(
                component=self._component(cell),
                kind="place",
                site=nodes[cell[0]],
                layer=self._layer(nodes[cell[0]]),
                facts={"position": int(self.seen["positions"][cell[1]]), "patched by": self.spec.patch.way},
                units_drawn=f"the {shape[0] * shape[1]} places that were patched on explore",
            )
            for cell in claimed
        ]
        limits = [
            *self.seen["notes"],
            f"giving every place its own value moves the metric by {self.seen['nothing']:.1e}",
        ]
        if self.seen["everything"] is not None:
            limits.append(f"patching everything differs from the other run by {self.seen['everything']:.1e}")
        if not self.usable:
            limits.append(
                "no place was claimed: on explore the two runs do not differ beyond chance in the metric"
            )
        places: dict[tuple[int, str], list[int]] = {}
        for i, node in enumerate(nodes):
            places.setdefault((self._layer(node), node.split(".")[0]), []).append(i)
        return Shown(
            exhibits=exhibits,
            map=[
                SiteCell(
                    layer=layer,
                    place=f"places on {kind}",
                    components=shape[1] * len(members),
                    examined=sum(c[0] in members for c in claimed),
                )
                for (layer, kind), members in places.items()
            ],
            pictures=(picture,),
            decisions=(
                f"of {shape[0] * shape[1]} places the {self.spec.patch.chosen} with the largest effects on explore "
                f"were claimed, marked as chosen, and {self.spec.patch.random} drawn at random from the others",
            ),
            limits=limits,
        )

    def _layer(self, node: str) -> int:
        parts = node.split(".")
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else -1


def _plain(values: np.ndarray) -> list[list[float | None]]:
    return [[float(v) if np.isfinite(v) else None for v in row] for row in values]


def _ends(effects: RowScores) -> dict[str, list[list[float | None]]]:
    """The interval of every cell; a cell that no row has, has none."""
    cells = [
        [effects.measured(i, j) for j in range(effects.values.shape[1])] for i in range(len(effects.values))
    ]
    return {end: [[getattr(m, end) for m in row] for row in cells] for end in ("low", "high")}


def _scaled(values: list[list[float | None]], by: float) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if v is None else v / by for v in row) for row in values)
