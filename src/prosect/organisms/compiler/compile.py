"""A checked program as a transformer: its parts put where the layout says, and the basis hidden if asked.

The network reads the beginning-of-sequence token (id 0) and then the tokens of the input (ids from 1), and gives the
output at the same positions. A categorical output is read by argmax over its logits, a number is logit 0.
It is a `prosect.organisms.decoder.Decoder`: a transformers model without norms, since a norm can be
made to do almost nothing (next to a large constant) and never exactly nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.organisms.compiler.check import check
from prosect.organisms.compiler.interpret import evaluate
from prosect.organisms.compiler.language import Program
from prosect.organisms.compiler.layout import Layout
from prosect.organisms.compiler.parts import BOS, Head, Neurons
from prosect.organisms.compiler.types import Checked, Variable
from prosect.organisms.decoder import Decoder
from prosect.organisms.wiring import Turn, Wiring

BOS_ID = 0
GAIN = 10.0  # logit of the value that is given
SPREAD = 3.0  # standard deviation of the scores of heads that do nothing


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program and its network.

    Attributes:
        program: as checked.
        layout: where everything is.
        module: the network.
        basis: (width, width), orthonormal: row i is the direction of dimension i of the layout.
        classes: for each logit, the value of the output it stands for; empty for a number.
    """

    program: Checked
    layout: Layout
    module: Decoder = field(repr=False)
    basis: Float[np.ndarray, "width width"] = field(repr=False)
    classes: tuple[Any, ...]

    def encode(self, sequences: Sequence[Sequence[Any]]) -> Int[Tensor, "rows positions"]:
        """Token ids of sequences of one length, the beginning-of-sequence token first.

        Raises:
            BadInput: different lengths, a token that is not in the vocabulary, too many tokens.
        """
        lengths = {len(s) for s in sequences}
        if len(lengths) != 1 or not 1 <= max(lengths) <= self.program.length:
            raise BadInput(f"lengths {sorted(lengths)}", f"one length from 1 to {self.program.length}")
        known = {t: i + 1 for i, t in enumerate(self.program.vocabulary)}
        unknown = [t for s in sequences for t in s if t not in known]
        if unknown:
            raise BadInput(f"token {unknown[0]!r}", f"one of {list(known)!r}")
        return torch.tensor([[BOS_ID, *(known[t] for t in s)] for s in sequences])

    def decode(self, logits: Float[Tensor, "*rows vocab"]) -> np.ndarray:
        """The values that logits stand for: an array of objects, or of float64 for a number."""
        if self.program.output.numerical:
            return np.asarray(logits[..., 0].detach().cpu().double().numpy())
        best = logits[..., : len(self.classes)].argmax(-1).cpu().numpy()
        values = np.empty(len(self.classes), dtype=object)
        values[:] = self.classes
        return np.asarray(values[best])

    def run(self, sequence: Sequence[Any]) -> list[Any]:
        """What the network gives for one sequence of tokens."""
        with torch.no_grad():
            logits = self.module(self.encode([sequence])).logits
        return list(self.decode(logits[0, 1:]).tolist())

    def interpret(self, sequence: Sequence[Any]) -> list[Any]:
        """What the program gives for it."""
        return evaluate(self.program, sequence)

    def directions(self, variable: str) -> Float[np.ndarray, "n width"]:
        """The directions of a variable in the residual stream: one for each value, or one for a number."""
        return np.asarray(self.basis[self.layout.spaces[variable]])


def compiled(program: Program | Checked, seed: int | None = None, spare: int = 0) -> Compiled:
    """Compile a program.

    Args:
        program: checked first where it is not.
        seed: shuffles heads, neurons and logits' basis, and turns the residual stream and every head at random, so
            that nothing can be read off the coordinates; None leaves one dimension for each value, in order.
        spare: heads in every layer beyond those needed; with a seed they attend somewhere and write nothing.

    Raises:
        BadInput: the checker rejects it; the message names the line and the reason.
    """
    checked = check(program) if isinstance(program, Program) else program
    root = None if seed is None else Seed(seed).child("compiler", checked.name)
    layout = Layout.of(checked, None if root is None else root.child("layout").numpy(), spare)
    classes = _classes(checked)
    wired = _wire(checked, layout, classes)
    basis = np.eye(layout.width)
    if root is not None:
        if spare:
            _decoys(wired, layout, root.child("decoys").numpy())
        wired = wired.turned(root.child("turn").numpy())
        basis = Turn.draw(root.child("turn").numpy(), layout.width)(
            basis, -1
        )  # the first that is drawn there
    return Compiled(checked, layout, wired.decoder(), basis, classes)


def logits_of(program: Checked) -> Int[np.ndarray, " values"]:
    """The logit of each value of a categorical output, by its code."""
    classes = _classes(program)
    return np.array([classes.index(value) for value in program.output.values])


def _classes(program: Checked) -> tuple[Any, ...]:
    """What each logit stands for: tokens keep their ids where the output is made of tokens."""
    if program.output.numerical:
        return ()
    if set(program.output.values) <= set(program.vocabulary):
        return ("<bos>", *program.vocabulary)
    return program.output.values


def _wire(program: Checked, layout: Layout, classes: tuple[Any, ...]) -> Wiring:
    parts = layout.parts.values()
    inside = [(len(p.query_bias), len(p.out)) for p in parts if isinstance(p, Head)]
    width = max((max(pair) for pair in inside), default=1)
    tokens = len(program.vocabulary)
    w = Wiring.blank(
        max(1 + tokens, len(classes)),
        1 + program.length,
        layout.width,
        layout.layers,
        layout.heads,
        width,
        layout.neurons,
    )
    w.causal = program.causal
    w.query_bias = np.zeros((layout.layers, layout.heads, width))
    space = layout.spaces
    w.tokens[:, space["tokens"].start] = 1.0  # ids that are no token of the program pass for its first one
    w.tokens[1 : 1 + tokens, space["tokens"]] = np.eye(tokens)
    w.positions[0, space[BOS]], w.positions[0, space["tokens"].start] = 1.0, -1.0
    w.positions[1:, space["indices"]] = np.eye(program.length)
    for name, part in layout.parts.items():
        if isinstance(part, Head):
            _head(w, layout, name, part)
        else:
            _neurons(w, layout, name, part)
    _output(w, program.output, space[program.output.name], classes)
    return w


def _head(w: Wiring, layout: Layout, name: str, part: Head) -> None:
    at = layout.head_of[name]
    assert w.query_bias is not None
    for whole, of in ((w.query, part.query), (w.key, part.key), (w.value, part.value)):
        for variable, weights in of.items():
            whole[at][layout.spaces[variable], : weights.shape[1]] += weights
    w.query_bias[at][: len(part.query_bias)] = part.query_bias
    w.out[at][: len(part.out), layout.spaces[name]] = part.out


def _neurons(w: Wiring, layout: Layout, name: str, part: Neurons) -> None:
    layer, places = layout.neurons_of[name]
    for variable, weights in part.up.items():
        space = layout.spaces[variable]
        w.up[layer][space.start : space.stop, places] += weights
    w.bias[layer][places] = part.bias
    space = layout.spaces[name]
    w.down[layer][places, space.start : space.stop] = part.down


def _output(w: Wiring, output: Variable, space: slice, classes: tuple[Any, ...]) -> None:
    if output.numerical:
        w.unembed[space, 0] = 1.0
        return
    for i, value in enumerate(output.values):
        w.unembed[space.start + i, classes.index(value)] = GAIN


def _decoys(w: Wiring, layout: Layout, rng: np.random.Generator) -> None:
    """Heads that attend at random and write nothing.

    The stream is about as long as the root of the number of variables in it, and scores have a standard deviation of
    about `SPREAD`: enough to look somewhere, and no more, since attention loses what large scores are rounded by.
    """
    used = set(layout.head_of.values())
    width = w.query.shape[-1]
    for at in np.ndindex(layout.layers, layout.heads):
        if at not in used:
            there = sum(layout.layer(name) < at[0] for name in layout.spaces)
            w.query[at] = SPREAD / (np.sqrt(width) * there) * rng.standard_normal(w.query[at].shape)
            w.key[at] = rng.standard_normal(w.key[at].shape)
            w.value[at] = rng.standard_normal(w.value[at].shape) / np.sqrt(there)
