"""Latents of a network with numeric inputs: which input each of them stands for.

The experimenter knows the network's inputs and not how it lays them out. A latent is described by a sparse
threshold rule over inputs, fitted on explore and judged on fresh inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prosect.assay import plans
from prosect.assay.decomposing import fit
from prosect.assay.spec import Spec
from prosect.assay.studies.keeping import (
    beside,
    cause_of,
    kept,
    nearest,
    newest,
    second_of,
    stood_beside,
    to_refine,
)
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, fitting, upto
from prosect.core.exhibits import Exhibit, Figure, FigureTable, InputExample, SiteCell
from prosect.core.progress import step
from prosect.core.records import Description, Draw, Hypothesis, Measured, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.core.verdicts import Verdict
from prosect.decompose.contract import Decomposition
from prosect.decompose.linear import Ica, Pca
from prosect.decompose.quality import recovery
from prosect.decompose.random import RandomDirections
from prosect.decompose.streams import ArrayStream
from prosect.describe.examples import input_examples
from prosect.describe.inputs import InputExplainer, InputRule
from prosect.store.run import RunFolder
from prosect.validate.subject import STATISTICAL, Subject, partners
from prosect.validate.tester import Illustrations
from prosect.validate.truth import check

SITE = "hidden"
INPUTS = "features"
BANDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


class Features:
    """The study of a decomposition of one hidden layer.

    Args:
        spec: the run's.
        run: where its steps are kept.
        subject: the network and its inputs.
        name: tells apart two networks of one run.
        truth: of the organism: checks claims after they were tested, and scores recovery.
    """

    def __init__(
        self,
        spec: Spec,
        run: RunFolder,
        subject: Subject,
        name: str,
        truth: Truth | None = None,
    ) -> None:
        self.spec, self.run, self.subject = spec, run, subject
        self.name, self.truth = name, truth
        self.seed = Seed(spec.seed).child(name)
        self.decomposition: Decomposition

    # -- explore ---------------------------------------------------------------------------------

    def explore(self) -> None:
        """Fit the decomposition, draw latents, describe them and their controls, on explored inputs only."""
        self.decomposition, quality = fit(
            self.spec, self.run, self.subject, SITE, f"{self.name}-decomposition"
        )
        self.quality = quality.model_copy(update={"title": f"{quality.title} ({self.name})"})
        self.subject.decompositions[self.decomposition.name] = self.decomposition
        tensors, self.seen = self.run.tensor_step(
            f"{self.name}-rules", {"seed": self.seed.integer}, self._look
        )
        self.controls = RandomDirections.from_state(tensors, self.seen["state"])
        self.subject.decompositions[self.controls.name] = self.controls

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Explore read to fit, and again to describe, as much of each half as is asked for."""
        explore, width = parts["explore"], self.subject.model.sites.info(SITE).width or 1
        flops = fitting(self.spec, width, explore.positions)
        seen = min(explore.rows, self.spec.describe.tokens)
        share = upto(self.subject.model, [SITE])
        return Planned(
            SITE,
            (
                Work("fitting", share * explore.rows, explore.length, flops=flops),
                Work("describing", share * seen, explore.length),
            ),
            (),
            4 * width * explore.positions,
        )

    def _inputs(self, most: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Explored inputs, which are of the second set, and the hidden layer."""
        inputs, hidden, second = [], [], []
        for part in ("explore.first", "explore.second"):
            count = 0
            for batch in self.subject.batches(part):
                with self.subject.metered("explore"):
                    trace = self.subject.model.run(batch, capture=(SITE,), stop_early=True)
                self.subject.spend(batch, "explore")
                x = trace[SITE].cpu()
                if self.subject.null == STATISTICAL:
                    x = x[torch.from_numpy(partners(batch, self.subject.seed.child("null")))]
                inputs.append(batch.tensors[INPUTS].cpu().numpy())
                hidden.append(x)
                second += [part == "explore.second"] * len(batch)
                count += len(batch)
                if count >= most // 2:
                    break
        return np.concatenate(inputs), np.array(second), torch.cat(hidden)

    def _look(self) -> tuple[dict[str, Tensor], Any]:
        inputs, second, hidden = self._inputs(self.spec.describe.tokens)
        few = len(inputs) // 4
        stream = ArrayStream({SITE: hidden})
        per_band = self.spec.describe.controls
        fits = [b for b in BANDS if b * len(hidden) >= 2]
        controls = RandomDirections(
            SITE, tuple(b for b in fits for _ in range(per_band)), self.seed.child("random")
        ).fit(stream)
        tensors, state = controls.state()
        codes = self.decomposition.encode({SITE: hidden})
        active = (codes.dense() > 0).sum(dim=0).numpy()
        alive = np.flatnonzero(active >= self.spec.validate_.firing_min)
        drawn = sorted(
            self.seed.child("draw").numpy().permutation(alive)[: self.spec.describe.components].tolist()
        )
        quick = InputExplainer(inputs[::4], INPUTS, self.seed, second=second[::4])
        thorough = InputExplainer(inputs, INPUTS, self.seed, second=second)
        values = codes.columns(drawn).double().numpy()
        control = controls.encode({SITE: hidden}).dense().double().numpy()
        rng = self.seed.child("shuffle").numpy()
        entries = []
        with step(f"describing {self.name}", len(drawn) + control.shape[1], "components") as shown:
            for place, i in enumerate(drawn):
                y = values[:, place]
                first, more = quick.explain(y[::4]), thorough.explain(y)
                mixed = rng.permutation(len(y))
                entries.append(
                    {
                        "index": int(i),
                        "rate": float((y > 0).mean()),
                        "quick": kept(first),
                        "thorough": kept(more),
                        "shuffled": {
                            "quick": kept(quick.explain(y[mixed][::4])),
                            "thorough": kept(thorough.explain(y[mixed])),
                        },
                        "surrogates": beside(
                            inputs, y, INPUTS, self.seed.child("surrogate", i), self.subject.shelf
                        )
                        if place < self.spec.describe.beside
                        else {},
                        "examples": self._examples(inputs, y, second, int(i), more),
                    }
                )
                shown.advance()
            others = []
            for i in range(control.shape[1]):
                y = control[:, i]
                others.append(
                    {
                        "rate": float((y > 0).mean()),
                        "quick": kept(quick.explain(y[::4])),
                        "thorough": kept(thorough.explain(y)),
                    }
                )
                shown.advance()
        return tensors, {
            "state": state,
            "entries": entries,
            "controls": others,
            "alive": len(alive),
            "inputs": len(inputs),
            "few": few,
            "tables": self._recovery(stream),
        }

    def _examples(self, inputs: np.ndarray, y: np.ndarray, second: np.ndarray, i: int, rule: Any) -> Any:
        code = InputRule.of(rule.executable, self.subject.shelf)

        def words(n: int) -> str:
            on = np.flatnonzero(inputs[n])
            return ", ".join(f"input {j} = {inputs[n, j]:.2f}" for j in on[:8]) or "nothing on"

        found = input_examples(
            y, words, second, self.seed.child("examples", i), code._run(inputs.astype(np.float64))
        )
        return {"shown": [e.model_dump(mode="json") for e in found.shown], "population": found.population}

    def _recovery(self, stream: ArrayStream) -> list[dict[str, Any]]:
        """How well directions match the organism's, for this decomposition and plain ones beside it."""
        if self.truth is None or not self.truth.features:
            return []
        known = torch.from_numpy(np.asarray(self.truth.features[0].directions)).float()
        width = known.shape[1]
        rivals: list[Decomposition] = [
            self.decomposition,
            Pca(SITE, width),
            Ica(SITE, width, seed=self.seed.child("ica")),
            RandomDirections(SITE, (0.05,) * self.decomposition.n_components, self.seed.child("floor")),
        ]
        out = []
        for d in rivals:
            fitted = d if d is self.decomposition else d.fit(stream)
            score = recovery(fitted.directions, known, signed="signed" in fitted.supports)
            out.append(
                {
                    "name": d.name,
                    "there": score.features_to_latents,
                    "back": score.latents_to_features,
                    "n": d.n_components,
                }
            )
        return out

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Rules from a quarter of the explored inputs in round 1; refinements from all of them afterwards."""
        how = "quick" if round == 1 else "thorough"
        out = []
        for entry in self.seen["entries"]:
            component = self.decomposition.component(entry["index"])
            parent: str | None = None
            draw: Draw = "random"
            if round > 1:
                failed = to_refine(newest(found, component, "cause"))
                if failed is None or failed.hypothesis.description.cause == cause_of(entry[how]):
                    continue
                parent, draw = failed.hypothesis.id, "refined"
            if not entry[how]["found"]:
                continue
            controls = self.seen["controls"]
            near = nearest([c["rate"] for c in controls], entry["rate"], self.spec.describe.controls)
            plan = plans.predicts(
                self.spec,
                fold,
                "input",
                controls=[(self.controls.component(i), cause_of(controls[i][how])) for i in near],
                shuffled=cause_of(entry["shuffled"][how]),
                second=second_of(entry[how]),
                baselines=stood_beside(entry),
            )
            out.append(
                Hypothesis(
                    round=1,
                    component=component,
                    side="cause",
                    description=Description.model_validate(entry[how]["description"]),
                    explainer=InputExplainer.method,
                    draw=draw,
                    tests=(plan,),
                    scope=self.subject.scope,
                    parent=parent,
                    explored=entry[how]["explored"],
                )
            )
        return out

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """Against the organism's directions."""
        if self.truth is None:
            return None
        direction = self.decomposition.directions[hypothesis.component.index].double().numpy()
        return check(hypothesis, self.truth, direction)

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """A card for each drawn latent, and recovery beside plain baselines."""
        exhibits = []
        mine = [v.hypothesis for v in found.values() if v.hypothesis.scope == self.subject.scope]
        for entry in self.seen["entries"]:
            component = self.decomposition.component(entry["index"])
            claims = [h for h in mine if h.component.name == component.name]
            exhibits.append(
                Exhibit(
                    component=component,
                    kind="latent",
                    site=f"{self.name}: {SITE}",
                    inputs=tuple(InputExample.model_validate(e) for e in entry["examples"]["shown"]),
                    scatter=seen.scatters.get(claims[-1].id) if claims else None,
                    facts={"firing rate": entry["rate"], "described": entry["thorough"]["found"]},
                    agreement=entry["thorough"]["description"]["about"].get("agreement"),
                    units_drawn=entry["examples"]["population"],
                )
            )
        rows = []
        for t in self.seen["tables"]:
            for way, key in (
                ("each feature's nearest component", "there"),
                ("each component's nearest feature", "back"),
            ):
                rows.append(
                    Figure(
                        name=f"{t['name']}: {way}",
                        measured=Measured(estimate=t[key], n=t["n"], note="one network; no interval"),
                        unit="mean cosine",
                    )
                )
        tables = (
            FigureTable(
                title=f"Recovery of the planted directions ({self.name})",
                about="mean largest cosine, both ways, with plain methods and chance beside it",
                rows=tuple(rows),
            ),
        )
        cell = SiteCell(
            layer=-1,
            place=f"dictionary of {self.name}",
            components=self.decomposition.n_components,
            examined=len(self.seen["entries"]),
        )
        metrics = {
            f"{self.name} {t['name']} {way}": t[key]
            for t in self.seen["tables"]
            for way, key in (("features to components", "there"), ("components to features", "back"))
        }
        return Shown(
            exhibits=exhibits,
            map=(cell,),
            tables=(self.quality, *(tables if rows else ())),
            decisions=(
                f"{len(exhibits)} latents of {self.name} were drawn at random from {self.seen['alive']} of "
                f"{self.decomposition.n_components} that are active often enough on explore",
            ),
            metrics=metrics,
        )
