"""Random small programs, so that a compiler, or a method, cannot be tuned to the shipped ones.

A program is drawn operation by operation, each reading variables that are there, late ones more often. Functions and
predicates are arbitrary: their results are numbers drawn for each argument. What the checker rejects is drawn again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.organisms.compiler.check import tried
from prosect.organisms.compiler.interpret import inputs_of, run
from prosect.organisms.compiler.language import (
    Expression,
    Program,
    Selector,
    aggregate,
    elementwise,
    indices,
    linear,
    select,
    selector_width,
    sequence_map,
    tokens,
)
from prosect.organisms.compiler.layout import OUTPUT
from prosect.organisms.compiler.types import Checked, Codes

TRIES = 40  # at one operation
ATTENTION = ("width", "mean", "pick")
LOCAL = ("map", "zip", "linear", "digits")
NOT_THERE = "none"


def random_program(seed: int, operations: int = 5) -> Checked:
    """A program that passes the checker.

    Args:
        seed: chooses it: two or three tokens, length 3 to 6, causal or not, and every operation.
        operations: of the language; the compiled program may have a few more.

    Raises:
        BadInput: fewer than two operations.
    """
    if operations < 2:
        raise BadInput(f"{operations} operations", "at least 2")
    drawn = _Drawn(seed)
    for i in range(operations):
        late = i >= operations - 2
        drawn.grow(attend=i in (0, operations - 2) or drawn.rng.random() < 0.3, depend=2 if late else 1)
    return drawn.checked


def dependence(program: Checked) -> int:
    """How many tokens of an input the output at one position depends on, at most over positions.

    By changing each of them in every input of the full length; 0 for a constant.
    """
    return _dependence(program, run(program, inputs_of(len(program.vocabulary), program.length))[OUTPUT])


def _dependence(program: Checked, codes: Codes) -> int:
    size, length = len(program.vocabulary), program.length
    found = codes.reshape(*(size,) * length, length)
    depends = [(found != np.take(found, [0], axis=i)).reshape(-1, length).any(axis=0) for i in range(length)]
    return int(np.sum(depends, axis=0).max())


class _Drawn:
    """A program being drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.root = Seed(seed).child("compiler", "random")
        self.rng = self.root.numpy()
        self.vocabulary = tuple("abc"[: self.rng.integers(2, 4)])
        self.length = int(self.rng.integers(3, 7))
        self.causal = bool(self.rng.random() < 0.4)
        self.categorical: list[Expression] = [tokens, indices]
        self.numerical: list[Expression] = []
        self.checked, _ = self.check(tokens)
        self.number = 0

    def check(self, output: Expression) -> tuple[Checked, Codes]:
        return tried(
            Program(
                output, self.vocabulary, self.length, self.causal, f"random-{self.seed}", "drawn at random"
            )
        )

    def grow(self, attend: bool, depend: int) -> None:
        """Add one operation, which becomes the output.

        Args:
            attend: whether it selects.
            depend: on how many tokens it should depend; given up after half of the tries.
        """
        for attempt in range(TRIES):
            self.number += 1
            kind = str(self.rng.choice(ATTENTION if attend else LOCAL))
            made = self.made(kind)
            if made is None:
                continue
            try:
                found, codes = self.check(made)
            except BadInput:
                continue
            if attempt < TRIES // 2 and _dependence(found, codes) < depend:
                continue
            self.checked = found
            (self.numerical if found.output.numerical else self.categorical).append(made)
            return

    def made(self, kind: str) -> Expression | None:
        name = f"{kind}-{self.number}"
        if kind == "linear":
            if not self.numerical:
                return None
            a, b = self.rng.choice([-1, 1, 2], size=2)
            return linear(int(a), self.pick(self.numerical), int(b), self.pick(self.numerical), name=name)
        if kind == "digits":
            if not self.numerical:
                return None
            return elementwise(
                self.function(int(self.rng.integers(2, 4))), self.pick(self.numerical), name=name
            )
        one = self.pick(self.categorical)
        if kind == "map":
            return elementwise(self.function(int(self.rng.integers(2, 4))), one, name=name)
        if kind == "zip":
            other = self.pick(self.categorical)
            return sequence_map(self.function(int(self.rng.integers(2, 4))), one, other, name=name)
        if kind == "width":
            return selector_width(self.selector(one, self.pick(self.categorical)), name=name)
        if kind == "mean":
            values = elementwise(self.function(2), one, numerical=True, name=f"{name}-of")
            return aggregate(self.selector(self.pick(self.categorical), tokens), values, name=name)
        places = elementwise(self.function(self.length), self.pick(self.categorical), name=f"{name}-at")
        return aggregate(select(indices, places, _same), one, NOT_THERE, name=name)

    def selector(self, keys: Expression, queries: Expression) -> Selector:
        function = self.function(2)
        choice = self.rng.integers(3)
        if choice == 0:
            return select(indices, indices, lambda k, q: k <= q)
        return select(keys, queries, lambda k, q: bool(function(k, q)))

    def pick(self, pool: list[Expression]) -> Expression:
        """One of them: the last with probability .6."""
        return pool[-1] if self.rng.random() < 0.6 else pool[int(self.rng.integers(len(pool)))]

    def function(self, results: int) -> Callable[..., int]:
        """An arbitrary function to 0, 1, ..., fixed for all arguments."""
        key = self.root.child(self.number, int(self.rng.integers(1 << 30))).integer.to_bytes(8, "little")

        def drawn(*arguments: Any) -> int:
            said = hashlib.blake2b(repr(arguments).encode(), digest_size=8, key=key).digest()
            return int.from_bytes(said, "little") % results

        return drawn


def _same(key: object, query: object) -> bool:
    return key == query
