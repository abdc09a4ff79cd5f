"""Sources whose inputs are generated: rows of numbers in blocks of any total size, and token sequences.

Every input is made from the seed, its part and its number alone, so a part is the same however it is cut
into batches, and nothing but the block in hand is kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int
from markupsafe import Markup
from torch import Tensor

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, UnknownName
from prosect.core.markup import card
from prosect.data.batch import Batch, Row

Rows = TypeVar("Rows", bound="StreamedSource")
HALVES = ("explore.first", "explore.second")
BLOCK = 4096  # rows of numbers made at once, where a row is cheap


def parts(explore: int, validate: int, folds: int, sealed: int, shift: int) -> dict[str, int]:
    """Units of each part; the halves of ``explore`` are its first and its second half.

    Raises:
        BadInput: a part would be empty.
    """
    sizes = {"explore": explore, "validate": validate, "folds": folds, "sealed": sealed, "shift": shift}
    for name, size in sizes.items():
        if size < (2 if name == "explore" else 1):
            raise BadInput(f"{name}={size}", "at least 1 (2 for explore, which is cut into halves)")
    first = explore - explore // 2
    out = {"explore": explore, HALVES[0]: first, HALVES[1]: explore - first}
    out |= {f"validate.{fold}": validate for fold in range(folds)}
    return out | {"sealed": sealed, "shift": shift}


def place(part: str, units: Mapping[str, int]) -> tuple[str, int]:
    """The part that holds ``part``'s inputs and the number of its first one there.

    Raises:
        UnknownName: there is no such part.
    """
    if part not in units:
        raise UnknownName("part", part, units)
    if part in HALVES:
        return "explore", 0 if part == HALVES[0] else units[HALVES[0]]
    return part, 0


def about(organism: str, seed: int, units: Mapping[str, int], **more: Json) -> str:
    """Digest of what determines an organism's inputs.

    Args:
        organism: whose they are.
        seed: of the inputs.
        units: of each part.
        more: what else they depend on, by name.
    """
    return digest({"organism": organism, "seed": seed, "units": units, "version": 1, **more})


@dataclass(frozen=True)
class StreamedSource:
    """Rows of numbers, made block by block: every row is its own independent unit.

    Args:
        make: (part, number of the block) → tensors by keyword of the model's forward, ``block`` rows each;
            pure. It is never asked for the halves of ``explore``.
        units: rows of each part.
        digest: of what determines the inputs.
        unit: what one row is, in words.
        block: rows in a block.
    """

    make: Callable[[str, int], Mapping[str, Tensor]]
    units: Mapping[str, int]
    digest: str
    unit: str = "independent input"
    block: int = BLOCK

    @classmethod
    def of(
        cls: type[Rows],
        organism: str,
        seed: int,
        make: Callable[[str, int], Mapping[str, Tensor]],
        units: Mapping[str, int],
        unit: str = "independent input",
        block: int = BLOCK,
        **more: Json,
    ) -> Rows:
        """Inputs of an organism: ``organism``, ``seed`` and ``more`` go into the digest, see `about`."""
        return cls(make, units, about(organism, seed, units, **more), unit, block)

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Rows of ``part`` in order.

        Raises:
            UnknownName: there is no such part.
        """
        base, first = place(part, self.units)
        held: dict[int, Mapping[str, Tensor]] = {}
        for start in range(0, self.units[part], rows):
            stop = min(start + rows, self.units[part])
            at, end = first + start, first + stop
            needed = range(at // self.block, (end - 1) // self.block + 1)
            held = {b: held[b] if b in held else self.make(base, b) for b in needed}
            pieces = [
                {k: t[max(at - b * self.block, 0) : end - b * self.block] for k, t in held[b].items()}
                for b in needed
            ]
            tensors = {k: torch.cat([p[k] for p in pieces]) for k in pieces[0]}
            ids = tuple(Row(unit=i, document=f"{base}[{first + i}]") for i in range(start, stop))
            yield Batch(tensors, None, ids)

    def _repr_html_(self) -> Markup:
        return _card(self.units, self.unit, self.digest)


@dataclass(frozen=True)
class SequenceSource:
    """Token sequences: every sequence is its own independent unit.

    Args:
        make: (part, number of the sequence) → token ids; pure. It is never asked for the halves of
            ``explore``.
        units: sequences of each part.
        digest: of what determines the sequences.
        vocabulary: the string of each token id.
        unit: what one sequence is, in words.
        padding: token id put after the end of shorter sequences of a batch; masked out.
        lead: how many tokens at the start of every sequence are special: seen by the model and left out of
            statistics, as a beginning-of-sequence token is.
    """

    make: Callable[[str, int], Int[np.ndarray, " length"]]
    units: Mapping[str, int]
    digest: str
    vocabulary: tuple[str, ...]
    unit: str = "sequence"
    padding: int = 0
    lead: int = 1

    @classmethod
    def of(
        cls,
        organism: str,
        seed: int,
        make: Callable[[str, int], Int[np.ndarray, " length"]],
        units: Mapping[str, int],
        vocabulary: tuple[str, ...],
        unit: str = "sequence",
        padding: int = 0,
        lead: int = 1,
        **more: Json,
    ) -> SequenceSource:
        """Inputs of an organism: ``organism``, ``seed`` and ``more`` go into the digest, see `about`."""
        return cls(make, units, about(organism, seed, units, **more), vocabulary, unit, padding, lead)

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Sequences of ``part`` in order, as ``input_ids`` and ``attention_mask`` (rows, longest sequence).

        Raises:
            UnknownName: there is no such part.
        """
        base, first = place(part, self.units)
        for start in range(0, self.units[part], rows):
            stop = min(start + rows, self.units[part])
            sequences = [self.make(base, first + i) for i in range(start, stop)]
            ids = np.full((len(sequences), max(map(len, sequences))), self.padding, dtype=np.int64)
            mask = np.zeros(ids.shape, dtype=bool)
            for row, sequence in enumerate(sequences):
                ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, True
            real = torch.from_numpy(mask)
            special = torch.zeros_like(real)
            special[:, : self.lead] = True
            yield Batch(
                {"input_ids": torch.from_numpy(ids), "attention_mask": real.long()},
                real,
                tuple(Row(unit=i, document=f"{base}[{first + i}]") for i in range(start, stop)),
                special if self.lead else None,
            )

    def text(self, ids: Int[np.ndarray, " length"]) -> str:
        """The tokens' strings, separated by spaces."""
        return " ".join(self.vocabulary[i] for i in ids)

    def _repr_html_(self) -> Markup:
        return _card(self.units, self.unit, self.digest, tokens=len(self.vocabulary))


def _card(units: Mapping[str, int], unit: str, digest: str, **more: int) -> Markup:
    rows: list[tuple[str, object]] = [(part, f"{n:,}") for part, n in units.items()]
    rows += [(name, f"{n:,}") for name, n in more.items()]
    return card(f"Generated inputs, unit: {unit}", [*rows, ("digest", digest[:16])])
