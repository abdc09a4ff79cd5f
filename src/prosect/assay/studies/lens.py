"""Where a prediction can be read on its way: a lens at every layer, trained on one half of explore and read on the other.

Claimed of every layer: that a trained affine map reads the model's own prediction there, on documents nobody had
seen, nearer than the model's unembedding does as it stands, and nearer than the same map on a stream turned at
random. What a lens reads describes where a prediction forms; it says nothing of what causes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prosect.assay import plans
from prosect.assay.explored import thinned, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, extent, folds
from prosect.core.exhibits import Exhibit, SiteCell
from prosect.core.pictures import Curve, LensTable, Reading, Series
from prosect.core.records import Component, Description, Hypothesis, Measured, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.describe.lens.lens import stream_sites
from prosect.describe.lens.nearness import LensNearness, Which
from prosect.describe.lens.reading import LensReading
from prosect.describe.lens.training import Training, fit
from prosect.describe.lens.tuned import Translator, TunedLens, evaluate
from prosect.describe.lens.view import NOTHING, LensView
from prosect.model.unembed import readout
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations

METHOD = "tuned-lens@1"
TEXTS = 2
"""Windows that are read layer by layer in the report."""
LONGEST = 24
"""Positions shown of each."""


class LensStudy:
    """The study of what the stream already says at each layer.

    Args:
        spec: the run's; its ``lens`` table says how the lens is trained.
        run: where the lens and its reading are kept.
        subject: the model and its text.
    """

    name = "lens"

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject) -> None:
        self.spec, self.run, self.subject = spec, run, subject
        self.seed = Seed(spec.seed).child("lens")
        readout(subject.model)  # a model without one is refused before anything runs
        last = f"resid_post.{(subject.model.n_layers or 1) - 1}"
        self.sites = tuple(s for s in stream_sites(subject.model) if s != last)

    def explore(self) -> None:
        """Train on the first document set of explore, read on the second."""
        tensors, self.seen = self.run.tensor_step("lens", {"study": self.name}, self._look)
        self.translators = {s: Translator(tensors[f"weight.{s}"], tensors[f"bias.{s}"]) for s in self.sites}

    def _look(self) -> tuple[dict[str, Tensor], Any]:
        asked, model = self.spec.lens, self.subject.model
        halves = [[b.to(model.device) for b in half] for half in self._halves()]
        training = Training(steps=asked.steps, rate=asked.rate, seed=self.seed.child("training").integer)
        workspace = self.run.workspace("lens", {"study": self.name})
        lens = fit(model, halves[0], self.sites, training, workspace / "training.safetensors")
        # counted and not metered: training that was killed goes on from its checkpoint, and has cost as much
        self.subject.add("explore", extent(self._steps(halves[0])).rows)
        with self.subject.metered("explore"):
            found = evaluate(model, lens, halves[1], seed=self.seed.integer, shown=0, top=1)
            views = self._drawn(lens, halves[1])
        self.run.discard(workspace)
        tensors = {f"weight.{s}": t.weight.cpu() for s, t in lens.translators.items()}
        tensors |= {f"bias.{s}": t.bias.cpu() for s, t in lens.translators.items()}
        return tensors, {
            "curves": _curves(found),
            "less": {g.site: g.less.model_dump(mode="json") for g in found.gains},
            "documents": found.n,
            "positions": found.positions,
            "pictures": [self._table(v).model_dump(mode="json") for v in views],
        }

    def _halves(self) -> tuple[list[Batch], list[Batch]]:
        """Batches of the first and of the second document set of explore."""
        batches, second = thinned(
            self.subject.source, self.spec.describe.tokens, self.seed.child("explore"), self.subject.rows
        )
        first, rest = (
            [b for b, s in zip(batches, second, strict=True) if s == half] for half in (False, True)
        )
        return first, rest

    def _steps(self, batches: list[Batch]) -> list[Batch]:
        """The batches of all steps of training; those without a scored position are passed over."""
        some = [b for b in batches if b.count]
        return [some[i % len(some)] for i in range(self.spec.lens.steps if some else 0)]

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Training by the step, then every lens read once; each reading takes an unembedding of its own."""
        model, sites, test = self.subject.model, len(self.sites), folds(parts)
        first, second = self._halves()
        steps, read = self._steps(first), extent(second)
        width = model.d_model or 0
        each = 2.0 * width * (width + (model.vocab_size or 0))  # one lens at one position
        positions = sum(min(b.count, Training().positions) for b in steps)
        train = extent(steps)
        return Planned(
            ", ".join(self.sites),
            (
                Work(
                    f"{len(steps)} steps of training",
                    train.rows,
                    train.length,
                    flops=3 * each * positions * sites,
                ),
                Work("reading", read.rows + TEXTS, read.length, flops=3 * each * read.positions * sites),
            ),
            (Work("reading", test.rows, test.length, flops=3 * each * test.positions * sites),),
            3 * 4 * sites * width * (width + 1),
        )

    def _drawn(self, lens: TunedLens, batches: list[Batch]) -> list[LensView]:
        """A few windows, drawn at random, read layer by layer."""
        places = [(b, i) for b in batches for i in range(len(b))]
        order = self.seed.child("windows").numpy().permutation(len(places))[:TEXTS]
        some = [places[k][0].select([places[k][1]]) for k in sorted(order.tolist())]
        return [evaluate(self.subject.model, lens, [one], shown=1, top=1).shown[0] for one in some]

    def _table(self, view: LensView) -> LensTable:
        words = vocabulary(self.subject.source).strings
        shown = range(min(LONGEST, len(view.tokens)))
        return LensTable(
            title=f"What the tuned lens reads in {view.source}",
            about="the likeliest token at each layer and position; a window drawn at random from explored text that the lens was not trained on",
            tokens=tuple(words[view.tokens[p]] for p in shown),
            layers=view.sites,
            readings=tuple(
                tuple(
                    Reading(
                        token=words[int(view.top[s, p, 0])],
                        probability=float(view.probability[s, p, 0]),
                        rank=None if view.target[p] == NOTHING else int(view.target_rank[s, p]) + 1,
                    )
                    for p in shown
                )
                for s in range(len(view.sites))
            ),
        )

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """One claim for every layer; all of them, so none is chosen."""
        if round > 1:
            return []
        return [self._claim(site, fold) for site in self.sites]

    def _component(self, site: str) -> Component:
        return Component(
            decomposition=f"lens@{site}", index=0, reads=(site,), width=self.subject.model.d_model or 1
        )

    def _claim(self, site: str, fold: str) -> Hypothesis:
        shelf, pair = self.subject.shelf, self.translators[site]

        def made(which: Which) -> Any:
            return LensNearness(site, which, None if which == "logit" else pair).executable(shelf)

        less = Measured.model_validate(self.seen["less"][site])
        return Hypothesis(
            round=1,
            component=self._component(site),
            side="effect",
            description=Description(
                words=f"a trained map reads the model's prediction at {site} nearer than the unembedding alone",
                effect=made("tuned"),
            ),
            explainer=METHOD,
            draw="all",
            tests=(plans.reads(self.spec, fold, logit=made("logit"), turned=made("turned")),),
            scope=self.subject.scope,
            explored={"gain over the logit lens": less.estimate},
        )

    # -- what is shown -----------------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """No organism says what a layer holds of its prediction."""
        return None

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """KL by layer for each lens, and some windows read layer by layer."""
        curve = Curve(
            title="How far each layer's reading is from the model's prediction",
            about=(
                f"explored: {self.seen['documents']} documents, {self.seen['positions']:,} positions, that the tuned lens "
                "was not trained on; the control reads a stream turned at random"
            ),
            along="blocks the stream has passed",
            doses=tuple(float(self._passed(s)) for s in self.sites),
            series=tuple(
                Series(
                    name=name,
                    role=role,
                    measured=tuple(Measured.model_validate(m) for m in self.seen["curves"][key]),
                )
                for name, role, key in (
                    ("tuned lens", "own", "tuned"),
                    ("logit lens", "control", "logit"),
                    ("tuned lens, stream turned", "control", "turned"),
                )
            ),
            unit="KL to the model's output (nats)",
        )
        exhibits = [
            Exhibit(
                component=self._component(site),
                kind="layer",
                site=site,
                layer=self._layer(site),
                facts={"site": site},
                units_drawn="every layer but the last, whose logit lens is the model itself",
            )
            for site in self.sites
        ]
        return Shown(
            exhibits=exhibits,
            map=[
                SiteCell(
                    layer=self._layer(s), place=f"layers on {s.rsplit('.', 1)[0]}", components=1, examined=1
                )
                for s in self.sites
            ],
            pictures=(curve, *(LensTable.model_validate(p) for p in self.seen["pictures"])),
            decisions=(
                f"a lens of {len(self.sites)} layers was trained for {self.spec.lens.steps} steps on the first of two "
                "document sets of explore and read on the second",
            ),
            limits=("a lens says where a prediction can be read, not what causes it",),
        )

    @staticmethod
    def _passed(site: str) -> int:
        kind, layer = site.rsplit(".", 1)
        return int(layer) + (kind != "resid_pre")

    @staticmethod
    def _layer(site: str) -> int:
        return int(site.rsplit(".", 1)[1])


def _curves(found: LensReading) -> dict[str, list[dict[str, Any]]]:
    return {
        "tuned": [layer.kl.model_dump(mode="json") for layer in found.layers],
        "turned": [layer.control.model_dump(mode="json") for layer in found.layers],
        "logit": [gain.other.model_dump(mode="json") for gain in found.gains],
    }
