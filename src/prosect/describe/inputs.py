"""Rules over numeric inputs: a component that fires when a few input features are large enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.intervals import Correlation
from prosect.core.records import Description, Executable
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.executables import parameters_of, reading
from prosect.describe.explained import Explained
from prosect.describe.wording import significant
from prosect.store.shelf import Shelf

METHOD = "inputs@1"
MOST = 3
"""Input features that a rule may name."""

WORTH = 0.005
"""Share of the variance that makes a further feature worth naming."""

STEPS = 30
"""Of Gauss-Newton, at most."""


@dataclass(frozen=True)
class InputRule:
    """relu(Σ cⱼ sⱼ + b) over a few features of a numeric input.

    Attributes:
        tensor: name of the batch's tensor, (n, features).
        inputs: which features.
        coefficients: one for each.
        bias: b.

    Raises:
        BadInput: features repeat or are negative, coefficients are missing, or a number is not finite.
    """

    tensor: str
    inputs: tuple[int, ...]
    coefficients: tuple[float, ...]
    bias: float

    kind = "input-rule"
    version = 1

    def __post_init__(self) -> None:
        numbers = (*self.coefficients, self.bias)
        if (
            len(self.inputs) != len(self.coefficients)
            or len(set(self.inputs)) != len(self.inputs)
            or any(i < 0 for i in self.inputs)
            or not all(math.isfinite(v) for v in numbers)
        ):
            raise BadInput(
                f"inputs {self.inputs} with {numbers}", "distinct inputs, a finite coefficient each"
            )

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> InputRule:
        """The rule that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            return cls(
                str(parameters["tensor"]),
                tuple(int(i) for i in parameters["inputs"]),
                tuple(float(c) for c in parameters["coefficients"]),
                float(parameters["bias"]),
            )

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored."""
        parameters: Json = {
            "tensor": self.tensor,
            "inputs": list(self.inputs),
            "coefficients": list(self.coefficients),
            "bias": self.bias,
        }
        return Executable(kind=self.kind, version=self.version, parameters=parameters)

    def activation(self, batch: Batch) -> Float[np.ndarray, " n"]:
        """The predicted activation of every input.

        Raises:
            BadInput: the batch has no such tensor, or that has positions or too few features.
        """
        if self.tensor not in batch.tensors or batch.mask is not None:
            raise BadInput(
                f"a batch of {', '.join(batch.tensors)}",
                f"{self.tensor!r}, a numeric input without positions",
            )
        values = batch.tensors[self.tensor].detach().cpu().double().numpy()
        if values.ndim != 2 or values.shape[1] <= max(self.inputs, default=-1):
            raise BadInput(
                f"{self.tensor} of shape {values.shape}", f"input {max(self.inputs, default=0)} in it"
            )
        return self._run(values)

    def _run(self, values: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " n"]:
        linear = values[:, list(self.inputs)] @ np.array(self.coefficients) if self.inputs else 0.0
        return np.asarray(np.maximum(np.broadcast_to(linear + self.bias, len(values)), 0.0))

    @property
    def words(self) -> str:
        """The rule as a sentence."""
        if not self.inputs:
            return "no input found: its mean activation everywhere"
        order = sorted(range(len(self.inputs)), key=lambda j: -abs(self.coefficients[j]))
        up = [self.inputs[j] for j in order if self.coefficients[j] > 0]
        down = [self.inputs[j] for j in order if self.coefficients[j] < 0]
        on = f"fires on {_inputs(up)}" if up else "fires unless held down"
        return f"{on}, held down by {_inputs(down)}" if down else on


def _inputs(which: list[int]) -> str:
    return " and ".join(f"input {i}" for i in which)


class InputExplainer:
    """Explains components by rules over numeric inputs, by orthogonal matching pursuit.

    Features are added greedily, each time the one most correlated with what is left (Pati et al. 1993), and
    after each the rule is refitted as it will run, relu included, by Gauss-Newton. How many are named is
    decided by cross-fitting on two disjoint sets of inputs.

    Args:
        inputs: explored inputs.
        tensor: the batch's tensor that holds them.
        seed: for the two sets.
        second: which inputs are in the second set, where that is given.

    Raises:
        TooLittleData: fewer than 20 inputs.
        NotFinite: an input is NaN or infinite.
    """

    method = METHOD

    def __init__(
        self,
        inputs: Float[np.ndarray, "n features"],
        tensor: str,
        seed: Seed,
        second: Bool[np.ndarray, " n"] | None = None,
    ) -> None:
        if len(inputs) < 20:
            raise TooLittleData(f"{len(inputs)} explored inputs", "at least 20", "a larger explore part")
        if not np.isfinite(inputs).all():
            raise NotFinite("NaN or infinity in the inputs", "finite inputs", "checking the source")
        self.inputs, self.tensor = inputs.astype(np.float64), tensor
        if second is None:
            second = np.arange(len(inputs)) % 2 == 1
            seed.child("halves").numpy().shuffle(second)
        self._halves = (np.flatnonzero(~second), np.flatnonzero(second))
        if min(map(len, self._halves)) < 10:
            raise TooLittleData("a set of fewer than 10 inputs", "two sets of 10 or more", "another division")

    def explain(self, activation: Float[np.ndarray, " _"]) -> Explained:
        """The rule for one component, or for a control in its place.

        Raises:
            ShapeMismatch: there is not one activation for each input.
            NotFinite: one is NaN or infinite.
        """
        if activation.shape != (len(self.inputs),):
            raise ShapeMismatch(f"{len(activation)} activations", f"{len(self.inputs)} explored inputs")
        if not np.isfinite(activation).all():
            raise NotFinite("NaN or infinity in activations", "finite activations", "looking at the site")
        y = activation.astype(np.float64)
        crossed = np.zeros((MOST + 1, len(y)))
        apart = np.zeros((2, MOST + 1, len(y)))
        chosen: list[list[InputRule]] = []
        for half, (here, there) in enumerate((self._halves, self._halves[::-1])):
            rules = self._pursue(here, y)
            chosen.append(rules)
            for size, rule in enumerate(rules):
                apart[half, size] = rule._run(self.inputs)
                crossed[size, there] = apart[half, size, there]
        left = ((crossed - y) ** 2).sum(axis=1)
        explained = 1.0 - left / left[0] if left[0] > 0 else np.zeros(MOST + 1)
        size = int(np.flatnonzero(explained >= explained.max() - WORTH)[0])
        rule = self._rounded(self._pursue(np.arange(len(y)), y)[size])
        named = [set(rules[size].inputs) for rules in chosen]
        either = named[0] | named[1]
        about: dict[str, Json] = {
            "length": len(rule.inputs),
            "firing": significant(float(np.count_nonzero(y > 0) / len(y))),
            "agreement": significant(_correlation(apart[0, size], apart[1, size])),
            "jaccard": significant(len(named[0] & named[1]) / len(either)) if either else None,
        }
        explored: dict[str, Json] = {"correlation": significant(_correlation(crossed[size], y))}
        description = Description(words=rule.words, cause=rule.executable(), about=about)
        second = self._rounded(chosen[1][size]).executable()
        return Explained(description, "cause", METHOD, bool(rule.inputs), explored, second)

    def _rounded(self, rule: InputRule) -> InputRule:
        coefficients = tuple(significant(c) for c in rule.coefficients)
        return InputRule(rule.tensor, rule.inputs, coefficients, significant(rule.bias))

    def _pursue(self, at: Int[np.ndarray, " m"], y: Float[np.ndarray, " n"]) -> list[InputRule]:
        """Rules of 0, 1 ... `MOST` features fitted on some inputs; later ones repeat if nothing is left."""
        inputs, y = self.inputs[at], y[at]
        spread = inputs.std(axis=0)
        centred = inputs - inputs.mean(axis=0)
        rules = [InputRule(self.tensor, (), (), float(y.mean()))]
        left = y - y.mean()
        for _ in range(MOST):
            score = np.abs(np.einsum("nf,n->f", centred, left - left.mean()))
            score = np.divide(score, spread, out=np.zeros_like(score), where=spread > 0)
            score[list(rules[-1].inputs)] = 0.0
            best = int(np.argmax(score))
            if score[best] <= 1e-9 * max(float(np.abs(y).sum()), 1e-300):
                rules.append(rules[-1])
                continue
            rule = _fit(self.tensor, (*rules[-1].inputs, best), inputs, y)
            rules.append(rule)
            left = y - rule._run(inputs)
        return rules


def _fit(
    tensor: str, which: Sequence[int], inputs: Float[np.ndarray, "m features"], y: Float[np.ndarray, " m"]
) -> InputRule:
    """Least squares of relu(Σ cⱼ sⱼ + b), from the linear fits to all inputs and to those that fire."""
    design = np.column_stack([inputs[:, list(which)], np.ones(len(inputs))])
    fires = y > 0
    starts = [np.linalg.lstsq(design, y, rcond=None)[0]]
    if fires.sum() > len(which) + 1:
        starts.append(np.linalg.lstsq(design[fires], y[fires], rcond=None)[0])
    fits = [_gauss_newton(design, y, start) for start in starts]
    weights = min(fits, key=lambda w: _loss(design, y, w))
    return InputRule(tensor, tuple(which), tuple(weights[:-1].tolist()), float(weights[-1]))


def _loss(design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    return float(((np.maximum(design @ weights, 0.0) - y) ** 2).sum())


def _gauss_newton(design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    loss = _loss(design, y, weights)
    for _ in range(STEPS):
        active = design @ weights > 0
        if active.sum() < design.shape[1]:
            break
        step = np.linalg.lstsq(design[active], y[active] - design[active] @ weights, rcond=None)[0]
        for shorter in range(6):
            tried = weights + step / 2**shorter
            found = _loss(design, y, tried)
            if found < loss:
                break
        else:
            break
        done = loss - found <= 1e-10 * loss
        weights, loss = tried, found
        if done:
            break
    return weights


def _correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    sums = np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])
    return float(Correlation().value(sums))
