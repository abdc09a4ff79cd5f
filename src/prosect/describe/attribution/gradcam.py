"""Grad-CAM: where in a picture a convolutional layer's channels speak for the metric, and whether it points at the object.

Selvaraju et al. 2017, "Grad-CAM: Visual explanations from deep networks via gradient-based localization",
equations 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.core.intervals import INTERVAL_DRAWS, Contrast, Mean, Resamples, Term
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.method import Scores
from prosect.describe.attribution.reference import Reference


@dataclass(frozen=True)
class GradCam:
    """relu(Σₖ αₖ Aₖ), where αₖ is the gradient of channel k averaged over the picture.

    Attributes:
        positive: keep only what speaks for the metric, as the paper does.
    """

    positive: bool = True
    name: str = "gradcam"
    gradient: bool = True
    several: bool = False

    @property
    def words(self) -> str:
        """What a value means."""
        kept = "its positive part" if self.positive else "signed"
        return f"channels of the cell, each times its gradient averaged over the picture, added up; {kept}"

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """One backward pass for each row; the reference is not used.

        Raises:
            Unsupported: features are not cells of a layer.
        """
        if explicand.features.kind != "cells":
            raise Unsupported(
                f"Grad-CAM over {explicand.features.words}",
                "cells of a convolutional layer",
                "features='cells' with site= the path of the layer",
            )
        _, slope = explicand.gradient(explicand.x, torch.arange(len(explicand)))
        weight = slope.double().mean(dim=(-2, -1))
        map_ = torch.einsum("nk,nkhw->nhw", weight, explicand.x.double())
        if self.positive:
            map_ = map_.clamp(min=0)
        return Scores(map_.flatten(1).cpu().numpy(), replaces=False)


def enlarged(
    values: Float[np.ndarray, "rows cells"], grid: tuple[int, ...], size: tuple[int, int]
) -> Float[np.ndarray, "rows height width"]:
    """A map over the cells of ``grid`` at the size of the picture, bilinearly."""
    if len(grid) != 2 or values.shape[1] != grid[0] * grid[1]:
        raise ShapeMismatch(f"{values.shape[1]} cells for a grid {grid}", "height · width of them")
    maps = torch.from_numpy(np.ascontiguousarray(values)).reshape(len(values), 1, *grid)
    large = torch.nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return np.asarray(large[:, 0].numpy())


@dataclass(frozen=True)
class Pointing:
    """The pointing game (Zhang et al. 2018, "Top-down neural attention by excitation backprop", section 4.2).

    Attributes:
        hits: share of rows whose largest value lies on the object.
        chance: control: share of the picture that the object covers, the hits of a blind map.
        difference: hits minus chance.
    """

    hits: Measured
    chance: Measured
    difference: Measured


def pointing(
    maps: Float[np.ndarray, "rows height width"],
    objects: Bool[np.ndarray, "rows height width"],
    units: np.ndarray,
    seed: Seed,
) -> Pointing:
    """How often a map's largest value lies on the object; ties count in proportion.

    Args:
        maps: at the size of the picture.
        objects: where the object is.
        units: the independent unit of each row.
        seed: of the interval.

    Raises:
        ShapeMismatch: maps and objects of different shapes.
        BadInput: a row without an object.
    """
    if maps.shape != objects.shape:
        raise ShapeMismatch(f"maps {maps.shape} and objects {objects.shape}", "the same shape")
    flat, there = maps.reshape(len(maps), -1), objects.reshape(len(maps), -1)
    if not there.any(axis=1).all():
        raise BadInput(f"row {int((~there.any(axis=1)).argmax())} without an object", "one in each row")
    top = flat == flat.max(axis=1, keepdims=True)
    unit, at = np.unique(units, return_inverse=True)
    terms = []
    for each in ((top & there).sum(axis=1) / top.sum(axis=1), there.mean(axis=1)):
        columns = (np.ones(len(each)), each)
        terms.append(Term([np.stack([np.bincount(at, w, minlength=len(unit)) for w in columns], axis=1)]))
    draws = Resamples(len(unit), INTERVAL_DRAWS, seed)
    wanted = [Contrast(0), Contrast(1), Contrast(0, 1)]
    hits, chance, difference = (r.measured for r in draws.contrasts(terms, wanted, Mean(0.0, 1.0)))
    return Pointing(hits, chance, difference)
