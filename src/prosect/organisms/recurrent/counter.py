"""``counter-lstm``: an LSTM wired by hand to tell balanced brackets, whose state is counters that are known.

Every unit's gates are open (or shut) to the last bit of float32, so a cell adds what its input says and nothing
else: c_t = c_(t−1) + g_t. Units, in an order and with signs that the seed chooses:

- *depth*: ``step`` more for an opening bracket, as much less for a closing one; it says tanh(step · depth);
- *broken*: its input gate reads *depth* and opens where a bracket closes at depth zero; it never forgets;
- *opened*, *length*: count opening brackets, and all tokens; nothing reads them;
- *last*: forgets at once, and says whether this token closes a bracket; nothing reads it;
- *dead*: says nothing.

That LSTMs count in this way, and what that lets them recognise, is Weiss, Goldberg & Yahav 2018, "On the practical
computational power of finite precision RNNs for language recognition".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.organisms.filled import filled, table
from prosect.organisms.opened import opened
from prosect.organisms.recurrent import brackets
from prosect.organisms.redrawn import redrawn

if TYPE_CHECKING:
    from prosect.model import Model

UNITS = ("depth", "broken", "opened", "length", "last", "dead")
READ = ("depth", "broken")
SURE = 30.0  # a gate's input at which float32 knows no difference to open
GAIN = 20.0  # logits for each unit of what is read
FLAG = 3.0  # what a broken bracket adds is tanh of it
NULLS = {
    "other-input": "states are paired with other strings: no unit counts anything in them",
    "shuffled-answers": "answers are permuted over strings",
}


class Counter(nn.Module):
    """input_ids (n, T) → logits (n, T, 2) for *not balanced* and *balanced*; ``lstm`` gives every state.

    Padding comes after what it could disturb, so the mask changes nothing.
    """

    def __init__(self, units: int, width: int = len(brackets.VOCABULARY)) -> None:
        super().__init__()
        self.embed = table(len(brackets.VOCABULARY), width)
        self.lstm = nn.LSTM(width, units, batch_first=True)
        self.head = nn.Linear(units, 2)

    def forward(
        self, input_ids: Int[Tensor, "n positions"], attention_mask: Int[Tensor, "n positions"] | None = None
    ) -> CausalLMOutput:
        states, _ = self.lstm(self.embed(input_ids))
        return CausalLMOutput(logits=self.head(states))


@dataclass(frozen=True)
class Plan:
    """What differs from seed to seed: the order of units, the sign of each, and the steps of the counters."""

    order: tuple[str, ...]
    sign: Float[np.ndarray, " units"]
    step: dict[str, float]

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = Seed(seed).child("counter-lstm", "plan").numpy()
        order = tuple(UNITS[i] for i in rng.permutation(len(UNITS)))
        sign = rng.choice([-1.0, 1.0], len(UNITS))
        step = {name: float(rng.uniform(0.1, 0.25)) for name in ("depth", "opened", "length")}
        return cls(order, sign, step)


def network(seed: int = 0) -> tuple[Counter, Truth]:
    """The network and its truth: a Variable at ``lstm`` for every unit.

    A ``counter`` says sign · tanh(step · what it counts); the ``flag`` is 0 until it is not, then at least .75
    (times its sign); what ``last`` says is 0 or sign · tanh(1) . Labels ``balanced@PART`` are of whole strings.
    """
    plan = Plan.of(seed)
    n = len(UNITS)
    at = {name: plan.order.index(name) for name in UNITS}
    gates = {name: np.zeros((n, 3)) for name in "ifgo"}
    biases = {"i": np.full(n, SURE), "f": np.full(n, SURE), "g": np.zeros(n), "o": np.full(n, SURE)}
    recurrent = np.zeros((n, n))
    for name, step in plan.step.items():
        inverse = np.arctanh(step)
        counted = {"depth": {1: 1, 2: -1}, "opened": {1: 1}, "length": {0: 1, 1: 1, 2: 1}}[name]
        for token, way in counted.items():
            gates["g"][at[name], token] = plan.sign[at[name]] * way * inverse
    one = np.tanh(plan.step["depth"])  # what depth 1 reads as
    gates["i"][at["broken"], brackets.CLOSE] = 2 * SURE
    biases["i"][at["broken"]] = -SURE
    recurrent[at["broken"], at["depth"]] = -plan.sign[at["depth"]] * 4 * SURE / one
    biases["g"][at["broken"]] = plan.sign[at["broken"]] * FLAG
    biases["f"][at["last"]] = -SURE
    gates["g"][at["last"], brackets.CLOSE] = plan.sign[at["last"]] * SURE
    head = np.zeros((2, n))
    head[1, at["depth"]] = -GAIN * plan.sign[at["depth"]]
    head[1, at["broken"]] = -2 * GAIN * plan.sign[at["broken"]]
    head[0] = -head[1]
    with torch.device("meta"):
        module = Counter(n)
    silent = np.zeros((n, n))
    filled(
        module,
        {
            "embed.weight": np.eye(3),
            "lstm.weight_ih_l0": np.concatenate([gates[k] for k in "ifgo"]),
            "lstm.weight_hh_l0": np.concatenate([recurrent, silent, silent, silent]),
            "lstm.bias_ih_l0": np.concatenate([biases[k] for k in "ifgo"]),
            "lstm.bias_hh_l0": np.zeros(4 * n),
            "head.weight": head,
            "head.bias": GAIN * one / 2 * np.array([-1.0, 1.0]),
        },
    )
    truth = Truth(
        organism="counter-lstm",
        variables=tuple(_variable(plan, j) for j in range(n)),
        labels=brackets.labels(source(seed)),
        quantities={"accuracy": 1.0},
        nulls=NULLS,
        size=f"{n} units",
    )
    return module, truth


def _variable(plan: Plan, j: int) -> Variable:
    name, sign = plan.order[j], float(plan.sign[j])
    kind = {"broken": "flag", "last": "token", "dead": "nothing"}.get(name, "counter")
    given: dict[str, str | float] = {"counts": name}
    if kind != "nothing":
        given["sign"] = sign
    if kind == "counter":
        given["step"] = plan.step[name]
    return Variable("lstm", j, kind, given, {"matters": name in READ})


def build(seed: int = 0) -> tuple[Model, Truth]:
    """An LSTM that tells balanced brackets by counting, every unit of whose state is known.

    Wired by hand; right on every string that was tried, which is every one up to twelve tokens. Known: what each
    unit counts, with what sign and step, which two are read, and which strings are balanced.
    """
    return opened(network(seed), source(seed))


source = partial(brackets.source, "counter-lstm")
"""Strings for the network: see `brackets.source`."""


def untrained(seed: int = 0) -> Counter:
    """The model null: an LSTM of the same size with weights uniform in ±1/√units, as they are initialised."""
    return fresh(Seed(seed).child("counter-lstm", "untrained"), len(UNITS))


def fresh(seed: Seed, units: int) -> Counter:
    """An LSTM as training begins with."""
    with torch.device("meta"):
        module = Counter(units)
    uniform = np.sqrt(1 / 3) / np.sqrt(units)  # standard deviation of the usual initialisation
    state = {
        k: np.full(v.shape, 1.0 if k.startswith("embed") else uniform) for k, v in module.state_dict().items()
    }
    return redrawn(filled(module, state), seed)
