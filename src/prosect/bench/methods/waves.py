"""Frequencies and phases: from the loop's own explainer, and from Fourier sums written down in a few lines."""

from __future__ import annotations

import numpy as np
import torch

from prosect.bench.given import Answer, Given
from prosect.core.seeds import Seed
from prosect.describe.trigonometric import Trigonometric
from prosect.describe.waves import TrigonometricExplainer

LEAST = 0.3
"""Share of the variance that the two waves of a frequency must hold to be called one."""


def explainer(given: Given, seed: Seed) -> Answer:
    """`TrigonometricExplainer`, where it says that it found a frequency."""
    made = TrigonometricExplainer(given.tensors["pairs"].numpy(), given.about["modulus"], seed)
    frequency, phases = [], []
    for x in given.tensors["activations"].double().numpy().T:
        found = made.explain(np.ascontiguousarray(x))
        if found.found and found.description.cause is not None:
            wave = Trigonometric.read(dict(found.description.cause.parameters)).canonical
            frequency.append(wave.k)
            phases.append((wave.phi, wave.psi))
        else:
            frequency.append(0)
            phases.append((0.0, 0.0))
    return {"frequency": torch.tensor(frequency), "phases": torch.tensor(phases, dtype=torch.float64)}


def periodogram(given: Given, seed: Seed) -> Answer:
    """The frequency k at which waves of k(a + b) and of k(a − b) are largest; their phases are φ + ψ and φ − ψ."""
    return _largest(given, both=True)


def sums(given: Given, seed: Seed) -> Answer:
    """The same from waves of k(a + b) alone, with phases that are their halves: what the logits suggest."""
    return _largest(given, both=False)


def _largest(given: Given, both: bool) -> Answer:
    p, pairs = given.about["modulus"], given.tensors["pairs"].double().numpy()
    x = given.tensors["activations"].double().numpy()
    x = x - x.mean(axis=0)
    k = np.arange(1, (p - 1) // 2 + 1)
    turn = 2j * np.pi / p
    plus = np.exp(-turn * np.outer(k, pairs[:, 0] + pairs[:, 1])) @ x
    minus = np.exp(-turn * np.outer(k, pairs[:, 0] - pairs[:, 1])) @ x
    power = np.abs(plus) ** 2 + (np.abs(minus) ** 2 if both else 0.0)
    best = power.argmax(axis=0)
    at = (best, np.arange(x.shape[1]))
    share = 2.0 * power[at] / len(x) / np.maximum((x * x).sum(axis=0), 1e-12)
    together, apart = np.angle(plus[at]), np.angle(minus[at]) if both else np.zeros(x.shape[1])
    phases = np.stack([(together + apart) / 2, (together - apart) / 2], axis=1)
    frequency = np.where(share > (LEAST if both else LEAST / 2), k[best], 0)
    return {"frequency": torch.from_numpy(frequency), "phases": torch.from_numpy(phases)}
