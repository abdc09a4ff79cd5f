"""Logistic regression, the probe that everything supervised here is made of, and how its answers are scored."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch

STEPS = 50


def logistic(
    x: Float[Tensor, "n width"], y: Bool[Tensor, " _"], ridge: float = 1.0
) -> tuple[Float[Tensor, " width"], float]:
    """Weights and intercept that minimise Σ log(1 + exp(-±(x w + b))) + ridge/2 ‖w‖².

    The intercept is not penalised. ``ridge`` is 1 / C of scikit-learn.

    Args:
        x: float64.
        y: which rows are positive; some, not all.
        ridge: above 0, so that classes that can be told apart perfectly have a finite solution.

    Raises:
        ShapeMismatch: as many labels as rows are needed.
        BadInput: only one class is there, or the ridge is not above 0.
    """
    if len(x) != len(y):
        raise ShapeMismatch(f"{len(y)} labels for {len(x)} rows", "one for each")
    positive = int(y.sum())
    if not 0 < positive < len(y):
        raise BadInput(f"{positive} positive rows of {len(y)}", "some, but not all")
    if not ridge > 0:
        raise BadInput(f"a ridge of {ridge:g}", "above 0")
    from sklearn.linear_model import LogisticRegression

    # Newton's method: to the bit the same each time, and to convergence however many probes are fitted
    fitted = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=1e-8, max_iter=STEPS)
    fitted.fit(x.double().numpy(), y.numpy())
    return torch.from_numpy(fitted.coef_[0]), float(fitted.intercept_[0])


def best_threshold(scores: Float[Tensor, " n"], y: Bool[Tensor, " n"]) -> float:
    """The threshold above which calling rows positive gives the largest F1.

    Raises:
        BadInput: no row is positive.
    """
    positive = int(y.sum())
    if not positive:
        raise BadInput("no positive rows", "at least one")
    ordered, order = scores.double().sort(descending=True)
    hits = y[order].double().cumsum(0)
    called = torch.arange(1, len(y) + 1, dtype=torch.float64)
    f1 = 2 * hits / (called + positive)
    last = torch.ones(len(y), dtype=torch.bool)
    last[:-1] = ordered[:-1] > ordered[1:]  # rows with equal scores stand or fall together
    at = int(torch.where(last, f1, -1.0).argmax())
    below = float(ordered[at + 1]) if at + 1 < len(y) else float(ordered[at]) - 1.0
    return (float(ordered[at]) + below) / 2


def marks(called: Bool[Tensor, " n"], y: Bool[Tensor, " n"]) -> tuple[float, float, float]:
    """Precision, recall and F1 of calling rows positive; 0 where nothing is called or positive."""
    hits, made, there = int((called & y).sum()), int(called.sum()), int(y.sum())
    return hits / max(made, 1), hits / max(there, 1), 2 * hits / max(made + there, 1)
