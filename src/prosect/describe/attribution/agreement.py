"""How well a map orders features by what replacing them does, as something that can be measured on any row.

The yardstick is what the network gives when a feature is taken from other rows of the data. A network cannot hide
from that without changing its outputs; it can hide from a gradient (Heo, Joo & Moon 2019, "Fooling neural network
interpretations via adversarial model manipulation").
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from prosect.core.canonical import digest_tensor
from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.describe.attribution.asked import TOKENS, Asked, ask
from prosect.describe.attribution.attribute import METHODS, checked
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.integrated import IntegratedGradients
from prosect.describe.attribution.method import Method
from prosect.describe.attribution.randomise import randomised
from prosect.describe.attribution.ranks import spearman
from prosect.describe.attribution.reference import Reference, reference
from prosect.describe.attribution.replacing import one_by_one
from prosect.describe.executables import Stored
from prosect.model import Model

MAPS = tuple(m for m in METHODS if m != "gradcam")  # whose features are cells of a layer
PLAIN = ("random-order", "recency", "input-size")
"""Orders that look at no network: by chance; later tokens first; what is farthest from the donors first."""


@dataclass(frozen=True, eq=False)
class MapAgreement(Stored):
    """Spearman's correlation over a row's features of a map's absolute values with the effects of replacing them.

    The effect of a feature is the root mean square, over the donors, of what the metric changes by when the
    feature is taken from a donor. The metric is the log-probability of a text's next token, or one output.

    Attributes:
        map: an attribution method, or one of `PLAIN`.
        donors: rows that features are taken from: token ids (donors, positions), or inputs.
        place: ``input_ids``, or the tensor whose numbers are the features.
        output: which output, for numbers.
        steps: of integrated gradients.
        weights: the control: the map, but not the effects, is of the network with random weights of this seed;
            None leaves it as it is.
    """

    map: str
    donors: Shaped[Tensor, "donors ..."]
    place: str = TOKENS
    output: int = 0
    steps: int = 8
    weights: int | None = None

    kind = "map-agreement"

    def __post_init__(self) -> None:
        if self.map not in (*MAPS, *PLAIN):
            raise UnknownName("attribution method", self.map, (*MAPS, *PLAIN))
        if len(self.donors) < 2 or self.steps < 1 or self.output < 0:
            raise BadInput(
                f"{len(self.donors)} donors, {self.steps} steps and output {self.output}",
                "2 donors or more, 1 step or more, an output from 0 on",
            )
        if self.map == "recency" and self.place != TOKENS:
            raise BadInput(f"recency of {self.place}", "recency of tokens: numbers have no order")

    @classmethod
    def measure(
        cls, wanted: Sequence[MapAgreement], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """The correlation in each row; NaN for rows of fewer than three features. Effects are measured once for all.

        Raises:
            ShapeMismatch: rows that the donors do not fit.
            Unsupported: gradients through a quantised model.
        """
        out = np.full((len(wanted), len(batch)), np.nan)
        questions: dict[tuple[str, int, str], list[int]] = {}
        for i, one in enumerate(wanted):
            questions.setdefault((one.place, one.output, digest_tensor(one.donors)), []).append(i)
        for mine in questions.values():
            first = wanted[mine[0]]
            most = first.donors.shape[1] if first.place == TOKENS else 0
            asked = ask(batch, most=most, place=first.place, output=first.output)
            if len(asked.kept) == 0:
                continue
            explicand = asked.explicand(model)
            true = effects(explicand, asked, first.donors)
            ranked = explicand.present.cpu().numpy()
            for i in mine:
                found = np.abs(wanted[i].values(asked, model))
                out[i, asked.kept.numpy()] = spearman(found, true, ranked)
        return out

    def values(self, asked: Asked, model: Model) -> Float[np.ndarray, "rows features"]:
        """The map that is ordered."""
        tensors = list(dict.fromkeys(p for p in model.module.parameters() if p.is_floating_point()))
        changed = (
            nullcontext()
            if self.weights is None
            else randomised(tensors, Seed(self.weights).child("weights"))
        )
        with changed:
            explicand = asked.explicand(model)
            against = reference(explicand, background=asked.background(self.donors))
            if self.map in PLAIN:
                return self._plain(explicand, against)
            method = method_of(self.map, self.steps)
            return checked(method(explicand, against, Seed(0).child("map")), explicand, method).values

    def _plain(self, explicand: Explicand, against: Reference) -> Float[np.ndarray, "rows features"]:
        features = explicand.features
        if self.map == "random-order":
            seed = Seed(0).child("random order")
            drawn = [
                seed.child(r.document, r.offset).numpy().random(features.count) for r in explicand.batch.rows
            ]
            return np.stack(drawn)
        if self.map == "recency":
            return np.tile(np.arange(1.0, features.count + 1), (len(explicand), 1))
        away = (explicand.x - against.points.mean(dim=0)).double().square()
        return np.asarray(features.gather(away).sqrt().cpu().numpy())


def method_of(name: str, steps: int) -> Method:
    """A method by name, integrated gradients with so many steps."""
    return IntegratedGradients(steps=steps) if name == "integrated-gradients" else METHODS[name]()


def effects(
    explicand: Explicand, asked: Asked, donors: Shaped[Tensor, "donors ..."]
) -> Float[np.ndarray, "rows features"]:
    """Root mean square over donors of what the metric changes by when a feature is a donor's; 0 where not ranked."""
    points = reference(explicand, background=asked.background(donors)).points
    present = explicand.present.cpu().numpy()
    rows, features = present.nonzero()
    total = np.zeros(len(rows))
    for donor in points:
        total += one_by_one(explicand, Reference(donor[None], False, "a donor"), rows, features) ** 2
    out = np.zeros(present.shape)
    out[rows, features] = np.sqrt(total / len(points))
    return out
