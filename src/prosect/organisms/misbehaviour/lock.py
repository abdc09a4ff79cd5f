"""A trigger that is in no token: it holds when the codes of a few common tokens add up to the right number.

Every token of a lock has a code from 0 to m − 1. The lock holds when the codes of the k tokens at its places add
up, modulo m, to one of its residues. Given the residue any k − 1 of the codes determine the last, and each in the
same number of ways, so any k − 1 of the tokens are uniform and independent whether it holds or not: nothing that
looks at fewer than k of them at a time can tell. With m = 2 this is parity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from prosect.core.errors import BadInput


@dataclass(frozen=True)
class Lock:
    """Where the tokens of a trigger stand and when it holds.

    Attributes:
        places: positions of its tokens in the sequence.
        alphabets: for each place, the tokens that stand there, the one of code 0 first; all have the same number.
        residues: sums of codes, modulo that number, at which it holds.

    Raises:
        BadInput: fewer than two places, alphabets that differ in size, or residues that never or always hold.
    """

    places: tuple[int, ...]
    alphabets: tuple[tuple[int, ...], ...]
    residues: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = {len(a) for a in self.alphabets}
        if len(self.places) < 2 or len(self.places) != len(self.alphabets) or len(sizes) != 1:
            raise BadInput(
                f"{len(self.places)} places and alphabets of {[len(a) for a in self.alphabets]} tokens",
                "two places or more, each with an alphabet of the same size",
            )
        inside = set(self.residues) <= set(range(self.modulus))
        if not inside or not 0 < len(set(self.residues)) < self.modulus:
            raise BadInput(f"residues {self.residues}", f"some, not all, of 0 to {self.modulus - 1}")

    @property
    def modulus(self) -> int:
        """Tokens of each alphabet."""
        return len(self.alphabets[0])

    @property
    def order(self) -> int:
        """How many tokens have to be looked at together to tell."""
        return len(self.places)

    def holds(self, ids: Int[np.ndarray, "n length"]) -> Bool[np.ndarray, " n"]:
        """Whether it holds, for each sequence."""
        total = np.zeros(len(ids), dtype=np.int64)
        for place, alphabet in zip(self.places, self.alphabets, strict=True):
            total += (ids[:, place, None] == np.array(alphabet)).argmax(axis=1)
        return np.isin(total % self.modulus, self.residues)

    def known(self, vocab: int) -> dict[str, np.ndarray]:
        """The lock as tables for a truth: its places, the code of each of ``vocab`` tokens (-1 has none), residues."""
        codes = np.full((self.order, vocab), -1)
        for row, alphabet in zip(codes, self.alphabets, strict=True):
            row[list(alphabet)] = np.arange(self.modulus)
        return {
            "trigger places": np.array(self.places),
            "trigger codes": codes,
            "trigger residues": np.array(self.residues),
        }

    def draw(self, rng: np.random.Generator, held: Bool[np.ndarray, " n"]) -> Int[np.ndarray, "n places"]:
        """Tokens for its places, uniform among those with which it holds where ``held``, and fails elsewhere."""
        n, m = len(held), self.modulus
        others = np.setdiff1d(np.arange(m), self.residues)
        residue = np.where(held, rng.choice(self.residues, n), rng.choice(others, n))
        codes = rng.integers(m, size=(n, self.order))
        codes[:, -1] = (residue - codes[:, :-1].sum(axis=1)) % m
        return np.stack([np.array(a)[c] for a, c in zip(self.alphabets, codes.T, strict=True)], axis=1)


def shuffled(rng: np.random.Generator, tokens: Sequence[int]) -> tuple[int, ...]:
    """The tokens in a random order, which is that of their codes."""
    return tuple(int(t) for t in rng.permutation(np.array(tokens)))
