"""Contrasts: inputs beside counterfactual ones with the answer to each, cut into parts like any other data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData, UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row

KEYS = ("clean", "counterfactual", "answer", "wrong")
HALVES = ("explore.first", "explore.second")


@dataclass(frozen=True)
class Contrast:
    """One pair of inputs.

    Attributes:
        clean: token ids, special ones at the start included.
        counterfactual: as many, with what the answer depends on changed.
        answer: the token that should follow the clean input.
        wrong: the one that should follow the counterfactual; None to ask for the answer's log-probability.
    """

    clean: tuple[int, ...]
    counterfactual: tuple[int, ...]
    answer: int
    wrong: int | None = None


@dataclass(frozen=True)
class ContrastSource:
    """Contrasts cut into parts. A batch holds the clean rows; `counterfactual` gives the others.

    Pairs with the same clean input are one unit, and so in one part.

    Attributes:
        contrasts: all of them.
        parts: which contrasts are in which part.
        tokenizer: for words; None where tokens have none.
        special: tokens at the start of every row that statistics leave out.
        padding: id put after the end of shorter rows.
    """

    contrasts: tuple[Contrast, ...]
    parts: Mapping[str, tuple[int, ...]]
    tokenizer: Any = None
    special: int = 0
    padding: int = 0
    unit: str = "pair of inputs"

    @cached_property
    def digest(self) -> str:
        """Of the pairs and how they are cut."""
        return digest(
            {
                "contrasts": [
                    [list(c.clean), list(c.counterfactual), c.answer, c.wrong] for c in self.contrasts
                ],
                "parts": {k: list(v) for k, v in self.parts.items()},
            }
        )

    @cached_property
    def _unit(self) -> dict[str, dict[tuple[int, ...], int]]:
        out: dict[str, dict[tuple[int, ...], int]] = {}
        for part, members in self.parts.items():
            known = out.setdefault(part, {})
            for i in members:
                known.setdefault(self.contrasts[i].clean, len(known))
        return out

    @property
    def units(self) -> dict[str, int]:
        """Different clean inputs in each part."""
        return {part: len(known) for part, known in self._unit.items()}

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Clean rows of ``part`` in order.

        Raises:
            UnknownName: there is no such part.
        """
        if part not in self.parts:
            raise UnknownName("part", part, self.parts)
        members = self.parts[part]
        for start in range(0, len(members), rows):
            some = members[start : start + rows]
            ids = tuple(Row(self._unit[part][self.contrasts[i].clean], f"pair {i}") for i in some)
            yield self._batch([self.contrasts[i].clean for i in some], ids)

    def counterfactual(self, batch: Batch) -> Batch:
        """The counterfactual rows of a batch, row by row."""
        return self._batch([self.of(row).counterfactual for row in batch.rows], batch.rows)

    def of(self, row: Row) -> Contrast:
        """The contrast that a row is the clean input of."""
        return self.contrasts[int(row.document.removeprefix("pair "))]

    def _batch(self, rows: Sequence[Sequence[int]], ids: tuple[Row, ...]) -> Batch:
        tokens = torch.full((len(rows), max(map(len, rows))), self.padding)
        mask = torch.zeros(tokens.shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            tokens[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), True
        special = torch.zeros_like(mask)
        special[:, : self.special] = True
        return Batch({"input_ids": tokens}, mask, ids, special if self.special else None)

    def metric(self, output: Tensor, batch: Batch) -> Tensor:
        """What each row says at its last position: answer minus wrong logit, or the answer's log-probability.

        Args:
            output: logits (rows, positions, vocabulary), or at the last positions alone (rows, 1, vocabulary).
            batch: the rows, clean or counterfactual: the answers are those of their pair.

        Returns:
            (rows,), higher where the behaviour is stronger.
        """
        pairs = [self.of(row) for row in batch.rows]
        at = torch.arange(len(pairs), device=output.device)
        last = torch.as_tensor(batch.lengths, device=output.device) - 1
        logits = output[:, 0] if output.shape[1] == 1 else output[at, last]
        right = torch.tensor([p.answer for p in pairs], device=output.device)
        if any(p.wrong is None for p in pairs):
            return logits.log_softmax(dim=-1)[at, right]
        wrong = torch.tensor([p.wrong for p in pairs], device=output.device)
        return logits[at, right] - logits[at, wrong]

    @property
    def asks(self) -> str:
        """The metric in words."""
        if any(c.wrong is None for c in self.contrasts):
            return "log-probability of the answer (nats)"
        return "logit of the answer minus that of the wrong one"


def cut(
    contrasts: Sequence[Contrast], seed: Seed, *, folds: int, explore: float, sealed: float
) -> dict[str, tuple[int, ...]]:
    """Parts of contrasts, cut by unit at random: explore and its halves, ``validate.N``, sealed.

    Args:
        contrasts: all of them.
        seed: of the cut.
        folds: of validate.
        explore, sealed: shares of the units.

    Raises:
        TooLittleData: fewer units than parts.
    """
    units: dict[tuple[int, ...], list[int]] = {}
    for i, c in enumerate(contrasts):
        units.setdefault(c.clean, []).append(i)
    order = list(units.values())
    names = ["explore", *(f"validate.{i}" for i in range(folds)), *(["sealed"] if sealed else [])]
    if len(order) < 2 * len(names):
        raise TooLittleData(
            f"{len(order)} different clean inputs for {len(names)} parts",
            f"{2 * len(names)} or more",
            "more pairs",
        )
    mixed = [order[i] for i in seed.child("contrasts").numpy().permutation(len(order))]
    rest = (1.0 - explore - sealed) / folds
    ends = np.cumsum([explore, *[rest] * folds, *([sealed] if sealed else [])]) * len(mixed)
    bounds = [0, *np.round(ends).astype(int).tolist()]
    found = {n: mixed[a:b] for n, a, b in zip(names, bounds[:-1], bounds[1:], strict=True)}
    half = len(found["explore"]) // 2
    found |= {HALVES[0]: found["explore"][:half], HALVES[1]: found["explore"][half:]}
    return {name: tuple(i for unit in members for i in unit) for name, members in found.items()}


def read_contrasts(path: Path, tokenizer: Any) -> tuple[Contrast, ...]:
    """Contrasts from JSON lines: ``clean``, ``counterfactual``, ``answer`` and perhaps ``wrong``, all texts.

    Raises:
        BadInput: the file is missing or a line is not such an object; an answer that is no single token.
        ShapeMismatch: a pair of unequal length in tokens.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(
            f"{path}, which is no file", 'JSON lines with "clean", "counterfactual", "answer", "wrong"'
        )
    lead = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {path.name}"
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{where}, which is not JSON ({error.msg})", "one JSON object a line") from error
        if not isinstance(content, dict) or not all(isinstance(content.get(k, ""), str) for k in KEYS):
            raise BadInput(f"{where}: {line[:60]}", "an object of texts: " + ", ".join(KEYS))
        missing = [k for k in KEYS[:3] if not content.get(k)]
        unknown = sorted(set(content) - set(KEYS))
        if missing or unknown:
            what = f"without {', '.join(missing)}" if missing else f"with {', '.join(unknown)}"
            raise BadInput(f"{where} {what}", "the keys " + ", ".join(KEYS))
        clean, other = ([*lead, *_tokens(tokenizer, content[k])] for k in KEYS[:2])
        if len(clean) != len(other):
            raise ShapeMismatch(
                f"{where}: a clean text of {len(clean)} tokens and a counterfactual one of {len(other)}",
                "pairs of the same length, so that positions correspond",
                "texts that differ in single tokens",
            )
        answers = [_single(tokenizer, content[k], where, k) if content.get(k) else None for k in KEYS[2:]]
        assert answers[0] is not None
        out.append(Contrast(tuple(clean), tuple(other), answers[0], answers[1]))
    if not out:
        raise BadInput(f"{path.name} without a pair", "at least one line")
    if len({c.wrong is None for c in out}) > 1:
        raise BadInput(f"{path.name}, where some lines have a wrong answer and some have none", "all or none")
    return tuple(out)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _single(tokenizer: Any, text: str, where: str, key: str) -> int:
    tokens = _tokens(tokenizer, text)
    if len(tokens) != 1:
        said = " ".join(repr(tokenizer.decode([t])) for t in tokens[:6])
        raise BadInput(
            f"{where}: {key} {text!r}, which is {len(tokens)} tokens ({said})",
            "a single token",
            "its first token, and mind the space before a word",
        )
    return tokens[0]


def copied_blocks(
    tokens: Sequence[int], seed: Seed, *, count: int = 160, length: int = 8, lead: Sequence[int] = ()
) -> tuple[Contrast, ...]:
    """Copying: a random block, then the same block up to its last token, which is the answer.

    In the counterfactual that one token of the first copy is another, and so is the answer.

    Args:
        tokens: ids to draw from.
        seed: of the draws.
        count: how many pairs.
        length: of the block.
        lead: special tokens at the start.
    """
    if len(set(tokens)) < length + 1:
        raise TooLittleData(f"{len(set(tokens))} tokens to draw from", f"{length + 1} or more")
    draw, known = seed.child("copied-blocks").numpy(), np.unique(np.asarray(tokens))
    out = []
    for _ in range(count):
        *block, wrong = draw.choice(known, size=length + 1, replace=False).tolist()
        again = block[:-1]
        out.append(
            Contrast((*lead, *block, *again), (*lead, *again, wrong, *again), int(block[-1]), int(wrong))
        )
    return tuple(out)
