"""Token streams: documents cut into windows, the document's cluster as the unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.data.corpus import Corpus
from prosect.data.splits import Splits, spread


def tokenizer_digest(tokenizer: Any) -> str:
    """Of a tokenizer's vocabulary, special tokens and the text of its fast form where it has one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return digest(
        {
            "vocabulary": tokenizer.get_vocab(),
            "special": {k: str(v) for k, v in tokenizer.special_tokens_map.items()},
            "backend": backend.to_str() if backend is not None else type(tokenizer).__name__,
        }
    )


def vocabulary(tokenizer: Any) -> list[str]:
    """The text of every token by id; ids without a token are shown as ``<unused N>``.

    Tokens that are parts of characters come out as replacement signs, as they would in any text.
    """
    size = max([len(tokenizer), *(i + 1 for i in tokenizer.get_vocab().values())])
    known = {i: t for t, i in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    return [
        f"<unused {i}>"
        if i not in known
        else known[i]
        if i in special
        else tokenizer.decode([i], clean_up_tokenization_spaces=False)
        for i in range(size)
    ]


@dataclass(frozen=True)
class TokenSource:
    """A corpus as batches of token windows.

    A window is at most ``context`` tokens, the beginning-of-text token included where the tokenizer has
    one (it is marked special: seen by the model, left out of statistics). A document gives at most
    ``windows`` of them, drawn without overlap by its own seed, so that long documents do not drown others.

    Attributes:
        corpus: the texts.
        splits: which documents are in which part.
        tokenizer: a transformers tokenizer.
        context: longest window, in tokens.
        windows: most windows from one document, by part name; ``explore.first`` and ``explore.second``
            follow ``explore``.
        shortest: windows with fewer tokens are left out, unless a document has no other.
    """

    corpus: Corpus
    splits: Splits
    tokenizer: Any
    context: int = 128
    windows: Mapping[str, int] = field(default_factory=lambda: {"explore": 8, "validate": 4, "sealed": 4})
    shortest: int = 16
    unit: str = "cluster of near-duplicate documents"

    def __post_init__(self) -> None:
        if self.context < 8:
            raise BadInput(f"context={self.context}", "windows of at least 8 tokens")

    @cached_property
    def digest(self) -> str:
        """Of the cut, the tokenizer and the windows."""
        return digest(
            {
                "splits": self.splits.digest,
                "tokenizer": tokenizer_digest(self.tokenizer),
                "context": self.context,
                "windows": dict(self.windows),
                "shortest": self.shortest,
            }
        )

    @cached_property
    def units(self) -> dict[str, int]:
        """Clusters in each part."""
        return {part: self.splits.units(part) for part in self.splits.parts}

    @cached_property
    def _tokens(self) -> dict[int, list[int]]:
        return {}

    def shuffled(self, part: str, seed: Seed) -> TokenSource:
        """The same windows of ``part``, its documents in an order drawn from ``seed``; no unit keeps its number.

        Raises:
            UnknownName: there is no such part.
        """
        if part not in self.splits.parts:
            raise UnknownName("part", part, self.splits.parts)
        order = seed.numpy().permutation(self.splits.parts[part]).tolist()
        about = digest({"splits": self.splits.digest, "part": part, "order": seed})
        made = replace(
            self, splits=replace(self.splits, parts={**self.splits.parts, part: tuple(order)}, digest=about)
        )
        vars(made)["_tokens"] = self._tokens  # what was tokenised once is not tokenised again
        return made

    def tokens(self, document: int) -> list[int]:
        """The tokens of one document, without special ones."""
        if document not in self._tokens:
            text = self.corpus.documents[document].text
            self._tokens[document] = list(
                self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            )
        return self._tokens[document]

    def _encode(self, documents: Sequence[int]) -> None:
        """Make the tokens of many documents at once, which fast tokenizers do on every core."""
        missing = [d for d in documents if d not in self._tokens]
        for start in range(0, len(missing), 64):
            some = missing[start : start + 64]
            texts = [self.corpus.documents[d].text for d in some]
            encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            self._tokens.update({d: list(ids) for d, ids in zip(some, encoded, strict=True)})

    def _cut(self, document: int, most: int) -> list[tuple[int, list[int]]]:
        """(offset, tokens) of the windows of one document."""
        room = self.context - (1 if self.tokenizer.bos_token_id is not None else 0)
        tokens = self.tokens(document)
        pieces = [(at, tokens[at : at + room]) for at in range(0, len(tokens), room)]
        long = [p for p in pieces if len(p[1]) >= self.shortest] or pieces[:1]
        rng = Seed(0).child("windows", self.corpus.documents[document].digest).numpy()
        return [long[i] for i in spread(len(long), most, rng)]

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Windows of ``part`` in the order of its documents; lengths differ, padding is on the right.

        Raises:
            UnknownName: there is no such part.
        """
        if part not in self.splits.parts:
            raise UnknownName("part", part, self.splits.parts)
        kind = part.split(".")[0]
        members = self.splits.parts[part]
        number: dict[int, int] = {}
        pending: list[tuple[Row, list[int]]] = []
        self._encode(members)
        for document in members:
            unit = number.setdefault(self.splits.unit[document], len(number))
            name = self.corpus.documents[document].name
            for offset, tokens in self._cut(document, self.windows.get(kind, 4)):
                if not tokens:
                    continue
                pending.append((Row(unit, name, offset), tokens))
                if len(pending) == rows:
                    yield self._batch(pending)
                    pending = []
        if pending:
            yield self._batch(pending)

    def _batch(self, windows: list[tuple[Row, list[int]]]) -> Batch:
        bos, pad = self.tokenizer.bos_token_id, self.tokenizer.pad_token_id
        lead = [] if bos is None else [bos]
        width = max(len(tokens) for _, tokens in windows) + len(lead)
        ids = torch.full((len(windows), width), pad if pad is not None else 0, dtype=torch.long)
        mask = torch.zeros((len(windows), width), dtype=torch.bool)
        for i, (_, tokens) in enumerate(windows):
            row = torch.tensor([*lead, *tokens])
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        special = None
        if lead:
            special = torch.zeros_like(mask)
            special[:, 0] = True
        tensors = {"input_ids": ids, "attention_mask": mask.long()}
        return Batch(tensors, mask, tuple(row for row, _ in windows), special)
