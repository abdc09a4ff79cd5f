"""Saliency and input × gradient: one backward pass, exact for what is linear and blind to what is saturated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from prosect.core.errors import UnknownName
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.method import Scores
from prosect.describe.attribution.reference import Reference

NORMS = ("l1", "l2", "signed")


@dataclass(frozen=True)
class Saliency:
    """The size of the gradient over a feature's numbers (Simonyan, Vedaldi & Zisserman 2014, section 3).

    Attributes:
        norm: l1 or l2 over the numbers of a feature, or their plain sum, which keeps the sign.
    """

    norm: str = "l2"
    name: str = "saliency"
    gradient: bool = True
    several: bool = False

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UnknownName("norm", self.norm, NORMS)

    @property
    def words(self) -> str:
        """What a value means."""
        what = {"l1": "l1 norm", "l2": "l2 norm", "signed": "sum"}[self.norm]
        return f"{what} of the metric's gradient over the feature's numbers, metric units per unit of input"

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """One backward pass for each row; the reference is not used."""
        _, slope = explicand.gradient(explicand.x, torch.arange(len(explicand)))
        features = explicand.features
        if self.norm == "l2":
            values = features.gather(slope.double().square()).sqrt()
        else:
            values = features.gather(slope.abs() if self.norm == "l1" else slope)
        return Scores(_there(values, explicand), replaces=False)


@dataclass(frozen=True)
class InputGradient:
    """(x − baseline) · gradient at x (Shrikumar et al. 2016): what replacing a feature would do to first order."""

    name: str = "input-x-gradient"
    gradient: bool = True
    several: bool = False
    words: str = "first-order estimate of what the metric loses when the feature is replaced by the baseline"

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """One backward pass for each row; averaged over the reference's points."""
        return Scores(first_order(explicand, reference))


def first_order(explicand: Explicand, reference: Reference) -> np.ndarray:
    """gradient · (x − reference), averaged over the reference's points: (rows, features)."""
    _, slope = explicand.gradient(explicand.x, torch.arange(len(explicand)))
    mean = reference.points.mean(dim=1 if reference.own else 0)
    return _there(explicand.features.gather(slope * (explicand.x - mean)), explicand)


def _there(values: torch.Tensor, explicand: Explicand) -> np.ndarray:
    return (values.cpu() * explicand.present).numpy()
