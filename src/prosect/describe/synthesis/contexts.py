"""What units do on text, read once for all of them, so that strings made for them can stand beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from prosect.core.errors import TooLittleData
from prosect.data.batch import Batch
from prosect.describe.synthesis.unit import Unit
from prosect.model import Model
from prosect.model.inputs import of_ids

SHOWN = 24
"""Tokens kept of a best example."""


@dataclass(frozen=True)
class OnText:
    """One unit on some text.

    Attributes:
        spread: standard deviation over scored positions, in the unit's own units.
        best: the largest activation at a position that has enough scored tokens before it.
        tokens: the text up to that position, at most `SHOWN` of it.
        values: the activation at each of them.
        document: where it is.
        positions: scored positions looked at.
    """

    spread: float
    best: float
    tokens: tuple[int, ...]
    values: tuple[float, ...]
    document: str
    positions: int


def on_text(model: Model, units: Sequence[Unit], batches: Iterable[Batch], length: int) -> list[OnText]:
    """Every unit on the same text, in one pass.

    Args:
        model: a language model.
        units: of any sites.
        batches: the text.
        length: a best example must have this many scored tokens, its own position included.

    Raises:
        TooLittleData: no position has as many.
    """
    sums = np.zeros((len(units), 3))
    found: list[OnText | None] = [None] * len(units)
    sites = list(dict.fromkeys(u.capture(model) for u in units))
    for given in batches:
        batch = given.to(model.device)
        trace = model.run(batch, sites, stop_early=True)
        scored = batch.scored
        assert scored is not None  # text has positions
        enough = scored & (scored.long().cumsum(dim=1) >= length)
        for i, unit in enumerate(units):
            x = unit.everywhere(model, trace).double()
            flat = x[scored]
            sums[i] += (len(flat), float(flat.sum()), float((flat * flat).sum()))
            if not bool(enough.any()):
                continue
            y = x.masked_fill(~enough, -torch.inf)
            row, at = divmod(int(y.argmax()), y.shape[1])
            before = found[i]
            if before is None or float(y[row, at]) > before.best:
                start = max(int(scored[row].int().argmax()), at + 1 - SHOWN)
                found[i] = OnText(
                    0.0,
                    float(y[row, at]),
                    tuple(batch.tensors["input_ids"][row, start : at + 1].tolist()),
                    tuple(x[row, start : at + 1].tolist()),
                    batch.rows[row].document,
                    0,
                )
    out = []
    for one, (n, total, square) in zip(found, sums, strict=True):
        if one is None:
            raise TooLittleData(
                f"no explored text of {length} tokens", "at least one", "a shorter string, or longer text"
            )
        spread = float(np.sqrt(max(0.0, square / n - (total / n) ** 2)))
        out.append(OnText(spread, one.best, one.tokens, one.values, one.document, int(n)))
    return out


def over(
    model: Model, unit: Unit, strings: Sequence[Sequence[int]], prefix: Sequence[int] = ()
) -> list[Float[np.ndarray, " length"]]:
    """The unit at every token of some strings, each with nothing but ``prefix`` before it."""
    batch = model.batch(of_ids([[*prefix, *s] for s in strings])).to(model.device)
    x = unit.everywhere(model, model.run(batch, [unit.capture(model)], stop_early=True)).double().cpu()
    lead = len(prefix)
    return [x[i, lead : lead + len(s)].numpy() for i, s in enumerate(strings)]
