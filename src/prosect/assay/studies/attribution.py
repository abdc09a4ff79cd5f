"""Which inputs an answer depends on: attribution maps on explore, and whether their order is that of patching.

A map is only worth reading if features that it calls large are those that change the answer when they are
replaced. That is claimed of every method, and measured on rows that nobody had seen, against the same method on
random weights, a random order, and orders that look at no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prosect.assay import plans
from prosect.assay.explored import vocabulary
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, folds
from prosect.core.errors import BadInput, TooLittleData, UnknownName
from prosect.core.exhibits import Exhibit, Figure, FigureTable, SiteCell
from prosect.core.pictures import TokenMap, TokenValues
from prosect.core.records import Component, Description, Hypothesis, Measured, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.data.tokens import TokenSource
from prosect.describe.attribution import Attribution, Randomisation, attribute
from prosect.describe.attribution.agreement import MAPS, MapAgreement, method_of
from prosect.describe.attribution.asked import TOKENS, Asked, ask
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations

METHOD = "attribution@1"
PAIRS = 32
"""Of a row and a feature, on which a map is held against exact replacement."""
REHEARSED = 3
"""Rows that costs are counted on beforehand."""
SHOWN = 3
"""Maps of each method in the report."""


class AttributionStudy:
    """The study of attribution maps by several methods.

    Args:
        spec: the run's; its ``attribute`` table names the methods and how much text they see.
        run: where donors and maps are kept.
        subject: the model and its text or numbers.
    """

    name = "attribution"

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject) -> None:
        self.spec, self.run, self.subject = spec, run, subject
        self.seed = Seed(spec.seed).child("attribution")
        for name in spec.attribute.methods:
            if name not in MAPS:
                raise UnknownName("attribution method of tokens or inputs", name, MAPS)
        if len(set(spec.attribute.methods)) < len(spec.attribute.methods):
            raise BadInput(f"methods {', '.join(spec.attribute.methods)}", "each method once")
        first = next(iter(subject.source.batches("explore", 1))).tensors
        numbers = [n for n, t in first.items() if t.is_floating_point() and t.ndim > 1]
        if TOKENS not in first and not numbers:
            raise BadInput(f"inputs {', '.join(first)}", "token ids, or a tensor of floating-point numbers")
        self.place = TOKENS if TOKENS in first else numbers[0]
        self.site = "embeddings" if self.place == TOKENS else self.place

    def explore(self) -> None:
        """Donors from the first half of explore, maps with their sanity checks on the second."""
        tensors, self.seen = self.run.tensor_step("attribution", {"study": self.name}, self._look)
        self.donors = tensors["donors"]

    def _look(self) -> tuple[dict[str, Tensor], Any]:
        asked, model = self.spec.attribute, self.subject.model
        donors = self._donors()
        most = donors.shape[1] if self.place == TOKENS else 0
        rows = self._rows("explore.second", asked.rows, "rows")
        question = ask(rows.to(model.device), most=most, place=self.place, output=asked.output)
        if len(question.kept) < 2:
            raise TooLittleData(
                f"{len(question.kept)} explored rows that are long enough",
                "at least 2",
                "more or longer text",
            )
        with self.subject.metered("explore"):
            maps, agreed = self._maps(rows.to(model.device), question, donors)
        return {"donors": donors.cpu()}, {
            "maps": [self._kept(m, question) for m in maps],
            "explored": [float(np.nanmean(a)) for a in agreed],
            "rows": len(question.kept),
            "donors": len(donors),
            "most": most,
            "background": maps[0].baseline,
        }

    def _maps(self, rows: Batch, question: Asked, donors: Tensor) -> tuple[list[Attribution], np.ndarray]:
        """A map of every row by each method, with its checks; and how well each agrees with patching."""
        asked, model, (kind, site) = self.spec.attribute, self.subject.model, question.features
        maps = [
            attribute(
                model,
                question.rows,
                question.metric,
                method_of(name, asked.steps),
                features=kind,
                site=site,
                background=question.background(donors),
                sanity=Randomisation(stages=1, draws=2, rows=len(question.kept), independent=False),
                pairs=PAIRS,
                seed=self.seed.integer,
            )
            for name in asked.methods
        ]
        wanted = [self._map(name, donors) for name in asked.methods]
        return maps, MapAgreement.measure(wanted, model, rows, self.subject.source)

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Counted on a few rows, of which maps are made as they will be: what a method runs is its own affair."""
        asked, model, test, donors = self.spec.attribute, self.subject.model, folds(parts), self._donors()
        most = donors.shape[1] if self.place == TOKENS else 0
        rows = self._rows("explore.second", min(REHEARSED, asked.rows), "rows").to(model.device)
        question = ask(rows, most=most, place=self.place, output=asked.output)
        many, meter = max(len(question.kept), 1), model.runner.meter
        length = question.rows.count / many if self.place == TOKENS else 1.0
        before = meter.rows, meter.backward
        self._maps(rows, question, donors)
        middle = meter.rows, meter.backward
        MapAgreement.measure(
            [m for name in asked.methods for m in self._wanted(name, donors)],
            model,
            rows,
            self.subject.source,
        )
        first = [b - a for a, b in zip(before, middle, strict=True)]
        rest = [b - a for a, b in zip(middle, (meter.rows, meter.backward), strict=True)]
        pairs = len(donors) * sum(method_of(name, asked.steps).gradient for name in asked.methods)
        there = int(question.explicand(model).present.sum())
        each = (
            first[0] - pairs * min(PAIRS, there)
        ) / many  # the pairs are as many, however many rows there are
        explore = each * min(asked.rows, parts["explore"].rows) + pairs * PAIRS
        return Planned(
            self.site,
            (
                Work(
                    f"{len(asked.methods)} maps of {asked.rows} rows",
                    explore,
                    length,
                    gradients=first[1] * asked.rows / many,
                ),
            ),
            (
                Work(
                    f"{len(asked.methods)} maps of each row",
                    rest[0] * test.rows / many,
                    length,
                    gradients=rest[1] * test.rows / many,
                ),
            ),
        )

    def _wanted(self, name: str, donors: Tensor) -> list[MapAgreement]:
        """What a claim about one method measures: its map, the same on random weights, and plain orders."""
        weights = range(1, 1 + self.spec.attribute.networks)
        return [
            self._map(name, donors),
            *(self._map(name, donors, w) for w in weights),
            *(self._map(p, donors) for p in ("random-order", *self._plain)),
        ]

    @property
    def _plain(self) -> tuple[str, ...]:
        return ("recency", "input-size") if self.place == TOKENS else ("input-size",)

    def _donors(self) -> Tensor:
        """Rows to take features from, from the first half of explore: token ids (donors, positions), or inputs."""
        asked = self.spec.attribute
        if self.place != TOKENS:
            return self._rows("explore.first", asked.donors or 32, "donors").tensors[self.place]
        windows = [
            (batch, i)
            for batch in self.subject.source.batches("explore.first", self.subject.rows)
            for i in range(len(batch))
        ]
        lengths = np.array([int(b.lengths[i]) for b, i in windows])
        wanted = min(asked.tokens, int(lengths.max()) - 1 if len(lengths) else 0)
        count = asked.donors or 4
        long = [w for w, n in zip(windows, lengths, strict=True) if n >= wanted]
        if len(long) < count or wanted < 3:
            raise TooLittleData(
                f"{len(long)} explored windows of {wanted} tokens to take tokens from",
                f"{count} or more, of at least 3 tokens",
                "more text, or attribute.donors",
            )
        drawn = np.sort(self.seed.child("donors").numpy().permutation(len(long))[:count])
        return torch.stack([long[i][0].tensors[TOKENS][long[i][1], :wanted] for i in drawn.tolist()])

    def _rows(self, part: str, count: int, name: str) -> Batch:
        """Some rows of a part, drawn at random; text is padded to the longest."""
        listed = [(b, i) for b in self.subject.source.batches(part, self.subject.rows) for i in range(len(b))]
        drawn = np.sort(self.seed.child(name).numpy().permutation(len(listed))[:count])
        chosen = [(listed[i][0].select([listed[i][1]])) for i in drawn.tolist()]
        if not chosen:
            raise TooLittleData(f"nothing in {part}", "some inputs")
        return Batch.joined(chosen)

    def _kept(self, found: Attribution, question: Asked) -> dict[str, Any]:
        """What the report needs of one method's maps."""
        gap = found.completeness
        drawn = np.sort(self.seed.child("shown").numpy().permutation(len(found.values))[:SHOWN])
        likeness = found.sanity.cascade[-1].absolute if found.sanity.cascade else Measured(estimate=None)
        first = found.first_order.correlation if found.first_order is not None else None
        words = None if self.place != TOKENS else vocabulary(self.subject.source).strings
        texts = []
        for row in drawn.tolist():
            at = np.flatnonzero(found.present[row]).tolist()
            ids = question.rows.tensors[self.place][row]
            said = f"{found.output[row]:.2f}"
            if words is not None and question.targets is not None:
                said = f"log-probability of `{words[int(question.targets[row])]}` {said} nats"
            if gap is not None:
                said += f"; completeness error {gap[row]:.2g}"
            named = [f"{self.place}[{i}] " if words is None else words[int(ids[i])] for i in at]
            texts.append(
                TokenValues(
                    tokens=tuple(named),
                    values=tuple(float(found.values[row, i]) for i in at),
                    source=question.rows.rows[row].document,
                    note=said,
                ).model_dump(mode="json")
            )
        return {
            "method": found.method,
            "value": found.value_function,
            "sanity": found.sanity.verdict,
            "sanity words": found.sanity.words,
            "likeness": likeness.model_dump(mode="json"),
            "first order": None if first is None else first.model_dump(mode="json"),
            "first order words": "" if found.first_order is None else found.first_order.words,
            "completeness": None if gap is None else float(gap.max()),
            "promises": found.promised is not None,
            "notes": list(found.notes),
            "texts": texts,
        }

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """One claim for every method; all of them, so none is chosen."""
        if round > 1:
            return []
        return [self._claim(i, name, fold) for i, name in enumerate(self.spec.attribute.methods)]

    def _map(self, name: str, donors: Tensor, weights: int | None = None) -> MapAgreement:
        asked = self.spec.attribute
        return MapAgreement(name, donors, self.place, asked.output, asked.steps, weights)

    def _component(self, number: int) -> Component:
        return Component(decomposition=f"attribution@{self.site}", index=number, reads=(self.site,))

    def _claim(self, number: int, name: str, fold: str) -> Hypothesis:
        shelf, networks = self.subject.shelf, self.spec.attribute.networks
        own, *rivals = [m.executable(shelf) for m in self._wanted(name, self.donors)]
        what = "tokens" if self.place == TOKENS else "inputs"
        return Hypothesis(
            round=1,
            component=self._component(number),
            side="effect",
            description=Description(
                words=f"{name} orders {what} as replacing them with another row's changes the answer",
                effect=own,
            ),
            explainer=METHOD,
            draw="all",
            tests=(
                plans.attributes(
                    self.spec,
                    fold,
                    "cluster" if isinstance(self.subject.source, TokenSource) else "input",
                    random_weights=rivals[:networks],
                    random_order=rivals[networks],
                    baselines=list(zip(self._plain, rivals[networks + 1 :], strict=True)),
                ),
            ),
            scope=self.subject.scope,
            explored={"rank correlation": self.seen["explored"][number]},
        )

    # -- what is shown -----------------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """No organism says how a map should order the features of one row."""
        return None

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """Some maps of each method, and whether they depend on the weights."""
        maps, rows = self.seen["maps"], self.seen["rows"]
        asked = (
            "the log-probability of the token after each text"
            if self.place == TOKENS
            else f"output {self.spec.attribute.output}"
        )
        pictures = tuple(
            TokenMap(
                title=f"{m['method']} of {asked}",
                about=(
                    f"explored rows, drawn at random; {m['value']}"
                    f"{'' if m['promises'] else ', which promises no sum, so there is no completeness error'}; what is "
                    f"absent comes from {self.seen['donors']} other rows. On random weights: {m['sanity']}"
                ),
                texts=tuple(TokenValues.model_validate(t) for t in m["texts"]),
                unit="nats" if self.place == TOKENS else "",
            )
            for m in maps
        )
        figures = [
            Figure(
                name=f"{m['method']}: likeness to its map on random weights ({m['sanity']})",
                measured=Measured.model_validate(m["likeness"]),
                unit="Spearman, absolute values",
                about=m["sanity words"],
            )
            for m in maps
        ]
        figures += [
            Figure(
                name=f"{m['method']}: first-order estimate against exact replacement",
                measured=Measured.model_validate(m["first order"]),
                unit="Pearson",
                about=m["first order words"],
            )
            for m in maps
            if m["first order"] is not None
        ]
        table = FigureTable(
            title="What explore says of each map",
            about=f"{rows} explored rows; a map that stays alike on random weights says nothing of what was learned",
            rows=tuple(figures),
        )
        exhibits = [
            Exhibit(
                component=self._component(i),
                kind="attribution map",
                site=self.site,
                facts={
                    "method": m["method"],
                    "value": m["value"],
                    "on random weights": m["sanity"],
                    **({} if m["completeness"] is None else {"completeness error": m["completeness"]}),
                },
                units_drawn="every method that was asked for",
            )
            for i, m in enumerate(maps)
        ]
        limits = [
            "an order that agrees with patching says which features matter to this answer, not how they are used",
            "labels were not randomised: that takes a training recipe",
            *dict.fromkeys(f"{m['method']}: {n}" for m in maps for n in m["notes"]),
        ]
        return Shown(
            exhibits=exhibits,
            map=[
                SiteCell(layer=-1, place="attribution maps", components=len(maps), examined=len(maps)),
            ],
            pictures=pictures,
            tables=(table,),
            decisions=self._decisions(asked),
            limits=limits,
        )

    def _decisions(self, asked: str) -> tuple[str, ...]:
        where = "windows" if self.place == TOKENS else "rows"
        out = [
            f"what was asked is {asked}",
            f"a feature is replaced by what {self.seen['donors']} explored {where} have in its place; its effect is "
            "the root mean square over them",
        ]
        if self.place == TOKENS:
            out.append(
                f"of each window the first {self.seen['most']} tokens were attributed, the next asked about"
            )
        return tuple(out)
