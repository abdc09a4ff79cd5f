"""Outputs that components raise and lower: named from weights or by ablation on explore, and claimed.

In round 1 a direction that writes to the residual stream is held against the unembedding; what fails is
refined by the outputs that removing the component was seen to change. Elsewhere ablation comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from prosect.assay import plans
from prosect.assay.studies.keeping import kept, nearest, newest, second_of, to_refine
from prosect.assay.studies.survey import Survey
from prosect.core.exhibits import OutputEffect
from prosect.core.progress import step
from prosect.core.records import Component, Description, Draw, Executable, Hypothesis, Measured
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.describe.effects import EffectExplainer, direct
from prosect.describe.explained import Explained
from prosect.model import Model
from prosect.validate.raises import Removal, Remover, relabel
from prosect.validate.subject import STATISTICAL

SHUFFLES = 3
"""Other components whose claimed outputs a removal is also scored on."""
SIZE = 0.1
"""What effects are expressed for: a removal of this share of the site's mean norm."""


def guessed(model: Model, site: str) -> bool:
    """Whether weights alone suggest outputs: what is written at the site is in the stream that is unembedded."""
    return site.startswith("resid") and model.unembedding is not None


class Effects:
    """Claims about the outputs of drawn components."""

    def __init__(self, survey: Survey) -> None:
        self.survey, self.spec, self.subject = survey, survey.spec, survey.subject
        self._named: dict[str, dict[str, Any]] = {}
        most = self.spec.describe.effects
        directions = "directions" in survey.decomposition.supports
        drawn = [(survey.decomposition.component(i), "random") for i in survey.drawn]
        self.wanted: list[tuple[Component, Draw]] = drawn[:most] if directions else []  # type: ignore[assignment]

    @property
    def guessed(self) -> bool:
        """Whether weights alone suggest outputs: the direction writes to the stream that is unembedded."""
        return guessed(self.subject.model, self.survey.site)

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Claims of a round."""
        wanted, parents = self.wanted, {}
        if round > 1:
            before = {c.name: to_refine(newest(found, c, "effect")) for c, _ in wanted}
            parents = {name: v.hypothesis.id for name, v in before.items() if v is not None}
            wanted = [(c, d) for c, d in wanted if c.name in parents]
            if not self.guessed:
                return []  # without a first guess from weights, round 1 was the measured one
        if not wanted:
            return []
        entries, controls = self._outputs([c for c, _ in wanted], measured=round > 1 or not self.guessed)
        out = []
        for c, draw in wanted:
            entry = entries[c.name]
            others = [e for n, e in entries.items() if n != c.name and e["found"]]
            mixed = self.survey.seed.child("others", round, c.name).numpy().permutation(len(others))
            near = nearest(
                [e["rate"] for e in controls], self.survey.rates[c.index], self.spec.describe.controls
            )
            if not entry["found"] or not others or not near:
                continue
            plan = plans.raises_outputs(
                self.spec,
                fold,
                controls=[
                    (self.survey.controls.component(controls[i]["index"]), _effect(controls[i])) for i in near
                ],
                others=[_effect(others[i]) for i in mixed[:SHUFFLES]],
                scale=SIZE * self.survey.norm,
                second=second_of(entry),
            )
            self._named[c.name] = entry
            out.append(
                Hypothesis(
                    round=round,
                    component=c,
                    side="effect",
                    description=Description.model_validate(entry["description"]),
                    explainer=entry["method"],
                    draw="refined" if c.name in parents else draw,
                    tests=(plan,),
                    scope=self.subject.scope,
                    parent=parents.get(c.name),
                    explored={} if entry["fall"] is None else {"fall": entry["fall"]},
                )
            )
        return out

    def _outputs(
        self, components: Sequence[Component], *, measured: bool
    ) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
        """Outputs named for components (by name) and, by the same method, for random directions that found any."""
        directions = self.survey.matched(components)
        listed = [*components, *(self.survey.controls.component(i) for i in directions)]

        def make() -> list[dict[str, Any]]:
            return self._ablated(listed) if measured else self._from_weights(listed)

        inputs = {**self.survey.inputs, "components": [c.name for c in listed], "measured": measured}
        found: list[dict[str, Any]] = self.survey.run.json_step("outputs", inputs, make)
        entries = {c.name: e for c, e in zip(components, found, strict=False)}
        controls = [
            {**entry, "index": i, "rate": self.survey.bands[i]}
            for i, entry in zip(directions, found[len(components) :], strict=True)
            if entry["found"]
        ]
        return entries, controls

    def _from_weights(self, components: Sequence[Component]) -> list[dict[str, Any]]:
        """The cheap first guess. It says which outputs, not how much: the final norm's scale is not in it."""
        unembedding = self.subject.model.unembedding
        assert unembedding is not None  # `guessed`
        strings = self.survey.words.strings
        return [
            self._entry(
                direct(self.subject.decomposition(c.decomposition).directions[c.index], unembedding, strings)
            )
            for c in components
        ]

    def _ablated(self, components: Sequence[Component]) -> list[dict[str, Any]]:
        """Take each component out of explored rows and add up what that does."""
        strings = self.survey.words.strings
        explainers = [EffectExplainer(strings) for _ in components]
        total = torch.zeros(len(components), len(strings), dtype=torch.float64)
        size, count = [0.0] * len(components), [0] * len(components)
        seen = self.survey.explored
        what = "removing components from explored text"
        with self.subject.metered("explore"), step(what, 2 * len(components), "components") as shown:
            for half in (False, True):  # as many rows of each document set, so that they can be compared
                batches = [b for b, second in zip(seen.batches, seen.second, strict=True) if second == half]
                for j, removal in self._removals(components, batches):
                    explainers[j].update(-removal.change, second=half)
                    total[j] += removal.change.double().sum(dim=0).cpu()
                    size[j] += float(removal.size.sum())
                    count[j] += len(removal.change)
                shown.advance(len(components))
        out = []
        for j, explainer in enumerate(explainers):
            if count[j] < 2:
                out.append(self._entry(_nothing(strings)))
                continue
            falls = total[j] * (SIZE * self.survey.norm / size[j])
            out.append(self._entry(explainer.explain(), falls.tolist()))
        return out

    def _removals(
        self, components: Sequence[Component], batches: Sequence[Batch]
    ) -> Iterator[tuple[int, Removal]]:
        """Each component taken out of some of these rows, until it was taken out of enough."""
        rows = max(1, self.spec.validate_.effect_rows // 4)
        remover = Remover(self.subject, components, rows=rows, per_unit=1)
        for batch in batches:
            if remover.done:
                return
            moved = batch.to(self.subject.model.device)
            trace = self.subject.model.run(moved, capture=remover.sites)
            self.subject.spend(batch, "explore")
            for j, removal in remover.remove(moved, trace, trace.output, "explore"):
                if self.subject.null == STATISTICAL:
                    seed = self.subject.seed.child("null", "outputs", "explore", j)
                    removal = replace(removal, change=relabel(removal, seed))
                yield j, removal

    def _entry(self, explained: Explained, falls: Sequence[float] | None = None) -> dict[str, Any]:
        """A proposal with how far each named output fell on explore, for a removal of the size the test asks for."""
        sets = _sets(explained.executable)
        named = None if falls is None else {str(i): falls[i] for side in sets.values() for i in side}
        fall = None
        if named is not None and explained.found:
            up, down = ([named[str(i)] for i in sets[s]] for s in ("raised", "lowered"))
            fall = (sum(up) / len(up) if up else 0.0) - (sum(down) / len(down) if down else 0.0)
        return {**kept(explained), "method": explained.method, "falls": named, "fall": fall}

    def shown(self, claim: Hypothesis | None, measured: Mapping[int, Measured]) -> tuple[OutputEffect, ...]:
        """The outputs that a claim names: what removing the component did to each on explore and on unseen data."""
        if claim is None or claim.description.effect is None:
            return ()
        falls = self._named.get(claim.component.name, {}).get("falls") or {}
        strings = self.survey.words.strings
        sets = _sets(claim.description.effect)
        return tuple(
            OutputEffect(
                output=strings[i],
                direction="raises" if side == "raised" else "lowers",
                explored=falls.get(str(i)),
                measured=measured.get(i),
            )
            for side in ("raised", "lowered")
            for i in sets[side]
        )


def _effect(entry: Mapping[str, Any]) -> Executable:
    return Executable.model_validate(entry["description"]["effect"])


def _sets(executable: Executable) -> dict[str, list[int]]:
    return {side: [int(i) for i in executable.parameters[side]] for side in ("raised", "lowered")}


def _nothing(outputs: Sequence[str]) -> Explained:
    """What is said of a component that was never active: it raises and lowers nothing."""
    return direct(torch.zeros(1), torch.zeros(len(outputs), 1), outputs)
