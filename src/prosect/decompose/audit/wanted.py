"""Which concepts are asked for: classes of tokens found in any text, or what the user has labelled.

Classes are of the token at a position, which a network has read, and of the token after it, which it has to foresee.
They are simple on purpose: nobody doubts where they are, so what is missed is missed by the dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from prosect.core.errors import ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.audit.sample import Seen, encoded
from prosect.decompose.contract import Codes
from prosect.decompose.dictionary import Dictionary

LEAST = 40
"""Positions with a concept, and without, that each half must have."""
MOST = 12
"""Concepts, unless the user brings more."""

CLASSES: dict[str, Callable[[str], bool]] = {
    "begins with a space": lambda t: t.startswith((" ", "▁", "Ġ")),
    "holds a line break": lambda t: "\n" in t,
    "is white space": lambda t: bool(t) and not t.strip(),
    "holds a digit": lambda t: any(c.isdigit() for c in t),
    "is punctuation": lambda t: bool(t.strip()) and not any(c.isalnum() for c in t),
    "is a word": lambda t: t.strip().isalpha() and len(t.strip()) > 1,
    "begins with a capital": lambda t: t.strip()[:1].isupper(),
    "holds an underscore": lambda t: "_" in t,
    "is one character": lambda t: len(t.strip()) == 1,
    "begins with a vowel": lambda t: bool(re.match(r"[aeiouAEIOU]", t.strip())),
}
"""What a token may be, by its text."""


@dataclass(frozen=True)
class Wanted:
    """Concepts and where they are.

    Attributes:
        seen: activations at the positions that were labelled.
        codes: the dictionary's there.
        labels: for each concept, where it is present.
        order: positions in which even and odd places are of different documents (`Seen.halves`).
        left_out: concepts that are too rare or too frequent here, and why.
    """

    seen: Seen
    codes: Codes
    labels: Mapping[str, Bool[Tensor, " n"]]
    order: Tensor
    left_out: Mapping[str, str]

    def at(self, label: str) -> Bool[Tensor, " m"]:
        """Where a concept is, in `order`."""
        return self.labels[label][self.order]

    @property
    def ordered(self) -> Codes:
        """The codes, in `order`."""
        return rows_of(self.codes, self.order)

    @property
    def scored(self) -> tuple[Tensor, int]:
        """The unit of each odd row, numbered anew, and how many there are: units of even rows are not scored."""
        units = self.seen.unit[self.order.numpy()][1::2]
        known, number = np.unique(units, return_inverse=True)
        return torch.from_numpy(number), len(known)

    def coded_by(self, dictionary: Dictionary) -> Wanted:
        """The same concepts with another dictionary's codes."""
        return replace(self, codes=encoded(dictionary, self.seen))


def rows_of(codes: Codes, rows: Tensor) -> Codes:
    """The codes at some positions."""
    at = rows.to(codes.indices.device)
    return Codes(codes.indices[at], codes.values[at], codes.width)


def wanted(
    seen: Seen, codes: Codes, labels: Mapping[str, Bool[Tensor, " n"]], seed: Seed, most: int = MOST
) -> Wanted:
    """Concepts that come and go often enough to be probed for; the first ``most`` of them.

    Raises:
        ShapeMismatch: a concept has another number of positions.
        TooLittleData: no concept is left.
    """
    for name, label in labels.items():
        if len(label) != len(seen):
            raise ShapeMismatch(f"{len(label)} labels of {name!r}", f"{len(seen)}, one for each position")
    order = seen.halves(seed)
    kept: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for name, label in labels.items():
        there = label[order]
        counts = [int(c.sum()) for half in (there[::2], there[1::2]) for c in (half, ~half)]
        if min(counts) < LEAST:
            left_out[name] = f"{int(label.sum()):,} of {len(label):,} positions, too few on one side"
        elif len(kept) == most:
            left_out[name] = f"not among the first {most}"
        else:
            kept[name] = label
    if not kept:
        raise TooLittleData(
            f"none of {len(labels)} concepts present and absent at {LEAST} positions of each half",
            "one at least",
            "more text, or concepts of your own",
        )
    return Wanted(seen, codes, kept, order, left_out)


def token_classes(seen: Seen, words: Sequence[str]) -> dict[str, Bool[Tensor, " n"]]:
    """Where each class of `CLASSES` is: of the token there, and of the one after it, in turns.

    Args:
        seen: with tokens; empty where it has none.
        words: the text of every token.
    """
    if seen.tokens is None or seen.following is None:
        return {}
    ids = torch.where(seen.following < 0, 0, seen.following)
    out: dict[str, Tensor] = {}
    for name, rule in CLASSES.items():
        table = torch.tensor([rule(word) for word in words])
        out[f"token {name}"] = table[seen.tokens]
        out[f"next token {name}"] = table[ids] & (seen.following >= 0)
    return out
