"""The network of the sparse activations and its training: mixture → hidden units → one logit for each feature."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.organisms.filled import filled
from prosect.organisms.intrinsic import sparse_features as task
from prosect.organisms.intrinsic.layers import SoLU, TopK
from prosect.organisms.training import descend, started

NEURONS = 2 * task.FEATURES  # every feature could have a neuron to itself
ACTIVE = 4  # of TopK
STEPS, ROWS, RATE = 600, 128, 1e-2
CHUNK = 100  # steps whose inputs are drawn at once
SPREAD = 4.0
"""How much larger the first pre-activations of SoLU are: its softmax is flat where they are small."""
RARE = -3.0  # first bias of the logits: features are absent most of the time
TESTED = 8192


class Own(nn.Module):
    """Each unit times a number of its own, plus another: a readout that cannot mix units."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        return x * self.gain + self.bias


class Readable(nn.Module):
    """features (n, F) → ``embed`` → ``inner`` → ``act`` → ``norm`` → ``readout``, logits (n, F).

    Args:
        features, width, neurons: sizes.
        act: any activation function of ``neurons`` units.
        norm: whether a LayerNorm follows it.
        own: the readout gives each neuron one logit, so ``neurons`` is ``features``.
    """

    def __init__(
        self, features: int, width: int, neurons: int, act: nn.Module, norm: bool = False, own: bool = False
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width, bias=False)
        self.inner = nn.Linear(width, neurons)
        self.act = act
        self.norm = nn.LayerNorm(neurons) if norm else nn.Identity()
        self.readout = Own(neurons) if own else nn.Linear(neurons, features)

    def forward(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
        return self.readout(self.norm(self.act(self.inner(self.embed(features)))))  # type: ignore[no-any-return]


KINDS = ("topk", "solu", "bare", "relu", "gelu", "single")
TWIN = {"topk": "relu", "solu": "gelu", "bare": "gelu", "single": "gelu", "relu": "relu", "gelu": "gelu"}
"""What each is compared with."""


def blank(kind: str) -> Readable:
    """The architecture of one of `KINDS`, without weights."""
    neurons = task.FEATURES if kind == "single" else NEURONS
    act: nn.Module = {"topk": TopK(ACTIVE), "relu": nn.ReLU(), "gelu": nn.GELU()}.get(kind, SoLU())
    with torch.device("meta"):
        return Readable(
            task.FEATURES, task.WIDTH, neurons, act, norm=kind in ("solu", "single"), own=kind == "single"
        )


def fresh(kind: str, seed: int, weights: Seed | None = None) -> Readable:
    """One of `KINDS` before training: the seed's directions in front, random weights behind.

    Args:
        kind: one of `KINDS`.
        seed: of the directions.
        weights: where the random weights come from; by default those that training of ``seed`` starts from, which
            twins of the same shape share.
    """
    module = blank(kind)
    state = started(module, weights or Seed(seed).child("intrinsic", "weights"))
    state["embed.weight"] = task.directions(seed).T
    state["readout.bias"] += RARE
    if "readout.gain" in state:
        state["readout.gain"] += 1.0
        # each neuron has one feature to find, so it may as well start at it
        state["inner.weight"] = task.directions(seed)
    if isinstance(module.act, SoLU):
        state["inner.weight"] *= SPREAD
    return filled(module, state)


@lru_cache(maxsize=32)
def weights(kind: str, seed: int, steps: int = STEPS) -> dict[str, np.ndarray]:
    """Trained weights by name, to be copied; kept, since a twin is asked for again by whatever it is compared with."""
    module = fresh(kind, seed)
    module.embed.weight.requires_grad_(False)
    rng = Seed(seed).child("intrinsic", "train").torch()
    data = torch.zeros(0)

    def loss(step: int) -> Tensor:
        nonlocal data
        if step % CHUNK == 0:
            data = task.draw(CHUNK * ROWS, rng).view(CHUNK, ROWS, -1)
        x = data[step % CHUNK]
        return task.losses(module(x), x).sum(dim=1).mean()

    descend((p for p in module.parameters() if p.requires_grad), steps, RATE, loss)
    return {name: w.detach().numpy().copy() for name, w in module.state_dict().items()}


def trained(kind: str, seed: int) -> Readable:
    """One of `KINDS`, trained; the same inputs in the same order for all kinds of a seed."""
    return filled(blank(kind), {name: w.copy() for name, w in weights(kind, seed).items()})


def loss_of(module: Readable, seed: int) -> float:
    """Mean loss on inputs it was not trained on, nats per input."""
    x = _tested(seed)
    with torch.no_grad():
        return float(task.losses(module(x), x).sum(dim=1).mean())


def loss_with_loudest(module: Readable, seed: int) -> float:
    """The loss with only the loudest activations left, nats per input.

    As many activations stay as the input has features: what a network with one neuron for each would need.
    """
    x = _tested(seed)
    with torch.no_grad():
        act = module.act(module.inner(module.embed(x)))
        rank = act.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        loud = act * (rank < (x > 0).sum(dim=1, keepdim=True))
        return float(task.losses(module.readout(module.norm(loud)), x).sum(dim=1).mean())


def _tested(seed: int) -> Float[Tensor, "n features"]:
    return task.draw(TESTED, Seed(seed).child("intrinsic", "tested").torch())
