"""One line for each decomposition: how sparse, how exact, and how much of what is known it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from prosect.decompose.contract import Decomposition
from prosect.decompose.definitions import DIRECTION, LATENT, Definition
from prosect.decompose.evaluation.detection import LabelledStream, detect
from prosect.decompose.quality import measure, recovery

MEANT: dict[str, Definition] = {
    **dict.fromkeys(("found", "real", "mcc", "uniqueness"), DIRECTION),
    **dict.fromkeys(("f1", "precision", "recall", "covered"), LATENT),
}
"""What each column means by a feature; where codes are signed, a direction's opposite will do. Columns of different
definitions are no two measurements of one thing."""


@dataclass(frozen=True)
class Line:
    """What `line` found; see `Quality`, `Recovery` and `Detection` for each number.

    Attributes:
        name: of the decomposition.
        l0: components present at a position.
        fvu: fraction of variance unexplained; None where it cannot decode.
        bias: relative reconstruction bias, below 1 where reconstructions are too small.
        dead: share of components that are never present.
        dense: share present at more than a tenth of positions.
        found: mean over features of the largest cosine with a component.
        real: mean over components of the largest cosine with a feature.
        mcc: mean cosine matched one to one.
        uniqueness: different nearest features over components.
        f1: mean over features of the best component's F1.
        precision, recall: of the same components.
        covered: share of features whose best component has an F1 of .8 or more.
    """

    name: str
    l0: float
    fvu: float | None
    bias: float | None
    dead: float
    dense: float
    found: float
    real: float
    mcc: float
    uniqueness: float
    f1: float
    precision: float
    recall: float
    covered: float


def line(
    decomposition: Decomposition,
    stream: LabelledStream,
    features: Float[Tensor, "features width"],
    name: str = "",
) -> Line:
    """Measure a fitted decomposition against the features that made a held-out stream.

    Args:
        decomposition: fitted, writing one site; one with signed codes had better be wrapped in `KeepLargest`.
        stream: held-out activations with their features.
        features: the true directions.
        name: to show; its own by default.
    """
    quality = measure(decomposition, stream)
    known = recovery(decomposition.directions, features, signed="signed" in decomposition.supports)
    detected = detect(decomposition, stream)
    site = decomposition.writes[0]
    return Line(
        name=name or decomposition.name,
        l0=quality.l0,
        fvu=quality.fvu.get(site),
        bias=quality.bias.get(site),
        dead=quality.dead,
        dense=quality.dense(),
        found=known.features_to_latents,
        real=known.latents_to_features,
        mcc=known.matched,
        uniqueness=known.uniqueness,
        f1=detected.mean(),
        precision=detected.mean("precision"),
        recall=detected.mean("recall"),
        covered=detected.covered(),
    )


def text(lines: Sequence[Line]) -> str:
    """Lines as a table in plain text, what is meant by a feature first, a number that is not there as a dash."""
    columns = [f for f in Line.__dataclass_fields__ if f != "name"]
    rows = [["", *(str(MEANT.get(column, "")) for column in columns)], ["", *columns]]
    for found in lines:
        values = [getattr(found, column) for column in columns]
        rows.append([found.name, *("-" if v is None else f"{v:.3f}" for v in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
