"""Models that can be read whole: a linear one, a small tree, a sum of functions of single features.

They explain another model by imitating it (`imitate`), and serve as baselines on data themselves (`fit`): a
network that a tree matches need not be explained by anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData, UnknownName
from prosect.core.seeds import Seed

LEAVES = (2, 3, 4, 6, 8, 12, 16)
WORSE = 0.01
"""A tree may lose this much cross-validated R² against the best to be smaller."""
KNOTS = 12


@runtime_checkable
class Surrogate(Protocol):
    """A readable model of one number."""

    @property
    def kind(self) -> str:
        """Its name among `KINDS`."""

    @property
    def words(self) -> str:
        """What it says."""

    def predict(self, x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " n"]:
        """The number for each row."""


@dataclass(frozen=True, eq=False)
class Linear:
    """intercept + Σ weightᵢ xᵢ, by least squares."""

    intercept: float
    weights: Float[np.ndarray, " features"]
    kind: str = "linear"

    @property
    def words(self) -> str:
        """The equation."""
        return " ".join([f"{self.intercept:.3g}", *(f"{w:+.3g} x{i}" for i, w in enumerate(self.weights))])

    def predict(self, x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " n"]:
        """The equation at each row."""
        return np.asarray(self.intercept + x @ self.weights)


@dataclass(frozen=True)
class Split:
    """One question of a tree: is ``feature`` at most ``threshold``?"""

    feature: int
    threshold: float


@dataclass(frozen=True, eq=False)
class Tree:
    """A regression tree (Breiman et al. 1984).

    Attributes:
        model: scikit-learn's.
        leaves: how many it has.
    """

    model: Any
    leaves: int
    kind: str = "tree"

    @property
    def splits(self) -> tuple[Split, ...]:
        """Its questions, from the root on, a node before those below it."""
        tree = self.model.tree_
        inner = np.flatnonzero(tree.children_left >= 0)
        return tuple(Split(int(tree.feature[i]), float(tree.threshold[i])) for i in inner)

    @property
    def words(self) -> str:
        """Its rules, one for each leaf."""
        tree = self.model.tree_

        def below(node: int, path: tuple[str, ...]) -> list[str]:
            if tree.children_left[node] < 0:
                return [f"{' and '.join(path) or 'always'}: {tree.value[node].item():.3g}"]
            name, at = f"x{tree.feature[node]}", tree.threshold[node]
            left = below(int(tree.children_left[node]), (*path, f"{name} ≤ {at:.3g}"))
            return left + below(int(tree.children_right[node]), (*path, f"{name} > {at:.3g}"))

        return "; ".join(below(0, ()))

    def predict(self, x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " n"]:
        """The value of the leaf that each row falls into."""
        return np.asarray(self.model.predict(x), dtype=float)


@dataclass(frozen=True, eq=False)
class Additive:
    """intercept + Σ gᵢ(xᵢ) (Hastie & Tibshirani 1986), each g a cubic spline, or a table if x takes few values.

    Attributes:
        intercept: the mean of what was fitted.
        bases: for each feature, values → its basis, (n, functions).
        weights: for each feature, of its basis functions.
        centre: for each feature, the mean of its basis over the rows that were fitted, so that parts have
            mean zero there.
    """

    intercept: float
    bases: tuple[Basis, ...]
    weights: tuple[np.ndarray, ...]
    centre: tuple[np.ndarray, ...]
    kind: str = "additive"

    @property
    def words(self) -> str:
        """How many parts it has; the parts themselves are `part`."""
        return f"{self.intercept:.3g} + a function of each of {len(self.bases)} features"

    def part(self, feature: int, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """g of one feature at ``values``, of mean zero over the rows that were fitted.

        Raises:
            BadInput: no such feature.
        """
        if not 0 <= feature < len(self.bases):
            raise BadInput(f"feature {feature}", f"features from 0 to {len(self.bases) - 1}")
        basis = self.bases[feature](np.asarray(values, dtype=float))
        return np.asarray((basis - self.centre[feature]) @ self.weights[feature])

    def predict(self, x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " n"]:
        """The sum of all parts."""
        return np.asarray(self.intercept + sum(self.part(i, x[:, i]) for i in range(x.shape[1])))


def fit_linear(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, " n"], seed: Seed) -> Linear:
    """Least squares; of features that say the same, the smallest weights."""
    centre, mean = x.mean(axis=0), float(y.mean())
    weights = np.linalg.lstsq(x - centre, y - mean, rcond=None)[0]
    return Linear(mean - float(centre @ weights), weights)


def fit_tree(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, " n"], seed: Seed) -> Tree:
    """The smallest tree of `LEAVES` whose five-fold R² is within `WORSE` of the best."""
    from sklearn.tree import DecisionTreeRegressor

    def grown(leaves: int, rows: np.ndarray) -> Any:
        state = seed.child("ties").integer % 2**32
        return DecisionTreeRegressor(max_leaf_nodes=leaves, random_state=state).fit(x[rows], y[rows])

    fold = seed.child("folds").numpy().permutation(len(y)) % 5
    scale = max(float(np.square(y - y.mean()).sum()), 1e-300)
    lost = []
    for leaves in LEAVES:
        trees = [grown(leaves, np.flatnonzero(fold != f)) for f in range(5)]
        errors = [np.square(y[fold == f] - t.predict(x[fold == f])).sum() for f, t in enumerate(trees)]
        lost.append(float(np.sum(errors)) / scale)
    chosen = next(n for n, e in zip(LEAVES, lost, strict=True) if e <= min(lost) + WORSE)
    made = grown(chosen, np.arange(len(y)))
    return Tree(made, int(made.get_n_leaves()))


def fit_additive(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, " n"], seed: Seed, levels: int = KNOTS
) -> Additive:
    """Penalised least squares on all features' bases at once; the penalty is chosen by leaving one row out.

    A feature of at most ``levels`` values gets a number for each of them, any other a spline.
    """
    from sklearn.linear_model import RidgeCV

    bases = tuple(_basis(x[:, i], levels) for i in range(x.shape[1]))
    columns = [basis(x[:, i]) for i, basis in enumerate(bases)]
    centre = tuple(c.mean(axis=0) for c in columns)
    design = np.concatenate([c - m for c, m in zip(columns, centre, strict=True)], axis=1)
    fitted = RidgeCV(alphas=np.logspace(-6, 2, 9), fit_intercept=False).fit(design, y - y.mean())
    cuts = np.cumsum([c.shape[1] for c in columns])[:-1]
    return Additive(float(y.mean()), bases, tuple(np.split(fitted.coef_, cuts)), centre)


@dataclass(frozen=True, eq=False)
class Levels:
    """A function for each of a few values: 1 where the feature is nearest to it.

    Attributes:
        edges: between neighbours, as many as there are values less one.
    """

    edges: Float[np.ndarray, " edges"]

    def __call__(self, v: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n levels"]:
        return np.asarray(np.eye(len(self.edges) + 1)[np.searchsorted(self.edges, v)])


@dataclass(frozen=True, eq=False)
class Splines:
    """Cubic B-splines, straight beyond the values that were fitted.

    Attributes:
        made: scikit-learn's.
    """

    made: Any

    def __call__(self, v: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n splines"]:
        return np.asarray(self.made.transform(v[:, None]))


Basis = Levels | Splines


def _basis(values: Float[np.ndarray, " n"], levels: int) -> Basis:
    known = np.unique(values)
    if len(known) <= levels:
        return Levels((known[1:] + known[:-1]) / 2)
    from sklearn.preprocessing import SplineTransformer

    spline = SplineTransformer(n_knots=KNOTS, degree=3, knots="quantile", extrapolation="linear")
    try:
        spline.fit(values[:, None])
    except ValueError:  # quantiles that coincide
        spline = SplineTransformer(n_knots=KNOTS, degree=3, knots="uniform", extrapolation="linear")
        spline.fit(values[:, None])
    return Splines(spline)


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, Seed], Surrogate]] = {
    "linear": fit_linear,
    "tree": fit_tree,
    "additive": fit_additive,
}


def fit(
    kind: str,
    x: np.ndarray,
    y: np.ndarray,
    seed: Seed,
    levels: int = KNOTS,
) -> Surrogate:
    """Fit a readable model to numbers.

    Args:
        kind: ``linear``, ``tree`` or ``additive``.
        x: (n, features).
        y: (n,).
        seed: of folds and ties.
        levels: an additive model has a number for each value of a feature that takes at most so many.

    Raises:
        UnknownName: no such kind.
        ShapeMismatch: not one y for each row of x.
        TooLittleData: fewer than ten rows.
        NotFinite: NaN or infinity.
    """
    if kind not in KINDS:
        raise UnknownName("kind of surrogate", kind, KINDS)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ShapeMismatch(f"x {x.shape} and y {y.shape}", "(n, features) and (n,)")
    if len(y) < 10:
        raise TooLittleData(f"{len(y)} rows to fit a {kind} surrogate to", "at least 10")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise NotFinite("NaN or infinity among the rows", "finite numbers")
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    return fit_additive(x, y, seed, levels) if kind == "additive" else KINDS[kind](x, y, seed)
