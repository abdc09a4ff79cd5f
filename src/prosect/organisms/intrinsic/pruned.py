"""``pruned`` and ``pruned-l0``: students of a sparse teacher, pruned until few weights are left; ``pruned-dense`` is not.

The teacher is an MLP in which every neuron reads two inputs. A student with twice the neurons learns its outputs and
is pruned (`pruning`). Since the teacher's connections are known, so is which of the surviving weights belong. Neurons
have no order, so the student's are first matched with the teacher's, as many to as many (`recovered`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.organisms.filled import filled
from prosect.organisms.intrinsic import pruning
from prosect.organisms.opened import opened
from prosect.organisms.sources import BLOCK, StreamedSource, parts
from prosect.organisms.training import descend, started

if TYPE_CHECKING:
    from prosect.model import Model

INPUTS, TAUGHT, NEURONS, OUTPUTS = 12, 6, 12, 3
READS = 2  # inputs of each neuron of the teacher; it writes to one output
LEARN, PRUNE, ROWS, RATE = 500, 1000, 128, 1e-2
SHRINK = 1e-2  # loss for a weight of size 1 while pruning by magnitude
L0 = 6e-2
"""Loss for each expected weight, where the teacher's outputs have a variance of about 1."""
TESTED = 8192


class Student(nn.Module):
    """x (n, inputs) → ``inner`` → ``act`` (ReLU) → ``readout``, (n, outputs)."""

    def __init__(self, neurons: int = NEURONS) -> None:
        super().__init__()
        self.inner, self.act, self.readout = (
            nn.Linear(INPUTS, neurons),
            nn.ReLU(),
            nn.Linear(neurons, OUTPUTS),
        )

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        return self.readout(self.act(self.inner(x)))  # type: ignore[no-any-return]


def teacher(seed: int) -> Student:
    """Six neurons, each reading two inputs and writing to one output; every input is read by one neuron."""
    rng = Seed(seed).child("pruned", "teacher").numpy()
    inner, readout = np.zeros((TAUGHT, INPUTS)), np.zeros((OUTPUTS, TAUGHT))
    reads = rng.permutation(INPUTS).reshape(TAUGHT, READS)
    for j, at in enumerate(reads):
        inner[j, at] = rng.choice([-1.0, 1.0], READS) * rng.uniform(0.7, 1.3, READS)
    readout[np.arange(TAUGHT) % OUTPUTS, np.arange(TAUGHT)] = rng.choice([-1.0, 1.0], TAUGHT)
    state = {"inner.weight": inner, "inner.bias": rng.uniform(-0.3, 0.3, TAUGHT), "readout.weight": readout}
    with torch.device("meta"):
        module = Student(TAUGHT)
    return filled(module, state | {"readout.bias": np.zeros(OUTPUTS)})


def edges_of(module: Student) -> int:
    """Weights that are not 0."""
    return int((module.inner.weight != 0).sum() + (module.readout.weight != 0).sum())


def recovered(module: Student, taught: Student) -> tuple[float, float]:
    """Precision and recall of the student's surviving weights as connections of the teacher.

    Every teacher's neuron is matched with one of the student's so that as many connections as possible agree
    (Hungarian method); whatever other neurons of the student have left counts as false.
    """
    from scipy.optimize import linear_sum_assignment

    mine, theirs = (
        np.concatenate([m.inner.weight.detach().numpy(), m.readout.weight.detach().numpy().T], axis=1) != 0
        for m in (module, taught)
    )
    shared = theirs.astype(float) @ mine.T.astype(float)
    right = float(shared[linear_sum_assignment(-shared)].sum())
    return right / max(int(mine.sum()), 1), right / int(theirs.sum())


def loss_of(module: Student, seed: int) -> float:
    """Mean squared error on inputs it was not trained on, over the variance of the teacher's outputs."""
    x = torch.randn(TESTED, INPUTS, generator=Seed(seed).child("pruned", "tested").torch())
    with torch.no_grad():
        wanted = teacher(seed)(x)
        return float((module(x) - wanted).square().mean() / wanted.var(dim=0).mean())


def blank() -> Student:
    """The student's architecture without weights."""
    with torch.device("meta"):
        return Student()


@lru_cache(maxsize=8)
def learned(seed: int) -> dict[str, np.ndarray]:
    """The student's weights before anything is pruned."""
    state = started(blank(), Seed(seed).child("pruned", "weights"))
    weights = {name: torch.from_numpy(w).float().requires_grad_(True) for name, w in state.items()}
    loss = _lessons(seed, "learn")
    descend(weights.values(), LEARN, RATE, lambda _: loss(weights))
    return {name: w.detach().numpy() for name, w in weights.items()}


@lru_cache(maxsize=64)
def weights(seed: int, how: str, keep: int) -> dict[str, np.ndarray]:
    """The student's weights at the end, to be copied; training goes on for as long whether anything is pruned or not.

    Args:
        seed: of teacher, student and inputs.
        how: ``magnitude``, ``l0``, ``random`` or ``dense``.
        keep: weights left by ``magnitude`` and ``random``.
    """
    own = {name: torch.from_numpy(w.copy()).requires_grad_(True) for name, w in learned(seed).items()}
    loss, seed_of = _lessons(seed, "prune"), _how(seed, how)
    if how == "magnitude":
        pruning.by_magnitude(own, loss, keep, PRUNE, RATE, SHRINK)
    elif how == "l0":
        pruning.by_l0(own, loss, L0, PRUNE, RATE, seed_of)
    elif how == "random":
        pruning.at_random(own, loss, keep, PRUNE, RATE, seed_of)
    else:
        descend(own.values(), PRUNE, RATE, lambda _: loss(own))
    return {name: w.detach().numpy() for name, w in own.items()}


def trained(seed: int, how: str, keep: int | None = None) -> Student:
    """A student; by default as many weights are kept as the teacher has."""
    kept = edges_of(teacher(seed)) if keep is None else keep
    return filled(blank(), {name: w.copy() for name, w in weights(seed, how, kept).items()})


def at_random(seed: int, keep: int) -> Student:
    """A student with weights where pruning at random leaves them; going on with training changes no place."""
    state = {name: torch.from_numpy(w.copy()) for name, w in learned(seed).items()}
    matrices = [w for w in state.values() if w.ndim == 2]
    for w, mask in zip(matrices, pruning.scattered(matrices, keep, _how(seed, "random")), strict=True):
        w.mul_(mask)
    return filled(blank(), {name: w.numpy() for name, w in state.items()})


def frontier(seed: int, keeps: tuple[int, ...], how: str = "magnitude") -> list[tuple[int, float]]:
    """Circuit size against loss: for each number of weights to keep, how many are left and the loss with them."""
    found = [trained(seed, how, keep) for keep in keeps]
    return [(edges_of(m), loss_of(m, seed)) for m in found]


def network(seed: int = 0) -> tuple[Student, Truth]:
    """The student pruned by magnitude, and its truth."""
    return _network(seed, "pruned", "magnitude")


def network_l0(seed: int = 0) -> tuple[Student, Truth]:
    """The student pruned by an L0 penalty, and its truth."""
    return _network(seed, "pruned-l0", "l0")


def network_dense(seed: int = 0) -> tuple[Student, Truth]:
    """The student that is not pruned, and its truth."""
    return _network(seed, "pruned-dense", "dense")


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A student of a sparse teacher, pruned by magnitude to as many weights as the teacher has.

    Gradual pruning after Zhu & Gupta 2017. Weights that were pruned are exactly 0, so which inputs reach a neuron and
    which outputs it reaches is known whatever training did: the truth's variables say so. ``precision`` and ``recall``
    are of its weights as connections of the teacher, beside those of pruning at random; ``cost`` is the error above
    that of ``pruned-dense`` as a share of the variance.
    """
    return opened(network(seed), source(seed))


def build_l0(seed: int = 0) -> tuple[Model, Truth]:
    """A student of a sparse teacher, pruned by an L0 penalty that chooses itself how many weights stay.

    Hard concrete gates after Louizos et al. 2018. Weights whose gate closed are exactly 0, and the truth's variables
    say what each neuron is connected to. ``precision``, ``recall`` and ``cost`` as for ``pruned``.
    """
    return opened(network_l0(seed), source_l0(seed))


def build_dense(seed: int = 0) -> tuple[Model, Truth]:
    """The dense twin of ``pruned``: the same first weights, inputs and number of steps, and nothing pruned."""
    return opened(network_dense(seed), source_dense(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 16_384,
    validate: int = 2048,
    sealed: int = 2048,
    shift: int = 2048,
) -> StreamedSource:
    """Inputs ``x`` (n, 12), standard normal; in ``shift`` with a standard deviation of 2.

    Args:
        seed: that of the network.
        folds: validation folds.
        explore, validate, sealed, shift: inputs in each part.
    """
    root = Seed(seed).child("pruned", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        x = torch.randn(BLOCK, INPUTS, generator=root.child(part, block).torch())
        return {"x": 2 * x if part == "shift" else x}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("pruned", seed, make, units)


source_l0 = source_dense = source


def untrained(seed: int = 0) -> Student:
    """The weights of ``pruned`` in random places."""
    return _redrawn(seed, "magnitude")


def untrained_l0(seed: int = 0) -> Student:
    """The weights of ``pruned-l0`` in random places."""
    return _redrawn(seed, "l0")


def untrained_dense(seed: int = 0) -> Student:
    """The weights of ``pruned-dense`` in random places."""
    return _redrawn(seed, "dense")


def _redrawn(seed: int, how: str) -> Student:
    """The real weights of each matrix, permuted: as sparse and as large, and wired at random."""
    real = trained(seed, how).state_dict()
    rng = Seed(seed).child("pruned", "untrained", how).numpy()
    return filled(
        blank(), {name: rng.permutation(w.numpy().flatten()).reshape(w.shape) for name, w in real.items()}
    )


def _how(seed: int, how: str) -> Seed:
    return Seed(seed).child("pruned", how)


def _lessons(seed: int, stage: str) -> pruning.Loss:
    """Mean squared error against the teacher on a fresh batch each time."""
    taught, rng = teacher(seed), Seed(seed).child("pruned", stage).torch()

    def loss(w: Mapping[str, Tensor]) -> Tensor:
        x = torch.randn(ROWS, INPUTS, generator=rng)
        with torch.no_grad():
            wanted = taught(x)
        hidden = torch.relu(x @ w["inner.weight"].T + w["inner.bias"])
        error: Tensor = (hidden @ w["readout.weight"].T + w["readout.bias"] - wanted).square().mean()
        return error

    return loss


def _network(seed: int, name: str, how: str) -> tuple[Student, Truth]:
    module, taught = trained(seed, how), teacher(seed)
    loss, twin = loss_of(module, seed), loss_of(trained(seed, "dense"), seed)
    precision, recall = recovered(module, taught)
    chance = recovered(at_random(seed, edges_of(module)), taught)
    truth = Truth(
        organism=name,
        variables=tuple(_variable(module, j) for j in range(NEURONS)),
        quantities={
            "loss": loss,
            "loss of the twin": twin,
            "cost": loss - twin,
            "edges": float(edges_of(module)),
            "edges of the teacher": float(edges_of(taught)),
            "precision": precision,
            "recall": recall,
            "precision of random pruning": chance[0],
            "recall of random pruning": chance[1],
        },
        nulls={
            "shuffled-weights": "the weights of each matrix are permuted: as sparse, and wired at random",
            "other-input": "hidden layers are paired with other inputs: no neuron depends on an input",
        },
        size=f"{INPUTS} inputs, {NEURONS} neurons, {edges_of(module)} weights",
    )
    return module, truth


def _variable(module: Student, j: int) -> Variable:
    reads = torch.nonzero(module.inner.weight[j])[:, 0].tolist()
    writes = torch.nonzero(module.readout.weight[:, j])[:, 0].tolist()
    if not reads:
        return Variable("act", j, "nothing", {"inputs": [], "outputs": writes}, {"matters": False})
    return Variable("act", j, "connections", {"inputs": reads, "outputs": writes}, {"matters": bool(writes)})
