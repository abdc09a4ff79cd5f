"""The interpreter: what a checked program gives, exactly, for many inputs at once.

It knows nothing of weights. ``read`` lets one operation see another value of a variable than all others do, which is
what an edge is: the truth about edges is made with it (`edges.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from prosect.core.errors import BadInput
from prosect.organisms.compiler.types import (
    NO_VALUE,
    UNDEFINED,
    Attend,
    Checked,
    Codes,
    Role,
    Step,
    Table,
    Variable,
)

Read = Callable[[Step | None, Role, str, Codes], Codes]
"""(operation, None for the output; as what it reads; variable; its codes) → the codes it sees."""


def inputs_of(tokens: int, length: int) -> Codes:
    """Every input of one length over some number of tokens: (tokens ** length, length)."""
    return np.array(list(itertools.product(range(tokens), repeat=length)), dtype=np.int64).reshape(-1, length)


def every_input(program: Checked, longest: int | None = None) -> Iterator[Codes]:
    """Every input of a program, one array for each length from 1."""
    for length in range(1, min(longest or program.length, program.length) + 1):
        yield inputs_of(len(program.vocabulary), length)


def run(
    program: Checked,
    tokens: Codes,
    read: Read | None = None,
    known: Mapping[str, Codes] | None = None,
    again: Collection[str] = (),
) -> dict[str, Codes]:
    """The codes of every variable, and of the output under ``"output"``.

    Args:
        program: what to run.
        tokens: codes of the tokens, rows of one length.
        read: what operations see in place of a variable.
        known: codes of an earlier run, taken for all variables but those of ``again``.
        again: names of variables.
    """
    found: dict[str, Codes] = dict(known or {})
    by_name = program.variables
    for variable in program.given:
        found[variable.name] = given(variable, tokens)

    def seen(step: Step | None, role: Role, name: str) -> Codes:
        return found[name] if read is None else read(step, role, name, found[name])

    for step in program.steps:
        if known is not None and step.out.name not in again:
            continue
        found[step.out.name] = compute(step, by_name, partial(seen, step), program.causal)
    found["output"] = seen(None, "output", program.output.name)
    return found


def given(variable: Variable, tokens: Codes) -> Codes:
    """The codes of ``tokens`` or ``indices``."""
    if variable.name == "tokens":
        return tokens
    return np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)


def compute(
    step: Step, by_name: Mapping[str, Variable], seen: Callable[[Role, str], Codes], causal: bool
) -> Codes:
    """The codes of what one operation makes of what it sees."""
    if isinstance(step, Table):
        codes = [seen("mlp_in", name) for name in step.of]
        undefined = np.logical_or.reduce([c == UNDEFINED for c in codes])
        out = step.codes[tuple(np.where(undefined, 0, c) for c in codes)]
        return np.where(undefined, UNDEFINED, out)
    query, key = seen("q", step.query), seen("k", step.key)
    reach = np.ones((query.shape[1], query.shape[1]), dtype=bool)
    if causal:
        reach = np.tril(reach)
    undefined = (query == UNDEFINED) | ((key == UNDEFINED)[:, None, :] & reach).any(-1)
    chosen = step.chosen[np.maximum(key, -1)[:, None, :], np.maximum(query, -1)[:, :, None]] & reach
    number = chosen.sum(axis=-1)
    undefined |= (number == 0) & ((key == NO_VALUE)[:, None, :] & reach).any(-1)
    if step.form == "share":
        return np.where(undefined, UNDEFINED, len(step.out.values) - 1 - number)
    assert step.value is not None
    value = seen("v", step.value)
    undefined |= ((value == UNDEFINED)[:, None, :] & chosen).any(-1)
    if step.form == "pick":
        taken = np.take_along_axis(value, chosen.argmax(axis=-1), axis=1)
        same = np.where(chosen, value[:, None, :] == taken[:, :, None], True).all(-1)
        out = np.where(number == 0, NO_VALUE, taken)
        return np.where(undefined | ~same, UNDEFINED, out)
    return np.where(undefined, UNDEFINED, _mean(step, by_name[step.value], value, chosen, number))


def _mean(step: Attend, of: Variable, value: Codes, chosen: np.ndarray, number: np.ndarray) -> Codes:
    """Codes of exact means: everything times one common denominator, so that only integers are compared."""
    common = math.lcm(*(v.denominator for v in step.out.values), *(v.denominator for v in of.values))
    scale = common * math.lcm(*range(1, chosen.shape[-1] + 1))
    grid = np.array([int(v * scale) for v in step.out.values], dtype=np.int64)
    units = np.array([int(v * scale) for v in of.values], dtype=np.int64)
    total = np.where(chosen, units[np.maximum(value, 0)][:, None, :], 0).sum(axis=-1)
    mean = total // np.maximum(number, 1)
    found = np.searchsorted(grid, mean)
    if not (grid[np.minimum(found, len(grid) - 1)] == mean).all():
        raise BadInput(f"a mean of {of.name} that {step.out.name} cannot be", "one of its values")
    return np.asarray(found)


def evaluate(program: Checked, sequence: Sequence[Any]) -> list[Any]:
    """What the program gives for one sequence of tokens.

    Raises:
        BadInput: a token that is not in the vocabulary, an empty sequence, or one longer than the program's.
    """
    if not 1 <= len(sequence) <= program.length:
        raise BadInput(f"a sequence of {len(sequence)} tokens", f"1 to {program.length}")
    unknown = [t for t in sequence if t not in program.vocabulary]
    if unknown:
        raise BadInput(f"token {unknown[0]!r}", f"one of {list(program.vocabulary)!r}")
    codes = run(program, np.array([[program.vocabulary.index(t) for t in sequence]]))["output"][0]
    return [program.output.value(int(c)) for c in codes]
