"""How many things does one component speak of? With known concepts, and by clusters of what activates it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed


def concepts_of(
    codes: Float[Tensor, "n components"], strengths: Float[Tensor, "_ concepts"]
) -> Float[Tensor, " components"]:
    """The effective number of concepts that drive each component: (Σ v)² / Σ v².

    v_f is the part of a component's variance that concept f explains by itself, less what a concept that has
    nothing to do with it would explain by chance. With independent concepts these parts add up. 1 where a single
    concept does it all, m where m do equally much, 0 where none does anything.

    Args:
        codes: of each component, neurons for instance.
        strengths: of each concept at the same positions; 0 where it is absent.

    Raises:
        ShapeMismatch: the positions differ.
        TooLittleData: fewer than 3 positions.
    """
    if len(codes) != len(strengths):
        raise ShapeMismatch(f"{len(codes)} codes and {len(strengths)} strengths", "as many of each")
    n = len(codes)
    if n < 3:
        raise TooLittleData(f"{n} positions", "at least 3")
    z = codes.double() - codes.double().mean(dim=0)
    s = strengths.double() - strengths.double().mean(dim=0)
    own = s.square().sum(dim=0)
    product = (z.T @ s).square() / torch.where(own > 0, own, 1.0)
    whole = z.square().sum(dim=0)[:, None]
    explained = torch.where(own > 0, product - (whole - product) / (n - 2) * CHANCE, 0.0).clamp(min=0.0)
    total = explained.sum(dim=1)
    square = explained.square().sum(dim=1)
    return torch.where(square > 0, total.square() / square.clamp(min=1e-300), 0.0)


CHANCE = 9.0
"""A share of variance counts from three standard errors up: squared, nine times what chance explains on average."""


def clusters_of(x: Float[Tensor, "n width"], seed: Seed, most: int = 8, draws: int = 10) -> int:
    """Into how many clusters the inputs fall that activate a component: 1 where one explanation may do.

    The gap statistic over k-means (Tibshirani, Walther & Hastie 2001, "Estimating the number of clusters in a data
    set via the gap statistic"), against uniform points in the box of the principal axes.

    Args:
        x: activations at the positions where the component is most active, from a site before it.
        seed: of k-means and of the uniform points.
        most: the largest number considered.
        draws: sets of uniform points.

    Raises:
        TooLittleData: fewer than 5 positions for each cluster considered.
    """
    from sklearn.cluster import KMeans

    points = x.detach().cpu().double().numpy()
    if len(points) < 5 * most:
        raise TooLittleData(f"{len(points)} positions", f"at least {5 * most}", "fewer clusters")
    points = points - points.mean(axis=0)
    points = points @ np.linalg.svd(points, full_matrices=False)[2].T

    def within(rows: np.ndarray, k: int, *names: str | int) -> float:
        state = seed.child(*names, k).integer % 2**32
        return float(np.log(max(KMeans(k, n_init=3, random_state=state).fit(rows).inertia_, 1e-300)))

    rng = seed.child("uniform").numpy()
    boxes = [rng.uniform(points.min(axis=0), points.max(axis=0), points.shape) for _ in range(draws)]
    last: float | None = None
    for k in range(1, most + 2):
        null = np.array([within(box, k, "box", i) for i, box in enumerate(boxes)])
        gap = float(null.mean() - within(points, k, "points"))
        error = float(null.std() * np.sqrt(1 + 1 / draws))
        if last is not None and last >= gap - error:
            return k - 1
        last = gap
    return most
