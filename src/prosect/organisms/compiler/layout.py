"""Where everything goes: which head of which layer, which neurons, and which dimensions of the residual stream.

An operation goes into the first layer where all that it reads is there. A layer's heads come before its neurons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prosect.organisms.compiler.parts import BOS, Head, Neurons, head, neurons
from prosect.organisms.compiler.types import Attend, Checked, Role, Step, Table

START = "resid_pre.0"
OUTPUT = "output"


@dataclass(frozen=True)
class Layout:
    """Where a program's operations and variables are.

    Attributes:
        layers: blocks, at least one.
        heads: heads in each block, at least one.
        head_of: operation → (layer, head).
        neurons_of: operation → (layer, its neurons).
        neurons: neurons in each block.
        spaces: variable → its dimensions of the residual stream, ``bos`` among them.
        parts: operation → its weights.
    """

    layers: int
    heads: int
    head_of: Mapping[str, tuple[int, int]]
    neurons_of: Mapping[str, tuple[int, np.ndarray]]
    neurons: int
    spaces: Mapping[str, slice]
    parts: Mapping[str, Head | Neurons]

    @classmethod
    def of(cls, program: Checked, rng: np.random.Generator | None = None, spare: int = 0) -> Layout:
        """Lay out a program.

        Args:
            program: what to lay out.
            rng: shuffles the heads of each layer, its neurons, and the dimensions of variables; in order without.
            spare: heads in every layer beyond those needed.
        """
        by_name = program.variables
        parts = {
            s.out.name: head(s, by_name) if isinstance(s, Attend) else neurons(s, by_name)
            for s in program.steps
        }
        ready = dict.fromkeys((*(v.name for v in program.given), BOS), 0)
        at: dict[str, int] = {}
        for step in program.steps:
            half = int(isinstance(step, Table))
            time = max(ready[name] for _, name in step.reads)
            at[step.out.name] = (time + 1 - half) // 2
            ready[step.out.name] = 2 * at[step.out.name] + 1 + half
        layers = max(at.values(), default=0) + 1
        in_layer = [[s for s in program.steps if at[s.out.name] == i] for i in range(layers)]
        attends = [[s.out.name for s in steps if isinstance(s, Attend)] for steps in in_layer]
        tables = [[s.out.name for s in steps if isinstance(s, Table)] for steps in in_layer]
        heads = max(1, max(map(len, attends)) + spare)
        sizes = {name: len(part.bias) for name, part in parts.items() if isinstance(part, Neurons)}
        most = max(sum(sizes[n] for n in names) for names in tables)
        head_of: dict[str, tuple[int, int]] = {}
        neurons_of: dict[str, tuple[int, np.ndarray]] = {}
        for i in range(layers):
            order = np.arange(heads) if rng is None else rng.permutation(heads)
            head_of |= {name: (i, int(order[j])) for j, name in enumerate(attends[i])}
            places = np.arange(most) if rng is None else rng.permutation(most)
            start = 0
            for name in tables[i]:
                neurons_of[name] = (i, places[start : start + sizes[name]])
                start += sizes[name]
        widths = {BOS: 1} | {v.name: v.width for v in by_name.values()}
        ends = np.cumsum(list(widths.values()))
        spaces = {n: slice(int(e) - w, int(e)) for (n, w), e in zip(widths.items(), ends, strict=True)}
        return cls(layers, heads, head_of, neurons_of, most, spaces, parts)

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return sum(space.stop - space.start for space in self.spaces.values())

    def layer(self, variable: str) -> int:
        """The layer that writes a variable; -1 for what is there from the start."""
        made = self.head_of.get(variable) or self.neurons_of.get(variable)
        return -1 if made is None else made[0]

    def writer(self, variable: str) -> str:
        """The node that writes a variable."""
        if variable in self.head_of:
            return "z.{}.h{}".format(*self.head_of[variable])
        if variable in self.neurons_of:
            return f"mlp_out_post.{self.neurons_of[variable][0]}"
        return START

    def reader(self, step: Step | None, role: Role) -> str:
        """The node that an operation reads with; None for the output."""
        if step is None:
            return OUTPUT
        if isinstance(step, Attend):
            return "{}.{}.h{}".format(role, *self.head_of[step.out.name])
        return f"mlp_in.{self.neurons_of[step.out.name][0]}"

    def reads(self, step: Step) -> tuple[tuple[Role, str], ...]:
        """Everything that an operation reads, constants included, and as what."""
        part = self.parts[step.out.name]
        if isinstance(part, Neurons):
            return tuple(("mlp_in", name) for name in part.up)
        roles: tuple[tuple[Role, Mapping[str, np.ndarray]], ...] = (
            ("q", part.query),
            ("k", part.key),
            ("v", part.value),
        )
        return tuple((role, name) for role, of in roles for name in of)
