"""The effect side: which outputs a component raises and which it lowers, most reliably first.

Measured: ablate the component where it fires, and add up what that does to every output. The outputs whose
mean change is largest in units of its standard error are named, if the change is also large enough to
matter beside the largest. From weights: direction times unembedding, the cheap first guess, exact where
nothing lies between the component and the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.records import Description, Executable
from prosect.describe.executables import parameters_of, reading
from prosect.describe.explained import Explained
from prosect.describe.wording import LONGEST_SENTENCE, listing, significant
from prosect.store.shelf import Shelf

METHOD = "effects@1"
DIRECT = "direct-effects@1"
MOST = 10
"""Outputs named on each side."""

FLOOR = 4.0
"""Standard errors that a mean change must exceed."""

BESIDE = 0.1
"""Share of the largest change on its side that a change must reach to be named."""

SPREAD = 3.0
"""For direct effects, which have no standard error: spreads of all outputs that one must exceed."""

NORMAL = 1.4826
"""Median absolute deviation to standard deviation, for normal values."""

SHOWN = (10, 6, 4, 3, 2, 1)


@dataclass(frozen=True)
class OutputSets:
    """The outputs that a component raises and lowers; removing it does the opposite.

    Attributes:
        raised: indices, most reliable first.
        lowered: likewise.

    Raises:
        BadInput: an index is negative, twice on one side, or on both sides.
    """

    raised: tuple[int, ...]
    lowered: tuple[int, ...]

    kind = "output-sets"
    version = 1

    def __post_init__(self) -> None:
        both = [*self.raised, *self.lowered]
        if len(set(both)) != len(both) or any(i < 0 for i in both):
            raise BadInput(f"outputs {both}", "distinct indices of 0 or more")

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> OutputSets:
        """The sets that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            raised, lowered = (tuple(int(i) for i in parameters[side]) for side in ("raised", "lowered"))
            return cls(raised, lowered)

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored."""
        parameters: Json = {"raised": list(self.raised), "lowered": list(self.lowered)}
        return Executable(kind=self.kind, version=self.version, parameters=parameters)

    def outputs(self) -> tuple[list[int], list[int]]:
        """(raised, lowered)."""
        return list(self.raised), list(self.lowered)


class EffectExplainer:
    """What removing one component does to the outputs, added up over explored positions where it fires.

    Changes are taken relative to each position's mean over outputs, which a softmax does not see, and at the
    end to the median output, so that raising a few does not count as lowering all others.

    Args:
        outputs: decoded outputs, for words; their number is the number of outputs.
    """

    method = METHOD

    def __init__(self, outputs: Sequence[str]) -> None:
        if len(outputs) < 2:
            raise BadInput(
                f"{len(outputs)} output(s)", "two or more, by which one can be raised over another"
            )
        self.outputs = outputs
        self._n = np.zeros(2, dtype=int)  # in each of two disjoint document sets
        self._total = np.zeros((2, len(outputs)))
        self._squares = np.zeros((2, len(outputs)))

    def update(self, delta: Float[Tensor, "n outputs"], second: bool = False) -> None:
        """Add the changes at some positions: outputs with the component ablated minus without.

        Args:
            delta: the changes.
            second: whether the positions belong to the second of two disjoint document sets.

        Raises:
            ShapeMismatch: there is not one number for each output.
            NotFinite: one is NaN or infinite.
        """
        change = delta.detach().cpu().double().numpy()
        if change.shape[1] != len(self.outputs):
            raise ShapeMismatch(f"changes of {change.shape[1]} outputs", f"{len(self.outputs)} outputs")
        if not np.isfinite(change).all():
            raise NotFinite(
                "NaN or infinity in changes of outputs", "finite changes", "checking the ablation"
            )
        change -= change.mean(axis=1, keepdims=True)
        self._n[int(second)] += len(change)
        self._total[int(second)] += change.sum(axis=0)
        self._squares[int(second)] += (change * change).sum(axis=0)

    @property
    def effect(self) -> Float[np.ndarray, " outputs"]:
        """What the component adds to each output on average where it fires; the median output gets 0.

        Raises:
            TooLittleData: fewer than two positions were added.
        """
        n = int(self._n.sum())
        if n < 2:
            raise TooLittleData(
                f"{n} position(s) where the component fires", "two or more", "more explored text"
            )
        return _effect(n, self._total.sum(axis=0))

    def explain(self) -> Explained:
        """The outputs raised and lowered most reliably.

        Raises:
            TooLittleData: fewer than two positions were added.
        """
        effect, n = self.effect, int(self._n.sum())
        ratio = _ratio(effect, n, self._total.sum(axis=0), self._squares.sum(axis=0))
        found = _explained(effect, ratio, ratio, FLOOR, self.outputs, METHOD, {"positions": n})
        again = int(self._n[1])
        if again < 2:
            return found
        effect = _effect(again, self._total[1])
        ratio = _ratio(effect, again, self._total[1], self._squares[1])
        return replace(found, second=_named(effect, ratio, ratio, FLOOR).executable())


def _effect(n: int, total: Float[np.ndarray, " outputs"]) -> Float[np.ndarray, " outputs"]:
    mean = -total / n
    return np.asarray(mean - np.median(mean))


def _ratio(
    effect: Float[np.ndarray, " outputs"],
    n: int,
    total: Float[np.ndarray, " outputs"],
    squares: Float[np.ndarray, " outputs"],
) -> Float[np.ndarray, " outputs"]:
    """Mean changes in units of their standard errors."""
    mean = total / n
    error = np.sqrt(np.maximum(squares - n * mean * mean, 0.0) / (n - 1) / n)
    # An effect without any variation is as reliable as arithmetic allows.
    error = np.maximum(error, 1e-9 * np.abs(effect).max(initial=0.0))
    ratio: Float[np.ndarray, " outputs"] = np.divide(
        effect, error, out=np.zeros_like(effect), where=error > 0
    )
    return ratio


def direct(
    direction: Float[Tensor, " width"], unembedding: Float[Tensor, "_ _"], outputs: Sequence[str]
) -> Explained:
    """The first guess from weights: what a component's direction adds to each output directly.

    Args:
        direction: what the component writes for an activation of 1.
        unembedding: final norm folded in.
        outputs: decoded outputs.

    Raises:
        ShapeMismatch: widths or numbers of outputs differ.
        NotFinite: a weight is NaN or infinite.
    """
    if direction.shape[0] != unembedding.shape[1] or unembedding.shape[0] != len(outputs):
        raise ShapeMismatch(
            f"a direction of width {direction.shape[0]}, an unembedding of shape "
            f"{tuple(unembedding.shape)} and {len(outputs)} outputs",
            "(outputs, width)",
        )
    effect = (unembedding.detach().cpu().double() @ direction.detach().cpu().double()).numpy()
    if not np.isfinite(effect).all():
        raise NotFinite("NaN or infinity in a direct effect", "finite weights", "checking the weights")
    effect = effect - np.median(effect)
    spread = NORMAL * float(np.median(np.abs(effect)))
    least = max(SPREAD * spread, 1e-9 * float(np.abs(effect).max(initial=0.0)))
    ratio = effect / least if least > 0 else np.zeros_like(effect)
    return _explained(effect, effect, ratio, 1.0, outputs, DIRECT, {})


def _explained(
    effect: Float[np.ndarray, " outputs"],
    order: Float[np.ndarray, " outputs"],
    ratio: Float[np.ndarray, " outputs"],
    floor: float,
    outputs: Sequence[str],
    method: str,
    about: dict[str, Json],
) -> Explained:
    sets = _named(effect, order, ratio, floor)
    explored: Json = [
        {"output": i, "effect": significant(float(effect[i]))} for i in [*sets.raised, *sets.lowered]
    ]
    return Explained(
        Description(
            words=_words([outputs[i] for i in sets.raised], [outputs[i] for i in sets.lowered]),
            effect=sets.executable(),
            about={**about, "raised": len(sets.raised), "lowered": len(sets.lowered)},
        ),
        "effect",
        method,
        bool(sets.raised or sets.lowered),
        {"effects": explored},
    )


def _named(
    effect: Float[np.ndarray, " outputs"],
    order: Float[np.ndarray, " outputs"],
    ratio: Float[np.ndarray, " outputs"],
    floor: float,
) -> OutputSets:
    raised, lowered = (_side(effect, order, ratio, floor, sign) for sign in (1.0, -1.0))
    return OutputSets(tuple(raised.tolist()), tuple(lowered.tolist()))


def _side(
    effect: Float[np.ndarray, " outputs"],
    order: Float[np.ndarray, " outputs"],
    ratio: Float[np.ndarray, " outputs"],
    floor: float,
    sign: float,
) -> Int[np.ndarray, " named"]:
    largest = float((sign * effect).max(initial=0.0))
    usable = np.flatnonzero((sign * ratio > floor) & (sign * effect >= BESIDE * largest) & (largest > 0))
    return usable[np.argsort(-sign * order[usable], kind="stable")][:MOST]


def _words(raised: list[str], lowered: list[str]) -> str:
    if not raised and not lowered:
        return "no output is reliably raised or lowered"
    text = ""
    for shown in SHOWN:
        parts = [
            f"{verb} {listing(names, shown)}"
            for verb, names in (("raises", raised), ("lowers", lowered))
            if names
        ]
        text = "; ".join(parts)
        if len(text) <= LONGEST_SENTENCE:
            return text
    return text[: LONGEST_SENTENCE - 1] + "…"
