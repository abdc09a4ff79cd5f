"""Addition modulo a prime by trigonometry, written down rather than trained.

Neuron j is the square of s·[cos(2πk a/p + φ) + cos(2πk b/p + ψ)], and adds (1/s²)·cos(2πk c/p + φ + ψ) times
its activation to the logit of c. Summed over random k, φ and ψ all that remains is the peak at c = a + b
(the algorithm networks learn: Gromov 2023, "Grokking modular arithmetic"). Neurons are in random order,
scales s differ, every weight has a little noise, and one neuron in nine is a decoy, a quarter of them each:

- *constant*: the same activation for every pair, no output;
- *table*: random functions of a and of b, and a random output;
- *silent*: right activation, no output;
- *elsewhere*: random functions of a and of b, and a right output.

Canonical form. (k, φ, ψ) and (p−k, −φ, −ψ) are the same function, and so are (φ, ψ) and (φ+π, ψ+π) once
squared. The truth has 1 ≤ k ≤ (p−1)/2, 0 ≤ φ < π, 0 ≤ ψ < 2π, and output phases in [0, 2π); see
`canonical`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, TooLittleData
from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.data.source import TableSource
from prosect.organisms.filled import filled, table
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import parts

if TYPE_CHECKING:
    from prosect.model import Model

NEURONS = {31: 512, 59: 1024, 97: 2048}
"""For each modulus, how many neurons compute the sum; enough that no pair is ever wrong."""
NOISE = 0.01  # standard deviation, in units of the weight's own amplitude
DECOYS = ("constant", "table", "silent", "elsewhere")
TURN = 2 * np.pi


class Square(nn.Module):
    """The activation function x²."""

    def forward(self, x: Float[Tensor, "n neurons"]) -> Float[Tensor, "n neurons"]:
        return x * x


class Addition(nn.Module):
    """pairs (n, 2) → logits (n, p); the output of ``hidden`` is the neurons' squared pre-activations."""

    def __init__(self, p: int, neurons: int) -> None:
        super().__init__()
        self.embed_a = table(p, neurons)
        self.embed_b = table(p, neurons)
        self.hidden = Square()
        self.readout = nn.Linear(neurons, p, bias=False)

    def forward(self, pairs: Int[Tensor, "n 2"]) -> Float[Tensor, "n p"]:
        hidden = self.hidden(self.embed_a(pairs[:, 0]) + self.embed_b(pairs[:, 1]))
        return self.readout(hidden)  # type: ignore[no-any-return]


def assemble(
    a: Float[np.ndarray, "p neurons"], b: Float[np.ndarray, "p neurons"], out: Float[np.ndarray, "neurons p"]
) -> Addition:
    """The network with these tables and output weights."""
    with torch.device("meta"):
        module = Addition(*a.shape)
    return filled(module, {"embed_a.weight": a, "embed_b.weight": b, "readout.weight": out.T})


def canonical(p: int, k: int, phase_a: float, phase_b: float) -> tuple[int, float, float]:
    """The canonical form of a squared neuron's frequency and phases (top of this file).

    Args:
        p: modulus.
        k: frequency, any whole number that p does not divide.
        phase_a: φ, radians.
        phase_b: ψ, radians.
    """
    k %= p
    if k > p // 2:
        k, phase_a, phase_b = p - k, -phase_a, -phase_b
    phase_a, phase_b = phase_a % TURN, phase_b % TURN
    if phase_a >= np.pi:
        phase_a, phase_b = phase_a - np.pi, (phase_b - np.pi) % TURN
    return k, phase_a, phase_b


def network(seed: int = 0, p: int = 31) -> tuple[Addition, Truth]:
    """The analytic network and its truth: a Variable at ``hidden`` for every neuron.

    Parameters of a ``trigonometric`` one: ``modulus``, ``frequency`` k, ``phase_a`` φ, ``phase_b`` ψ,
    ``amplitude`` s. Effects: ``matters``; where the output is a cosine also ``frequency``, ``phase`` and
    ``amplitude``: the neuron adds activation · amplitude · cos(2π frequency c/p + phase) to the logit of c.
    The kind of a decoy without a right activation is ``nothing``; its ``decoy`` says which sort it is.

    Args:
        seed: chooses frequencies, phases, scales, noise and order.
        p: modulus, one of `NEURONS`.

    Raises:
        BadInput: no number of neurons is known to be enough for this modulus.
    """
    if p not in NEURONS:
        raise BadInput(f"p={p}", f"a modulus checked on every pair: {', '.join(map(str, NEURONS))}")
    rng = Seed(seed).child("modular", p, "weights").numpy()
    real = NEURONS[p]
    sort = np.array(["real"] * real + [d for d in DECOYS for _ in range(real // 32)])
    sort = sort[rng.permutation(len(sort))]
    n = len(sort)
    k = rng.integers(1, p // 2 + 1, n)
    phase_a, phase_b = rng.uniform(0, np.pi, n), rng.uniform(0, TURN, n)
    scale = 2.0 ** rng.uniform(-1, 1, n)

    turns = TURN * np.outer(np.arange(p), k) / p
    a, b = np.cos(turns + phase_a), np.cos(turns + phase_b)
    out = np.cos(turns + phase_a + phase_b)
    constant, silent, table = (sort == name for name in ("constant", "silent", "table"))
    lookup = table | (sort == "elsewhere")
    a[:, lookup], b[:, lookup] = np.sqrt(0.5) * rng.standard_normal((2, p, int(lookup.sum())))
    out[:, table] = np.sqrt(0.5) * rng.standard_normal((p, int(table.sum())))
    a, b, out = (w + NOISE * rng.standard_normal(w.shape) for w in (a, b, out))
    a[:, constant], b[:, constant] = 0.0, rng.uniform(0.5, 1.5, int(constant.sum()))
    out[:, constant | silent] = 0.0

    module = assemble(scale * a, scale * b, (out / scale**2).T)
    variables = tuple(
        _variable(j, str(sort[j]), p, int(k[j]), phase_a[j], phase_b[j], scale[j]) for j in range(n)
    )
    truth = Truth(
        organism="modular",
        variables=variables,
        quantities={"accuracy": 1.0, "chance": 1 / p, "modulus": float(p), "noise": NOISE},
        nulls={
            "other-input": "activations are paired with other pairs: no neuron depends on a or b",
            "shuffled-outputs": "the columns of the logits are permuted: no neuron writes a cosine",
        },
        size=f"modulus {p}, {real} neurons and {n - real} decoys",
    )
    return module, truth


def _variable(j: int, sort: str, p: int, k: int, phase_a: float, phase_b: float, scale: float) -> Variable:
    k, phase_a, phase_b = canonical(p, k, float(phase_a), float(phase_b))
    effect: dict[str, Json] = {"matters": sort not in ("constant", "silent")}
    if sort in ("real", "elsewhere"):
        effect |= {"frequency": k, "phase": (phase_a + phase_b) % TURN, "amplitude": float(scale**-2)}
    if sort in ("real", "silent"):
        phases = {"phase_a": phase_a, "phase_b": phase_b}
        parameters = {"modulus": p, "frequency": k, **phases, "amplitude": float(scale)}
        return Variable("hidden", j, "trigonometric", parameters, effect)
    return Variable("hidden", j, "nothing", {"decoy": sort}, effect)


def build(seed: int = 0, p: int = 31) -> tuple[Model, Truth]:
    """Analytic network for addition modulo a prime.

    Written down as products of cosines, right on every pair. Known of every neuron: its frequency, phases
    and amplitude, cause and effect, or that it is a decoy.
    """
    return opened(network(seed, p), source(seed, p=p))


def untrained(seed: int = 0, p: int = 31) -> Addition:
    """The model null of ``modular``: the same sizes, weights as large and random."""
    return redrawn(network(seed, p)[0], Seed(seed).child("modular", p, "untrained"))


def source(seed: int = 0, folds: int = 2, p: int = 31, explore: float = 0.4) -> TableSource:
    """Pairs for the analytic network, every pair an independent input that occurs in one part only.

    Parts other than ``shift`` share out at random the pairs whose sum does not reach p; ``shift`` is all
    pairs whose sum wraps around. Validation is in distribution: it holds the same kind of pair as explore.

    Args:
        seed: of the cut.
        folds: validation folds.
        p: modulus.
        explore: share of the pairs that do not wrap; folds and ``sealed`` have equal shares of the rest.
    """
    codes = np.arange(p * p)
    wraps = codes // p + codes % p >= p
    return cut(p, wraps, Seed(seed).child("modular", p, "cut"), folds, explore)


def cut(p: int, shifted: Bool[np.ndarray, " pairs"], seed: Seed, folds: int, explore: float) -> TableSource:
    """A source of the p² pairs: ``shift`` is all that are ``shifted``; the rest is shared out at random.

    Args:
        p: modulus.
        shifted: of pair (a, b) at a·p + b.
        seed: of the cut.
        folds: validation folds; each is as large as ``sealed``.
        explore: share of the pairs that are not shifted.

    Raises:
        TooLittleData: a part would hold fewer than two pairs.
    """
    inside = seed.numpy().permutation(np.flatnonzero(~shifted))
    first = round(explore * len(inside))
    each = (len(inside) - first) // (folds + 1)
    if first < 2 or each < 2:
        raise TooLittleData(
            f"{len(inside)} pairs for {folds} folds with {explore:g} of them to explore",
            "at least two pairs in every part",
            "fewer folds, another share or a larger modulus",
        )
    units = parts(first, each, folds, each, int(shifted.sum()))
    half = units["explore.first"]
    members = {"explore": inside[:first]}
    members |= {"explore.first": inside[:half], "explore.second": inside[half:first]}
    for i, part in enumerate([*(f"validate.{fold}" for fold in range(folds)), "sealed"]):
        members[part] = inside[first + i * each : first + (i + 1) * each]
    members["shift"] = np.flatnonzero(shifted)
    tables = {part: torch.from_numpy(np.stack([at // p, at % p], axis=1)) for part, at in members.items()}

    def make(part: str) -> Mapping[str, Tensor]:
        return {"pairs": tables[part]}

    def name(part: str, i: int) -> str:
        a, b = tables[part][i].tolist()
        return f"{a} + {b}"

    about = digest({"modulus": p, "parts": {part: at.tolist() for part, at in members.items()}})
    return TableSource(make=make, units=units, digest=about, name=name)
