"""``modular-bimt``: two tasks in one network whose neurons have places, trained so that connections are short.

Brain-inspired modular training (Liu, Gan & Tegmark 2023, "Seeing is believing"): the neurons of a layer stand in a
row, every weight costs its size times its length, and neurons exchange places wherever that shortens them. The tasks
share no input, so a network without long connections falls into two. In place of single swaps each layer is put in
the order that costs least, which is the best that swaps could do. ``modular-dense`` is the twin without a penalty.

There are 64 inputs, so what each neuron does for each task is found by taking it out on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
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

INPUTS, NEURONS, OUTPUTS = 6, 12, 2
STEPS, RATE = 1200, 1e-2
PENALTY = 8e-3
"""Loss for a weight of 1 between places a whole row apart."""
BETWEEN = 0.3  # distance of the rows, where their length is 1
EVERY = 50  # steps between rearrangements
PRUNED = 0.75  # share of the steps after which small weights are taken out and the penalty ends
SMALL = 0.05  # weights below this are taken out
NEEDED = 0.02
"""A neuron is needed for a task where its output, put at its mean, costs this share of the task's variance."""


class Layered(nn.Module):
    """x (n, 6), each ±1 → ``first`` → ``act_1`` → ``second`` → ``act_2`` → ``readout``, (n, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act_1 = nn.Linear(INPUTS, NEURONS), nn.SiLU()
        self.second, self.act_2 = nn.Linear(NEURONS, NEURONS), nn.SiLU()
        self.readout = nn.Linear(NEURONS, OUTPUTS)

    def forward(self, x: Float[Tensor, "n 6"]) -> Float[Tensor, "n 2"]:
        return self.readout(self.act_2(self.second(self.act_1(self.first(x)))))  # type: ignore[no-any-return]

    def matrices(self) -> list[Tensor]:
        """The weights of its layers in order, each (to, from)."""
        return [self.first.weight, self.second.weight, self.readout.weight]


def everything() -> Float[Tensor, "64 6"]:
    """Every input there is."""
    return torch.tensor(list(product((-1.0, 1.0), repeat=INPUTS)))


def tasks(seed: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Which inputs belong to each of the two tasks."""
    order = Seed(seed).child("modular-bimt", "tasks").numpy().permutation(INPUTS).tolist()
    return (order[0], order[1], order[2]), (order[3], order[4], order[5])


def target(x: Float[Tensor, "n 6"], seed: int) -> Float[Tensor, "n 2"]:
    """Each output is a · b + c of its own three inputs."""
    return torch.stack([x[:, a] * x[:, b] + x[:, c] for a, b, c in tasks(seed)], dim=1)


class Places:
    """Where the neurons of each layer stand in their row, from 0 to 1; the outputs stay where they are.

    Attributes:
        at: for each layer, inputs first, one place for each neuron.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.at = [(np.arange(n) + 0.5) / n for n in sizes]

    def lengths(self) -> list[Float[Tensor, "_ _"]]:
        """Of every weight, (to, from)."""
        pairs = zip(self.at, self.at[1:], strict=False)
        return [torch.from_numpy(np.abs(b[:, None] - a) + BETWEEN).float() for a, b in pairs]

    def rearrange(self, weights: list[Float[np.ndarray, "_ _"]]) -> None:
        """Put each layer but the last into the order with the shortest connections, one layer after the other."""
        from scipy.optimize import linear_sum_assignment

        for layer in range(len(self.at) - 1):
            spots = np.sort(self.at[layer])
            cost = np.abs(weights[layer]).T @ np.abs(self.at[layer + 1][:, None] - spots)
            if layer:
                cost = cost + np.abs(weights[layer - 1]) @ np.abs(self.at[layer - 1][:, None] - spots)
            neurons, chosen = linear_sum_assignment(cost)
            self.at[layer] = spots[chosen[np.argsort(neurons)]]


@lru_cache(maxsize=32)
def weights(near: bool, seed: int) -> dict[str, np.ndarray]:
    """Trained weights by name, to be copied; twins start alike and take as many steps."""
    with torch.device("meta"):
        module = Layered()
    module = filled(module, started(module, Seed(seed).child("modular-bimt", "weights")))
    x = everything()
    wanted = target(x, seed)
    matrices = module.matrices()
    places = Places((INPUTS, NEURONS, NEURONS, OUTPUTS))
    lengths, masks = places.lengths(), [torch.ones_like(w) for w in matrices]
    last = round(PRUNED * STEPS)

    def loss(step: int) -> Tensor:
        error: Tensor = (module(x) - wanted).square().mean()
        if not near or step >= last:
            return error
        long = torch.stack([(w.abs() * d).sum() for w, d in zip(matrices, lengths, strict=True)]).sum()
        return error + PENALTY * long

    def after(step: int) -> None:
        nonlocal lengths, masks
        if not near:
            return
        if step < last and step % EVERY == 0:
            places.rearrange([w.detach().double().numpy() for w in matrices])
            lengths = places.lengths()
        if step == last:
            masks = [(w.abs() >= SMALL).float() for w in matrices]
        for w, mask in zip(matrices, masks, strict=True):
            w.mul_(mask)

    descend(module.parameters(), STEPS, RATE, loss, after)
    return {name: w.detach().numpy().copy() for name, w in module.state_dict().items()}


def trained(near: bool, seed: int) -> Layered:
    """The network or its twin."""
    with torch.device("meta"):
        module = Layered()
    return filled(module, {name: w.copy() for name, w in weights(near, seed).items()})


def loss_of(module: Layered, seed: int) -> float:
    """Mean squared error over all inputs, as a share of the variance of what is asked for."""
    x = everything()
    with torch.no_grad():
        return float((module(x) - target(x, seed)).square().mean() / target(x, seed).var(dim=0).mean())


def needs(module: Layered, seed: int) -> dict[str, Float[np.ndarray, "neurons 2"]]:
    """For each hidden layer, what each task loses when a neuron is put at its mean, as a share of its variance.

    Over all 64 inputs; the keys are the sites ``act_1`` and ``act_2``.
    """
    x = everything()
    wanted = target(x, seed)
    with torch.no_grad():
        one = module.act_1(module.first(x))
        two = module.act_2(module.second(one))
        base = (module.readout(two) - wanted).square().mean(dim=0)
        out = {}
        for site, act in (("act_1", one), ("act_2", two)):
            rows = []
            for j in range(NEURONS):
                left = act.clone()
                left[:, j] = act[:, j].mean()
                h = module.act_2(module.second(left)) if site == "act_1" else left
                rows.append((module.readout(h) - wanted).square().mean(dim=0) - base)
            out[site] = (torch.stack(rows) / wanted.var(dim=0)).double().numpy()
    return out


def sides(module: Layered, seed: int) -> list[Int[np.ndarray, " neurons"]]:
    """The task of every input, neuron and output, layer by layer: the one that would lose more without it."""
    inputs = np.zeros(INPUTS, dtype=int)
    inputs[list(tasks(seed)[1])] = 1
    return [inputs, *(each.argmax(axis=1) for each in needs(module, seed).values()), np.arange(OUTPUTS)]


def network(seed: int = 0) -> tuple[Layered, Truth]:
    """The network with short connections, and its truth."""
    return _network(True, "modular-bimt", seed)


def network_dense(seed: int = 0) -> tuple[Layered, Truth]:
    """The twin without a penalty, and its truth."""
    return _network(False, "modular-dense", seed)


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Two independent tasks in one network whose connections are short, so that it falls into two.

    Brain-inspired modular training after Liu, Gan & Tegmark 2023. Which inputs belong to which task is known. The
    truth's labels say which neurons each task needs, found by taking each neuron out on all 64 inputs, which is an
    enumeration. ``shared neurons`` counts those that both need; ``cost`` is the error above ``modular-dense`` as a
    share of the variance.
    """
    return opened(network(seed), source(seed))


def build_dense(seed: int = 0) -> tuple[Model, Truth]:
    """The dense twin of ``modular-bimt``: the same first weights and steps, and no price on a connection's length."""
    return opened(network_dense(seed), source_dense(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 4096,
    validate: int = 1024,
    sealed: int = 1024,
    shift: int = 1024,
) -> StreamedSource:
    """Inputs ``x`` (n, 6), each ±1 with equal chance; in ``shift`` +1 three times as often as -1.

    Args:
        seed: that of the network.
        folds: validation folds.
        explore, validate, sealed, shift: inputs in each part.
    """
    root = Seed(seed).child("modular-bimt", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        drawn = torch.rand(BLOCK, INPUTS, generator=root.child(part, block).torch())
        return {"x": (drawn < (0.75 if part == "shift" else 0.5)).float() * 2 - 1}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("modular-bimt", seed, make, units)


source_dense = source


def untrained(seed: int = 0) -> Layered:
    """The network before training, from another start."""
    with torch.device("meta"):
        module = Layered()
    return filled(module, started(module, Seed(seed).child("modular-bimt", "untrained")))


untrained_dense = untrained


def _network(near: bool, name: str, seed: int) -> tuple[Layered, Truth]:
    module = trained(near, seed)
    loss, twin = loss_of(module, seed), loss_of(trained(False, seed), seed)
    needed = {site: each > NEEDED for site, each in needs(module, seed).items()}
    both = sum(int(each.all(axis=1).sum()) for each in needed.values())
    used = sum(int(each.any(axis=1).sum()) for each in needed.values())
    edges = sum(int((w != 0).sum()) for w in module.matrices())
    truth = Truth(
        organism=name,
        labels={f"{site} needed by task {t}": each[:, t] for site, each in needed.items() for t in (0, 1)},
        quantities={
            "loss": loss,
            "loss of the twin": twin,
            "cost": loss - twin,
            "edges": float(edges),
            "needed neurons": float(used),
            "shared neurons": float(both),
        },
        nulls={
            "rewired": "the weights of each layer change ends, every neuron keeping as many: no modules but by chance",
            "untrained": "random weights: nothing was learned",
        },
        size=f"{INPUTS} inputs, two layers of {NEURONS} neurons, {edges} weights",
    )
    return module, truth
