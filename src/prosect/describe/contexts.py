"""What surrounds each token: the columns that rules look at, for one batch or for all explored documents.

Everything is causal: the columns of a position depend on the tokens of its row up to it and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from markupsafe import Markup

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.markup import card
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.executables import remembered
from prosect.describe.scanner import Scan, Scanner
from prosect.describe.vocabulary import CLASSES, Vocabulary

TOKENS = "input_ids"
"""The tensor of a batch that holds token ids."""

OFFSETS = (0, 1, 2, 3)
"""How far back rules look for a token."""

POSITIONS = tuple(2**i for i in range(10))
"""Rules may ask whether a position in its row is below one of these."""

INSIDE = ("quotes", "comment", "brackets")


def token_ids(batch: Batch) -> tuple[Int[np.ndarray, "rows positions"], Bool[np.ndarray, "rows positions"]]:
    """Token ids and mask of a batch of text.

    Raises:
        BadInput: the batch holds no tokens.
        ShapeMismatch: ids and mask have different shapes, or padding is not on the right.
    """
    if TOKENS not in batch.tensors or batch.mask is None:
        raise BadInput(
            f"a batch of {', '.join(batch.tensors) or 'nothing'}{'' if batch.mask is not None else ' and no mask'}",
            f"{TOKENS} with a mask of real positions",
            "a description of numeric inputs: this one speaks about tokens",
        )
    ids = batch.tensors[TOKENS].detach().cpu().numpy().astype(np.int64)
    mask = batch.mask.detach().cpu().numpy().astype(bool)
    if ids.shape != mask.shape:
        raise ShapeMismatch(f"{TOKENS} of shape {ids.shape}", f"the mask's {mask.shape}")
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ShapeMismatch("a mask with a gap or padding on the left", "padding on the right only")
    return ids, mask


class Columns:
    """The columns of one batch, each made when it is first asked for, in the order of ``batch.flat``.

    They are about scored positions; special ones, such as the beginning-of-text token, are seen as context.

    Args:
        batch: rows of tokens.
        vocabulary: strings of the tokens; None where only token ids are asked for.

    Raises:
        BadInput: the batch holds no tokens, or one that the vocabulary does not have.
    """

    def __init__(self, batch: Batch, vocabulary: Vocabulary | None = None) -> None:
        self.ids, self.mask = token_ids(batch)
        scored = batch.scored
        self.scored = self.mask if scored is None else scored.detach().cpu().numpy().astype(bool)
        self.vocabulary = vocabulary
        if vocabulary is not None and self.mask.any():
            low, high = int(self.ids[self.mask].min()), int(self.ids[self.mask].max())
            if low < 0 or high >= len(vocabulary):
                raise BadInput(
                    f"token {low if low < 0 else high}",
                    f"ids below {len(vocabulary)}, the size of the vocabulary",
                    "the vocabulary of the model that this batch is for",
                )
        self._back: dict[int, Int[np.ndarray, " n"]] = {}

    def __len__(self) -> int:
        return int(self.scored.sum())

    def token(self, back: int) -> Int[np.ndarray, " n"]:
        """The token so many positions back; -1 before the start of the row."""
        if back not in self._back:
            moved = np.full_like(self.ids, -1)
            if back < self.ids.shape[1]:
                moved[:, back:] = self.ids[:, : self.ids.shape[1] - back]
            self._back[back] = moved[self.scored]
        return self._back[back]

    @cached_property
    def position(self) -> Int[np.ndarray, " n"]:
        """Index in the row."""
        return np.nonzero(self.scored)[1]

    @cached_property
    def row(self) -> Int[np.ndarray, " n"]:
        """Which row of the batch."""
        return np.nonzero(self.scored)[0]

    @cached_property
    def repeated(self) -> Bool[np.ndarray, " n"]:
        """Whether the token occurred earlier in its row."""
        tokens, row = self.ids[self.mask], np.nonzero(self.mask)[0]
        if not len(tokens):
            return np.zeros(0, dtype=bool)
        _, first = np.unique(row * (int(tokens.max()) + 1) + tokens, return_index=True)
        out = np.ones(len(tokens), dtype=bool)
        out[first] = False
        return np.asarray(out[self.scored[self.mask]])

    @cached_property
    def scan(self) -> Scan:
        """Lines, quotes, comments and brackets; needs the vocabulary."""
        lengths = self.mask.sum(axis=1)
        whole = _scanner(self.words, None).scan(
            [r[:n].tolist() for r, n in zip(self.ids, lengths, strict=True)]
        )
        return whole.at(self.scored[self.mask])

    @property
    def words(self) -> Vocabulary:
        """The vocabulary.

        Raises:
            BadInput: there is none.
        """
        if self.vocabulary is None:
            raise BadInput("a rule about the text of tokens without a vocabulary", "one stored with the rule")
        return self.vocabulary


def _scanner_of(vocabulary: Vocabulary, _: None) -> Scanner:
    return Scanner(vocabulary)


_scanner = remembered(_scanner_of)
columns_of = remembered(Columns)
"""The columns of a batch, shared by every rule that runs on it."""

CATEGORICAL = (*(("token", back) for back in OFFSETS), ("line", 0), ("previous line", 0))
"""Columns of tokens: (what, how far back)."""

FLAGS = (
    *(("position", str(below), 0) for below in POSITIONS),
    *(("inside", name, 0) for name in INSIDE),
    ("repeated", "", 0),
    *(("class", name, back) for back in (0, 1) for name in CLASSES),
)
"""Columns of yes and no: (what, which, how far back); of two that tell the same, the first is asked about."""


@dataclass(frozen=True, eq=False)
class Contexts:
    """Every column of the explored documents, made once for many components.

    Attributes:
        vocabulary: strings of the tokens.
        named: the tokens that occur in some categorical column, in the order of their strings.
        codes: categorical columns, in the order of `CATEGORICAL`: place of the token in ``named`` plus 1, 0
            for none.
        flags: columns of yes and no, in the order of `FLAGS`.
        tokens: token ids.
        position: index in the row.
        row: which row, numbered through all batches.
        unit: which independent unit, numbered from 0.
        second: True at positions of the second of the two disjoint document sets.
        rows: where each row comes from.
    """

    vocabulary: Vocabulary
    named: Int[np.ndarray, " named"]
    codes: Int[np.ndarray, "columns n"]
    flags: Bool[np.ndarray, "n flags"]
    tokens: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    unit: Int[np.ndarray, " n"]
    second: Bool[np.ndarray, " n"]
    rows: tuple[Row, ...]

    @classmethod
    def of(
        cls,
        vocabulary: Vocabulary,
        batches: Iterable[Batch],
        second: Iterable[Batch] | None = None,
        seed: Seed | None = None,
    ) -> Contexts:
        """The columns of explored batches, in the order in which they come.

        Args:
            vocabulary: strings of the tokens.
            batches: explored text; the first of two disjoint document sets where ``second`` is given.
            second: the second set. Without it, units are divided by a draw that depends on the seed and on
                the names of their documents, not on their order.
            seed: for that draw.

        Raises:
            TooLittleData: there is no position, or fewer than two units, so no two disjoint sets.
            BadInput: a document is in both sets, or a token is not in the vocabulary.
        """
        groups = [list(batches), list(second) if second is not None else []]
        parts = [Columns(b, vocabulary) for group in groups for b in group]
        rows = tuple(row for group in groups for b in group for row in b.rows)
        n = sum(len(p) for p in parts)
        if not n:
            raise TooLittleData("no explored position", "some text", "another explore part")
        starts = np.cumsum([0] + [len(p.ids) for p in parts])
        row = np.concatenate([p.row + s for p, s in zip(parts, starts, strict=False)])
        in_second = np.zeros(len(rows), dtype=bool)
        if second is not None:
            in_second[sum(len(b) for b in groups[0]) :] = True
            # Each part numbers its units from 0: the same number in another part is another unit.
            numbers = [(bool(s), r.unit) for s, r in zip(in_second, rows, strict=True)]
            shared = {r.document for r, s in zip(rows, in_second, strict=True) if s and r.document} & {
                r.document for r, s in zip(rows, in_second, strict=True) if not s
            }
            if shared:
                raise BadInput(
                    f"document {min(shared)!r} in both document sets",
                    "disjoint sets",
                    "explore.first and explore.second of the source",
                )
        else:
            numbers = [(False, r.unit) for r in rows]
        known = {u: i for i, u in enumerate(dict.fromkeys(numbers))}
        unit_of_row = np.array([known[u] for u in numbers], dtype=np.int64)
        if second is None:
            in_second = _halves(rows, unit_of_row, seed or Seed(0))[unit_of_row]
        if not in_second[row].any() or in_second[row].all():
            raise TooLittleData(
                f"{len(known)} unit(s) in {'two sets, one of them empty' if len(known) > 1 else 'all'}",
                "two disjoint sets of documents",
                "a larger explore part",
            )
        ranks = np.concatenate([_ranks(p) for p in parts], axis=1)
        found, codes = np.unique(np.append(ranks, -1), return_inverse=True)
        return cls(
            vocabulary=vocabulary,
            named=vocabulary.by_rank[found[1:]],
            codes=codes[:-1].reshape(ranks.shape).astype(np.int32),
            flags=np.concatenate([_flags(p) for p in parts], axis=0),
            tokens=np.concatenate([p.token(0) for p in parts]),
            position=np.concatenate([p.position for p in parts]),
            row=row,
            unit=unit_of_row[row],
            second=in_second[row],
            rows=rows,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def units(self) -> tuple[int, int]:
        """Independent units in the first and in the second document set."""
        return (
            len(np.unique(self.unit[~self.second])),
            len(np.unique(self.unit[self.second])),
        )

    @cached_property
    def code(self) -> dict[int, int]:
        """Token → its code."""
        return {int(t): i + 1 for i, t in enumerate(self.named)}

    @cached_property
    def starts(self) -> Int[np.ndarray, " rows"]:
        """Where each row begins among the positions, with the end of the last one after them."""
        return np.searchsorted(self.row, np.arange(len(self.rows) + 1))

    def checked(self, activation: Float[np.ndarray, " _"]) -> Float[np.ndarray, " n"]:
        """``activation`` in float64, if there is one finite number for each position.

        Raises:
            ShapeMismatch: there are more or fewer numbers than positions.
            NotFinite: one is NaN or infinite.
        """
        if activation.shape != self.tokens.shape:
            raise ShapeMismatch(
                f"{activation.shape[0]} activations",
                f"one for each of {len(self)} explored positions",
                "activations of the same batches in the same order",
            )
        values = activation.astype(np.float64)
        if not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            where = self.rows[self.row[at]]
            raise NotFinite(
                f"{values[at]} at position {self.position[at]} of {where.document or f'unit {where.unit}'}",
                "finite activations",
                "looking at the site it was read from",
            )
        return values

    def _repr_html_(self) -> Markup:
        first, second = self.units
        return card(
            "Explored text",
            [
                ("positions", f"{len(self):,} in {len(self.rows):,} rows"),
                ("units", f"{first:,} in the first document set, {second:,} in the second"),
                ("vocabulary", f"{len(self.vocabulary):,} tokens"),
            ],
        )


def _halves(rows: tuple[Row, ...], unit: Int[np.ndarray, " rows"], seed: Seed) -> Bool[np.ndarray, " units"]:
    """For each unit whether it is in the second set; the same whatever order the documents come in."""
    names: dict[int, str] = {}
    for r, u in zip(rows, unit.tolist(), strict=True):
        name = r.document or f"unit {r.unit}"
        names[u] = min(name, names.get(u, name))
    drawn = sorted(names, key=lambda u: (seed.child("half", names[u]).integer, names[u]))
    out = np.zeros(len(names), dtype=bool)
    out[drawn[1::2]] = True
    return out


def _ranks(columns: Columns) -> Int[np.ndarray, "columns n"]:
    """Categorical columns as ranks of strings, -1 for none."""
    rank = np.append(columns.words.rank, -1)  # the last place is reached by -1
    found = [columns.token(back) for back in OFFSETS] + [columns.scan.line, columns.scan.previous]
    return np.stack([rank[c] for c in found])


def _flags(columns: Columns) -> Bool[np.ndarray, "n flags"]:
    none = np.zeros((1, len(CLASSES)), dtype=bool)
    classes = np.concatenate([columns.words.classes, none])
    scan = columns.scan
    inside = np.stack([scan.quotes, scan.comment, scan.brackets], axis=1)
    below = columns.position[:, None] < np.array(POSITIONS)
    return np.concatenate(
        [below, inside, columns.repeated[:, None], classes[columns.token(0)], classes[columns.token(1)]],
        axis=1,
    )
