"""What the report shows of the neurons of a network that adds modulo p: all of them in figures, one as two images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from prosect.core.exhibits import Figure, FigureTable
from prosect.core.proportions import share
from prosect.core.truth import Truth


def every_neuron(name: str, neurons: Sequence[Mapping[str, Any]], truth: Truth | None) -> FigureTable:
    """How many neurons have a frequency, and how many planted ones were found, where that is known."""
    found = sum(n["found"] for n in neurons)
    total = len(neurons)
    rows = [Figure(name="neurons with a single frequency on explore", measured=share(found, total))]
    if truth is not None and truth.variables:
        right = wrong = 0
        for v in truth.variables:
            if v.kind != "trigonometric":
                continue
            said = neurons[v.index]
            ok = (
                said["found"] and said["description"]["cause"]["parameters"]["k"] == v.parameters["frequency"]
            )
            right, wrong = right + ok, wrong + (not ok)
        rows.append(Figure(name="planted frequencies that were found", measured=share(right, right + wrong)))
        decoys = [v.index for v in truth.variables if v.kind != "trigonometric"]
        fooled = sum(neurons[i]["found"] for i in decoys)
        rows.append(Figure(name="decoys that were given a frequency", measured=share(fooled, len(decoys))))
    return FigureTable(
        title=f"Every neuron of {name}",
        about="explained on explore; what is claimed of the drawn ones was tested",
        rows=tuple(rows),
    )


def grid(values: Float[np.ndarray, " pairs"], p: int) -> tuple[tuple[float, ...], ...]:
    """Numbers of all pairs as rows of an image."""
    table = values.reshape(p, p)
    return tuple(tuple(round(float(x), 4) for x in row) for row in table)
