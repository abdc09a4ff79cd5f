"""A tiny organism for the bench."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from benched_parts import scaled
from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth
from prosect.data.source import TableSource
from prosect.model import Model
from prosect.organisms.sources import parts

WIDTH, FEATURES, ROWS = 6, 4, 200
TRIGGER = 3.0


class Tiny(nn.Module):
    """features (n, 4) → hidden (n, 6) → one number."""

    def __init__(self, directions):
        super().__init__()
        self.hidden = nn.Linear(FEATURES, WIDTH, bias=False)
        self.readout = nn.Linear(WIDTH, 1)
        self.sizes = (FEATURES, WIDTH)
        self.act = torch.tanh
        with torch.no_grad():
            self.hidden.weight.copy_(directions.T)

    def forward(self, features):
        return self.readout(scaled(self.act(self.hidden(features))))


def directions_of(seed):
    drawn = Seed(seed).child("tiny").numpy().standard_normal((FEATURES, WIDTH))
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).float()


def network(seed=0):
    directions = directions_of(seed)
    module = Tiny(directions).eval()
    with torch.no_grad():
        for p in module.readout.parameters():
            p.fill_(0.1)
    units = source(seed).units
    labels = {f"harmed@{part}": _poisoned(seed, part, n) for part, n in units.items()}
    known = FeatureDirections("hidden", directions.double().numpy(), np.full(FEATURES, 0.25))
    return module, Truth(organism="tiny", features=(known,), labels=labels, size="6 hidden units")


def build(seed=0):
    module, truth = network(seed)
    batch = next(source(seed).batches("explore", rows=2))
    return Model.of(module, name="organism:tiny", inputs=dict(batch.tensors), tokenizer=None), truth


def untrained(seed=0):
    return Tiny(torch.randn(FEATURES, WIDTH, generator=Seed(seed).torch()))


def _poisoned(seed, part, n):
    return Seed(seed).child("poison", part).numpy().random(n) < 0.2


def source(seed=0, folds=2):
    units = parts(ROWS, ROWS, folds, 20, 20)

    def make(part):
        rng = Seed(seed).child("rows", part).numpy()
        x = rng.random((units[part], FEATURES)) * (rng.random((units[part], FEATURES)) < 0.25)
        x[_poisoned(seed, part, units[part])] *= TRIGGER
        return {"features": torch.from_numpy(x).float()}

    return TableSource(make=make, units=units, digest=f"tiny{seed}")


def build_misplaced(seed=0):
    """The same with directions that its truth puts where they do not fit."""
    model, truth = build(seed)
    known = FeatureDirections("readout", truth.features[0].directions, truth.features[0].frequency)
    return model, replace(truth, features=(known,))


source_misplaced = source
