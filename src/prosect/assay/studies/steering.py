"""What a direction does by dose: more and more of it added to the stream, beside random directions as long.

The direction that goes with a token comes from the stream before that token and elsewhere, in the first document set of
explore: the difference of means, or the normal of a probe as long; or it is what a given latent writes. The curve is read on the second. Every dose is claimed and measured anew on
documents that nobody had seen, against random directions of the same length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.assay import plans
from prosect.assay.explored import thinned, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, cell, extent, folds, sample
from prosect.core.errors import BadInput
from prosect.core.exhibits import Exhibit, SiteCell
from prosect.core.pictures import Curve, Series
from prosect.core.records import Component, Description, Executable, Hypothesis, Measured, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.data.tokens import TokenSource
from prosect.decompose.keep import load_decomposition
from prosect.describe.direction import Before, Vector, as_long_as
from prosect.describe.dose import dose_curve
from prosect.describe.steered import SteerEffect, log_probability
from prosect.model import steer
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations

METHODS: dict[Vector, str] = {"means": "difference-of-means@1", "probe": "probe@1", "latent": "latent@1"}


class Steering:
    """The study of one direction at one site.

    Args:
        spec: the run's; its ``steer`` table names the token, the site and the doses.
        run: where the direction and its curve are kept.
        subject: the model and its text.
    """

    name = "steering"

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject) -> None:
        self.spec, self.run, self.subject = spec, run, subject
        self.seed = Seed(spec.seed).child("steering")
        model = subject.model
        self.site = model.sites.resolve(spec.steer.site or f"resid_post.{(model.n_layers or 1) // 2}")
        self.token = self._named(spec.steer.token)

    def _named(self, text: str) -> int:
        source = self.subject.source
        assert isinstance(source, TokenSource)  # language models are opened on text
        ids = source.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        if len(ids) != 1:
            said = " ".join(repr(source.tokenizer.decode([i])) for i in ids[:6])
            raise BadInput(
                f"the token {text!r}, which is {len(ids)} tokens{f' ({said})' if said else ''}",
                "a single token to steer toward",
                "--token, and mind the space before a word",
            )
        return int(ids[0])

    def explore(self) -> None:
        """The direction from the first document set of explore, its curve on the second."""
        tensors, self.seen = self.run.tensor_step("steering", {"study": self.name}, self._look)
        self.direction = tensors["direction"]

    def _look(self) -> tuple[dict[str, Tensor], Any]:
        model = self.subject.model
        first, few = ([b.to(model.device) for b in half] for half in self._halves())
        with self.subject.metered("explore"):
            direction, counts = self._direction(first)
            curve = dose_curve(
                model,
                Batch.joined(few),
                self.site,
                direction,
                log_probability(self.token),
                self.spec.steer.strengths,
                controls=self.spec.steer.controls,
                seed=self.seed.integer,
            )
        return {"direction": direction.cpu().float()}, {
            "before": counts[0],
            "elsewhere": counts[1],
            "length": curve.length,
            "stream": curve.stream,
            "documents": curve.n,
            "slope": curve.slope.model_dump(mode="json"),
            "linear": curve.linear.model_dump(mode="json"),
            "doses": [
                {
                    "strength": d.strength,
                    "change": d.change.model_dump(mode="json"),
                    "control": d.control.model_dump(mode="json"),
                    "side": d.side.model_dump(mode="json"),
                }
                for d in curve.doses
            ],
        }

    def _halves(self) -> tuple[list[Batch], list[Batch]]:
        """Batches of the first document set of explore, and as many of the second as the curve is read on."""
        batches, second = thinned(
            self.subject.source, self.spec.describe.tokens, self.seed.child("explore"), self.subject.rows
        )
        first, rest = (
            [b for b, s in zip(batches, second, strict=True) if s == half] for half in (False, True)
        )
        return first, rest[: max(1, self.spec.steer.rows // self.subject.rows)]

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """A pass for the direction; every dose of it and of the controls, on explore once more for the side effect."""
        model, asked, test = self.subject.model, self.spec.steer, folds(parts)
        first, few = map(extent, self._halves())
        doses = len({s for s in asked.strengths if s}) * (1 + asked.controls)
        batch = sample(self._halves()[1]).to(model.device)
        width = model.sites.info(self.site).width or 1
        each = cell(model, [steer(self.site, torch.ones(width, device=model.device))], batch) / len(batch)
        return Planned(
            self.site,
            (
                Work("the direction", first.rows * (1.0 if self._layer < 0 else self._share), first.length),
                Work(f"{doses} doses, twice", few.rows * (4 + 2 * doses * each), few.length),
            ),
            (Work(f"{doses} doses", test.rows * (1 + doses * each), test.length),),
        )

    @property
    def _share(self) -> float:
        """How much of a pass there is up to the site."""
        return (self._layer + 1) / (self.subject.model.n_layers or 1)

    def _direction(self, batches: list[Batch]) -> tuple[Float[Tensor, " width"], tuple[int, int]]:
        """As the spec asks, from the stream where the token comes next and elsewhere."""
        found = Before(self.seed.child("direction"))
        for batch in batches:
            x = self.subject.model.run(batch, [self.site], stop_early=True)[self.site]
            ids, scored = batch.tensors["input_ids"], batch.scored
            assert scored is not None  # text has positions
            follows = torch.zeros_like(scored)
            follows[:, :-1] = ids[:, 1:] == self.token
            found.add(x, scored & follows, scored & ~follows)
        found.check(self.spec.steer.token)
        counts = (found.counts[0], found.counts[1])
        match self.spec.steer.vector:
            case "probe":
                return found.probe(), counts
            case "latent":
                return as_long_as(self._latent().to(found.totals[0]), found.means()).float(), counts
        return found.means(), counts

    def _latent(self) -> Float[Tensor, " width"]:
        """What the latent that was asked for writes at the site.

        Raises:
            BadInput: no dictionary or no such latent was named, or it writes elsewhere.
        """
        asked = self.spec.steer
        if not asked.dictionary:
            raise BadInput("a latent of no dictionary", "one that was saved", "--dictionary FILE")
        held = load_decomposition(Path(asked.dictionary), self.subject.model.digest)
        if held.writes[0] != self.site:
            raise BadInput(
                f"a dictionary that writes {held.writes[0]}", f"one that writes {self.site}", "--site"
            )
        held.component(asked.latent)  # refuses one that is not there
        return held.directions[asked.latent]

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """One claim for every dose; all of them, so none is chosen."""
        if round > 1:
            return []
        return [self._claim(i, d, fold) for i, d in enumerate(self.seen["doses"]) if d["strength"]]

    def _component(self, number: int) -> Component:
        width = int(self.direction.shape[0])
        return Component(
            decomposition=f"dose@{self.site}",
            index=number,
            reads=(self.site,),
            writes=(self.site,),
            width=width,
        )

    def _claim(self, number: int, dose: Any, fold: str) -> Hypothesis:
        shelf, strength = self.subject.shelf, float(dose["strength"])
        change = Measured.model_validate(dose["change"]).estimate or 0.0
        sign = 1 if change >= 0 else -1

        def made(direction: Tensor) -> Executable:
            return SteerEffect(self.site, direction, strength, self.token, sign).executable(shelf)

        name = vocabulary(self.subject.source).strings[self.token]
        return Hypothesis(
            round=1,
            component=self._component(number),
            side="effect",
            description=Description(
                words=f"adding {strength:g} times the direction of `{name}` at {self.site} makes it "
                f"{'likelier' if sign > 0 else 'less likely'}",
                effect=made(self.direction),
            ),
            explainer=METHODS[self.spec.steer.vector],
            draw="all",
            tests=(plans.steers(self.spec, fold, random=[made(r) for r in self._random()]),),
            scope=self.subject.scope,
            explored={"rise": sign * change},
        )

    def _random(self) -> list[Tensor]:
        """Directions as long, drawn uniformly."""
        out = []
        for i in range(self.spec.steer.controls):
            drawn = torch.randn(self.direction.shape, generator=self.seed.child("random", i).torch())
            out.append(drawn * (self.direction.norm() / drawn.norm()))
        return out

    # -- what is shown -----------------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """No organism says what a difference of means does."""
        return None

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """The curves by dose: the effect, random directions, and what else changes."""
        doses = self.seen["doses"]
        name = vocabulary(self.subject.source).strings[self.token]

        def series(label: str, role: Any, key: str) -> Series:
            return Series(
                name=label, role=role, measured=tuple(Measured.model_validate(d[key]) for d in doses)
            )

        strengths = tuple(float(d["strength"]) for d in doses)
        about = f"explored, {self.seen['documents']} documents; the direction's length is {self.seen['length']:.3g}, the stream's {self.seen['stream']:.3g}"
        pictures = (
            Curve(
                title=f"Adding the direction of `{name}` at {self.site}",
                about=about,
                along="strength",
                doses=strengths,
                series=(
                    series("this direction", "own", "change"),
                    series("random directions", "control", "control"),
                ),
                unit="change of its log-probability (nats)",
            ),
            Curve(
                title="What else it changes",
                about=f"{about}; KL between the outputs with and without it, at the same positions",
                along="strength",
                doses=strengths,
                series=(series("all outputs", "side effect", "side"),),
                unit="KL (nats)",
            ),
        )
        exhibits = [
            Exhibit(
                component=self._component(i),
                kind="dose",
                site=self.site,
                layer=self._layer,
                facts={"strength": float(d["strength"])},
                units_drawn="every dose that was asked for",
            )
            for i, d in enumerate(doses)
            if d["strength"]
        ]
        return Shown(
            exhibits=exhibits,
            map=[
                SiteCell(
                    layer=self._layer,
                    place=f"doses on {self.site.split('.')[0]}",
                    components=len(exhibits),
                    examined=len(exhibits),
                )
            ],
            pictures=pictures,
            decisions=(f"the direction is {self._how(name)}",),
            limits=(
                "a token made likelier by force says little of what the direction does at its usual size",
            ),
        )

    def _how(self, name: str) -> str:
        """Where the direction comes from, in words."""
        there = f"{self.seen['before']:,} explored positions that `{name}` follows"
        others = f"{self.seen['elsewhere']:,} others"
        match self.spec.steer.vector:
            case "probe":
                return (
                    f"the normal of a logistic regression at {self.site} that tells {there} from a sample of {others}, "
                    "as long as the difference of their means"
                )
            case "latent":
                return (
                    f"what latent {self.spec.steer.latent} of {Path(self.spec.steer.dictionary).name} writes, as long as the "
                    f"difference of means between {there} and {others}"
                )
        return f"the mean of {self.site} at {there}, minus its mean at {others}"

    @property
    def _layer(self) -> int:
        parts = self.site.split(".")
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else -1
