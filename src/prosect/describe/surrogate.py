"""A readable model of numeric inputs in place of a component: what a linear one, a tree or a sum of functions gets.

It stands beside a description as a baseline. Where it predicts as well, the component need not be described by anything
else; where it does not, the description says something that no such model can (`attribution.surrogates` fits them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Real

from prosect.core.canonical import Json
from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.attribution.surrogates import (
    KINDS,
    KNOTS,
    Additive,
    Levels,
    Linear,
    Surrogate,
    Tree,
    fit,
)
from prosect.describe.executables import parameters_of, reading, tensor_of
from prosect.store.shelf import Shelf

MOST = 8
"""Input features that a surrogate may read: those that go most with the activation."""
ROWS = 2000
"""Explored inputs that it is fitted to, at most."""
DEGREE = 3


@dataclass(frozen=True, eq=False)
class SurrogateRule:
    """One fitted surrogate, as arrays.

    Attributes:
        tensor: name of the batch's tensor, (n, features).
        inputs: which features it reads.
        form: ``linear``, ``tree`` or ``additive``.
        numbers: by name. Linear: ``weights``, the intercept first. A tree: ``nodes``, (n, 5): feature, threshold, left,
            right, value; a leaf has no feature (−1). Additive: ``intercept``; for each feature ``at.i`` and
            ``value.i``, a step for each value or a spline's knots and coefficients.
    """

    tensor: str
    inputs: tuple[int, ...]
    form: str
    numbers: dict[str, Float[np.ndarray, ...]]

    kind = "surrogate"
    version = 1

    @classmethod
    def made(cls, tensor: str, inputs: tuple[int, ...], surrogate: Surrogate) -> SurrogateRule:
        """What `surrogates.fit` gave, for some features of a tensor.

        Raises:
            BadInput: a surrogate of another kind.
        """
        if isinstance(surrogate, Linear):
            numbers = {"weights": np.append(surrogate.intercept, surrogate.weights)}
        elif isinstance(surrogate, Tree):
            t = surrogate.model.tree_
            feature = np.where(t.children_left < 0, -1, t.feature)
            columns = (feature, t.threshold, t.children_left, t.children_right, t.value.reshape(-1))
            numbers = {"nodes": np.stack([c.astype(float) for c in columns], axis=1)}
        elif isinstance(surrogate, Additive):
            numbers = {"intercept": np.array([surrogate.intercept])}
            for i, basis in enumerate(surrogate.bases):
                weights, middle = surrogate.weights[i], float(surrogate.centre[i] @ surrogate.weights[i])
                numbers[f"at.{i}"] = basis.edges if isinstance(basis, Levels) else basis.made.bsplines_[0].t
                numbers[f"value.{i}"] = weights - middle  # the functions of a basis add up to 1 everywhere
        else:
            raise BadInput(f"a {type(surrogate).__name__}", "a linear, tree or additive surrogate")
        return cls(tensor, inputs, surrogate.kind, numbers)

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> SurrogateRule:
        """What an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        given = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            numbers = {n: np.asarray(tensor_of(executable, n, shelf).numpy()) for n in executable.tensors}
            if given["form"] not in KINDS:
                raise BadInput(f"a surrogate of form {given['form']!r}", f"one of {', '.join(KINDS)}")
            return cls(str(given["tensor"]), tuple(int(i) for i in given["inputs"]), given["form"], numbers)

    def executable(self, shelf: Shelf) -> Executable:
        """As stored: the numbers on the shelf."""
        parameters: Json = {"tensor": self.tensor, "inputs": list(self.inputs), "form": self.form}
        put = {
            n: shelf.put(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)))
            for n, x in self.numbers.items()
        }
        return Executable(kind=self.kind, version=self.version, parameters=parameters, tensors=put)

    def activation(self, batch: Batch) -> Float[np.ndarray, " n"]:
        """The predicted activation of every input.

        Raises:
            BadInput: the batch has no such tensor, or that has positions or too few features.
        """
        values = batch.tensors.get(self.tensor)
        if values is None or batch.mask is not None or values.ndim != 2:
            raise BadInput(f"a batch of {', '.join(batch.tensors)}", f"{self.tensor!r}, (n, features)")
        if values.shape[1] <= max(self.inputs, default=-1):
            raise BadInput(
                f"{self.tensor} of {values.shape[1]} features", f"feature {max(self.inputs)} in it"
            )
        return self.at(values.detach().cpu().double().numpy()[:, list(self.inputs)])

    def at(self, x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " n"]:
        """The prediction at rows of the features that it reads."""
        if self.form == "linear":
            weights = self.numbers["weights"]
            return np.asarray(weights[0] + x @ weights[1:])
        if self.form == "tree":
            return _walked(self.numbers["nodes"], x)
        parts = [
            _part(self.numbers[f"at.{i}"], self.numbers[f"value.{i}"], x[:, i]) for i in range(x.shape[1])
        ]
        return np.asarray(float(self.numbers["intercept"][0]) + sum(parts, np.zeros(len(x))))


def _walked(
    nodes: Float[np.ndarray, "nodes 5"], x: Float[np.ndarray, "n features"]
) -> Float[np.ndarray, " n"]:
    at, rows = np.zeros(len(x), dtype=int), np.arange(len(x))
    single = x.astype(np.float32)  # as scikit-learn compares
    while (nodes[at, 0] >= 0).any():
        feature, inner = nodes[at, 0].astype(int), nodes[at, 0] >= 0
        left = single[rows, np.maximum(feature, 0)] <= nodes[at, 1]
        at = np.where(inner, np.where(left, nodes[at, 2], nodes[at, 3]), at).astype(int)
    return np.asarray(nodes[at, 4])


def _part(
    at: Float[np.ndarray, " k"], value: Float[np.ndarray, " m"], v: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """One feature's function: a step for each value, or a cubic spline that goes on straight."""
    if len(value) == len(at) + 1:
        return np.asarray(value[np.searchsorted(at, v)])
    from scipy.interpolate import BSpline

    made = BSpline(at, value, DEGREE)
    low, high = at[DEGREE], at[-DEGREE - 1]
    inside = np.clip(v, low, high)
    return np.asarray(made(inside) + made(inside, 1) * (v - inside))


def surrogates(
    values: Real[np.ndarray, "n features"],
    activation: Float[np.ndarray, " n"],
    tensor: str,
    seed: Seed,
    levels: int = KNOTS,
) -> dict[str, SurrogateRule]:
    """A surrogate of every kind for one component, on the few features that go most with it.

    Args:
        values: explored inputs.
        activation: of the component.
        tensor: name of the batch's tensor that holds the inputs.
        seed: of folds, ties, and which inputs are taken.
        levels: how many values a feature may take to get a number for each; those of a spline by default.
    """
    rows = np.sort(seed.child("rows").numpy().permutation(len(values))[:ROWS])
    x, y = values[rows].astype(float), activation[rows].astype(float)
    spread = x.std(axis=0) * max(float(y.std()), 1e-300)
    going = np.abs(((x - x.mean(axis=0)) * (y - y.mean())[:, None]).mean(axis=0))
    going = np.divide(going, spread, out=np.zeros_like(going), where=spread > 0)
    which = np.sort(np.argsort(-going, kind="stable")[:MOST])
    every = tuple(int(i) for i in which)
    return {
        kind: SurrogateRule.made(tensor, every, fit(kind, x[:, which], y, seed.child(kind), levels))
        for kind in KINDS
    }
