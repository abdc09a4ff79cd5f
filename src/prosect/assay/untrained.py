"""The same architecture with fresh random weights: what a network gives before it has learned anything."""

from __future__ import annotations

import copy

import torch
from torch import nn

from prosect.core.seeds import Seed
from prosect.model import Model


def untrained(model: Model, seed: Seed) -> Model | None:
    """A network of the same kind with fresh weights; None where nothing in it can be initialised anew.

    Initialisation inside libraries reads torch's global generator, so it runs with a forked one.
    """
    module = model.module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed.integer)
        if hasattr(module, "config_class"):  # one of transformers' models, which it takes seconds to import
            fresh: nn.Module = type(module)(module.config)
        else:
            fresh = copy.deepcopy(module)
            resets = [r for m in fresh.modules() if callable(r := getattr(m, "reset_parameters", None))]
            if not resets:
                return None
            for reset in resets:
                reset()
    fresh = fresh.to(model.device, model.dtype).eval()
    return Model.of(fresh, name=f"{model.name} untrained", inputs=model.example, tokenizer=model.tokenizer)


def fresh(model: Model, seed: Seed, count: int) -> list[Model]:
    """Several of them; none where nothing can be initialised anew."""
    made = (untrained(model, seed.child("fresh", i)) for i in range(count))
    return [m for m in made if m is not None]
