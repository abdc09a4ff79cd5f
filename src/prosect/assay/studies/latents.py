"""Latents, neurons and other directions of a language model: rules for their causes, outputs for their effects.

Round 1 claims the simplest thing that explore suggests: a rule about the current token, and the outputs
that the component's direction raises by way of the unembedding. What fails is refined from explore and
judged on a fresh fold: causes by rules that may look at context, effects by the outputs that removing the
component was seen to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prosect.assay import plans
from prosect.assay.spec import Spec
from prosect.assay.studies.causes import Causes
from prosect.assay.studies.effects import Effects, guessed
from prosect.assay.studies.keeping import cause_of, nearest, newest, second_of, to_refine
from prosect.assay.studies.survey import BANDS, Survey, layer_of
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, behind, fitting, folds, tested, upto
from prosect.core.exhibits import Exhibit, SiteCell, TokenExample
from prosect.core.records import Component, Description, Draw, Executable, Hypothesis, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.core.verdicts import Verdict
from prosect.describe.explainer import RuleExplainer
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations
from prosect.validate.truth import check

NEAREST = 6
"""Of the components of untrained networks, how many stand beside each claim: those that fire about as often."""


class Latents:
    """The study of directions at one site of a language model.

    Args:
        spec: the run's.
        run: where its steps are kept.
        subject: the model and its data.
        site: to decompose.
        truth: of the organism, used only to check claims after they were tested.
    """

    name = "latents"

    def __init__(
        self,
        spec: Spec,
        run: RunFolder,
        subject: Subject,
        site: str,
        truth: Truth | None = None,
    ) -> None:
        self.spec, self.run, self.subject, self.truth = spec, run, subject, truth
        self.site = site
        self.seed = Seed(spec.seed).child("latents")

    def explore(self) -> None:
        """Fit the decomposition, survey its components on explore, draw some, describe them and controls."""
        self.survey = Survey(self.spec, self.run, self.subject, self.site, self.seed)
        self.causes = Causes(self.survey)
        self.effects = Effects(self.survey)

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Explore read to fit and again to describe, by each untrained network too; removals on explore and the folds.

        How many components are found to be active in how many rows, and which claims fail, nobody knows before: this
        is as though all were, and did.
        """
        asked, model = self.spec.describe, self.subject.model
        explore, test = parts["explore"], folds(parts)
        share = min(1.0, asked.tokens / max(explore.positions, 1))
        width, read = model.sites.info(self.site).width or 1, upto(model, [self.site])
        neurons = f"mlp_act.{layer_of(self.site)}"
        seen = [self.site, neurons] if asked.neurons and neurons in model.sites else [self.site]
        beside = 1 + min(asked.effects, len(BANDS)) * asked.controls / max(asked.effects, 1)
        taken = asked.effects * beside * behind(model, self.site)
        again = guessed(model, self.site)  # what weights suggest is claimed first, and measured when it fails
        measured = not again or self.spec.validate_.rounds > 1
        opened = tested(parts, rounds=None if again else 1)
        rows = min(1 + self.spec.validate_.effect_rows // 4, explore.rows)
        return Planned(
            self.site,
            (
                Work(
                    "fitting",
                    explore.rows * read,
                    explore.length,
                    flops=fitting(self.spec, width, explore.positions),
                ),
                Work("describing", explore.rows * share * upto(model, seen), explore.length),
                Work(
                    "removals on explore",
                    measured * (2 * rows * taken + explore.rows * share),
                    explore.length,
                ),
                Work("untrained networks", explore.rows * share * asked.untrained * read, explore.length),
            ),
            (
                Work("untrained networks", test.rows * asked.untrained * read, test.length),
                Work(
                    "removals",
                    taken * sum(min(self.spec.validate_.effect_rows, e.rows) for e in opened.values()),
                    test.length,
                ),
            ),
            4 * width * explore.positions,
            most=True,
        )

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Causes and effects in round 1; afterwards refinements of those that failed."""
        out: list[Hypothesis] = []
        for (component, draw), entry in zip(self.survey.examined, self.causes.components, strict=True):
            if round == 1:
                claim = self._cause(entry, component, draw, "token", round, fold, None)
            else:
                claim = self._refined(entry, component, newest(found, component, "cause"), round, fold)
            if claim is not None:
                out.append(claim)
        return out + self.effects.draft(round, fold, found)

    def _refined(
        self, entry: Any, component: Component, before: Verdict | None, round: int, fold: str
    ) -> Hypothesis | None:
        """A richer rule for a cause that was not supported, if explore has one that is better."""
        failed = to_refine(before)
        if failed is None:
            return None
        old = failed.hypothesis.explored.get("correlation") or 0.0
        new = entry["context"]["explored"].get("correlation") or 0.0
        if new <= old:
            return None
        return self._cause(entry, component, "refined", "context", round, fold, failed.hypothesis.id)

    def _cause(
        self,
        entry: Any,
        component: Component,
        draw: Draw,
        richness: str,
        round: int,
        fold: str,
        parent: str | None,
    ) -> Hypothesis | None:
        rule = entry[richness]
        if not rule["found"]:
            return None
        description = Description.model_validate(rule["description"])
        context = description.about.get("claim") == "context"
        tables = {k: Executable.model_validate(e) for k, e in entry["tables"].items()}
        rate, most = entry["rate"], self.spec.describe.controls
        plan = plans.predicts(
            self.spec,
            fold,
            "cluster",
            controls=_matched(self.causes.controls, richness, rate, most),
            shuffled=Executable.model_validate(rule["shuffled"]),
            baselines=[
                ("unigram-table", context, tables["unigram-table"]),
                ("position-table", not context, tables["position-table"]),
                ("frequency-table", not context, tables["frequency-table"]),
                ("additive-table", False, tables["additive-table"]),
            ],
            untrained=_matched(self.causes.untrained, richness, rate, NEAREST),
            second=second_of(rule),
        )
        return Hypothesis(
            round=round,
            component=component,
            side="cause",
            description=description,
            explainer=RuleExplainer.method,
            draw=draw,
            tests=(plan,),
            scope=self.subject.scope,
            parent=parent,
            explored=rule["explored"],
        )

    # -- truth and what is shown -------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """Against the organism's truth, where there is one."""
        return None if self.truth is None else check(hypothesis, self.truth)

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """Cards for every examined component, the map of the layer, and quality against plain baselines."""
        exhibits = [
            self._exhibit(component, entry, found, seen)
            for (component, _), entry in zip(self.survey.examined, self.causes.components, strict=True)
        ]
        survey, layer = self.survey, layer_of(self.site)
        total = survey.decomposition.n_components
        cells = [
            SiteCell(
                layer=layer,
                place=f"{survey.decomposition.name.split('@')[0]} on {self.site.split('.')[0]}",
                components=total,
                examined=len(survey.drawn) + len(survey.chosen),
            )
        ]
        if survey.neurons is not None:
            cells.append(
                SiteCell(
                    layer=layer,
                    place="neurons",
                    components=survey.neurons.n_components,
                    examined=len(survey.drawn_neurons),
                )
            )
        decisions = (
            f"{len(survey.drawn)} components were drawn at random from the {survey.alive} of "
            f"{total} that are active in at least {self.spec.validate_.firing_min} explored units; "
            f"{len(survey.chosen)} more are the most active ones and are marked as chosen",
        )
        undescribed = sum(not (e["token"]["found"] or e["context"]["found"]) for e in self.causes.components)
        return Shown(
            exhibits=exhibits,
            map=cells,
            tables=(survey.quality,),
            decisions=decisions,
            limits=(
                f"{undescribed} of {len(exhibits)} examined components got no rule at all; "
                "they are shown without a claim",
            ),
        )

    def _exhibit(
        self, component: Component, entry: Any, found: Mapping[str, Verdict], seen: Illustrations
    ) -> Exhibit:
        cause, effect = newest(found, component, "cause"), newest(found, component, "effect")
        rule = entry["context"] if cause is not None and cause.hypothesis.round > 1 else entry["token"]
        about = rule["description"]["about"]
        facts = {
            "firing rate": entry["rate"],
            "rule length": about["length"],
            "coverage of its activation": about["coverage"],
            "about": about["claim"],
            "beats the unigram table on explore": about["beats_unigram"],
            "described": rule["found"],
        }
        claim = None if effect is None else effect.hypothesis
        if claim is not None and not claim.explored:
            facts["outputs named"] = "from weights, which say which and not how much"
        return Exhibit(
            component=component,
            kind="neuron" if component.decomposition.startswith("neurons") else "latent",
            site=component.reads[0],
            layer=layer_of(self.site),
            tokens=tuple(TokenExample.model_validate(e) for e in entry["examples"]),
            scatter=None if cause is None else seen.scatters.get(cause.hypothesis.id),
            effects=self.effects.shown(claim, {} if claim is None else seen.outputs.get(claim.id, {})),
            facts=facts,
            agreement=about.get("agreement"),
            units_drawn=entry["population"],
        )


def _matched(entries: Sequence[Any], richness: str, rate: float, most: int) -> list[plans.Fitted]:
    """Controls that fire about as often as a component, with the rule found for each."""
    return [
        (Component.model_validate(entries[i]["component"]), cause_of(entries[i][richness]))
        for i in nearest([e["rate"] for e in entries], rate, most)
    ]
