"""``gates`` and ``gates-xor``: gates wired by hand, with spare parts among them.

``gates`` reads four bits in an order that the seed chooses and computes f = p xor q with p = g(a, b) and q = h(c, d),
where g and h are two of *and, or, nand, nor*:

| layer | role | unit | read by |
|---|---|---|---|
| 0 | primary | p | first, second, negative |
| 0 | shared | q | first, second, negative |
| 0 | backup | q once more | the same, which take *either of the two* for q |
| 0 | unread | a gate of a and c | nobody |
| 1 | first | p and not q | the output, +4 |
| 1 | second | q and not p | the output, +2 |
| 1 | negative | p and not q | the output, −2: without it the logit is higher and no answer another |
| 1 | constant | 1 | the output, +1: matters when it is set to zero, never when it is given its own mean |

The logit is 1 where f is true and −1 where not.

``gates-xor`` computes a xor b twice over: as (a and not b) or (b and not a), and as (a or b) and not (a and b). Each
of the two routes gives every answer alone, so there are at least two circuits without a part in common, and
whoever reports one of them as *the* circuit has not looked.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.organisms.gates.network import Gates, bits_source, module_of
from prosect.organisms.gates.subcircuits import edges_of, interactions, subcircuits
from prosect.organisms.gates.wiring import ABLATIONS, Wiring
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn

if TYPE_CHECKING:
    from prosect.model import Model

GATES: dict[str, tuple[float, float, float]] = {
    "and": (1.0, 1.0, -1.0),
    "or": (1.0, 1.0, 0.0),
    "nand": (-1.0, -1.0, 2.0),
    "nor": (-1.0, -1.0, 1.0),
    "and-not": (1.0, -1.0, 0.0),
}
"""Two weights and the bias of a clipped unit."""
FIRST = ("primary", "shared", "backup", "unread")
SECOND = ("first", "second", "negative", "constant")
READOUT = {"first": 4.0, "second": 2.0, "negative": -2.0, "constant": 1.0}
NULLS = {
    "other-input": "units are paired with other inputs: none is a gate of any bit",
    "shuffled-answers": "answers are permuted over inputs: no part has anything to do with them",
}


def wiring(seed: int = 0) -> tuple[Wiring, tuple[Variable, ...]]:
    """The weights of ``gates`` and what every unit is."""
    rng = Seed(seed).child("gates", "plan").numpy()
    a, b, c, d = (int(i) for i in rng.permutation(4))
    left, right, other = (("and", "or", "nand", "nor")[i] for i in rng.integers(4, size=3))
    order0 = [FIRST[i] for i in rng.permutation(4)]
    order1 = [SECOND[i] for i in rng.permutation(4)]
    plan = {
        "primary": (left, (a, b)),
        "shared": (right, (c, d)),
        "backup": (right, (c, d)),
        "unread": (other, (a, c)),
    }
    w0, b0 = _layer([plan[role] for role in order0], 4)
    p, q, again = (order0.index(role) for role in ("primary", "shared", "backup"))
    w1, b1 = np.zeros((4, 4)), np.zeros(4)
    for role in ("first", "negative"):
        w1[order1.index(role), [p, q, again]] = 1.0, -1.0, -1.0
    w1[order1.index("second"), [p, q, again]] = -2.0, 1.0, 1.0
    b1[order1.index("constant")] = 1.0
    w2 = np.array([[READOUT[role] for role in order1]])
    made = Wiring((w0, w1, w2), (b0, b1, np.array([-2.0])), "clip")
    variables = [_gate(0, j, *plan[role], role, role != "unread") for j, role in enumerate(order0)]
    for j, role in enumerate(order1):
        if role == "constant":
            variables.append(Variable("layers.1", j, "constant", {"role": role}, {"matters": True}))
        else:
            reads = ["primary", "not shared"] if role != "second" else ["shared", "not primary"]
            given: dict[str, object] = {"gate": "and", "reads": reads, "role": role}
            effect = {"matters": True, "logit": READOUT[role]}
            variables.append(Variable("layers.1", j, "gate", given, effect))
    return made, tuple(variables)


def wiring_xor(seed: int = 0) -> tuple[Wiring, tuple[Variable, ...]]:
    """The weights of ``gates-xor`` and what every unit is."""
    units: tuple[tuple[str, tuple[int, int], str], ...] = (
        ("and-not", (0, 1), "direct"),
        ("and-not", (1, 0), "direct"),
        ("or", (0, 1), "by or"),
        ("and", (0, 1), "by or"),
    )
    units = tuple(units[i] for i in Seed(seed).child("gates-xor", "plan").numpy().permutation(4))
    weight, bias = _layer([(gate, reads) for gate, reads, _ in units], 2)
    out = np.array([[-2.0 if gate == "and" else 2.0 for gate, _, _ in units]])
    made = Wiring((weight, out), (bias, np.array([-1.0])), "clip")
    return made, tuple(_gate(0, j, gate, reads, route, True) for j, (gate, reads, route) in enumerate(units))


def network(seed: int = 0) -> tuple[Gates, Truth]:
    """The network of `wiring` and its truth.

    Edges are those whose cut changes a logit on some input (``zero``, ``mean``, ``resample``) and those whose cut
    makes an answer wrong (``zero-answer`` ...), found by trying. Quantities: ``interaction A B ABLATION`` for every
    pair of units that interact, and how many subsets of units compute the function.
    """
    made, variables = wiring(seed)
    return module_of(made), _truth("gates", made, variables, "four bits, two layers of four units")


def network_xor(seed: int = 0) -> tuple[Gates, Truth]:
    """The network of `wiring_xor` and its truth, as for `network`."""
    made, variables = wiring_xor(seed)
    return module_of(made), _truth("gates-xor", made, variables, "two bits, one layer of four units")


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Boolean gates of four bits, one unit each, with a backup, a negative and an unread gate among them.

    Wired by hand; exact on every input, and under ablation a network of Łukasiewicz connectives. Known: which unit
    is which gate of what; which edges matter under zero, mean and resample ablation, to the logit and to the
    answer; how every pair of units interacts; and, by `subcircuits.subcircuits`, every subcircuit that computes
    the function.
    """
    return opened(network(seed), source(seed))


def build_xor(seed: int = 0) -> tuple[Model, Truth]:
    """Exclusive or of two bits computed twice, by two routes that each suffice.

    Wired by hand, so that the circuit is known not to be unique (Méloux et al. 2025, "Everything, everywhere, all
    at once: is mechanistic interpretability identifiable?"). Known: as for ``gates``, and the 4096 subsets of its
    edges have all been tried.
    """
    return opened(network_xor(seed), source_xor(seed))


source = partial(bits_source, "gates", 4)
"""Inputs of ``gates``: ``bits`` (n, 4); see `network.bits_source`."""
source_xor = partial(bits_source, "gates-xor", 2)
"""Inputs of ``gates-xor``: ``bits`` (n, 2)."""


def untrained(seed: int = 0) -> Gates:
    """The model null of ``gates``: random weights of the same size in every unit."""
    return redrawn(module_of(wiring(0)[0]), Seed(seed).child("gates", "untrained"))


def untrained_xor(seed: int = 0) -> Gates:
    """The model null of ``gates-xor``."""
    return redrawn(module_of(wiring_xor(0)[0]), Seed(seed).child("gates-xor", "untrained"))


def _layer(
    units: list[tuple[str, tuple[int, int]]], before: int
) -> tuple[Float[np.ndarray, "units before"], Float[np.ndarray, " units"]]:
    weight, bias = np.zeros((len(units), before)), np.zeros(len(units))
    for j, (gate, reads) in enumerate(units):
        weight[j, list(reads)], bias[j] = GATES[gate][:2], GATES[gate][2]
    return weight, bias


def _gate(layer: int, j: int, gate: str, reads: tuple[int, int], role: str, matters: bool) -> Variable:
    given = {"gate": gate, "reads": [f"inputs.{i}" for i in reads], "role": role}
    return Variable(f"layers.{layer}", j, "gate", given, {"matters": matters})


def _truth(name: str, made: Wiring, variables: tuple[Variable, ...], size: str) -> Truth:
    quantities: dict[str, float] = {"accuracy": 1.0, "edges": float(len(made.edges))}
    for ablation in ABLATIONS:
        found = interactions(made, ablation)
        for i, j in zip(*np.nonzero(np.triu(found)), strict=True):
            quantities[f"interaction {made.nodes[i]} {made.nodes[j]} {ablation}"] = float(found[i, j])
        nodes = subcircuits(made, ablation, "nodes")
        quantities[f"subsets of units that suffice ({ablation})"] = float(nodes.count)
        quantities[f"minimal subsets of units ({ablation})"] = float(len(nodes.minimal))
    return Truth(
        name, variables=variables, edges=edges_of(made), quantities=quantities, nulls=NULLS, size=size
    )
