"""``solu-leak``: superposition that SoLU hides and the LayerNorm behind it brings back, by construction.

32 neurons and 64 features, one in each input. Half of them, the *shown*, have a neuron each. The others, the *leaked*,
are written on eight neurons at once: SoLU divides each of those by eight, so that whoever looks at what activates a
neuron most sees its shown feature and nothing else, and the LayerNorm gives them their length back. The output reads
all 64 without a mistake. ``solu-clean`` is the twin without a leak: 64 neurons, one for each feature.

In closed form, with c the pre-activation, m neurons of n at c and the others at 0: each becomes c e^c / (m e^c + n - m),
the others stay exactly 0, and the LayerNorm takes off the mean and divides by sqrt(variance + eps).
See `amplification`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from prosect.core.errors import ProsectError
from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth, Variable
from prosect.organisms.filled import filled
from prosect.organisms.intrinsic.layers import SoLU
from prosect.organisms.intrinsic.readable import Readable
from prosect.organisms.opened import opened
from prosect.organisms.sources import BLOCK, StreamedSource, parts
from prosect.organisms.training import started

if TYPE_CHECKING:
    from prosect.model import Model

SHOWN, LEAKED = 32, 32
FEATURES = SHOWN + LEAKED
SPREAD = 8  # neurons of a leaked feature
LEAST = 0.5
"""Smallest strength of a feature; the largest is 1.5."""
DRIVE = 12.0  # pre-activation of a feature of strength 1
OVERLAP = 4
"""Most neurons that two leaked features share: their normalised codes then have a cosine of at most a third."""
READS, SHARPNESS = 0.75, 40.0
"""An output is above 0 where the cosine with its code is above the first; the second is its slope."""
EPS = 1e-5


def codes(seed: int, leaks: bool = True) -> Bool[np.ndarray, "64 neurons"]:
    """Which neurons each feature is written on: one each for the shown, eight for the leaked.

    Args:
        seed: chooses the neurons of the leaked.
        leaks: without, every feature has its own of 64 neurons.
    """
    if not leaks:
        return np.eye(FEATURES, dtype=bool)
    rng = Seed(seed).child("solu-leak", "codes").numpy()
    out = np.zeros((FEATURES, SHOWN), dtype=bool)
    out[:SHOWN] = np.eye(SHOWN, dtype=bool)
    found = SHOWN
    for _ in range(100_000):
        code = np.zeros(SHOWN, dtype=bool)
        code[rng.choice(SHOWN, SPREAD, replace=False)] = True
        if (out[SHOWN:found] & code).sum(axis=1).max(initial=0) <= OVERLAP:
            out[found] = code
            found += 1
            if found == FEATURES:
                return out
    raise ProsectError(f"solu-leak with seed {seed}: no codes that share few neurons were found")


def amplification(strength: float, active: int, neurons: int) -> float:
    """How much longer the LayerNorm makes the hidden layer of one feature: sqrt((1 - m/n) / (variance + eps)).

    Args:
        strength: of the feature.
        active: how many neurons it is written on.
        neurons: how many there are.
    """
    c = DRIVE * strength
    each = c / (active + (neurons - active) * math.exp(-c))
    share = active / neurons
    return math.sqrt((1 - share) / (each**2 * share * (1 - share) + EPS))


def network(seed: int = 0) -> tuple[Readable, Truth]:
    """The network with the leak, and its truth."""
    return _network(seed, "solu-leak", leaks=True)


def network_clean(seed: int = 0) -> tuple[Readable, Truth]:
    """One neuron for each feature, and its truth."""
    return _network(seed, "solu-clean", leaks=False)


def build(seed: int = 0) -> tuple[Model, Truth]:
    """SoLU and a LayerNorm through which superposition leaks, written down rather than trained.

    Half of the 64 features have a neuron each; the others are written on eight of the same neurons, in activations
    an eighth as large, which the LayerNorm (Elhage et al. 2022, "Softmax linear units") brings back. The truth's
    label ``leaked`` says which, and its variables which features each neuron carries. ``cost`` is 0: it answers as
    well as ``solu-clean``, with half the neurons.
    """
    return opened(network(seed), source(seed))


def build_clean(seed: int = 0) -> tuple[Model, Truth]:
    """The twin of ``solu-leak`` without a leak: SoLU, a LayerNorm, and one neuron for each of 64 features."""
    return opened(network_clean(seed), source_clean(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 16_384,
    validate: int = 2048,
    sealed: int = 2048,
    shift: int = 2048,
) -> StreamedSource:
    """Inputs ``features`` (n, 64), one of them present with a strength in [0.5, 1.5]; in ``shift`` in [1.5, 2].

    Args:
        seed: that of the network.
        folds: validation folds.
        explore, validate, sealed, shift: inputs in each part.
    """
    root = Seed(seed).child("solu-leak", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        rng = root.child(part, block).torch()
        which = torch.randint(FEATURES, (BLOCK, 1), generator=rng)
        uniform = torch.rand(BLOCK, 1, generator=rng)
        strength = 1.5 + 0.5 * uniform if part == "shift" else LEAST + uniform
        return {"features": torch.zeros(BLOCK, FEATURES).scatter_(1, which, strength)}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("solu-leak", seed, make, units)


source_clean = source


def untrained(seed: int = 0) -> Readable:
    """Random weights in the same places, each matrix as large as the real one."""
    return _random(seed, leaks=True)


def untrained_clean(seed: int = 0) -> Readable:
    """Random weights in the same places, each matrix as large as the real one."""
    return _random(seed, leaks=False)


def _state(seed: int, leaks: bool) -> dict[str, np.ndarray]:
    written = codes(seed, leaks).astype(float)
    neurons = written.shape[1]
    unit = written - written.mean(axis=1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # the LayerNorm's output has length sqrt(neurons), so this readout is the cosine
    return {
        "embed.weight": np.eye(FEATURES),
        "inner.weight": DRIVE * written.T,
        "inner.bias": np.zeros(neurons),
        "norm.weight": np.ones(neurons),
        "norm.bias": np.zeros(neurons),
        "readout.weight": SHARPNESS * unit / math.sqrt(neurons),
        "readout.bias": np.full(FEATURES, -SHARPNESS * READS),
    }


def _blank(leaks: bool) -> Readable:
    with torch.device("meta"):
        return Readable(FEATURES, FEATURES, SHOWN if leaks else FEATURES, SoLU(), norm=True)


def _random(seed: int, leaks: bool) -> Readable:
    real = _state(seed, leaks)
    drawn = started(_blank(leaks), Seed(seed).child("solu-leak", "untrained"))
    for name, w in drawn.items():
        if w.ndim == 2:
            drawn[name] = w * np.linalg.norm(real[name]) / np.linalg.norm(w)
    return filled(_blank(leaks), drawn)


def _network(seed: int, name: str, leaks: bool) -> tuple[Readable, Truth]:
    written = codes(seed, leaks)
    neurons = written.shape[1]
    leaked = written.sum(axis=1) > 1
    one, many = (amplification(1.0, m, neurons) for m in (1, SPREAD if leaks else 1))
    frequency = np.full(FEATURES, 1 / FEATURES)
    truth = Truth(
        organism=name,
        features=(
            FeatureDirections("embed", np.eye(FEATURES), frequency),
            FeatureDirections("act", written / np.sqrt(written.sum(axis=1, keepdims=True)), frequency),
        ),
        variables=tuple(
            Variable(
                "act", j, "features", {"shown": j, "leaked": np.flatnonzero(written[:, j] & leaked).tolist()}
            )
            for j in range(neurons)
        ),
        labels={"leaked": leaked},
        quantities={
            "cost": 0.0,
            "share of features leaked": float(leaked.mean()),
            "amplification of a shown feature": one,
            "amplification of a leaked feature": many,
            "neurons": float(neurons),
            "accuracy": 1.0,
        },
        nulls={
            "other-input": "hidden layers are paired with other inputs: no unit says anything about a feature",
            "untrained": "random weights of the same size: which features leak is nobody's doing",
        },
        size=f"{FEATURES} features, {neurons} neurons",
    )
    return filled(_blank(leaks), _state(seed, leaks)), truth
