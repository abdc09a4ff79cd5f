"""Occlusion: what the metric loses when a window of features is replaced.

Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2. Exact, and blind to
redundancy: where either of two features is enough, replacing one changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.method import Scores
from prosect.describe.attribution.reference import Reference
from prosect.describe.attribution.replacing import without

REDUNDANT = 0.1
"""A row is called redundant if its windows together, each in absolute value, explain less than this share of
what replacing everything changes."""


@dataclass(frozen=True)
class Occlusion:
    """A sliding window over the grid of features.

    Attributes:
        window: how many features a window covers along each axis of the grid (tokens have one axis; an
            input tensor has those of a row, so an image's window is (channels, height, width)).
        stride: how far it moves along each axis; by default as far as it is wide.
    """

    window: int | tuple[int, ...] = 1
    stride: int | tuple[int, ...] | None = None
    name: str = "occlusion"
    gradient: bool = False
    several: bool = False

    @property
    def words(self) -> str:
        """What a value means."""
        return (
            f"f(x) − f(x with a window of {self.window} replaced), averaged over the windows that cover the "
            "feature; effects of windows need not add up"
        )

    def __call__(self, explicand: Explicand, reference: Reference, seed: Seed) -> Scores:
        """One forward pass for each row, window and point of the reference."""
        windows = covered(explicand.features.grid, self.window, self.stride)
        here = explicand.itself().numpy()
        n, w = len(explicand), len(windows)
        rows = np.repeat(np.arange(n), w)
        lost = here[rows] - without(explicand, reference, rows, np.tile(windows, (n, 1)))
        lost = lost.reshape(n, w)
        times = windows.sum(axis=0)
        present = explicand.present.numpy()
        values = lost @ windows / np.maximum(times, 1) * present
        joint = here - without(explicand, reference, np.arange(n), np.ones((n, windows.shape[1]), dtype=bool))
        redundant = int((np.abs(lost).sum(axis=1) < REDUNDANT * np.abs(joint)).sum())
        notes: tuple[str, ...] = ()
        if redundant:
            notes = (
                f"redundancy: in {redundant} of {n} rows replacing everything changes the metric and replacing "
                "single windows hardly does; features stand in for each other",
            )
        return Scores(values, joint=joint, notes=notes)


def covered(
    grid: tuple[int, ...], window: int | tuple[int, ...], stride: int | tuple[int, ...] | None
) -> Bool[np.ndarray, "windows features"]:
    """Which features each window covers; the last one along an axis may stand out over the edge.

    Raises:
        ShapeMismatch: another number of axes than the grid has.
        BadInput: a window or stride below 1, or strides that leave features between windows.
    """
    wide = (window,) * len(grid) if isinstance(window, int) else tuple(window)
    move = wide if stride is None else ((stride,) * len(grid) if isinstance(stride, int) else tuple(stride))
    if len(wide) != len(grid) or len(move) != len(grid):
        raise ShapeMismatch(f"a window {window} with stride {stride}", f"one number for each axis of {grid}")
    if min((*wide, *move)) < 1 or any(s > w for s, w in zip(move, wide, strict=True)):
        raise BadInput(
            f"a window {window} with stride {stride}", "both at least 1, the stride at most the window"
        )
    axes = []
    for size, w, s in zip(grid, wide, move, strict=True):
        count = max(0, -(-(size - w) // s)) + 1
        axes.append([range(k * s, min(k * s + w, size)) for k in range(count)])
    number = np.arange(int(np.prod(grid))).reshape(grid)
    out = np.zeros((int(np.prod([len(a) for a in axes])), number.size), dtype=bool)
    for i, spans in enumerate(product(*axes)):
        out[i, number[np.ix_(*spans)].reshape(-1)] = True
    return out
