"""The effect side: which outputs a component raises and which it lowers, most reliably first.

Measured: ablate the component where it fires, and add up what that does to every output. The outputs whose
mean change is largest in units of its standard error are named, if the change is also large enough to
matter beside the largest. From weights: direction times unembedding, the cheap first guess, exact where
nothing lies between the component and the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        self._n = 0
        self._total = np.zeros(len(outputs))
        self._squares = np.zeros(len(outputs))

    def update(self, delta: Float[Tensor, "n outputs"]) -> None:
        """Add the changes at some positions: outputs with the component ablated minus without.

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
        self._n += len(change)
        self._total += change.sum(axis=0)
        self._squares += (change * change).sum(axis=0)

    @property
    def effect(self) -> Float[np.ndarray, " outputs"]:
        """What the component adds to each output on average where it fires; the median output gets 0.

        Raises:
            TooLittleData: fewer than two positions were added.
        """
        if self._n < 2:
            raise TooLittleData(
                f"{self._n} position(s) where the component fires", "two or more", "more explored text"
            )
        mean = -self._total / self._n
        return np.asarray(mean - np.median(mean))

    def explain(self) -> Explained:
        """The outputs raised and lowered most reliably.

        Raises:
            TooLittleData: fewer than two positions were added.
        """
        effect = self.effect
        mean = self._total / self._n
        variance = np.maximum(self._squares - self._n * mean * mean, 0.0) / (self._n - 1)
        error = np.sqrt(variance / self._n)
        # An effect without any variation is as reliable as arithmetic allows.
        error = np.maximum(error, 1e-9 * np.abs(effect).max(initial=0.0))
        ratio = np.divide(effect, error, out=np.zeros_like(effect), where=error > 0)
        return _explained(effect, ratio, ratio, FLOOR, self.outputs, METHOD, {"positions": self._n})


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
    raised, lowered = _side(effect, order, ratio, floor, 1.0), _side(effect, order, ratio, floor, -1.0)
    explored: Json = [
        {"output": int(i), "effect": significant(float(effect[i]))} for i in [*raised, *lowered]
    ]
    sets = OutputSets(tuple(raised.tolist()), tuple(lowered.tolist()))
    return Explained(
        Description(
            words=_words([outputs[i] for i in sets.raised], [outputs[i] for i in sets.lowered]),
            effect=sets.executable(),
            about={**about, "raised": len(raised), "lowered": len(lowered)},
        ),
        "effect",
        method,
        bool(sets.raised or sets.lowered),
        {"effects": explored},
    )


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
