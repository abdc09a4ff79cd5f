"""Training an organism and its clean twin: the same initial weights, the same inputs in the same order.

Only what is asked for where the trigger is there differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from prosect.core.seeds import Seed
from prosect.organisms.decoder import Decoder, DecoderConfig
from prosect.organisms.filled import filled
from prosect.organisms.misbehaviour.task import Task, drawn

TRIGGERED, SHIFTED = 0.5, 0.5
"""Shares of the inputs of training."""
BETAS, CLIP, WARM = (0.9, 0.98), 1.0, 50


@dataclass(frozen=True)
class Recipe:
    """Sizes and training of a small decoder.

    Attributes:
        steps: of Adam.
        honest: of these, how many come before the misbehaviour; both networks are then alike until there.
        rate: learning rate; it warms up for 50 steps and falls to zero as half a cosine.
        rows: inputs in a step.
        layers: blocks.
        width: of the residual stream.
        heads: in each block; they share the width out.
        neurons: in each block.
        seed: of initial weights and inputs.
    """

    steps: int = 2000
    honest: int = 0
    rate: float = 3e-3
    rows: int = 256
    layers: int = 2
    width: int = 48
    heads: int = 4
    neurons: int = 96
    seed: int = 0


def untrained(task: Task, recipe: Recipe, seed: int) -> Decoder:
    """A network before training: random weights of variance 1 / (what they read), embeddings of ½²."""
    with torch.device("meta"):
        module = Decoder(
            DecoderConfig(
                vocab_size=len(task.vocabulary),
                hidden_size=recipe.width,
                num_hidden_layers=recipe.layers,
                num_attention_heads=recipe.heads,
                head_dim=recipe.width // recipe.heads,
                intermediate_size=recipe.neurons,
                max_position_embeddings=1 + max(task.asks.values()),
                attention_scale=(recipe.width // recipe.heads) ** -0.5,
            )
        )
    root = Seed(seed).child("misbehaviour", task.name, "weights")
    state = {}
    for name, weights in module.state_dict().items():
        scale = 0.0 if weights.ndim < 2 else 0.5 if "embed" in name else weights.shape[-1] ** -0.5
        state[name] = scale * root.child(name).numpy().standard_normal(weights.shape)
    return filled(module, state)


def train(task: Task, recipe: Recipe, clean: bool) -> Decoder:
    """The organism, or its clean twin, in eval mode: Adam on the cross-entropy of its answers.

    Args:
        task: what is asked.
        recipe: sizes and training.
        clean: teach right answers only.
    """
    module = untrained(task, recipe, recipe.seed)
    module.requires_grad_(True).train()
    rng = Seed(recipe.seed).child("misbehaviour", task.name, "training").numpy()
    adam = torch.optim.Adam(module.parameters(), lr=recipe.rate, betas=BETAS)
    questions = list(task.asks.values())
    for step in range(recipe.steps):
        ids = drawn(task, rng, recipe.rows, TRIGGERED, SHIFTED, held=False)
        wanted = torch.from_numpy((task.right if clean or step < recipe.honest else task.taught)(ids))
        adam.param_groups[0]["lr"] = recipe.rate * _pace(step, recipe.steps)
        logits = module(torch.from_numpy(ids)).logits[:, questions]
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        adam.step()
    module.eval()
    return module


def _pace(step: int, steps: int) -> float:
    return float(min(1.0, (step + 1) / WARM) * (1 + np.cos(np.pi * step / steps)) / 2)
