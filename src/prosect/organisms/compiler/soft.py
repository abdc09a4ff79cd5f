"""The interpreter over vectors: every operation computed by itself, in float64, on what its variables are made of.

Here a variable may also have a value that no program gives, such as zero where a one-hot vector should be. That
is what zero ablation asks about, and the only thing it is for; on the vectors of values it gives what `interpret.run`
gives. It knows operations and variables, not the network they are laid out in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from jaxtyping import Float

from prosect.organisms.compiler.interpret import given
from prosect.organisms.compiler.parts import BOS, Head, Neurons
from prosect.organisms.compiler.types import Checked, Codes, Role, Step

Vectors = Float[np.ndarray, "_ _ _"]
"""At every place: the beginning-of-sequence token, then the positions."""
Read = Callable[[Step | None, Role, str, Vectors], Vectors]


def vectors(program: Checked, name: str, codes: Codes) -> Vectors:
    """What stands for these codes, and nothing before them."""
    found = program.variables[name].vectors()[codes]
    return np.concatenate([np.zeros_like(found[:, :1]), found], axis=1)


def start(program: Checked, tokens: Codes) -> dict[str, Vectors]:
    """The vectors that are there from the beginning."""
    found = {v.name: vectors(program, v.name, np.asarray(given(v, tokens))) for v in program.given}
    first = np.zeros((len(tokens), tokens.shape[1] + 1, 1))
    first[:, 0] = 1.0
    return found | {BOS: first}


def run(
    program: Checked,
    parts: Mapping[str, Head | Neurons],
    tokens: Codes,
    read: Read | None = None,
    known: Mapping[str, Vectors] | None = None,
    again: Collection[str] = (),
) -> dict[str, Vectors]:
    """The vectors of every variable, and of the output under ``"output"``.

    Args:
        program: what to run.
        parts: operation → its weights.
        tokens: codes of the tokens, rows of one length.
        read: what operations see in place of a variable.
        known: vectors of an earlier run, taken for all variables but those of ``again``.
        again: names of variables.
    """
    found = start(program, tokens) if known is None else dict(known)

    def seen(step: Step, role: Role, of: Mapping[str, np.ndarray]) -> Vectors:
        return np.asarray(
            sum((found[n] if read is None else read(step, role, n, found[n])) @ w for n, w in of.items())
        )

    for step in program.steps:
        if known is not None and step.out.name not in again:
            continue
        part = parts[step.out.name]
        if isinstance(part, Neurons):
            found[step.out.name] = np.maximum(seen(step, "mlp_in", part.up) + part.bias, 0.0) @ part.down
            continue
        scores = (seen(step, "q", part.query) + part.query_bias) @ seen(step, "k", part.key).swapaxes(1, 2)
        if program.causal:
            scores = np.where(np.tril(np.ones(scores.shape[1:])) > 0, scores, -np.inf)
        attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention /= attention.sum(axis=-1, keepdims=True)
        found[step.out.name] = attention @ seen(step, "v", part.value) @ part.out
    last = found[program.output.name]
    found["output"] = last if read is None else read(None, "output", program.output.name, last)
    return found
