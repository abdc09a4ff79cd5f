"""``experts``: a mixture of experts on data that falls into clusters, and ``experts-dense``, its twin.

Every input lies near one of the cluster centres and is to be mapped by that cluster's own random matrix. A router
sends it to a single expert; experts that are sent nothing do not run. In training experts compete, each answering for
itself (Jacobs et al. 1991, "Adaptive mixtures of local experts", equation 1.3), under a loss for an even load (Fedus
et al. 2021, "Switch transformers", equation 4): where their answers are added up instead, two clusters often end
with one expert. The twin runs every block on every input and adds up what they say: one wide MLP, cut into as many
blocks.

Known by construction: the cluster of every input. That each expert serves one cluster is what training is
expected to find; `decompose.evaluation.specialisation` measures whether it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.organisms.filled import filled
from prosect.organisms.opened import opened
from prosect.organisms.sources import BLOCK, StreamedSource, parts
from prosect.organisms.training import descend, started

if TYPE_CHECKING:
    from prosect.model import Model

CLUSTERS, WIDTH, OUTPUTS, NEURONS = 4, 12, 6, 12
APART, WITHIN = 3.0, 0.6
"""Length of the centres, and standard deviation around them in each dimension."""
STEPS, ROWS, RATE = 400, 128, 1e-2
EVEN = 0.5  # weight of the loss for an even load
SLACK = 0.3
"""Variance of the answers that training assumes: how far an expert may be off before another takes over."""
TESTED = 8192


class Router(nn.Module):
    """Chooses one expert for each input, and says how sure it is of it."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, experts)

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n experts"]:
        """Probabilities; the largest is the expert."""
        return self.logits(x).softmax(dim=-1)  # type: ignore[no-any-return]


class Expert(nn.Module):
    """A small MLP."""

    def __init__(self, width: int, neurons: int, outputs: int) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(width, neurons), nn.ReLU(), nn.Linear(neurons, outputs)

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n outputs"]:
        return self.down(self.act(self.up(x)))  # type: ignore[no-any-return]


class Mixture(nn.Module):
    """x (n, width) → (n, outputs); an expert to which nothing is sent does not run.

    Args:
        sparse: one expert for each input; without, all run and their answers are added up.
    """

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        self.router = Router(WIDTH, CLUSTERS) if sparse else None
        self.experts = nn.ModuleList(Expert(WIDTH, NEURONS, OUTPUTS) for _ in range(CLUSTERS))

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n outputs"]:
        return self.shares(x).sum(dim=1)

    def shares(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n experts outputs"]:
        """What each expert adds to the output; 0 where it was not asked."""
        if self.router is None:
            return torch.stack([expert(x) for expert in self.experts], dim=1)
        sure = self.router(x)
        chosen = sure.argmax(dim=1)
        out = x.new_zeros(len(x), len(self.experts), OUTPUTS)
        for e, expert in enumerate(self.experts):
            rows = torch.nonzero(chosen == e)[:, 0]
            if len(rows):
                out = out.index_put((rows, torch.tensor(e)), expert(x[rows]))
        return out


@lru_cache(maxsize=8)
def clusters(seed: int) -> tuple[Float[np.ndarray, "4 12"], Float[np.ndarray, "4 6 12"]]:
    """The centres, and each cluster's matrix."""
    rng = Seed(seed).child("experts", "clusters").numpy()
    centres = np.linalg.qr(rng.standard_normal((WIDTH, CLUSTERS)))[0].T * APART
    return centres, rng.standard_normal((CLUSTERS, OUTPUTS, WIDTH)) / np.sqrt(WIDTH)


def draw(
    n: int, seed: int, rng: torch.Generator, spread: float = WITHIN
) -> tuple[Float[Tensor, "n 12"], Int[Tensor, " n"]]:
    """Inputs, and the cluster of each."""
    centres = torch.from_numpy(clusters(seed)[0]).float()
    which = torch.randint(CLUSTERS, (n,), generator=rng)
    return centres[which] + spread * torch.randn(n, WIDTH, generator=rng), which


def target(x: Float[Tensor, "n 12"], which: Int[Tensor, " n"], seed: int) -> Float[Tensor, "n 6"]:
    """Each input mapped by its own cluster's matrix."""
    maps = torch.from_numpy(clusters(seed)[1]).float()
    return torch.einsum("nod,nd->no", maps[which], x)


def fresh(sparse: bool, seed: Seed) -> Mixture:
    """Before training; both kinds start with the same experts."""
    with torch.device("meta"):
        module = Mixture(sparse)
    return filled(module, started(module, seed))


@lru_cache(maxsize=32)
def weights(sparse: bool, seed: int) -> dict[str, np.ndarray]:
    """Trained weights by name, to be copied."""
    module = fresh(sparse, Seed(seed).child("experts", "weights"))
    rng = Seed(seed).child("experts", "train").torch()

    def loss(step: int) -> Tensor:
        x, which = draw(ROWS, seed, rng)
        everything = torch.stack([expert(x) for expert in module.experts], dim=1)
        wanted = target(x, which, seed)
        if module.router is None:
            error: Tensor = (everything.sum(dim=1) - wanted).square().sum(dim=1).mean()
            return error
        sure = module.router(x)
        first = nn.functional.one_hot(sure.argmax(dim=1), CLUSTERS).to(sure.dtype)
        even = CLUSTERS * (first.mean(dim=0) * sure.mean(dim=0)).sum()
        each = (everything - wanted[:, None]).square().sum(dim=2)
        likely = torch.logsumexp(sure.clamp(min=1e-9).log() - each / (2 * SLACK), dim=1)
        out: Tensor = EVEN * even - likely.mean()
        return out

    descend(module.parameters(), STEPS, RATE, loss)
    return {name: w.detach().numpy().copy() for name, w in module.state_dict().items()}


def trained(sparse: bool, seed: int) -> Mixture:
    """The mixture or its twin, trained on the same inputs in the same order."""
    with torch.device("meta"):
        module = Mixture(sparse)
    return filled(module, {name: w.copy() for name, w in weights(sparse, seed).items()})


def loss_of(module: Mixture, seed: int) -> float:
    """Mean squared error on inputs it was not trained on, over the variance of what was asked for; 0 is perfect."""
    x, which = draw(TESTED, seed, Seed(seed).child("experts", "tested").torch())
    wanted = target(x, which, seed)
    with torch.no_grad():
        error = (module(x) - wanted).square().sum(dim=1).mean()
    return float(error / (wanted - wanted.mean(dim=0)).square().sum(dim=1).mean())


def network(seed: int = 0) -> tuple[Mixture, Truth]:
    """The mixture of experts and its truth."""
    return _network(True, "experts", seed)


def network_dense(seed: int = 0) -> tuple[Mixture, Truth]:
    """The dense twin and its truth."""
    return _network(False, "experts-dense", seed)


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A mixture of four experts trained on inputs from four clusters, one expert for each input.

    Experts compete as in Jacobs et al. 1991, under the loss for an even load of Fedus et al. 2021. The truth's labels
    say which cluster every input is from; which expert serves which was learned. ``cost`` is the error above that of
    ``experts-dense`` as a share of the variance, and ``neurons run`` how many hidden units an input uses.
    """
    return opened(network(seed), source(seed))


def build_dense(seed: int = 0) -> tuple[Model, Truth]:
    """The dense twin of ``experts``: the same four blocks, all of which run on every input and are added up."""
    return opened(network_dense(seed), source_dense(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 16_384,
    validate: int = 2048,
    sealed: int = 2048,
    shift: int = 2048,
) -> StreamedSource:
    """Inputs ``x`` (n, 12) from four clusters; in ``shift`` they lie half as far again from their centres.

    Args:
        seed: that of the network.
        folds: validation folds.
        explore, validate, sealed, shift: inputs in each part.
    """

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        return {"x": _block(seed, part, block)[0]}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("experts", seed, make, units)


source_dense = source


def clusters_of(seed: int, part: str) -> Int[np.ndarray, " n"]:
    """The cluster of every input of ``part`` of the default source, which is not one of the halves of explore."""
    n = source(seed).units[part]
    blocks = [_block(seed, part, b)[1] for b in range(-(-n // BLOCK))]
    return torch.cat(blocks)[:n].numpy()


def untrained(seed: int = 0) -> Mixture:
    """The mixture before training, from another start."""
    return fresh(True, Seed(seed).child("experts", "untrained"))


def untrained_dense(seed: int = 0) -> Mixture:
    """The twin before training, from another start."""
    return fresh(False, Seed(seed).child("experts", "untrained"))


def _block(seed: int, part: str, block: int) -> tuple[Tensor, Tensor]:
    rng = Seed(seed).child("experts", "data", part, block).torch()
    return draw(BLOCK, seed, rng, 1.5 * WITHIN if part == "shift" else WITHIN)


def _network(sparse: bool, name: str, seed: int) -> tuple[Mixture, Truth]:
    module = trained(sparse, seed)
    loss, twin = loss_of(module, seed), loss_of(trained(False, seed), seed)
    labels: dict[str, np.ndarray] = {}
    for part in ("validate.0", "validate.1", "sealed", "shift"):
        which = clusters_of(seed, part)
        labels |= {f"cluster {c}@{part}": which == c for c in range(CLUSTERS)}
    truth = Truth(
        organism=name,
        labels=labels,
        quantities={
            "loss": loss,
            "loss of the twin": twin,
            "cost": loss - twin,
            "clusters": float(CLUSTERS),
            "neurons run": float(NEURONS if sparse else NEURONS * CLUSTERS),
        },
        nulls={
            "shuffled-clusters": "the clusters of the inputs are permuted: no expert has anything to do with one",
            "untrained": "random weights: the router cuts the inputs where it happens to",
        },
        size=f"{CLUSTERS} experts of {NEURONS} neurons",
    )
    return module, truth
