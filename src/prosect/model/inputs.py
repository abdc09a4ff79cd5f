"""Batches from what people have in hand: text, token ids, tensors, or a batch already."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.model.forward import Forward

Inputs = Batch | Mapping[str, Tensor] | Tensor | str | Sequence[str] | Sequence[Sequence[int]]


def as_batch(given: Inputs, forward: Forward, tokenizer: Any | None = None) -> Batch:
    """A batch for one pass.

    Args:
        given: a Batch; tensors by keyword of the forward; one tensor for its first argument; text, or lists
            of token ids, which are padded on the right.
        forward: of the module that will be called.
        tokenizer: for text.

    Raises:
        BadInput: text without a tokenizer, an empty row, or something else altogether.
        ShapeMismatch: tensors that disagree about the number of rows, padding that is not on the right.
    """
    if isinstance(given, Batch):
        return given
    if isinstance(given, Tensor):
        return _of_tensors({forward.first: given})
    if isinstance(given, Mapping):
        return _of_tensors(given)
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Sequence) or len(given) == 0:
        raise BadInput(f"a {type(given).__name__}", "a Batch, tensors, texts or lists of token ids")
    texts = [part for part in given if isinstance(part, str)]
    if texts:
        if tokenizer is None:
            raise BadInput("text for a model without a tokenizer", "token ids", "load(..., tokenizer=...)")
        ids = [[int(i) for i in tokenizer(text)["input_ids"]] for text in texts]
        return of_ids(ids, documents=texts)
    return of_ids([[int(i) for i in part] for part in given])


def of_ids(ids: Sequence[Sequence[int]], documents: Sequence[str] = ()) -> Batch:
    """Token ids of several lengths as one batch, padded on the right with token 0, which the mask hides.

    Raises:
        BadInput: a row without tokens.
    """
    lengths = [len(row) for row in ids]
    if 0 in lengths:
        raise BadInput(f"row {lengths.index(0)} without tokens", "at least one token in each row")
    tokens = torch.zeros(len(ids), max(lengths), dtype=torch.long)
    mask = torch.zeros(len(ids), max(lengths), dtype=torch.bool)
    for i, row in enumerate(ids):
        tokens[i, : len(row)] = torch.tensor(list(row))
        mask[i, : len(row)] = True
    names = [documents[i] if i < len(documents) else "" for i in range(len(ids))]
    return Batch({"input_ids": tokens}, mask, tuple(Row(unit=i, document=n) for i, n in enumerate(names)))


def _of_tensors(tensors: Mapping[str, Tensor]) -> Batch:
    """Tensors by keyword; an ``attention_mask`` among them, or token ids, say which positions are real."""
    if not tensors or not all(isinstance(t, Tensor) and t.ndim > 0 for t in tensors.values()):
        raise BadInput("inputs that are not all tensors with rows", "a dict of tensors by forward keyword")
    rows = {name: int(t.shape[0]) for name, t in tensors.items()}
    count = next(iter(rows.values()))
    if set(rows.values()) != {count}:
        raise ShapeMismatch(f"tensors of {rows} rows", "the same number of rows in each")
    given = tensors.get("attention_mask")
    mask: Tensor | None = None
    if given is not None and given.ndim == 2:
        mask = given.bool()
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ShapeMismatch("padding before a real token", "padding on the right", "padding_side='right'")
    elif "input_ids" in tensors and tensors["input_ids"].ndim == 2:
        mask = torch.ones(tensors["input_ids"].shape, dtype=torch.bool)
    return Batch(dict(tensors), mask, tuple(Row(unit=i) for i in range(count)))


def checked(batch: Batch, vocabulary: int | None, max_positions: int | None) -> Batch:
    """``batch`` with token ids masked where there is none, if a language model can read it.

    A batch of token ids without a mask is taken to be all real.

    Raises:
        BadInput: a token outside the vocabulary, more positions than the model has, no rows.
        ShapeMismatch: a mask of another shape than the tokens.
    """
    if len(batch) == 0:
        raise BadInput("a batch without rows", "at least one row")
    ids = batch.tensors.get("input_ids")
    if ids is None or ids.ndim != 2:
        return batch
    if batch.mask is None:
        batch = Batch(batch.tensors, torch.ones(ids.shape, dtype=torch.bool), batch.rows)
    elif tuple(batch.mask.shape) != tuple(ids.shape):
        raise ShapeMismatch(f"a mask {tuple(batch.mask.shape)}", f"{tuple(ids.shape)}, as the tokens")
    if max_positions is not None and ids.shape[1] > max_positions:
        raise BadInput(
            f"{ids.shape[1]} positions", f"at most {max_positions}, which this model has", "shorter rows"
        )
    if vocabulary is not None and ids.numel():
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            raise BadInput(
                f"token {low if low < 0 else high}",
                f"tokens from 0 to {vocabulary - 1}",
                "this model's tokenizer",
            )
    return batch


def text_of(config: Any) -> Any:
    """The part of a configuration that is about text; the whole where there is no other."""
    try:
        return config.get_text_config(decoder=True)
    except (AttributeError, ValueError, TypeError):
        return config


def _vocabulary(module: nn.Module, text: Any) -> int:
    """How many tokens it reads."""
    given = getattr(text, "vocab_size", None)
    if isinstance(given, int):
        return given
    try:
        find: Any = module.get_input_embeddings
        return int(find().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError):
        raise BadInput(
            f"a {type(module).__name__} that does not say how many tokens it reads",
            "inputs: a dict of tensors by forward keyword, a tensor or a Batch",
            "load(module, inputs=...)",
        ) from None


def example_for(module: nn.Module, seed: int = 0) -> Batch:
    """Inputs to open a transformers model with, when the user gives none: random tokens or pixels.

    Raises:
        BadInput: the model reads something else.
    """
    config = getattr(module, "config", None)
    name = getattr(module, "main_input_name", None)
    generator = Seed(seed).child("example").torch()
    if config is not None and name == "input_ids":
        text = text_of(config)
        given = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions"))
        longest = next((n for n in given if isinstance(n, int) and n > 0), 6)
        ids = torch.randint(_vocabulary(module, text), (2, min(6, longest)), generator=generator)
        if getattr(config, "is_encoder_decoder", False):
            return _of_tensors({"input_ids": ids, "decoder_input_ids": ids.clone()})
        return _of_tensors({"input_ids": ids})
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    if name == "pixel_values" and isinstance(size, int):
        return _of_tensors({"pixel_values": torch.randn(2, channels, size, size, generator=generator)})
    raise BadInput(
        f"a {type(module).__name__} without example inputs",
        "inputs: a dict of tensors by forward keyword, a tensor or a Batch",
        "load(module, inputs=...)",
    )


class Right:
    """The batch last found right for a device. It is often run again, and a pass over it then need not look."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self.batch, self.device = weakref.ref(batch), device
        self.tensors = [(weakref.ref(t), _version(t)) for t in _held(batch)]

    def holds(self, batch: Batch, device: torch.device) -> bool:
        """Whether it is the same batch, of the same tensors, none written to since."""
        if self.batch() is not batch or self.device != device:
            return False
        now = _held(batch)
        if len(now) != len(self.tensors):
            return False
        for t, (was, version) in zip(now, self.tensors, strict=True):
            if was() is not t or version is None or version != _version(t):
                return False
        return True


def _held(batch: Batch) -> list[Tensor]:
    held = [*batch.tensors.values()]
    if batch.mask is not None:
        held.append(batch.mask)
    if batch.special is not None:
        held.append(batch.special)
    return held


def _version(tensor: Tensor) -> int | None:
    """How often it was written to; None where it does not count that."""
    return None if tensor.is_inference() else tensor._version
