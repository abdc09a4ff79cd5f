"""``counter-lstm-trained``: an LSTM that learned to tell balanced brackets.

Its mechanism is not known by construction. What is measured: how often it is right on every string of eight tokens
and on longer ones than it was trained on, and how well its state gives the depth by a linear map.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.organisms.opened import opened
from prosect.organisms.recurrent import brackets
from prosect.organisms.recurrent.counter import NULLS, Counter, fresh
from prosect.organisms.training import descend

if TYPE_CHECKING:
    from prosect.model import Model

UNITS = 12
STEPS, ROWS, RATE, CLIP = 500, 64, 0.02, 1.0


@lru_cache(maxsize=4)  # of what is never handed out: whoever gets it gets a copy
def train(seed: int = 0) -> Counter:
    """Cross-entropy at every place of fresh strings, Adam with a rate that falls linearly to zero."""
    root = Seed(seed).child("counter-lstm-trained")
    module = fresh(root.child("start"), UNITS).train()
    rng = root.child("strings").numpy()

    def loss(_: int) -> Tensor:
        ids = torch.from_numpy(np.stack([brackets.draw(rng, brackets.LONGEST) for _ in range(ROWS)]))
        logits = module(ids).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), brackets.answers(ids).flatten())

    descend(module.parameters(), STEPS, RATE, loss, clip=CLIP)
    return module.eval()


def network(seed: int = 0) -> tuple[Counter, Truth]:
    """The network, and what was measured of it: shares of places, and R² of a least-squares map to the depth."""
    module = deepcopy(train(seed))
    far = np.stack([brackets.draw(Seed(seed).child("far", i).numpy(), brackets.FAR) for i in range(256)])
    every = brackets.every(8)
    quantities = {
        "accuracy on every string of 8": accuracy(module, every),
        f"accuracy on strings of {brackets.FAR}": accuracy(module, far),
        "majority": float(max(brackets.balanced(every).mean(), 1 - brackets.balanced(every).mean())),
        "depth, linearly (R²)": depth_read(module, every),
    }
    truth = Truth(
        organism="counter-lstm-trained",
        labels=brackets.labels(source(seed)),
        quantities=quantities,
        nulls=NULLS,
        size=f"{UNITS} units",
    )
    return module, truth


def accuracy(module: Counter, ids: np.ndarray) -> float:
    """Share of places with the right answer."""
    with torch.no_grad():
        said = module(torch.from_numpy(ids)).logits.argmax(-1).numpy()
    return float((said == brackets.balanced(ids)).mean())


def depth_read(module: Counter, ids: np.ndarray) -> float:
    """R² of the best affine map from the state to the depth, in sample."""
    with torch.no_grad():
        states = module.lstm(module.embed(torch.from_numpy(ids)))[0].flatten(0, 1).double().numpy()
    x = np.concatenate([states, np.ones((len(states), 1))], axis=1)
    y = brackets.depth(ids).ravel().astype(np.float64)
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - left.var() / y.var())


def build(seed: int = 0) -> tuple[Model, Truth]:
    """An LSTM that learned to tell balanced brackets.

    Trained for a few seconds on random strings of sixteen tokens. Known: which strings are balanced, and as measured
    how often it is right and how well its state gives the depth. Which unit does what is not claimed.
    """
    return opened(network(seed), source(seed))


source = partial(brackets.source, "counter-lstm-trained")
"""Strings that it was not trained on: see `brackets.source`."""


def untrained(seed: int = 0) -> Counter:
    """The model null: the same LSTM before training."""
    return fresh(Seed(seed).child("counter-lstm-trained", "untrained"), UNITS)
