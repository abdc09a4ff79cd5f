"""``ssm``: a diagonal linear state-space network whose impulse response is written down; ``ssm-gated``, with a gate.

h_t = a ⊙ h_(t−1) + B u_t and y_t = C h_t + D u_t with poles a between −1 and 1, so that an input of k steps ago has the
effect C diag(a^k) B on y, for k ≥ 1; D is added at k = 0 (diagonal state spaces as in Gupta, Gu & Berant 2022,
"Diagonal State Spaces are as Effective as Structured State Spaces"). Two states are planted to do nothing: one that
no input writes, one that no output reads. The gated network multiplies y by a sigmoid of the input at the same step,
as in selective models; its response is that of the other times the gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.data.batch import Batch
from prosect.organisms.filled import filled
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import StreamedSource, parts

if TYPE_CHECKING:
    from prosect.model import Model

INPUTS, OUTPUTS, STATES, LENGTH = 2, 2, 8, 32
LAGS = 16  # of the response that the truth lists
BLOCK = 256


class Scan(nn.Module):
    """inputs (n, T, inputs) → states (n, T, states), step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.pole = nn.Parameter(torch.empty(STATES))
        self.write = nn.Parameter(torch.empty(STATES, INPUTS))

    def forward(self, inputs: Float[Tensor, "n steps inputs"]) -> Float[Tensor, "n steps states"]:
        written = inputs @ self.write.T
        state, out = torch.zeros_like(written[:, 0]), []
        for t in range(written.shape[1]):
            state = self.pole * state + written[:, t]
            out.append(state)
        return torch.stack(out, dim=1)


class Gate(nn.Module):
    """A sigmoid of the input at the same step."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, inputs: Float[Tensor, "n steps inputs"]) -> Float[Tensor, "n steps outputs"]:
        return self.project(inputs).sigmoid()  # type: ignore[no-any-return]


class StateSpace(nn.Module):
    """inputs (n, T, 2) → outputs (n, T, 2): ``scan``, then ``readout``, ``skip`` and perhaps ``gate``."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.scan = Scan()
        self.readout = nn.Linear(STATES, OUTPUTS, bias=False)
        self.skip = nn.Linear(INPUTS, OUTPUTS, bias=False)
        self.gate = Gate() if gated else None

    def forward(self, inputs: Float[Tensor, "n steps inputs"]) -> Float[Tensor, "n steps outputs"]:
        y: Tensor = self.readout(self.scan(inputs)) + self.skip(inputs)
        return y if self.gate is None else y * self.gate(inputs)


@dataclass(frozen=True)
class Plan:
    """The weights: a, B, C, D, and which two states do nothing."""

    pole: Float[np.ndarray, " states"]
    write: Float[np.ndarray, "states inputs"]
    read: Float[np.ndarray, "outputs states"]
    skip: Float[np.ndarray, "outputs inputs"]
    unwritten: int
    unread: int

    @classmethod
    def of(cls, seed: int) -> Plan:
        """Poles spread evenly in the logarithm of their half-life, one in four negative."""
        rng = Seed(seed).child("ssm", "weights").numpy()
        half = np.geomspace(0.5, 16, STATES)[rng.permutation(STATES)]
        pole = 0.5 ** (1 / half) * np.where(np.arange(STATES) % 4 == 3, -1.0, 1.0)
        write, read = rng.standard_normal((STATES, INPUTS)), rng.standard_normal((OUTPUTS, STATES))
        write *= np.sqrt(1 - pole**2)[:, None]  # every state as large as its inputs
        unwritten, unread = (int(i) for i in rng.permutation(STATES)[:2])
        write[unwritten], read[:, unread] = 0.0, 0.0
        return cls(
            pole,
            write,
            read / np.sqrt(STATES),
            0.5 * rng.standard_normal((OUTPUTS, INPUTS)),
            unwritten,
            unread,
        )

    def response(self, lags: int) -> Float[np.ndarray, "lags outputs inputs"]:
        """What one unit of each input does to each output so many steps later."""
        powers = self.pole[None] ** np.arange(lags)[:, None]
        out = np.einsum("os,ks,si->koi", self.read, powers, self.write)
        out[0] += self.skip
        return np.asarray(out)


def network(seed: int = 0) -> tuple[StateSpace, Truth]:
    """The network and its truth: a Variable at ``scan`` for every state, and the response in numbers.

    Quantities: ``response OUT IN LAG`` for lags 0 to 15, and ``gain OUT IN``, the sum over all lags there are.
    """
    return _network("ssm", seed, gated=False)


def network_gated(seed: int = 0) -> tuple[StateSpace, Truth]:
    """The same with a gate; quantities are of what is gated."""
    return _network("ssm-gated", seed, gated=True)


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A diagonal linear state-space network of eight states with a known impulse response.

    Drawn, not trained (Gupta, Gu & Berant 2022). Known: every state's pole, what writes and reads it, the response
    at every lag and the gain; one state is never written and one never read.
    """
    return opened(network(seed), source(seed))


def build_gated(seed: int = 0) -> tuple[Model, Truth]:
    """The state-space network of ``ssm`` with a gate that reads the input of the same step.

    Drawn, not trained. Known: as for ``ssm``, before the gate.
    """
    return opened(network_gated(seed), source_gated(seed))


@dataclass(frozen=True)
class SeriesSource(StreamedSource):
    """Series of numbers: rows with positions, all of them real."""

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        for batch in super().batches(part, rows):
            steps = batch.tensors["inputs"].shape[1]
            yield Batch(batch.tensors, torch.ones(len(batch), steps, dtype=torch.bool), batch.rows)


def series(
    name: str,
    seed: int = 0,
    folds: int = 2,
    explore: int = 512,
    validate: int = 128,
    sealed: int = 128,
    shift: int = 128,
) -> SeriesSource:
    """Inputs ``inputs`` (n, 32, 2): white noise; in ``shift`` a random walk, whose power is at low frequencies."""
    root = Seed(seed).child(name, "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        drawn = torch.randn(BLOCK, LENGTH, INPUTS, generator=root.child(part, block).torch())
        return {"inputs": drawn.cumsum(dim=1) / LENGTH**0.5 if part == "shift" else drawn}

    units = parts(explore, validate, folds, sealed, shift)
    return SeriesSource.of(name, seed, make, units, unit="series", block=BLOCK)


source, source_gated = partial(series, "ssm"), partial(series, "ssm-gated")


def untrained(seed: int = 0) -> StateSpace:
    """The model null: random weights of the same size; poles stay, since others could make it grow without end."""
    return redrawn(network(0)[0], Seed(seed).child("ssm", "untrained"), lambda name: name == "scan.pole")


def untrained_gated(seed: int = 0) -> StateSpace:
    """The model null of ``ssm-gated``."""
    return redrawn(
        network_gated(0)[0], Seed(seed).child("ssm-gated", "untrained"), lambda name: name == "scan.pole"
    )


def _network(name: str, seed: int, gated: bool) -> tuple[StateSpace, Truth]:
    plan = Plan.of(seed)
    with torch.device("meta"):
        module = StateSpace(gated)
    state = {
        "scan.pole": plan.pole,
        "scan.write": plan.write,
        "readout.weight": plan.read,
        "skip.weight": plan.skip,
    }
    if gated:
        rng = Seed(seed).child("ssm", "gate").numpy()
        state |= {
            "gate.project.weight": rng.standard_normal((OUTPUTS, INPUTS)),
            "gate.project.bias": np.zeros(OUTPUTS),
        }
    filled(module, state)
    quantities = {f"response {o} {i} {k}": float(v) for (k, o, i), v in np.ndenumerate(plan.response(LAGS))}
    gain = (plan.read / (1 - plan.pole)) @ plan.write + plan.skip
    quantities |= {f"gain {o} {i}": float(v) for (o, i), v in np.ndenumerate(gain)}
    truth = Truth(
        organism=name,
        variables=tuple(_variable(plan, j) for j in range(STATES)),
        quantities=quantities,
        nulls={
            "other-input": "states are paired with other series: none remembers anything of them",
            "shuffled-steps": "the steps of every series are permuted: no lag means anything",
        },
        size=f"{INPUTS} inputs, {STATES} states, {OUTPUTS} outputs" + (", gated" if gated else ""),
    )
    return module, truth


def _variable(plan: Plan, j: int) -> Variable:
    given = {"pole": float(plan.pole[j]), "write": [float(w) for w in plan.write[j]]}
    effect = {"matters": j not in (plan.unwritten, plan.unread), "read": [float(r) for r in plan.read[:, j]]}
    return Variable("scan", j, "nothing" if j == plan.unwritten else "memory", given, effect)
