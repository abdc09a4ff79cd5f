"""Neurons of a network that adds modulo p: frequency and phases, what they write, and the network rebuilt.

Causes and effects are claimed for neurons drawn at random. A third claim replaces the whole hidden layer by
its descriptions at once (level 3), because silencing one neuron of hundreds changes next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.assay import plans
from prosect.assay.spec import Spec
from prosect.assay.studies.keeping import beside, cause_of, kept, newest, second_of, stood_beside, to_refine
from prosect.assay.studies.residues_shown import every_neuron, grid
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, folds, tested
from prosect.core.exhibits import Exhibit, Grid, InputExample, SiteCell
from prosect.core.records import Component, Description, Executable, Hypothesis, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.decompose.random import RandomDirections
from prosect.decompose.streams import ArrayStream
from prosect.decompose.units import Neurons
from prosect.describe.examples import input_examples
from prosect.describe.explained import Explained
from prosect.describe.polynomial import Polynomial
from prosect.describe.trigonometric import Trigonometric
from prosect.describe.waves import TrigonometricExplainer, TrigonometricOutputExplainer
from prosect.store.run import RunFolder
from prosect.validate.changes import silence
from prosect.validate.replace import COMPOSITE, REPLACED
from prosect.validate.subject import STATISTICAL, Subject, partners
from prosect.validate.tester import Illustrations
from prosect.validate.truth import check

SITE = "hidden"
CONTROLS = 6
CODE = "replacement@1"


class Residues:
    """The study of one network for addition modulo p.

    Args:
        spec: the run's.
        run: where its steps are kept.
        subject: the network and its pairs; its ``task`` is the sum.
        p: modulus.
        name: tells apart two networks of one run.
        truth: of the organism, used only to check claims after they were tested.
        scripted: claim a wrong frequency of the first neuron, on purpose.
    """

    def __init__(
        self,
        spec: Spec,
        run: RunFolder,
        subject: Subject,
        p: int,
        name: str,
        truth: Truth | None = None,
        scripted: bool = False,
    ) -> None:
        self.spec, self.run, self.subject, self.p = spec, run, subject, p
        self.name, self.truth, self.scripted = name, truth, scripted
        self.seed = Seed(spec.seed).child(name)
        self.neurons = Neurons(SITE)
        width = subject.model.sites.info(SITE).width or 1
        self.neurons.fit(ArrayStream({SITE: torch.zeros(1, width)}))
        subject.decompositions[self.neurons.name] = self.neurons

    # -- explore ---------------------------------------------------------------------------------

    def explore(self) -> None:
        """Fit a formula to every neuron and to controls, on explored pairs only."""
        tensors, self.seen = self.run.tensor_step(
            f"{self.name}-waves", {"seed": self.seed.integer}, self._look
        )
        self.controls = RandomDirections.from_state(
            {k: v for k, v in tensors.items() if k != "means"}, self.seen["controls"]["state"]
        )
        self.subject.decompositions[self.controls.name] = self.controls
        self.subject.means[SITE] = tensors["means"].to(self.subject.model.device)

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Explore twice, and once more without each drawn neuron; in round 1 so is the fold, and the layer is replaced.

        What is replaced is tried on the shift too, whenever a fold or the sealed split is opened for it.
        """
        explore, drawn = parts["explore"], self.spec.describe.components
        claimed = tested(parts, rounds=1)
        test = folds(claimed)
        shift = parts.get("shift", Extent(0, 0))
        return Planned(
            SITE,
            (Work("describing", explore.rows * (2.0 + drawn), explore.length),),
            (
                Work("neurons silenced, the layer replaced", test.rows * (drawn + REPLACED), test.length),
                Work("replaced on the shift", len(claimed) * shift.rows * (1.0 + REPLACED), shift.length),
            ),
        )

    def _explored(self) -> tuple[np.ndarray, Float[np.ndarray, "n neurons"], np.ndarray, Tensor]:
        """Pairs, activations, which are of the second set, and outputs."""
        pairs, hidden, second, outputs = [], [], [], []
        for part in ("explore.first", "explore.second"):
            for batch in self.subject.batches(part):
                trace = self.subject.model.run(batch, capture=(SITE,))
                self.subject.spend(batch, "explore")
                z = trace[SITE].cpu().double()
                if self.subject.null == STATISTICAL:
                    z = z[torch.from_numpy(partners(batch, self.subject.seed.child("null")))]
                pairs.append(batch.tensors["pairs"].cpu().numpy())
                hidden.append(z.numpy())
                outputs.append(trace.output.cpu())
                second += [part == "explore.second"] * len(batch)
        return np.concatenate(pairs), np.concatenate(hidden), np.array(second), torch.cat(outputs)

    def _look(self) -> tuple[dict[str, Tensor], Any]:
        with self.subject.metered("explore"):
            return self._described()

    def _described(self) -> tuple[dict[str, Tensor], Any]:
        pairs, hidden, second, _ = self._explored()
        explainer = TrigonometricExplainer(pairs, self.p, self.seed, second=second)
        stream = ArrayStream({SITE: torch.from_numpy(hidden).float()})
        controls = RandomDirections(SITE, (0.5,) * CONTROLS, self.seed.child("random")).fit(stream)
        tensors, state = controls.state()
        codes = controls.encode({SITE: torch.from_numpy(hidden).float()}).dense().double().numpy()
        rng = self.seed.child("shuffle").numpy()
        order = self.seed.child("draw").numpy().permutation(hidden.shape[1]).tolist()
        drawn = sorted(order[: self.spec.describe.components])
        fits = [explainer.explain(hidden[:, j]) for j in range(hidden.shape[1])]
        about = {
            "neurons": [kept(fit) for fit in fits],
            "shuffled": {
                str(j): kept(explainer.explain(hidden[rng.permutation(len(hidden)), j])) for j in drawn
            },
            "polynomials": [
                Polynomial.fit(pairs, hidden[:, j]).executable().model_dump(mode="json")
                for j in range(hidden.shape[1])
            ],
            "controls": {
                "state": state,
                "fits": [kept(explainer.explain(codes[:, i])) for i in range(CONTROLS)],
            },
            "surrogates": {
                str(j): {
                    "surrogates": beside(
                        pairs,
                        hidden[:, j],
                        "pairs",
                        self.seed.child("surrogate", j),
                        self.subject.shelf,
                        self.p,
                    )
                }
                for j in sorted(set(drawn) & set(order[: self.spec.describe.beside]))
            },
            "drawn": drawn,
            "examples": {str(j): self._examples(pairs, hidden[:, j], second, j, fits[j]) for j in drawn},
            "outputs": self._outputs(drawn, fits),
        }
        return {**tensors, "means": torch.from_numpy(hidden.mean(axis=0)).float()}, about

    def _examples(self, pairs: np.ndarray, z: np.ndarray, second: np.ndarray, j: int, fit: Explained) -> Any:
        formula = Trigonometric.read(fit.executable.parameters)
        found = input_examples(
            z,
            lambda i: f"{pairs[i, 0]} + {pairs[i, 1]}",
            second,
            self.seed.child("examples", j),
            formula.at(pairs),
        )
        return {"shown": [e.model_dump(mode="json") for e in found.shown], "population": found.population}

    def _outputs(self, drawn: list[int], fits: Sequence[Explained]) -> dict[str, Any]:
        """What silencing each drawn neuron does to the outputs, explained as a wave."""
        from prosect.model import replace

        makers: dict[int, TrigonometricOutputExplainer] = {}
        for j in drawn:
            cause = Trigonometric.read(fits[j].executable.parameters) if fits[j].found else None
            makers[j] = TrigonometricOutputExplainer(self.p, cause)
        for part in ("explore.first", "explore.second"):
            for batch in self.subject.batches(part):
                base = self.subject.model.run(batch, capture=(SITE,))
                order = torch.arange(len(batch))
                if self.subject.null == STATISTICAL:
                    order = torch.from_numpy(partners(batch, self.subject.seed.child("null")))
                for j in drawn:
                    run = self.subject.model.run(batch, edits=[replace(SITE, silence(j))])
                    self.subject.spend(batch, "explore")
                    change = (run.output - base.output).cpu()[order]
                    makers[j].update(base[SITE][:, j].cpu(), change, second=part == "explore.second")
        return {str(j): kept(makers[j].explain()) for j in drawn}

    @cached_property
    def drawn(self) -> list[int]:
        """Neurons drawn at random."""
        return list(self.seen["drawn"])

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Causes, effects and the replacement in round 1; afterwards what failed and explore can better."""
        out: list[Hypothesis] = []
        for place, j in enumerate(self.drawn):
            component = self.neurons.component(j)
            own, written = self.seen["neurons"][j], self.seen["outputs"][str(j)]
            parent, draw = None, "random"
            if round == 1 and self.scripted and place == 0:
                wrong = self.seen["neurons"][self._other(j)]
                own = {**wrong, "explored": {}}
                draw = "scripted"
            if round > 1:
                failed = to_refine(newest(found, component, "cause"))
                if failed is None or failed.hypothesis.description.cause == cause_of(own):
                    continue  # it stands, or explore has nothing better to say
                parent, draw = failed.hypothesis.id, "refined"
            if own["found"]:
                out.append(self._cause(component, own, j, draw, fold, parent))
            if written["found"] and round == 1:
                out.append(self._effect(component, written, j, fold))
        if round == 1:
            out.append(self._replacement(fold))
        return out

    def _other(self, j: int) -> int:
        """Another neuron with another frequency: where a wrong claim comes from."""
        mine = self.seen["neurons"][j]["description"]["cause"]["parameters"]["k"]
        for i in self.drawn:
            its = self.seen["neurons"][i]
            if its["found"] and its["description"]["cause"]["parameters"]["k"] != mine:
                return int(i)
        return j

    def _shared(self, component: Component, draw: str, parent: str | None) -> dict[str, Any]:
        return {
            "round": 1,
            "component": component,
            "draw": draw,
            "scope": self.subject.scope,
            "parent": parent,
        }

    def _cause(
        self, component: Component, own: Any, j: int, draw: str, fold: str, parent: str | None
    ) -> Hypothesis:
        fits = self.seen["controls"]["fits"]
        plan = plans.predicts(
            self.spec,
            fold,
            "input",
            controls=[(self.controls.component(i), cause_of(f)) for i, f in enumerate(fits)],
            shuffled=cause_of(self.seen["shuffled"][str(j)]),
            second=second_of(own),
            baselines=[
                ("polynomial", True, Executable.model_validate(self.seen["polynomials"][j])),
                *stood_beside(self.seen["surrogates"].get(str(j))),
            ],
            firing=False,
        )
        return Hypothesis(
            **self._shared(component, draw, parent),
            side="cause",
            description=Description.model_validate(own["description"]),
            explainer=TrigonometricExplainer.method,
            tests=(plan,),
            explored=own["explored"],
        )

    def _effect(self, component: Component, written: Any, j: int, fold: str) -> Hypothesis:
        others = [i for i in self.drawn if i != j and self.seen["outputs"][str(i)]["found"]]
        picks = [others[k] for k in self.seed.child("others", j).numpy().permutation(len(others))[:4]]
        plan = plans.changes_outputs(
            self.spec,
            fold,
            others=[
                Executable.model_validate(self.seen["outputs"][str(i)]["description"]["effect"])
                for i in picks
            ],
            second=second_of(written),
        )
        return Hypothesis(
            **self._shared(component, "random", None),
            side="effect",
            description=Description.model_validate(written["description"]),
            explainer=TrigonometricOutputExplainer.method,
            tests=(plan,),
            explored=written["explored"],
        )

    def _replacement(self, fold: str) -> Hypothesis:
        described = self.seen["neurons"]
        parts = [
            {"site": SITE, "index": j, "code": n["description"]["cause"] if n["found"] else None}
            for j, n in enumerate(described)
        ]
        simple = [
            {"site": SITE, "index": j, "code": self.seen["polynomials"][j] if n["found"] else None}
            for j, n in enumerate(described)
        ]
        count = sum(n["found"] for n in described)
        plan = plans.replaces(
            self.spec, fold, "input", fit=Executable(kind=COMPOSITE, parameters={"parts": simple})
        )
        return Hypothesis(
            **self._shared(
                Component(
                    decomposition=f"layer@{SITE}", index=0, reads=(SITE,), writes=(SITE,), width=len(parts)
                ),
                "all",
                None,
            ),
            side="cause",
            description=Description(
                words=f"the hidden layer is {count} waves of single frequencies; the other {len(parts) - count} "
                "neurons may be held at their means",
                cause=Executable(kind=COMPOSITE, parameters={"parts": parts}),
                about={"described": count, "of": len(parts), "parameters of each": 5, "of the simple fit": 4},
            ),
            explainer=CODE,
            tests=(plan,),
        )

    # -- truth and what is shown -------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """Against the organism's truth, where there is one."""
        return None if self.truth is None else check(hypothesis, self.truth)

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """A card with two small images for each drawn neuron, and how many frequencies are right."""
        everything = torch.cartesian_prod(torch.arange(self.p), torch.arange(self.p))

        hidden = self._everywhere(everything)
        exhibits = []
        mine = [v for v in found.values() if v.hypothesis.scope == self.subject.scope]
        for j in self.drawn:
            component = self.neurons.component(j)
            causes = [
                v.hypothesis
                for v in mine
                if v.hypothesis.component == component and v.hypothesis.side == "cause"
            ]
            formula = Trigonometric.read(self.seen["neurons"][j]["description"]["cause"]["parameters"])
            exhibits.append(
                Exhibit(
                    component=component,
                    kind="neuron",
                    site=f"{self.name}: {SITE}",
                    inputs=tuple(
                        InputExample.model_validate(e) for e in self.seen["examples"][str(j)]["shown"]
                    ),
                    scatter=seen.scatters.get(causes[-1].id) if causes else None,
                    grid=Grid(
                        rows="a",
                        columns="b",
                        measured=grid(hidden[:, j], self.p),
                        predicted=grid(formula.at(everything.numpy()), self.p),
                    ),
                    facts={
                        "described": self.seen["neurons"][j]["found"],
                        **self.seen["neurons"][j]["explored"],
                    },
                    agreement=self.seen["neurons"][j]["description"]["about"].get("agreement"),
                    units_drawn=self.seen["examples"][str(j)]["population"],
                )
            )
        table = every_neuron(self.name, self.seen["neurons"], self.truth)
        cell = SiteCell(
            layer=-1,
            place=f"neurons of {self.name}",
            components=self.neurons.n_components,
            examined=len(self.drawn),
        )
        return Shown(
            exhibits=exhibits,
            map=(cell,),
            tables=(table,),
            metrics={f"{self.name} {row.name}": row.measured.estimate for row in table.rows},
            decisions=(
                f"{len(self.drawn)} of {self.neurons.n_components} neurons of {self.name} were drawn at random",
            ),
        )

    def _everywhere(self, pairs: Tensor) -> np.ndarray:
        """Activations on every pair, for the pictures."""
        from prosect.data.batch import Row

        out = []
        for start in range(0, len(pairs), 512):
            some = pairs[start : start + 512].to(self.subject.model.device)
            batch = Batch({"pairs": some}, None, tuple(Row(i) for i in range(len(some))))
            out.append(self.subject.model.run(batch, capture=(SITE,))[SITE].cpu().double().numpy())
        return np.concatenate(out)
