"""The weights of one operation, in terms of the variables it reads: a head, or neurons.

*A head* (`Head`): keys are one-hot vectors, the query of a value is `SHARPNESS` on the keys it selects, less half of
it on all. A selected key scores half the sharpness, another minus that, and the beginning-of-sequence token, whose
keys are zero, nothing at all: it takes all attention exactly where nothing is selected, and gives zero. Attention
that goes astray is at most (positions) · exp(-SHARPNESS / 2), `astray`, at a place. For the width of a selector
that token scores as a selected one and gives 1, so that its share is 1 / (1 + width).

*Neurons* (`Neurons`): one fires for each value, or pair of values, or group of them, that gives one result. The
sum of what it reads is 1 where it holds and at most 0 elsewhere; `MARGIN` keeps it silent where the sum is a little
above 0. For a number it comes with a second one, so that a sum a little off 1 counts as 1, and rounding is gone.
Numbers are told apart by ramps between neighbouring values, flat where the values are.

At the beginning-of-sequence token every variable is zero, but for shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prosect.organisms.compiler.types import Attend, Table, Variable

SHARPNESS = 40.0
MARGIN = 0.25
BOS = "bos"
"""The variable that is 1 at the beginning-of-sequence token and 0 elsewhere."""


@dataclass(frozen=True)
class Head:
    """Weights of one head, acting on row vectors from the right.

    Attributes:
        query: variable → matrix (width, head), ``key`` and ``value`` likewise.
        query_bias: (head,).
        out: (head, width of the variable it makes).
    """

    query: Mapping[str, Float[np.ndarray, "_ head"]]
    query_bias: Float[np.ndarray, " head"]
    key: Mapping[str, Float[np.ndarray, "_ head"]]
    value: Mapping[str, Float[np.ndarray, "_ value"]]
    out: Float[np.ndarray, "value width"]


@dataclass(frozen=True)
class Neurons:
    """Weights of some neurons.

    Attributes:
        up: variable → matrix (width, neurons).
        bias: (neurons,).
        down: (neurons, width of the variable they make).
        says: for each neuron, when it fires, in words.
    """

    up: Mapping[str, Float[np.ndarray, "_ neurons"]]
    bias: Float[np.ndarray, " neurons"]
    down: Float[np.ndarray, "neurons width"]
    says: tuple[str, ...]


def astray(length: int) -> float:
    """Attention on places that were not selected, at most, where every score is exact."""
    return length * math.exp(-SHARPNESS / 2)


def head(step: Attend, by_name: Mapping[str, Variable]) -> Head:
    """The head of a select and what is done with it."""
    query, key = by_name[step.query], by_name[step.key]
    k, q = len(key.values), len(query.values)
    chosen = step.chosen[:k, :q].T.astype(float)
    reads_bos = step.form == "share"
    width = k + reads_bos
    pad = ((0, 0), (0, int(reads_bos)))
    bias = np.full(width, -SHARPNESS / 2)
    keys = {step.key: np.pad(np.eye(k), pad)}
    if reads_bos:
        bias[-1] = SHARPNESS / 2
        keys[BOS] = np.eye(1, width, width - 1)
        value, out = {BOS: np.ones((1, 1))}, np.ones((1, 1))
    else:
        assert step.value is not None
        n = by_name[step.value].width
        value, out = {step.value: np.eye(n)}, np.eye(n)
    return Head({step.query: np.pad(SHARPNESS * chosen, pad)}, bias, keys, value, out)


def neurons(step: Table, by_name: Mapping[str, Variable]) -> Neurons:
    """The neurons of a function of one or two variables."""
    of = [by_name[name] for name in step.of]
    made = _Made(step, [*of, Variable(BOS, (True,))])
    vectors = step.out.vectors()
    if step.factors is not None:
        for name, factor in zip(step.of, step.factors, strict=True):
            for sign in (1.0, -1.0):
                made.add({name: np.array([sign])}, 0.0, np.array([sign * factor]), f"{sign:+.0f} · {name}")
        return made.neurons()
    if of[0].numerical:
        _ramps(made, of[0], step.codes, vectors)
        return made.neurons()
    codes = step.codes if len(of) == 2 else step.codes[None, :]
    one = of[0] if len(of) == 2 else None
    last = of[-1]
    for i, row in enumerate(codes):
        first_is_nothing = one is not None and i == len(codes) - 1
        if first_is_nothing and not one.may_be_nothing:  # type: ignore[union-attr]
            continue
        for code in sorted({int(c) for c in row} - {-1, -2}):
            if not vectors[code].any():
                continue
            _group(made, one, i, first_is_nothing, last, np.flatnonzero(row == code), vectors[code])
    return made.neurons()


def _group(
    made: _Made,
    one: Variable | None,
    i: int,
    first_is_nothing: bool,
    last: Variable,
    codes: np.ndarray,
    vector: Float[np.ndarray, " width"],
) -> None:
    """Neurons for one value of the first variable, if there are two, and those of the last that give one result."""
    nothing = len(last.values)
    sums: dict[str, np.ndarray] = {}
    offset = 0.0
    said = ""
    if one is not None:
        sums[one.name] = -np.ones(one.width) if first_is_nothing else np.eye(one.width)[i]
        offset += 0.0 if first_is_nothing else -1.0
        said = f"{one.name} is {'nothing' if first_is_nothing else one.values[i]!s}, "
    there = [int(c) for c in codes if c != nothing]
    if there:
        own = np.zeros(last.width)
        own[there] = 1.0
        shown = " or ".join(str(last.values[c]) for c in there)
        made.threshold(_with(sums, last.name, own), offset, vector, f"{said}{last.name} is {shown}")
    if nothing in codes and last.may_be_nothing:
        gone = _with(sums, last.name, -np.ones(last.width))
        if one is None or first_is_nothing:  # nothing is read there that would be absent at the first token
            gone[BOS] = -np.ones(1)
        made.threshold(gone, offset + 1.0, vector, f"{said}{last.name} is nothing")


def _with(sums: Mapping[str, np.ndarray], name: str, more: np.ndarray) -> dict[str, np.ndarray]:
    """With ``more`` read of a variable, which may be the same one twice."""
    return {**sums, name: sums[name] + more if name in sums else more}


@dataclass(frozen=True)
class Ramps:
    """How a function of a number is put together: what it is in the middle, and a change on the way to either end.

    A ramp stays up from where it rises, and the rounding of what is up stays too. Those below the middle rise
    downwards and the others upwards, so that at any number only the ramps of one side are up, each by its distance.

    Attributes:
        bends: the values after which the function changes, by their number, ascending.
        below: how many of them, the first ones, rise downwards.
        largest: activation of a neuron, at most.
        total: of all activations together at one number, at most.
    """

    bends: Int[np.ndarray, " bends"]
    below: int
    largest: float
    total: float

    @classmethod
    def of(cls, variable: Variable, codes: Int[np.ndarray, " n"]) -> Ramps:
        """For a function that gives ``codes`` of the values of a number; what follows them is not read."""
        values = np.array([float(v) for v in variable.values])
        bends = np.flatnonzero(np.diff(codes[: len(values)]))
        gaps = np.diff(values)[bends]
        middle = values[bends] + gaps / 2
        # Of the two neurons of a ramp one starts a quarter of the gap before its middle, the other as much after it.
        down, up = (np.abs(end - middle) * 2 / gaps for end in (values[0], values[-1]))
        sides = [(2 * float(down[:i].sum()), 2 * float(up[i:].sum())) for i in range(len(bends) + 1)]
        below = min(range(len(sides)), key=lambda i: max(sides[i]))
        reached = np.concatenate([down[:below], up[below:]])
        return cls(bends, below, float(reached.max(initial=0.0)) + 0.5, max(sides[below]))


def _ramps(made: _Made, of: Variable, codes: np.ndarray, vectors: np.ndarray) -> None:
    """A function of a number: what it is in the middle, and a change between neighbours that differ."""
    values = np.array([float(v) for v in of.values])
    codes = codes[: len(values)]
    ramps = Ramps.of(of, codes)
    start = 0 if not ramps.below else ramps.bends[ramps.below - 1] + 1
    if vectors[codes[start]].any():
        made.add({BOS: -np.ones(1)}, 1.0, vectors[codes[start]], "always")
    silent = 3 * max(1.0, *np.abs(values))  # at the first token, whatever is read there
    for number, i in enumerate(ramps.bends):
        sign = -1.0 if number < ramps.below else 1.0
        slope = 2 / (values[i + 1] - values[i])
        before, after = (i, i + 1) if sign > 0 else (i + 1, i)
        change = vectors[codes[after]] - vectors[codes[before]]
        quarter = (values[after] - values[before]) / 4
        for weight, start in ((1.0, values[before] + quarter), (-1.0, values[after] - quarter)):
            read = {of.name: np.array([sign * slope]), BOS: np.array([-slope * silent])}
            side = "above" if sign > 0 else "below"
            made.add(read, -sign * slope * start, weight * change, f"{of.name} {side} {start:.4g}")


class _Made:
    """Neurons being collected."""

    def __init__(self, step: Table, of: list[Variable]) -> None:
        self.width = {v.name: v.width for v in of}
        self.out, self.caps = step.out.width, step.out.numerical
        self.rows: list[tuple[Mapping[str, np.ndarray], float, np.ndarray, str]] = []

    def add(self, up: Mapping[str, np.ndarray], bias: float, down: np.ndarray, says: str) -> None:
        self.rows.append((up, bias, down, says))

    def threshold(self, sums: Mapping[str, np.ndarray], offset: float, down: np.ndarray, says: str) -> None:
        """A neuron that gives 1 where the sums and the offset make 1, and nothing up to `MARGIN` / (1 + `MARGIN`).

        With caps it is twice as steep, and comes with a second neuron that takes away what is above 1.
        """
        if not self.caps:
            gain = 1 + MARGIN
            up = {name: gain * w for name, w in sums.items()}
            self.add(up, gain * offset - MARGIN, down, says)
            return
        up = {name: w / (1 - 2 * MARGIN) for name, w in sums.items()}
        for sign, start in ((1.0, MARGIN), (-1.0, 1 - MARGIN)):
            self.add(up, (offset - start) / (1 - 2 * MARGIN), sign * down, says)

    def neurons(self) -> Neurons:
        n = len(self.rows)
        names = list(dict.fromkeys(name for row in self.rows for name in row[0]))
        up = {name: np.zeros((self.width[name], n)) for name in names}
        for j, row in enumerate(self.rows):
            for name, weights in row[0].items():
                up[name][:, j] = weights
        down = np.array([row[2] for row in self.rows]).reshape(n, self.out)
        return Neurons(up, np.array([row[1] for row in self.rows]), down, tuple(row[3] for row in self.rows))
