"""The strings of a vocabulary and what can be told from each string alone.

Rules speak about token classes (a number, an opening bracket ...) and need the strings again when they are
run, so the vocabulary is kept on the shelf as bytes, under its digest, once for all rules of a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from prosect.core.canonical import canonical_json
from prosect.core.errors import BadInput, UnknownName
from prosect.store.shelf import Shelf

PYTHON_KEYWORDS = frozenset(
    [
        "False",
        "None",
        "True",
        "and",
        "as",
        "assert",
        "async",
        "await",
        "break",
        "class",
        "continue",
        "def",
        "del",
        "elif",
        "else",
        "except",
        "finally",
        "for",
        "from",
        "global",
        "if",
        "import",
        "in",
        "is",
        "lambda",
        "nonlocal",
        "not",
        "or",
        "pass",
        "raise",
        "return",
        "try",
        "while",
        "with",
        "yield",
    ]
)
"""Fixed here: the interpreter's own list may grow, and a rule must go on meaning what it meant."""

KEYWORDS = {"": frozenset[str](), "python": PYTHON_KEYWORDS}

CLASSES = {
    "word": "a word or part of one",
    "keyword": "a keyword",
    "number": "a number",
    "punctuation": "punctuation",
    "white space": "white space",
    "newline": "a newline",
    "indent": "an indent",
    "quote": "a quotation mark",
    "opening bracket": "an opening bracket",
    "closing bracket": "a closing bracket",
    "leading space": "a token that starts with a space",
    "capital": "a capitalised token",
    "upper case": "a token in upper case",
    "special": "a special token",
}
"""Name → in words. A token can belong to several."""

_WORD = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"\d[\d_.]*")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Decoded tokens by id.

    Args:
        strings: each token as text; lone surrogates become U+FFFD.
        specials: ids of tokens that are no text, such as a document separator.
        language: of the text, for keywords: ``python``, or empty.

    Raises:
        BadInput: it is empty, or a special token is not in it.
        UnknownName: no keywords are known for the language.
    """

    strings: tuple[str, ...]
    specials: frozenset[int] = frozenset()
    language: str = ""

    def __post_init__(self) -> None:
        if not self.strings:
            raise BadInput("an empty vocabulary", "at least one token")
        if self.language not in KEYWORDS:
            raise UnknownName("language", self.language, KEYWORDS, "leaving it out: keywords are then unused")
        bad = [i for i in self.specials if not 0 <= i < len(self.strings)]
        if bad:
            raise BadInput(f"special token {bad[0]}", f"ids below {len(self.strings)}")
        object.__setattr__(self, "strings", tuple(_SURROGATE.sub("\ufffd", s) for s in self.strings))

    @classmethod
    def of(cls, strings: Iterable[str], specials: Iterable[int] = (), language: str = "") -> Vocabulary:
        """A vocabulary from any strings."""
        return cls(tuple(strings), frozenset(specials), language)

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, language: str = "", size: int | None = None) -> Vocabulary:
        """The vocabulary of a Hugging Face tokenizer.

        Args:
            tokenizer: anything with ``decode``, ``convert_ids_to_tokens`` and ``all_special_ids``.
            language: of the text.
            size: tokens of the model, where its output is wider than the tokenizer; the rest are empty.
        """
        known = len(tokenizer)
        pieces = tokenizer.convert_ids_to_tokens(list(range(known)))
        strings: list[str] = []
        for i, piece in enumerate(pieces):
            text = tokenizer.decode([i])
            # SentencePiece marks a leading space with a sign that decoding one token alone drops.
            opens = isinstance(piece, str) and piece.startswith("▁") and not text.startswith(" ")
            strings.append(f" {text}" if opens else text)
        strings += [""] * max(0, (size or known) - known)
        specials = [i for i in tokenizer.all_special_ids if 0 <= i < len(strings)]
        return cls.of(strings, specials, language)

    def __len__(self) -> int:
        return len(self.strings)

    @cached_property
    def rank(self) -> Int[np.ndarray, " vocabulary"]:
        """Each token's place in the order of strings: ties are broken by text, never by id."""
        order = sorted(range(len(self.strings)), key=lambda i: self.strings[i])
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return rank

    @cached_property
    def by_rank(self) -> Int[np.ndarray, " vocabulary"]:
        """The token at each place of that order: the inverse of `rank`."""
        return np.argsort(self.rank)

    @cached_property
    def classes(self) -> Bool[np.ndarray, "vocabulary classes"]:
        """Which of `CLASSES`, in that order, each token belongs to."""
        keywords = KEYWORDS[self.language]
        rows = [_classes(s, i in self.specials, keywords) for i, s in enumerate(self.strings)]
        return np.array([[name in row for name in CLASSES] for row in rows], dtype=bool)

    def store(self, shelf: Shelf) -> str:
        """Keep the vocabulary on a shelf; returns its digest."""
        content = {
            "strings": list(self.strings),
            "specials": sorted(self.specials),
            "language": self.language,
        }
        return shelf.put(torch.frombuffer(bytearray(canonical_json(content)), dtype=torch.uint8))

    @staticmethod
    def load(digest: str, shelf: Shelf) -> Vocabulary:
        """The vocabulary that `store` kept.

        Raises:
            BadInput: the tensor is not here, or is no vocabulary.
        """
        return _parse(bytes(shelf.get(digest).numpy()))


@lru_cache(maxsize=4)
def _parse(content: bytes) -> Vocabulary:
    try:
        found = json.loads(content)
        return Vocabulary.of(found["strings"], found["specials"], found["language"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput("a tensor that is no vocabulary", "what Vocabulary.store kept") from error


def _classes(token: str, special: bool, keywords: frozenset[str]) -> set[str]:
    if special:
        return {"special"}
    found: set[str] = set()
    text = token.strip()
    if not text and token:
        found.add("white space")
        last = token.rsplit("\n", 1)[-1]
        if "\t" in last or len(last) >= 2:
            found.add("indent")
    if "\n" in token:
        found.add("newline")
    if token.startswith(" ") and text:
        found.add("leading space")
    if text:
        if text in keywords:
            found.add("keyword")
        if _WORD.fullmatch(text):
            found.add("word")
        elif _NUMBER.fullmatch(text):
            found.add("number")
        elif not any(c.isalnum() or c == "_" for c in text) and "\ufffd" not in text:
            found.add("punctuation")
        if text[0].isupper():
            found.add("capital")
        if len(text) > 1 and text.isupper():
            found.add("upper case")
    if "'" in token or '"' in token:
        found.add("quote")
    if any(c in token for c in "([{"):
        found.add("opening bracket")
    if any(c in token for c in ")]}"):
        found.add("closing bracket")
    return found
