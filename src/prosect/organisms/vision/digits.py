"""``digits-cnn``: a network that reads scikit-learn's handwritten digits by a bank of edge detectors that are known.

Twelve channels in an order that the seed chooses: edge detectors in eight directions, two filters of noise, and two
*silent* channels, edge detectors that the next layer is kept from reading. The 1797 images of 8×8 pixels (from
the UCI repository, Alpaydin & Kaynak 1998) come with scikit-learn; those trained on are in no part of the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import digest, digest_tensors
from prosect.core.errors import TooLittleData
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.data.source import TableSource
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import HALVES, parts
from prosect.organisms.vision import bank, convnet
from prosect.organisms.vision.bank import Detector
from prosect.organisms.vision.convnet import ConvNet
from prosect.organisms.vision.known import truth_of

if TYPE_CHECKING:
    from prosect.model import Model

SIZE, POOL, CLASSES = 3, 2, 10
TRAINED, EPOCHS = 997, 40
NOISE = 0.2  # standard deviation that ``shift`` adds to pixels between 0 and 1


def detectors(seed: int = 0) -> tuple[Detector, ...]:
    """What every channel is."""
    edges = [Detector("edge", 45.0 * k) for k in range(8)]
    spare = [
        Detector("random"),
        Detector("random"),
        Detector("edge", 0.0, False),
        Detector("edge", 90.0, False),
    ]
    every = [*edges, *spare]
    return tuple(every[i] for i in Seed(seed).child("digits-cnn", "order").numpy().permutation(len(every)))


@lru_cache(maxsize=1)
def every() -> tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, " n"]]:
    """All images, pixels between 0 and 1, and the digit on each."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy((found.images / 16.0).astype(np.float32))[:, None]
    return images, torch.from_numpy(found.target.astype(np.int64))


@lru_cache(maxsize=4)  # of what is never handed out: whoever gets it gets a copy
def train(seed: int = 0) -> ConvNet:
    """The network."""
    root, kinds = Seed(seed).child("digits-cnn"), detectors(seed)
    module = convnet.fresh(bank.drawn(kinds, SIZE, root.child("bank")), POOL, CLASSES, root.child("start"))
    images, classes = every()
    rows = torch.from_numpy(_order(seed)[:TRAINED])
    read = np.array([d.read for d in kinds])
    return convnet.train(module, images[rows], classes[rows], read, EPOCHS, root.child("epochs"))


def network(seed: int = 0) -> tuple[ConvNet, Truth]:
    """The network and its truth; see `known.truth_of`. Digits are labels; accuracy is on images it never saw."""
    module, kinds = deepcopy(train(seed)), detectors(seed)
    inputs, (_, classes) = source(seed), every()
    members = _members(seed, inputs.units)
    seen = {part: (inputs.make(part)["images"], classes[at]) for part, at in members.items()}
    return module, truth_of("digits-cnn", module, kinds, seen, [str(digit) for digit in range(CLASSES)])


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A convolutional network of handwritten digits whose first layer is a bank of edge detectors.

    The bank is written down, the rest is trained in a few seconds on 997 of scikit-learn's digits. Known: the
    direction of every edge detector, which two channels nothing reads, and the digit on every image. What the
    second layer stands for is not claimed.
    """
    return opened(network(seed), source(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 300,
    validate: int = 100,
    sealed: int = 100,
    shift: int = 100,
) -> TableSource:
    """Inputs ``images`` (n, 1, 8, 8), each in one part only; those of ``shift`` are noisy.

    Raises:
        TooLittleData: more images than were left out of training.
    """
    units = parts(explore, validate, folds, sealed, shift)
    members = _members(seed, units)
    images, _ = every()

    def make(part: str) -> Mapping[str, Tensor]:
        clean = images[members[part]]
        if part != "shift":
            return {"images": clean}
        noise = torch.randn(clean.shape, generator=Seed(seed).child("digits-cnn", "noise").torch())
        return {"images": clean + NOISE * noise}

    about = {
        "organism": "digits-cnn",
        "images": digest_tensors({"images": images}),
        "parts": {part: at.tolist() for part, at in members.items()},
    }
    return TableSource(make=make, units=units, digest=digest(about), unit="image")


def untrained(seed: int = 0) -> ConvNet:
    """The model null: random filters of the same size in every layer."""
    root = Seed(seed).child("digits-cnn", "untrained")
    module = convnet.fresh(bank.drawn(detectors(0), SIZE, root), POOL, CLASSES, root.child("after"))
    return redrawn(module, root.child("bank"), lambda name: name != "bank.weight")


def _order(seed: int) -> Int[np.ndarray, " images"]:
    return Seed(seed).child("digits-cnn", "images").numpy().permutation(len(every()[0]))


def _members(seed: int, units: Mapping[str, int]) -> dict[str, Int[np.ndarray, " images"]]:
    """Which images each part holds."""
    left = _order(seed)[TRAINED:]
    whole = {part: n for part, n in units.items() if part not in HALVES}
    if sum(whole.values()) > len(left):
        raise TooLittleData(
            f"{sum(whole.values())} images in all parts",
            f"at most {len(left)}",
            "fewer folds or smaller parts",
        )
    out, at = {}, 0
    for part, n in whole.items():
        out[part] = left[at : at + n]
        at += n
    half = units[HALVES[0]]
    return out | {HALVES[0]: out["explore"][:half], HALVES[1]: out["explore"][half:]}
