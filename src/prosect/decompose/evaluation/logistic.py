"""Logistic regression by Newton's method: the probe that everything supervised here is made of.

Own, because a probe is fitted for every one of hundreds of concepts and must repeat to the bit.
"""

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
    ones = torch.cat([x.double(), x.new_ones((len(x), 1), dtype=torch.float64)], dim=1)
    target = y.double()
    penalty = torch.full((ones.shape[1],), ridge, dtype=torch.float64)
    penalty[-1] = 0.0
    w = torch.zeros(ones.shape[1], dtype=torch.float64)
    w[-1] = torch.logit(torch.tensor(positive / len(y), dtype=torch.float64))

    def loss(at: Tensor) -> float:
        scores = ones @ at
        fit = torch.nn.functional.softplus(scores).sum() - (scores * target).sum()
        return float(fit + (penalty * at * at).sum() / 2)

    now = loss(w)
    for _ in range(STEPS):
        p = torch.sigmoid(ones @ w)
        gradient = ones.T @ (p - target) + penalty * w
        curvature = (p * (1 - p)).clamp(min=1e-12)
        hessian = (ones * curvature[:, None]).T @ ones + torch.diag(penalty + 1e-12)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while (new := loss(w - size * step)) > now and size > 1e-6:
            size /= 2
        if new > now:
            break
        w, drop, now = w - size * step, now - new, new
        if drop <= 1e-10 * max(1.0, abs(now)):
            break
    return w[:-1], float(w[-1])


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
