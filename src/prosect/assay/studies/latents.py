"""Latents, neurons and other directions of a language model: rules for their causes, outputs for their effects.

Round 1 claims the simplest thing that explore suggests: a rule about the current token, and the outputs
that the component's direction raises by way of the unembedding. What fails is refined from explore and
judged on a fresh fold: causes by rules that may look at context, effects by the outputs that removing the
component was seen to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.assay import plans
from prosect.assay.decomposing import fit
from prosect.assay.explored import Explored, explore, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.untrained import untrained
from prosect.core.exhibits import Exhibit, OutputEffect, Scatter, SiteCell, TokenExample
from prosect.core.progress import step
from prosect.core.records import Component, Description, Draw, Executable, Hypothesis, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.core.verdicts import Verdict
from prosect.decompose.contract import Decomposition
from prosect.decompose.random import RandomDirections
from prosect.decompose.streams import ArrayStream
from prosect.decompose.units import Neurons
from prosect.describe.effects import EffectExplainer, direct
from prosect.describe.examples import token_examples
from prosect.describe.explained import Explained
from prosect.describe.explainer import RuleExplainer
from prosect.describe.tables import FrequencyTable, PositionTable, TokenTable
from prosect.describe.vocabulary import Vocabulary
from prosect.store.run import RunFolder
from prosect.validate.raises import Remover
from prosect.validate.subject import Subject, runnable
from prosect.validate.truth import check

BANDS = (1e-3, 2e-3, 4e-3, 8e-3, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5)
"""Firing rates of the random directions; each component is compared with the nearest band's."""
UNTRAINED = 48
"""Components drawn from each untrained network."""
NEAREST = 6
"""Of those, how many stand beside each claim: the ones that fire about as often."""
SHUFFLES = 3
"""Other components whose claimed outputs a removal is also scored on."""


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
        self.words: Vocabulary = vocabulary(subject.source)
        self.decomposition: Decomposition
        self.neurons: Neurons | None = None
        self._strangers: dict[int, Explored] = {}

    # -- explore ---------------------------------------------------------------------------------

    def explore(self) -> None:
        """Fit the decomposition, survey its components on explore, draw some, describe them and controls."""
        self.decomposition, self.quality = fit(self.spec, self.run, self.subject, self.site, "decomposition")
        self.subject.decompositions[self.decomposition.name] = self.decomposition
        sites = [self.site]
        layer = layer_of(self.site)
        if (
            self.spec.describe.neurons
            and layer >= 0
            and f"mlp_act.{layer}" in self.subject.model.sites.names()
        ):
            sites.append(f"mlp_act.{layer}")
        self._sites = tuple(dict.fromkeys(sites))
        if len(self._sites) == 2:
            self.neurons = Neurons(self._sites[1])
            width = self.subject.model.sites.info(self._sites[1]).width or 1
            self.neurons.fit(ArrayStream({self._sites[1]: torch.zeros(1, width)}))
            self.subject.decompositions[self.neurons.name] = self.neurons
        directions, self.survey = self._survey()
        self.controls = RandomDirections.from_state(directions, self.survey["random"])
        self.subject.decompositions[self.controls.name] = self.controls
        self._untrained()
        self.described = self._describe()

    @cached_property
    def explored(self) -> Explored:
        """Explored text and activations; made when first needed, so that a resumed run may never need it."""
        return explore(
            self.subject, self.words, self._sites, self.spec.describe.tokens, self.seed.child("explore")
        )

    def _survey(self) -> tuple[dict[str, Tensor], Any]:
        """Firing rates and units of every component, the draw, and the random directions."""

        def make() -> tuple[dict[str, Tensor], Any]:
            seen = self.explored
            for batch in seen.batches:
                self.subject.spend(batch, "explore")
            rates, units = _firing(self.decomposition, seen)
            firing_min = self.spec.validate_.firing_min
            alive = np.flatnonzero(units >= firing_min)
            rng = self.seed.child("draw").numpy()
            drawn = sorted(rng.permutation(alive)[: self.spec.describe.components].tolist())
            mass = rates * 1.0
            chosen = [
                int(i)
                for i in np.argsort(-mass, kind="stable")
                if int(i) not in drawn and units[i] >= firing_min
            ]
            neurons: list[int] = []
            if self.neurons is not None:
                order = self.seed.child("neurons").numpy().permutation(self.neurons.n_components)
                neurons = sorted(order[: self.spec.describe.neurons].tolist())
            x = seen.sites[self.site]
            per_band = self.spec.describe.controls
            fits = [b for b in BANDS if b * len(x) >= 2]
            controls = RandomDirections(
                self.site, tuple(b for b in fits for _ in range(per_band)), self.seed.child("random")
            ).fit(ArrayStream({self.site: x}))
            tensors, about = controls.state()
            return tensors, {
                "random": about,
                "bands": fits,
                "rates": [float(r) for r in rates],
                "alive": len(alive),
                "drawn": drawn,
                "chosen": chosen[: self.spec.describe.chosen],
                "neurons": neurons,
                "norm": float(x.double().norm(dim=1).mean()),
                "positions": len(x),
                "units": len(np.unique(seen.units)),
            }

        return self.run.tensor_step("survey", self._inputs, make)

    @property
    def _inputs(self) -> dict[str, Any]:
        return {"study": self.name, "seed": self.seed.integer, "decomposition": self.decomposition.name}

    def _untrained(self) -> None:
        """Networks with fresh weights, each with a decomposition of its own of the same kind."""
        networks: list[Subject] = []
        for number in range(self.spec.describe.untrained):
            fresh = untrained(self.subject.model, self.seed.child("untrained", number))
            if fresh is None:
                break
            networks.append(
                Subject(
                    model=fresh,
                    source=self.subject.source,
                    seed=self.subject.seed,
                    shelf=self.subject.shelf,
                    null=self.subject.null,
                    rows=self.subject.rows,
                )
            )
        self.subject.untrained = networks

    def components(self) -> list[tuple[Component, Draw, float]]:
        """What is examined: components, how they came to be, and their firing rates."""
        rates = self.survey["rates"]
        out: list[tuple[Component, Draw, float]] = []
        for i in self.survey["drawn"]:
            out.append((self.decomposition.component(i), "random", rates[i]))
        for i in self.survey["chosen"]:
            out.append((self.decomposition.component(i), "chosen", rates[i]))
        if self.neurons is not None:
            out += [(self.neurons.component(i), "random", 0.0) for i in self.survey["neurons"]]
        return out

    def _describe(self) -> dict[str, Any]:
        """Rules of every examined component and control, in both richnesses, with examples."""

        def make() -> dict[str, Any]:
            seen = self.explored
            explainer = RuleExplainer(seen.contexts, self.subject.shelf)
            listed = self.components()
            controls = [self.controls.component(i) for i in range(self.controls.n_components)]
            with step("describing", len(listed) + len(controls), "components") as shown:
                out = {
                    "components": self._explained(explainer, seen, [c for c, _, _ in listed], shown, True),
                    "controls": self._explained(explainer, seen, controls, shown, False),
                    "untrained": [],
                }
            for number, network in enumerate(self.subject.untrained):
                out["untrained"] += self._of_untrained(number, network)
            return out

        found: dict[str, Any] = self.run.json_step("described", self._inputs, make)
        for number, network in enumerate(self.subject.untrained):
            tensors, about = self.run.tensor_step(
                f"untrained-{number}", self._inputs, partial(self._fit_untrained, number)
            )
            network.decompositions[self.decomposition.name] = type(self.decomposition).from_state(
                tensors, about
            )
        return found

    def _explained(
        self,
        explainer: RuleExplainer,
        seen: Explored,
        components: Sequence[Component],
        shown: Any,
        whole: bool,
    ) -> list[dict[str, Any]]:
        out = []
        for start in range(0, len(components), 64):
            some = components[start : start + 64]
            values = seen.activations(self.subject, some)
            for column, component in enumerate(some):
                y = values[:, column]
                entry: dict[str, Any] = {"component": component.model_dump(mode="json")}
                rules = {r: explainer.explain(y, r) for r in ("token", "context")}
                for richness, rule in rules.items():
                    entry[richness] = _kept(rule)
                entry["rate"] = float((y > 0).mean())
                if whole:
                    mixed = self._shuffled(seen, y, component.name)
                    for richness in rules:
                        entry[richness]["shuffled"] = _json(explainer.explain(mixed, richness).executable)
                    entry["tables"] = {
                        "unigram-table": _json(
                            TokenTable.fit(seen.contexts, y).executable(self.subject.shelf)
                        ),
                        "position-table": _json(
                            PositionTable.fit(seen.contexts, y).executable(self.subject.shelf)
                        ),
                        "frequency-table": _json(
                            FrequencyTable.fit(seen.contexts, y).executable(self.subject.shelf)
                        ),
                    }
                    entry |= self._examples(seen, y, component, rules)
                out.append(entry)
                shown.advance()
        return out

    def _shuffled(self, seen: Explored, y: Float[np.ndarray, " n"], name: str) -> Float[np.ndarray, " n"]:
        """Activations with the link to their documents destroyed: whole rows change places."""
        rng = self.seed.child("shuffle", name).numpy()
        starts = seen.contexts.starts
        order = rng.permutation(len(starts) - 1)
        return np.concatenate([y[starts[i] : starts[i + 1]] for i in order])

    def _examples(
        self, seen: Explored, y: Float[np.ndarray, " n"], component: Component, rules: Mapping[str, Explained]
    ) -> dict[str, Any]:
        rule = rules["context"] if rules["context"].found else rules["token"]
        code = runnable(rule.executable, self.subject.shelf)
        predicted = np.concatenate([np.asarray(code.activation(b), dtype=float) for b in seen.batches])
        found = token_examples(seen.contexts, y, self.seed.child("examples", component.name), predicted)
        return {
            "examples": [e.model_dump(mode="json") for e in found.shown],
            "population": found.population,
            "agreement": found.agreement,
        }

    def _seen_untrained(self, number: int) -> Explored:
        """Explored activations of one untrained network; run once, used to fit and then to describe."""
        if number not in self._strangers:
            self._strangers[number] = explore(
                self.subject.untrained[number],
                self.words,
                [self.site],
                self.spec.describe.tokens // 3,
                self.seed.child("untrained", number),
            )
        return self._strangers[number]

    def _fit_untrained(self, number: int) -> tuple[dict[str, Tensor], Any]:
        seen = self._seen_untrained(number)
        fresh = self._fresh(self.decomposition)
        fresh.fit(ArrayStream({self.site: seen.sites[self.site]}))
        return fresh.state()

    def _fresh(self, like: Decomposition) -> Decomposition:
        from prosect.decompose.dictionary import Dictionary
        from prosect.decompose.recipe import Recipe

        if isinstance(like, Dictionary):
            return Dictionary(
                self.site,
                min(256, like.latents),
                like.sparsity,
                recipe=Recipe(batch=512),
                seed=self.seed.child("fresh"),
            )
        return type(like)(self.site)  # type: ignore[call-arg]

    def _of_untrained(self, number: int, network: Subject) -> list[dict[str, Any]]:
        """Rules for components of one untrained network."""
        tensors, about = self.run.tensor_step(
            f"untrained-{number}", self._inputs, partial(self._fit_untrained, number)
        )
        decomposition = type(self.decomposition).from_state(tensors, about)
        network.decompositions[self.decomposition.name] = decomposition
        seen = self._seen_untrained(number)
        _, units = _firing(decomposition, seen)
        alive = np.flatnonzero(units >= self.spec.validate_.firing_min)
        drawn = self.seed.child("untrained", number, "draw").numpy().permutation(alive)[:UNTRAINED]
        components = [decomposition.component(int(i)) for i in sorted(drawn.tolist())]
        explainer = RuleExplainer(seen.contexts, self.subject.shelf)
        with step(f"describing untrained network {number + 1}", len(components), "components") as shown:
            out = self._explained(explainer, seen, components, shown, False) if components else []
        mark = f"untrained.{number}:"
        for entry in out:
            entry["component"]["decomposition"] = mark + entry["component"]["decomposition"]
        return out

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Causes and effects in round 1; afterwards refinements of those that failed."""
        richness = "token" if round == 1 else "context"
        out: list[Hypothesis] = []
        for (component, draw, _), entry in zip(self.components(), self.described["components"], strict=True):
            own = {s: _last(found, component, s) for s in ("cause", "effect")}
            if round == 1:
                claim = self._cause(entry, component, draw, richness, fold, None)
            else:
                claim = self._refined(entry, component, own["cause"], richness, fold)
            if claim is not None:
                out.append(claim)
        out += self._effects(round, fold, found)
        return out

    def _refined(
        self, entry: Any, component: Component, before: Verdict | None, richness: str, fold: str
    ) -> Hypothesis | None:
        """A richer rule for a cause that was not supported, if explore has one that is better."""
        if before is None or before.overall not in ("refuted", "inconclusive"):
            return None
        old = before.hypothesis.explored.get("correlation") or 0.0
        new = entry[richness]["explored"].get("correlation") or 0.0
        if not entry[richness]["found"] or new <= old:
            return None
        return self._cause(entry, component, "refined", richness, fold, before.hypothesis.id)

    def _cause(
        self, entry: Any, component: Component, draw: Draw, richness: str, fold: str, parent: str | None
    ) -> Hypothesis | None:
        rule = entry[richness]
        if not rule["found"]:
            return None
        description = Description.model_validate(rule["description"])
        context = description.about.get("claim") == "context"
        tables = {k: Executable.model_validate(e) for k, e in entry["tables"].items()}
        plan = plans.predicts(
            self.spec,
            fold,
            "cluster",
            controls=self._matched(
                self.described["controls"], richness, entry["rate"], self.spec.describe.controls
            ),
            shuffled=Executable.model_validate(rule["shuffled"]),
            baselines=[
                ("unigram-table", context, tables["unigram-table"]),
                ("position-table", not context, tables["position-table"]),
                ("frequency-table", not context, tables["frequency-table"]),
            ],
            untrained=self._matched(self.described["untrained"], richness, entry["rate"], NEAREST),
        )
        return Hypothesis(
            round=1,
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

    def _matched(self, entries: Sequence[Any], richness: str, rate: float, most: int) -> list[plans.Fitted]:
        """The controls that fire about as often as a component."""
        order = sorted(
            range(len(entries)),
            key=lambda i: (abs(np.log(max(entries[i]["rate"], 1e-6) / max(rate, 1e-6))), i),
        )
        return [
            (
                Component.model_validate(entries[i]["component"]),
                Executable.model_validate(entries[i][richness]["description"]["cause"]),
            )
            for i in order[:most]
        ]

    # -- effects ---------------------------------------------------------------------------------

    def _effects(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Claims about outputs: from weights in round 1 where that is possible, else from ablation."""
        wanted = [
            (c, d)
            for c, d, _ in self.components()
            if c.decomposition == self.decomposition.name and d == "random"
        ][: self.spec.describe.effects]
        if not wanted or not self._has_outputs:
            return []
        parents: dict[str, str | None] = {c.name: None for c, _ in wanted}
        if round > 1:
            failed = {
                c.name: v.hypothesis.id
                for c, _ in wanted
                if (v := _last(found, c, "effect")) and v.overall in ("refuted", "inconclusive")
            }
            wanted = [(c, d) for c, d in wanted if c.name in failed]
            parents = dict(failed)
            if not wanted or not self._direct:
                return []  # without a first guess from weights, round 1 was the measured one
        measured = round > 1 or not self._direct
        described = self._outputs([c for c, _ in wanted], measured)
        entries = {e["component"]: e for e in described}
        out = []
        for c, draw in wanted:
            entry = entries[c.name]
            if not entry["found"]:
                continue
            others = [e for n, e in entries.items() if n != c.name and e["found"] and n in parents]
            rng = self.seed.child("others", round, c.name).numpy()
            picks = [others[i] for i in rng.permutation(len(others))[:SHUFFLES]]
            controls = [e for e in described if e["control"] and e["found"]]
            rate = self.survey["rates"][c.index]
            near = sorted(controls, key=lambda e: abs(np.log(e["rate"] / max(rate, 1e-6))))[
                : self.spec.describe.controls
            ]
            if not picks or not near:
                continue
            plan = plans.raises_outputs(
                self.spec,
                fold,
                controls=[
                    (self.controls.component(e["index"]), Executable.model_validate(e["executable"]))
                    for e in near
                ],
                others=[Executable.model_validate(e["executable"]) for e in picks],
                scale=0.1 * self.survey["norm"],
            )
            out.append(
                Hypothesis(
                    round=1,
                    component=c,
                    side="effect",
                    description=Description.model_validate(entry["description"]),
                    explainer=entry["method"],
                    draw="refined" if parents[c.name] else draw,
                    tests=(plan,),
                    scope=self.subject.scope,
                    parent=parents[c.name],
                    explored={},
                )
            )
        return out

    @cached_property
    def _has_outputs(self) -> bool:
        return "directions" in self.decomposition.supports

    @cached_property
    def _direct(self) -> bool:
        """Whether a direction's effect can be guessed from weights: it writes to the residual stream."""
        return self.site.startswith("resid") and self.subject.model.unembedding is not None

    def _outputs(self, components: Sequence[Component], measured: bool) -> list[dict[str, Any]]:
        """Outputs named for components and for random directions, by the same method."""
        bands = sorted({self._band(self.survey["rates"][c.index]) for c in components})
        controls = [
            (i, b)
            for i, b in enumerate(b for b in self.survey["bands"] for _ in range(self.spec.describe.controls))
            if b in bands
        ]
        listed = [*components, *(self.controls.component(i) for i, _ in controls)]

        def make() -> list[dict[str, Any]]:
            found = self._ablated(listed) if measured else self._guessed(listed)
            return [
                {
                    "component": c.name,
                    "index": c.index,
                    "control": c.decomposition == self.controls.name,
                    "rate": dict(controls).get(c.index, 0.0)
                    if c.decomposition == self.controls.name
                    else 0.0,
                    "found": e.found,
                    "method": e.method,
                    "description": e.description.model_dump(mode="json"),
                    "executable": _json(e.executable),
                    "effects": e.explored.get("effects", []),
                }
                for c, e in zip(listed, found, strict=True)
            ]

        inputs = {**self._inputs, "components": [c.name for c in listed], "measured": measured}
        kept: list[dict[str, Any]] = self.run.json_step("outputs", inputs, make)
        return kept

    def _band(self, rate: float) -> float:
        return float(min(self.survey["bands"], key=lambda b: abs(np.log(b / max(rate, 1e-6)))))

    def _guessed(self, components: Sequence[Component]) -> list[Explained]:
        unembedding = self.subject.model.unembedding
        assert unembedding is not None
        return [
            direct(
                self.subject.decomposition(c.decomposition).directions[c.index],
                unembedding,
                self.words.strings,
            )
            for c in components
        ]

    def _ablated(self, components: Sequence[Component]) -> list[Explained]:
        """Take each component out of explored rows and add up what that does."""
        remover = Remover(self.subject, components, rows=self.spec.validate_.effect_rows // 2, per_unit=1)
        explainers = [EffectExplainer(self.words.strings) for _ in components]
        counts = [0] * len(components)
        with step("removing components from explored text", len(components), "components"):
            for batch in self.explored.batches:
                if remover.done:
                    break
                moved = batch.to(self.subject.model.device)
                trace = self.subject.model.run(moved, capture=remover.sites)
                self.subject.spend(batch, "explore")
                for j, removal in remover.remove(moved, trace, trace.output, "explore"):
                    change = removal.change
                    if self.subject.null:
                        from prosect.validate.raises import relabel

                        change = relabel(removal, self.subject.seed.child("null", "outputs", "explore", j))
                    explainers[j].update(-change)
                    counts[j] += len(change)
        nothing = direct_nothing(self.words.strings)
        return [e.explain() if n >= 2 else nothing for e, n in zip(explainers, counts, strict=True)]

    # -- truth and what is shown -------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """Against the organism's truth, where there is one."""
        return None if self.truth is None else check(hypothesis, self.truth)

    def show(self, found: Mapping[str, Verdict], scatters: Mapping[str, Scatter]) -> Shown:
        """Cards for every examined component, the map of the layer, and quality against plain baselines."""
        exhibits = []
        layer = layer_of(self.site)
        for (component, _, _), entry in zip(self.components(), self.described["components"], strict=True):
            mine = [v for v in found.values() if v.hypothesis.component.name == component.name]
            causes = [v for v in mine if v.hypothesis.side == "cause"]
            last = causes[-1].hypothesis.id if causes else ""
            rule = entry["context"] if any(v.hypothesis.round > 1 for v in causes) else entry["token"]
            about = rule["description"]["about"]
            exhibits.append(
                Exhibit(
                    component=component,
                    kind="neuron" if component.decomposition.startswith("neurons") else "latent",
                    site=component.reads[0],
                    layer=layer,
                    tokens=tuple(TokenExample.model_validate(e) for e in entry["examples"]),
                    scatter=scatters.get(last),
                    effects=self._shown_effects(component, mine),
                    facts={
                        "firing rate": entry["rate"],
                        "rule length": about["length"],
                        "coverage of its activation": about["coverage"],
                        "about": about["claim"],
                        "beats the unigram table on explore": about["beats_unigram"],
                        "described": rule["found"],
                    },
                    agreement=about.get("agreement"),
                    units_drawn=entry["population"],
                )
            )
        drawn = len(self.survey["drawn"]) + len(self.survey["chosen"])
        cells = [
            SiteCell(
                layer=layer,
                place=f"{self.decomposition.name.split('@')[0]} on {self.site.split('.')[0]}",
                components=self.decomposition.n_components,
                examined=drawn,
            )
        ]
        if self.neurons is not None:
            cells.append(
                SiteCell(
                    layer=layer,
                    place="neurons",
                    components=self.neurons.n_components,
                    examined=len(self.survey["neurons"]),
                )
            )
        total = self.decomposition.n_components
        decisions = (
            f"{len(self.survey['drawn'])} components were drawn at random from the {self.survey['alive']} of "
            f"{total} that are active in at least {self.spec.validate_.firing_min} explored units; "
            f"{len(self.survey['chosen'])} more are the most active ones and are marked as chosen",
        )
        undescribed = sum(
            not (e["token"]["found"] or e["context"]["found"]) for e in self.described["components"]
        )
        return Shown(
            exhibits=exhibits,
            map=cells,
            tables=(self.quality,),
            decisions=decisions,
            limits=(
                f"{undescribed} of {len(self.described['components'])} examined components got no rule at all; "
                "they are shown without a claim",
            ),
        )

    def _shown_effects(self, component: Component, mine: Sequence[Verdict]) -> tuple[OutputEffect, ...]:
        claims = [v.hypothesis for v in mine if v.hypothesis.side == "effect"]
        if not claims or claims[-1].description.effect is None:
            return ()
        sets = claims[-1].description.effect.parameters
        strings = self.words.strings
        return tuple(
            OutputEffect(output=strings[i], direction=d, explored=0.0)
            for d, key in (("raises", "raised"), ("lowers", "lowered"))
            for i in sets[key]
        )


def layer_of(site: str) -> int:
    """The layer in a site's name; -1 where there is none."""
    parts = site.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else -1


def direct_nothing(outputs: Sequence[str]) -> Explained:
    """What is said of a component that was never active: it raises and lowers nothing."""
    return direct(torch.zeros(1), torch.zeros(len(outputs), 1), outputs)


def _firing(decomposition: Decomposition, seen: Explored) -> tuple[Float[np.ndarray, " c"], np.ndarray]:
    """Share of positions, and number of units, in which each component is active."""
    n = decomposition.n_components
    count, units = np.zeros(n), [np.zeros(0, dtype=np.int64)]
    site = decomposition.reads[0]
    x = seen.sites[site]
    for start in range(0, len(x), 8192):
        codes = decomposition.encode({site: x[start : start + 8192]})
        active = (codes.values > 0).numpy()
        index = codes.indices.numpy()[active]
        rows = np.nonzero(active)[0]
        count += np.bincount(index, minlength=n)
        units.append(np.unique(seen.units[start + rows] * n + index))
    pairs = np.unique(np.concatenate(units))
    return count / max(len(x), 1), np.bincount(pairs % n, minlength=n)


def _last(found: Mapping[str, Verdict], component: Component, side: str) -> Verdict | None:
    """The newest hypothesis about one side of a component."""
    mine = [
        v
        for v in found.values()
        if v.hypothesis.component.name == component.name and v.hypothesis.side == side
    ]
    return mine[-1] if mine else None


def _kept(explained: Explained) -> dict[str, Any]:
    return {
        "description": explained.description.model_dump(mode="json"),
        "found": explained.found,
        "explored": explained.explored,
    }


def _json(executable: Executable) -> dict[str, Any]:
    return executable.model_dump(mode="json")
