"""Continuing prompts under edits: the same rules, the whole sequence computed anew for every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from prosect.core.errors import BadInput, NotFinite, Unsupported
from prosect.core.markup import card
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.edits import Edit
from prosect.model.inputs import Inputs, of_ids

if TYPE_CHECKING:
    from prosect.model.model import Model


@dataclass(frozen=True)
class Generation:
    """Prompts and what came after them.

    Attributes:
        prompts: token ids of each prompt.
        tokens: token ids that were made for each, the one that stopped it included.
        text: the new tokens decoded; None for a model without a tokenizer.
    """

    prompts: tuple[tuple[int, ...], ...]
    tokens: tuple[tuple[int, ...], ...]
    text: tuple[str, ...] | None = None

    def _repr_html_(self) -> Markup:
        shown = self.text or tuple(" ".join(str(t) for t in row) for row in self.tokens)
        return card("generated", [(str(i), text) for i, text in enumerate(shown)])


def generate(
    model: Model,
    prompts: Inputs,
    edits: Sequence[Edit] = (),
    max_new_tokens: int = 20,
    temperature: int | float = 0.0,
    seed: int = 0,
    stop: Sequence[int] | None = None,
) -> Generation:
    """Continue prompts, every pass under the same edits.

    An edit without positions applies at every real position, new ones included, so that it steers all along.
    Positions count the real tokens of the prompt, negatives from its end, and stay where they are as tokens
    are added. Values with an axis of positions would change their meaning on the way and do not fit.

    Args:
        model: a language model.
        prompts: text, token ids or a Batch of them.
        edits: see `prosect.model.edits`.
        max_new_tokens: for each row.
        temperature: 0 takes the most likely token, the lowest of equals; else logits are divided by it.
        seed: of the draws; a row's draws depend on nothing but the seed and its number.
        stop: tokens that end a row; those of the model's generation settings by default.

    Raises:
        Unsupported: not a language model over tokens.
        BadInput: a negative temperature, no room for the new tokens, an edit that does not fit.
    """
    batch = model.batch(prompts)
    if (
        not model.is_language_model
        or batch.mask is None
        or set(batch.tensors) - {"input_ids", "attention_mask"}
    ):
        raise Unsupported(f"generating with {model.name}", "a causal language model and token ids")
    if not (temperature >= 0 and np.isfinite(temperature)) or max_new_tokens < 1:
        raise BadInput(
            f"temperature {temperature} and {max_new_tokens} new tokens", "at least 0, and at least 1 token"
        )
    ids = [row[real].tolist() for row, real in zip(batch.tensors["input_ids"], batch.mask, strict=True)]
    longest = max(len(row) for row in ids)
    if model.max_positions is not None and longest + max_new_tokens - 1 > model.max_positions:
        raise BadInput(
            f"{longest} tokens and {max_new_tokens} new ones",
            f"no more than {model.max_positions} positions to read",
            "fewer new tokens",
        )
    ends = frozenset(_ends(model) if stop is None else stop)
    pinned = [_pinned(edit, batch) for edit in edits]
    model.runner.bind(pinned, batch)
    draws = [Seed(seed).child("generate", i).numpy() for i in range(len(ids))]
    made: list[list[int]] = [[] for _ in ids]
    for _ in range(max_new_tokens):
        going = [i for i, new in enumerate(made) if not new or new[-1] not in ends]
        if not going:
            break
        # every row is run each time: rows of edits are numbered over all prompts
        current = of_ids([old + new for old, new in zip(ids, made, strict=True)])
        logits = model.run(current, edits=pinned).output
        for i in going:
            last = len(ids[i]) + len(made[i]) - 1
            made[i].append(_next(logits[i, last].double().cpu().numpy(), temperature, draws[i]))
    text = None if model.tokenizer is None else tuple(str(model.tokenizer.decode(new)) for new in made)
    return Generation(tuple(tuple(row) for row in ids), tuple(tuple(new) for new in made), text)


def _next(logits: np.ndarray, temperature: int | float, draw: np.random.Generator) -> int:
    if not np.isfinite(logits).all():
        raise NotFinite("NaN or infinity among the logits", "finite logits")
    if temperature == 0:
        return int(np.argmax(logits))
    weights = np.exp((logits - logits.max()) / temperature)
    upto = np.cumsum(weights)
    return int(min(np.searchsorted(upto, draw.random() * upto[-1], side="right"), len(logits) - 1))


def _pinned(edit: Edit, batch: Batch) -> Edit:
    """The edit with positions counted from the start, one set for each of its rows."""
    if edit.positions is None:
        return edit
    rows = range(len(batch)) if edit.rows is None else edit.rows
    if all(isinstance(p, int) for p in edit.positions):
        sets = [edit.positions] * len(rows)
    else:
        sets = list(edit.positions)  # type: ignore[arg-type]
    if len(sets) != len(rows):
        raise BadInput(f"{len(sets)} sets of positions at {edit.site}", f"one for each of {len(rows)} rows")
    lengths = batch.lengths
    fixed = []
    for row, chosen in zip(rows, sets, strict=True):
        length = int(lengths[row]) if 0 <= row < len(lengths) else 0
        # what is out of range stays so, and is refused where edits are checked
        fixed.append(tuple(p + length if -length <= p < 0 else p for p in chosen if isinstance(p, int)))
    return replace(edit, positions=tuple(fixed))


def _ends(model: Model) -> list[int]:
    """Tokens that end a text, as the model's settings or its tokenizer say."""
    for holder in (getattr(model.module, "generation_config", None), model.tokenizer):
        ends = getattr(holder, "eos_token_id", None)
        if ends is not None:
            return [int(e) for e in ends] if isinstance(ends, list | tuple) else [int(ends)]
    return []
