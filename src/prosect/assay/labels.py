"""Concepts that a user has labelled: JSON lines, each a text and where in it concepts are.

    {"text": "the king of France", "concepts": {"royalty": [[4, 8]], "country": [[12, 18]]}}

Spans are characters, from and to (not included). A token has a concept where it overlaps a span. A concept that a line
does not name is absent from it. Each line is an independent document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.data.batch import Batch, Row
from prosect.model import Model

FORM = '{"text": "...", "concepts": {"NAME": [[from, to], ...]}}'


@dataclass(frozen=True)
class Labelled:
    """Labelled texts as a source of one part, ``labelled``.

    Attributes:
        windows: one for each text.
        labels: for each concept, where it is at scored positions, in order.
        digest: of texts and labels.
    """

    windows: tuple[Batch, ...]
    labels: dict[str, Bool[Tensor, " n"]]
    digest: str
    unit: str = "labelled text"

    @property
    def units(self) -> dict[str, int]:
        """Texts."""
        return {"labelled": len(self.windows)}

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """All of them, in order."""
        for start in range(0, len(self.windows), rows):
            yield Batch.joined(self.windows[start : start + rows])


def labelled(path: Path, model: Model, context: int = 128) -> Labelled:
    """Read a file of labelled texts for a model.

    Args:
        path: JSON lines.
        model: with a tokenizer that can say where its tokens lie.
        context: texts are cut after so many tokens.

    Raises:
        BadInput: a line is not of this form; its number is given.
        Unsupported: the tokenizer does not know where its tokens lie.
        TooLittleData: there are no texts, or none with a concept.
    """
    lines = _lines(path)
    tokenizer: Any = model.tokenizer
    if tokenizer is None or not getattr(tokenizer, "is_fast", False):
        raise Unsupported(f"labelled texts for {model.name}", "a model with a fast tokenizer")
    names = list(dict.fromkeys(name for _, spans in lines for name in spans))
    if not names:
        raise TooLittleData(f"{path}, {len(lines)} texts without a concept", f"lines of the form {FORM}")
    windows: list[Batch] = []
    found: dict[str, list[bool]] = {name: [] for name in names}
    lead = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for number, (text, spans) in enumerate(lines):
        coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, places = coded["input_ids"][: context - 1], coded["offset_mapping"][: context - 1]
        if not ids:
            continue
        tensor = torch.tensor([[*lead, *ids]])
        mask = torch.ones_like(tensor, dtype=torch.bool)
        special = torch.zeros_like(mask)
        special[:, : len(lead)] = True
        tensors = {"input_ids": tensor, "attention_mask": mask.long()}
        windows.append(Batch(tensors, mask, (Row(number, f"{path.name}:{number + 1}"),), special))
        for name in names:
            there = spans.get(name, [])
            found[name] += [any(a < end and b > start for start, end in there) for a, b in places]
    return Labelled(
        tuple(windows), {name: torch.tensor(v, dtype=torch.bool) for name, v in found.items()}, digest(lines)
    )


def _lines(path: Path) -> list[tuple[str, dict[str, list[tuple[int, int]]]]]:
    try:
        written = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}, which cannot be read ({error})", "JSON lines of labelled texts") from error
    out = []
    for number, line in enumerate(written, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            text, given = content["text"], content["concepts"]
            spans = {str(n): [(int(a), int(b)) for a, b in s] for n, s in given.items()}
            if not isinstance(text, str) or any(
                not 0 <= a < b <= len(text) for s in spans.values() for a, b in s
            ):
                raise ValueError("a span that is not in the text")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"line {number} of {path} ({type(error).__name__}: {error})", FORM) from error
        out.append((text, spans))
    if not out:
        raise TooLittleData(f"{path}, which holds no text", f"lines of the form {FORM}")
    return out
