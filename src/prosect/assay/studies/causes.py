"""Rules for when components fire: of examined components, of random directions, and of untrained networks' components.

All are found by the same explainer with the same budget, in two richnesses: about the current token alone,
and about its context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.assay.decomposing import chosen
from prosect.assay.explored import Explored, explore
from prosect.assay.studies.keeping import kept
from prosect.assay.studies.survey import Survey, firing
from prosect.assay.untrained import untrained
from prosect.core.progress import Step, step
from prosect.core.records import Component, Executable
from prosect.decompose.streams import ArrayStream
from prosect.describe.additive import AdditiveTable
from prosect.describe.examples import token_examples
from prosect.describe.explained import Explained
from prosect.describe.explainer import RuleExplainer
from prosect.describe.tables import FrequencyTable, PositionTable, TokenTable
from prosect.validate.subject import Subject, runnable

UNTRAINED = 48
"""Components drawn from each untrained network."""
UNTRAINED_WIDTH = 256
"""Most components of an untrained network's decomposition: it is fitted on a third of the text."""
AT_ONCE = 64
"""Components whose activations are held together."""


class Causes:
    """The rules of everything that is claimed about or compared with; kept as a step of the run.

    Attributes:
        components: an entry for each examined component, in the survey's order.
        controls: for each random direction.
        untrained: for components drawn from networks with fresh weights.
    """

    def __init__(self, survey: Survey) -> None:
        self.survey, self.spec, self.subject = survey, survey.spec, survey.subject
        self._strangers: dict[int, Explored] = {}
        self.subject.untrained = list(self._networks())
        found = survey.run.json_step("described", survey.inputs, self._make)
        self.components: list[dict[str, Any]] = found["components"]
        self.controls: list[dict[str, Any]] = found["controls"]
        self.untrained: list[dict[str, Any]] = found["untrained"]
        for number in range(len(self.subject.untrained)):
            self._decompose(number)  # a resumed run measures their components too

    def _networks(self) -> Sequence[Subject]:
        """Networks with fresh weights on the same data; none where nothing in the model can be drawn anew."""
        out = []
        for number in range(self.spec.describe.untrained):
            fresh = untrained(self.subject.model, self.survey.seed.child("untrained", number))
            if fresh is None:
                break
            subject = Subject(
                model=fresh,
                source=self.subject.source,
                seed=self.subject.seed,
                shelf=self.subject.shelf,
                null=self.subject.null,
                rows=self.subject.rows,
            )
            out.append(subject)
        return out

    def _make(self) -> dict[str, Any]:
        survey = self.survey
        seen, controls = survey.explored, survey.controls
        explainer = RuleExplainer(seen.contexts, self.subject.shelf)
        components = [c for c, _ in survey.examined]
        directions = [controls.component(i) for i in range(controls.n_components)]
        with step("describing", len(components) + len(directions), "components") as shown:
            out = {
                "components": self._explained(explainer, seen, components, shown, whole=True),
                "controls": self._explained(explainer, seen, directions, shown),
                "untrained": [],
            }
        for number in range(len(self.subject.untrained)):
            out["untrained"] += self._of_untrained(number)
        return out

    def _explained(
        self,
        explainer: RuleExplainer,
        seen: Explored,
        components: Sequence[Component],
        shown: Step,
        *,
        whole: bool = False,
    ) -> list[dict[str, Any]]:
        """Rules of some components; with examples, baselines and shuffled labels if they will be claimed about."""
        out = []
        for start in range(0, len(components), AT_ONCE):
            some = components[start : start + AT_ONCE]
            values = seen.activations(self.subject, some)
            for column, component in enumerate(some):
                y = values[:, column]
                rules = {r: explainer.explain(y, r) for r in ("token", "context")}
                entry: dict[str, Any] = {
                    "component": component.model_dump(mode="json"),
                    "rate": float((y > 0).mean()),
                    **{richness: kept(rule) for richness, rule in rules.items()},
                }
                if whole:
                    mixed = self._shuffled(seen, y, component.name)
                    for richness in rules:
                        entry[richness]["shuffled"] = _json(explainer.explain(mixed, richness).executable)
                    entry["tables"] = {
                        name: _json(kind.fit(seen.contexts, y).executable(self.subject.shelf))
                        for name, kind in TABLES.items()
                    }
                    entry |= self._examples(seen, y, component, rules)
                out.append(entry)
                shown.advance()
        return out

    def _shuffled(self, seen: Explored, y: Float[np.ndarray, " n"], name: str) -> Float[np.ndarray, " n"]:
        """Activations with the link to their documents destroyed: whole rows change places."""
        starts = seen.contexts.starts
        order = self.survey.seed.child("shuffle", name).numpy().permutation(len(starts) - 1)
        return np.concatenate([y[starts[i] : starts[i + 1]] for i in order])

    def _examples(
        self, seen: Explored, y: Float[np.ndarray, " n"], component: Component, rules: Mapping[str, Explained]
    ) -> dict[str, Any]:
        rule = rules["context"] if rules["context"].found else rules["token"]
        code = runnable(rule.executable, self.subject.shelf)
        predicted = np.concatenate([np.asarray(code.activation(b), dtype=float) for b in seen.batches])
        seed = self.survey.seed.child("examples", component.name)
        found = token_examples(seen.contexts, y, seed, predicted)
        return {
            "examples": [e.model_dump(mode="json") for e in found.shown],
            "population": found.population,
            "agreement": found.agreement,
        }

    # -- untrained networks ------------------------------------------------------------------------

    def _seen_untrained(self, number: int) -> Explored:
        """Explored activations of one untrained network; run once, used to fit and then to describe."""
        if number not in self._strangers:
            self._strangers[number] = explore(
                self.subject.untrained[number],
                self.survey.words,
                [self.survey.site],
                self.spec.describe.tokens // 3,
                self.survey.seed.child("untrained", number),
            )
        return self._strangers[number]

    def _fit_untrained(self, number: int) -> tuple[dict[str, Tensor], Any]:
        """A decomposition of the same kind for an untrained network."""
        seen, site = self._seen_untrained(number), self.survey.site
        asked = self.spec.decompose
        smaller = asked.model_copy(update={"width": min(UNTRAINED_WIDTH, asked.width), "batch": 512})
        spec = self.spec.model_copy(update={"decompose": smaller})
        x = seen.sites[site]
        blank = chosen(spec, site, x.shape[1], self.survey.seed.child("fresh"), "cpu")
        return blank.fit(ArrayStream({site: x})).state()

    def _decompose(self, number: int) -> None:
        """Enter an untrained network's decomposition under the name of the trained one's, once."""
        trained, network = self.survey.decomposition, self.subject.untrained[number]
        if trained.name in network.decompositions:
            return
        tensors, about = self.survey.run.tensor_step(
            f"untrained-{number}", self.survey.inputs, partial(self._fit_untrained, number)
        )
        network.decompositions[trained.name] = type(trained).from_state(tensors, about)

    def _of_untrained(self, number: int) -> list[dict[str, Any]]:
        """Rules for components of one untrained network."""
        self._decompose(number)
        network = self.subject.untrained[number]
        decomposition = network.decompositions[self.survey.decomposition.name]
        seen = self._seen_untrained(number)
        _, units = firing(decomposition, seen)
        alive = np.flatnonzero(units >= self.spec.validate_.firing_min)
        order = self.survey.seed.child("untrained", number, "draw").numpy().permutation(alive)
        components = [decomposition.component(i) for i in sorted(order[:UNTRAINED].tolist())]
        if not components:
            return []
        explainer = RuleExplainer(seen.contexts, self.subject.shelf)
        with step(f"describing untrained network {number + 1}", len(components), "components") as shown:
            out = self._explained(explainer, seen, components, shown)
        for entry in out:
            entry["component"]["decomposition"] = f"untrained.{number}:{entry['component']['decomposition']}"
        return out


TABLES: dict[str, type[TokenTable] | type[AdditiveTable]] = {
    "unigram-table": TokenTable,
    "position-table": PositionTable,
    "frequency-table": FrequencyTable,
    "additive-table": AdditiveTable,
}
"""The plain accounts that stand beside a rule."""


def _json(executable: Executable) -> dict[str, Any]:
    return executable.model_dump(mode="json")
