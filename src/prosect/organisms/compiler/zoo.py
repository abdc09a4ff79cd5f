"""The shipped programs as organisms: ``compiled-reverse``, ``compiled-sort`` and so on.

As for every organism, a seed names one of many variants: the order of heads and neurons, which spare heads attend
to nothing in particular, and the basis of the stream and of every head.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import UnknownName
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.data.batch import Batch
from prosect.organisms.compiler.bound import bound
from prosect.organisms.compiler.check import check
from prosect.organisms.compiler.compile import BOS_ID, Compiled, compiled, logits_of
from prosect.organisms.compiler.edges import Edges, edges, renamed
from prosect.organisms.compiler.interpret import run
from prosect.organisms.compiler.layout import OUTPUT, Layout
from prosect.organisms.compiler.programs import SHIPPED
from prosect.organisms.compiler.truth import truth
from prosect.organisms.compiler.types import NO_VALUE, Checked
from prosect.organisms.decoder import Decoder
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import SequenceSource, parts

if TYPE_CHECKING:
    from prosect.model import Model

PREFIX = "compiled-"
SPARE = 1  # heads in every layer that do nothing


def names() -> tuple[str, ...]:
    """Every organism of this kind."""
    return tuple(PREFIX + name for name in SHIPPED)


def organism(name: str, seed: int = 0) -> Compiled:
    """The program, its network and where everything is.

    Args:
        name: with or without the prefix.
        seed: chooses the variant.

    Raises:
        UnknownName: there is no such program.
    """
    return compiled(program_of(name), seed, spare=SPARE)


def network(name: str, seed: int = 0) -> tuple[Decoder, Truth]:
    """The network and its truth; arguments as for `organism`."""
    made = organism(name, seed)
    return made.module, truth(PREFIX + _short(name), made, _edges(_short(name), made.layout))


def build(name: str, seed: int = 0) -> tuple[Model, Truth]:
    """The organism: `network` opened for study, and its truth.

    Compiled from a program in a language like RASP (Weiss, Goldberg & Yahav 2021, "Thinking Like Transformers"), and
    equal to its interpreter on every input up to its length. Known, all of it from the program and none from the network:
    which variable lies where, what every head and neuron makes, and the edges that matter under zero,
    positional-mean and resample ablation. A seed shuffles heads and neurons and turns every basis.
    """
    return opened(network(name, seed), source(name, seed))


def untrained(name: str, seed: int = 0) -> Decoder:
    """The model null: a network of the same sizes whose weights are random, as large as those compiled."""
    return redrawn(organism(name, 0).module, Seed(seed).child("compiler", _short(name), "untrained"))


def source(
    name: str,
    seed: int = 0,
    folds: int = 2,
    explore: int = 200,
    validate: int = 64,
    sealed: int = 64,
    shift: int = 64,
) -> SequenceSource:
    """Inputs for the network of the same seed.

    Independent tokens, any length from 2, or from 1 for a program of length 1. In ``shift`` sequences are as long
    as can be and half of the tokens are all alike.

    Args:
        name: with or without the prefix.
        seed: that of the network.
        folds: validation folds.
        explore, validate, sealed, shift: sequences in each part.
    """
    short = _short(name)
    program = program_of(short)
    root = Seed(seed).child("compiler", short, "data")
    tokens, longest = len(program.vocabulary), program.length

    def make(part: str, i: int) -> Int[np.ndarray, " length"]:
        rng = root.child(part, i).numpy()
        if part == "shift":
            body = np.where(
                rng.random(longest) < 0.5, rng.integers(tokens), rng.integers(tokens, size=longest)
            )
        else:
            body = rng.integers(tokens, size=rng.integers(min(2, longest), longest + 1))
        return np.concatenate([[BOS_ID], 1 + body])

    units = parts(explore, validate, folds, sealed, shift)
    words = ("<bos>", *map(str, program.vocabulary))
    return SequenceSource.of(PREFIX + short, seed, make, units, words)


def targets(name: str, batch: Batch) -> Int[Tensor, "rows positions"] | Float[Tensor, "rows positions"]:
    """What the program gives at every position of a batch: the right logit's number, or the number it computes.

    -1, or NaN for a number, at the first token and at padding.
    """
    program = program_of(name)
    ids = batch.tensors["input_ids"].numpy()
    numerical = program.output.numerical
    out = np.full(ids.shape, np.nan if numerical else -1)
    worth = np.array([float(v) for v in program.output.values]) if numerical else logits_of(program)
    for row, length in enumerate(batch.lengths):
        codes = run(program, ids[row : row + 1, 1:length] - 1)[OUTPUT][0]
        out[row, 1:length] = worth[codes]
    return torch.from_numpy(out if numerical else out.astype(np.int64))


def values(name: str, batch: Batch) -> dict[str, Int[Tensor, "rows positions"]]:
    """What every variable of the program is at every position, as the number of one of its values.

    -1 at the first token, at padding, and where a variable has no value.
    """
    program = program_of(name)
    ids = batch.tensors["input_ids"].numpy()
    out = {variable: np.full(ids.shape, NO_VALUE, dtype=np.int64) for variable in program.variables}
    for row, length in enumerate(batch.lengths):
        codes = run(program, ids[row : row + 1, 1:length] - 1)
        for variable, found in out.items():
            found[row, 1:length] = codes[variable][0]
    return {variable: torch.from_numpy(found) for variable, found in out.items()}


def _short(name: str) -> str:
    short = name.removeprefix(PREFIX)
    if short not in SHIPPED:
        raise UnknownName("compiled program", name, names())
    return short


def program_of(name: str) -> Checked:
    """The program, checked; with or without the prefix."""
    return _program(_short(name))


@cache
def _program(short: str) -> Checked:
    return check(SHIPPED[short]())


def edges_of(name: str) -> tuple[Edges, Layout]:
    """What matters, and the layout that its heads are numbered in: that of no seed."""
    return _found(_short(name))


@cache
def _found(short: str) -> tuple[Edges, Layout]:
    program = _program(short)
    layout = Layout.of(program)
    return edges(program, layout), layout


def _edges(short: str, layout: Layout) -> Edges:
    """Edges do not depend on the order of heads, so they are found once for all seeds."""
    found, before = _found(short)
    return renamed(found, before, layout)


__getattr__ = bound(__name__, SHIPPED, build, network, source, untrained, targets)
"""``build_sort``, ``source_sort`` and the like."""
