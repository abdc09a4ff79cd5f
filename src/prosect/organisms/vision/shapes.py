"""``shapes-cnn``: a network that tells lines, arcs, circles and triangles by a bank of detectors that are known.

Sixteen channels in an order that the seed chooses: line detectors at eight angles, curve detectors at four, two
filters of noise, and two *silent* channels, a line and a curve detector that the next layer is kept from reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import HALVES, StreamedSource, parts, place
from prosect.organisms.vision import bank, convnet
from prosect.organisms.vision.bank import Detector
from prosect.organisms.vision.convnet import ConvNet
from prosect.organisms.vision.drawings import CLASSES, Drawings, draw
from prosect.organisms.vision.known import truth_of

if TYPE_CHECKING:
    from prosect.model import Model

SIZE, POOL = 7, 4
IMAGES, EPOCHS = 2048, 12
BLOCK = 128


def detectors(seed: int = 0) -> tuple[Detector, ...]:
    """What every channel is."""
    lines = [Detector("line", 22.5 * k) for k in range(8)]
    curves = [Detector("curve", 90.0 * k) for k in range(4)]
    spare = [
        Detector("random"),
        Detector("random"),
        Detector("line", 45.0, False),
        Detector("curve", 180.0, False),
    ]
    every = [*lines, *curves, *spare]
    return tuple(every[i] for i in Seed(seed).child("shapes-cnn", "order").numpy().permutation(len(every)))


@lru_cache(maxsize=4)  # of what is never handed out: whoever gets it gets a copy
def train(seed: int = 0) -> ConvNet:
    """The network; its training drawings are in no part of `source`."""
    root, kinds = Seed(seed).child("shapes-cnn"), detectors(seed)
    module = convnet.fresh(
        bank.drawn(kinds, SIZE, root.child("bank")), POOL, len(CLASSES), root.child("start")
    )
    learned = draw(IMAGES, root.child("train").numpy())
    read = np.array([d.read for d in kinds])
    return convnet.train(module, learned.images, learned.classes, read, EPOCHS, root.child("epochs"))


def network(seed: int = 0) -> tuple[ConvNet, Truth]:
    """The network and its truth; see `known.truth_of`."""
    module, kinds = deepcopy(train(seed)), detectors(seed)
    units = source(seed).units
    there = {part: drawings(seed, part) for part in units if part not in HALVES}
    seen = {part: (found.images, found.classes) for part, found in there.items()}
    return module, truth_of("shapes-cnn", module, kinds, seen, CLASSES)


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A convolutional network of drawn shapes whose first layer is a bank of line and curve detectors.

    The bank is written down (Cammarata et al. 2021, "Curve Circuits"), the rest is trained in a few seconds on
    drawings. Known: kind and angle of every channel, which two nothing reads, the class of every image and where
    its object is (`drawings`). What the second layer stands for is not claimed.
    """
    return opened(network(seed), source(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 512,
    validate: int = 128,
    sealed: int = 128,
    shift: int = 128,
) -> StreamedSource:
    """Inputs ``images`` (n, 1, 28, 28); in ``shift`` with thicker strokes and half as much noise again."""

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        return {"images": _block(seed, part, block).images}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("shapes-cnn", seed, make, units, unit="image", block=BLOCK)


def drawings(
    seed: int, part: str, rows: Int[np.ndarray, " rows"] | Bool[np.ndarray, " all"] | None = None
) -> Drawings:
    """What is on the images of a part of `source` with its usual sizes: their classes and where the objects are.

    Args:
        seed: of the source.
        part: of the source.
        rows: some of its images; all by default.

    Raises:
        UnknownName: there is no such part.
    """
    import torch

    units = source(seed).units
    base, first = place(part, units)
    last = first + units[part]
    blocks = [_block(seed, base, b) for b in range(-(-last // BLOCK))]
    at = np.arange(first, last) if rows is None else np.arange(first, last)[rows]
    return Drawings(
        torch.cat([b.images for b in blocks])[at],
        torch.cat([b.classes for b in blocks])[at],
        np.concatenate([b.boxes for b in blocks])[at],
    )


def untrained(seed: int = 0) -> ConvNet:
    """The model null: random filters of the same size in every layer."""
    root = Seed(seed).child("shapes-cnn", "untrained")
    module = convnet.fresh(bank.drawn(detectors(0), SIZE, root), POOL, len(CLASSES), root.child("after"))
    return redrawn(module, root.child("bank"), lambda name: name != "bank.weight")


def _block(seed: int, part: str, block: int) -> Drawings:
    return draw(BLOCK, Seed(seed).child("shapes-cnn", "data", part, block).numpy(), shifted=part == "shift")
