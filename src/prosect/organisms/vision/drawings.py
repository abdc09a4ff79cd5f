"""Drawings of one line, arc, circle or triangle each, made by code, so that where the object is is known.

A drawing is the distance of every pixel from a stroke turned into ink, with noise on top. Everything about it is drawn
at random: place, size, angle, thickness, darkness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CLASSES = ("line", "arc", "circle", "triangle")
SIDE = 28  # pixels
SMALLEST, LARGEST = 5.0, 8.0
"""Radius of an object: it fits into a circle of that size."""
NOISE = 0.1


@dataclass(frozen=True)
class Drawings:
    """Drawings and what is on them.

    Attributes:
        images: between about 0 (paper) and 1 (ink), shape (n, 1, 28, 28).
        classes: numbers of `CLASSES`, shape (n,).
        boxes: top, left, bottom, right of the ink of each, in pixels, the last two not included; shape (n, 4).
    """

    images: Float[Tensor, "n 1 side side"]
    classes: Int[Tensor, " n"]
    boxes: Int[np.ndarray, "n 4"]


def draw(n: int, rng: np.random.Generator, shifted: bool = False) -> Drawings:
    """``n`` drawings, every class equally likely; shifted ones have thicker strokes and half as much noise again."""
    classes = rng.integers(len(CLASSES), size=n)
    radius = rng.uniform(SMALLEST, LARGEST, n)
    centre = rng.uniform(LARGEST + 1, SIDE - LARGEST - 1, (n, 2))
    angle = rng.uniform(0, 2 * np.pi, n)
    thick = rng.uniform(2.0, 2.5, n) if shifted else rng.uniform(1.0, 2.0, n)
    ink = rng.uniform(0.7, 1.0, n)
    at = np.arange(SIDE) + 0.5
    pixels = np.stack(np.meshgrid(at, at), axis=-1)[None] - centre[:, None, None]  # x, y from the centre
    away = np.empty((n, SIDE, SIDE))
    for number, distance in enumerate((_line, _arc, _circle, _triangle)):
        rows = classes == number
        away[rows] = distance(pixels[rows], radius[rows], angle[rows])
    strokes = np.clip(thick[:, None, None] / 2 + 0.5 - away, 0.0, 1.0)
    noise = NOISE * (1.5 if shifted else 1.0) * rng.standard_normal(strokes.shape)
    images = torch.from_numpy((ink[:, None, None] * strokes + noise).astype(np.float32))[:, None]
    return Drawings(images, torch.from_numpy(classes), _boxes(strokes > 0))


def _line(
    p: Float[np.ndarray, "n h w 2"], radius: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n h w"]:
    end = _around(radius, angle)
    return _segment(p, -end, end)


def _circle(
    p: Float[np.ndarray, "n h w 2"], radius: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n h w"]:
    return np.asarray(np.abs(np.linalg.norm(p, axis=-1) - radius[:, None, None]))


def _arc(
    p: Float[np.ndarray, "n h w 2"], radius: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n h w"]:
    """Half of a circle: where it is not, the distance is that from its nearer end."""
    there = np.einsum("nhwk,nk->nhw", p, _around(np.ones_like(radius), angle)) >= 0
    ends = [_around(radius, angle + turn)[:, None, None] for turn in (np.pi / 2, -np.pi / 2)]
    nearest = np.minimum(*(np.linalg.norm(p - end, axis=-1) for end in ends))
    return np.where(there, _circle(p, radius, angle), nearest)


def _triangle(
    p: Float[np.ndarray, "n h w 2"], radius: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n h w"]:
    corners = [_around(radius, angle + turn) for turn in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    sides = [_segment(p, corners[i], corners[i - 1]) for i in range(3)]
    return np.asarray(np.minimum.reduce(sides))


def _segment(
    p: Float[np.ndarray, "n h w 2"], a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n h w"]:
    way = b - a
    along = np.einsum("nhwk,nk->nhw", p - a[:, None, None], way) / np.square(way).sum(axis=1)[:, None, None]
    nearest = a[:, None, None] + np.clip(along, 0, 1)[..., None] * way[:, None, None]
    return np.asarray(np.linalg.norm(p - nearest, axis=-1))


def _around(radius: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _boxes(ink: Bool[np.ndarray, "n h w"]) -> Int[np.ndarray, "n 4"]:
    rows, columns = (np.asarray(ink.any(axis=axis)) for axis in (2, 1))
    first = [line.argmax(axis=1) for line in (rows, columns)]
    last = [SIDE - line[:, ::-1].argmax(axis=1) for line in (rows, columns)]
    return np.stack([*first, *last], axis=1)
