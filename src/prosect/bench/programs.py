"""Random programs, compiled, as organisms on the bench: nobody wrote them, so nobody can have tuned to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from prosect.core.canonical import digest
from prosect.core.seeds import Seed

if TYPE_CHECKING:
    from prosect.core.truth import Truth
    from prosect.model import Model
    from prosect.organisms.compiler.types import Checked
    from prosect.organisms.sources import SequenceSource

PROGRAM = "random-program"
OPERATIONS = 5


def random_compiled(seed: int) -> tuple[Model, Truth, SequenceSource]:
    """The program of a seed as a network, opened; what is known of it; and its inputs."""
    from prosect.model import Model
    from prosect.organisms.compiler.compile import compiled
    from prosect.organisms.compiler.edges import edges
    from prosect.organisms.compiler.random_programs import random_program
    from prosect.organisms.compiler.truth import truth

    program = random_program(seed, OPERATIONS)
    made = compiled(program, seed, spare=1)
    inputs = _source(program, seed)
    batch = next(inputs.batches("explore", rows=2))
    model = Model.of(made.module, name=PROGRAM, inputs=dict(batch.tensors), tokenizer=None)
    return model, truth(PROGRAM, made, edges(program, made.layout)), inputs


def _source(program: Checked, seed: int, explore: int = 256, validate: int = 64) -> SequenceSource:
    """Independent tokens, of any length from 2."""
    from prosect.organisms.compiler.compile import BOS_ID
    from prosect.organisms.sources import SequenceSource, parts

    root = Seed(seed).child("bench", PROGRAM, "data")
    tokens, longest = len(program.vocabulary), program.length

    def make(part: str, i: int) -> Int[np.ndarray, " length"]:
        rng = root.child(part, i).numpy()
        body = rng.integers(tokens, size=rng.integers(min(2, longest), longest + 1))
        return np.concatenate([[BOS_ID], 1 + body])

    units = parts(explore, validate, 1, validate, validate)
    about = digest({"organism": PROGRAM, "seed": seed, "units": units, "version": 1})
    return SequenceSource(make, units, about, ("<bos>", *map(str, program.vocabulary)))
