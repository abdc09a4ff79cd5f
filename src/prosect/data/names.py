"""Indirect-object sentences in English for any tokenizer that has names as single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prosect.core.errors import BadInput, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.data.indirect_objects import IndirectObjects

NAMES = [
    *(
        "Mary",
        "John",
        "Alice",
        "Bob",
        "Anna",
        "Tom",
        "Sarah",
        "James",
        "Emma",
        "David",
        "Laura",
        "Paul",
        "Kate",
    ),
    *("Mark", "Lucy", "Peter", "Julia", "Simon", "Helen", "Adam", "Susan", "Kevin", "Rachel", "Brian", "Amy"),
    *("Daniel", "Jane", "Robert", "Lisa", "George", "Karen", "Michael", "Ruth", "Frank", "Diana", "Henry"),
    *("Nancy", "Steven", "Claire", "Jack", "Martin", "Andrew", "Jason", "Scott", "Jennifer", "Jessica"),
]
TEMPLATES = (
    "When {a} and {b} went to the store, {s} gave a drink to",
    "After {a} and {b} had lunch together, {s} handed the bill to",
    "While {a} and {b} were at the station, {s} passed a letter to",
    "Then {a} and {b} met in the garden, and {s} showed a picture to",
)
"""Two people, one of them again, and what comes next is the other. A space comes before every name."""
FEWEST = 12
"""Names that are needed: half of them to choose heads on, half to measure them on, three for every counterfactual."""
PARTS = ("explore", "validate.0")


def single_names(tokenizer: Any) -> dict[str, int]:
    """The names that are one token after a space, with that token."""
    before = list(tokenizer.encode("with", add_special_tokens=False))
    found = {}
    for name in NAMES:
        ids = list(tokenizer.encode(f"with {name}", add_special_tokens=False))
        unknown = getattr(tokenizer, "unk_token_id", None)
        if ids[:-1] == before and len(ids) == len(before) + 1 and ids[-1] != unknown:
            found[name] = int(ids[-1])
    return {name: token for name, token in found.items() if list(found.values()).count(token) == 1}


def named_sentences(tokenizer: Any, part: str = "explore", rows: int = 64, seed: int = 0) -> IndirectObjects:
    """Sentences of one part; the parts have no name in common.

    Either order of the names comes as often. In the counterfactual the three places hold three other names.

    Args:
        tokenizer: the model's own; tokens that it puts first are left in, and are no position of a name.
        part: ``explore`` or ``validate.0``.
        rows: how many.
        seed: which names are in which part, and of the draws.

    Raises:
        Unsupported: no tokenizer, or too few names that are single tokens in it.
        BadInput: no such part.
    """
    if part not in PARTS:
        raise BadInput(f"the part {part}", " or ".join(PARTS))
    if tokenizer is None:
        raise Unsupported("sentences with names without a tokenizer", "a model with its tokenizer")
    tokens = single_names(tokenizer)
    if len(tokens) < FEWEST:
        raise Unsupported(
            f"a tokenizer with {len(tokens)} of {len(NAMES)} names as single tokens ({', '.join(tokens) or 'none'})",
            f"at least {FEWEST}",
        )
    root = Seed(seed).child("names")
    order = root.child("cut").numpy().permutation(sorted(tokens))
    mine = [str(n) for n in order[PARTS.index(part) :: 2]]
    draw = root.child("draw", part).numpy()
    made = []
    for _ in range(rows):
        names = [mine[j] for j in draw.permutation(len(mine))]
        made.append(
            (TEMPLATES[int(draw.integers(len(TEMPLATES)))], names[:2], names[2:5], bool(draw.integers(2)))
        )
    clean, other = [], []
    for template, (io, s), (x, y, z), first in made:
        a, b = (io, s) if first else (s, io)
        clean.append(_ids(tokenizer, template, a, b, s))
        other.append(_ids(tokenizer, template, x, y, z))
    at = [_places(ids, tokens[io], tokens[s]) for ids, (_, (io, s), _, _) in zip(clean, made, strict=True)]
    rows_ = tuple(Row(unit=i, document=f"{part} sentence {i}") for i in range(rows))
    io_at, s1_at, s2_at = (np.array(x) for x in zip(*at, strict=True))
    return IndirectObjects(
        _batch(clean, rows_),
        _batch(other, rows_),
        io=np.array([tokens[io] for _, (io, _), _, _ in made]),
        s=np.array([tokens[s] for _, (_, s), _, _ in made]),
        io_at=io_at,
        s1_at=s1_at,
        s2_at=s2_at,
    )


def _ids(tokenizer: Any, template: str, a: str, b: str, s: str) -> list[int]:
    """Token ids; whatever the tokenizer puts after the last word is taken off."""
    text = template.format(a=a, b=b, s=s)
    ids, plain = (list(tokenizer.encode(text, add_special_tokens=more)) for more in (True, False))
    for start in range(len(ids) - len(plain) + 1):
        if ids[start : start + len(plain)] == plain:
            return ids[: start + len(plain)]
    return plain


def _places(ids: Sequence[int], io: int, s: int) -> tuple[int, int, int]:
    where = {name: [i for i, t in enumerate(ids) if t == name] for name in (io, s)}
    if len(where[io]) != 1 or len(where[s]) != 2:
        raise Unsupported(
            "a tokenizer that writes a name differently in a sentence than after one word",
            "one token either way",
        )
    return where[io][0], where[s][0], where[s][1]


def _batch(rows: Sequence[Sequence[int]], ids: tuple[Row, ...]) -> Batch:
    tokens = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    real = torch.arange(tokens.shape[1]) < torch.tensor([[len(row)] for row in rows])
    return Batch({"input_ids": tokens, "attention_mask": real.long()}, real, ids)
