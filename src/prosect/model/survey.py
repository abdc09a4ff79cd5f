"""Where a module keeps each tensor that has a name: read off the module and one pass, never off a family's name.

Two readings are tried. interp-engine's, which knows the usual decoders; it is taken where what its names stand
for adds up in the recorded pass. Otherwise the model's stacks of blocks are read by arithmetic (`stacks`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prosect.data.batch import Batch
from prosect.model.anatomy import Anatomy, additive, join, settle_heads, traits, whole
from prosect.model.boundary import main_output, with_main_input, with_main_output
from prosect.model.engine import decoder, engine
from prosect.model.forward import Forward, settled
from prosect.model.inputs import text_of
from prosect.model.probe import Probe, probe
from prosect.model.sitemap import Place
from prosect.model.stacks import stacked, unembedding

LARGEST = 1e-4
"""Most that a block's parts may miss what it adds to the stream by, relative to the stream's largest number."""


def survey(module: nn.Module, example: Batch) -> Anatomy:
    """Run ``module`` once on ``example`` and find its sites."""
    paths = {id(m): path for path, m in module.named_modules()}
    seen = probe(module, example)
    config = getattr(module, "config", None)
    text = text_of(config)
    found = _read(module, example, seen, paths, text, config)
    for path, m in module.named_modules():
        for side, tensor in (("", seen.output(m)), (":in", seen.input(m))):
            if path and tensor is not None and tensor.ndim:
                found.widths[path + side] = int(tensor.shape[-1])
    found.routed = bool(seen.attention)
    settle_heads(found, seen, paths)
    join(found, seen, _only_the_stream(module, example, seen, found))
    found.traits |= traits(found, module, seen)
    return found


def _read(
    module: nn.Module, example: Batch, seen: Probe, paths: dict[int, str], text: Any, config: Any
) -> Anatomy:
    """The reading that adds up in every block; else the one with more in it."""
    longest = whole(text, "max_position_embeddings", "n_positions", "max_seq_len")
    first = Anatomy(max_positions=longest)
    known = None
    if config is not None and not getattr(config, "is_encoder_decoder", False):
        known = engine(module)
    if known is not None:
        decoder(first, seen, paths, known)
        unembedding(first, seen, paths, module)
        if _adds_up(first, seen):
            return first
    second = Anatomy(max_positions=longest, heads=whole(text, "num_attention_heads", "n_head"))
    complete = stacked(second, seen, paths, module)
    second.decoder = second.decoder and _causal(module, example, seen)
    second.vocab = whole(text, "vocab_size")
    if known is None or complete or len(second.entries) > len(first.entries):
        return second
    return first


def _adds_up(found: Anatomy, seen: Probe) -> bool:
    def at(kind: str, layer: int) -> Tensor | None:
        entry = found.entries.get(f"{kind}.{layer}")
        x = None if entry is None else seen.value(entry.place)
        return None if x is None or entry is None else x.double() * entry.factor

    layers = range(found.layers or 0)
    return bool(layers) and all(additive(partial(at, layer=layer)) < LARGEST for layer in layers)


def _causal(module: nn.Module, example: Batch, seen: Probe) -> bool:
    """Whether the last token changes nothing before it: a language model rather than an encoder with a head."""
    ids, whole = example.tensors.get("input_ids"), seen.value(Place(module, "out"))
    if ids is None or whole is None or set(example.tensors) - {"input_ids", "attention_mask"}:
        return False
    if ids.ndim != 2 or ids.shape[1] < 2 or whole.ndim != 3:
        return False
    other = ids.clone()
    other[:, -1] = torch.where(ids[:, -1] == ids[:, 0], ids.flip(0)[:, 1], ids[:, 0])  # tokens that it has
    forward = Forward(module)
    with settled(module):
        arguments = forward.arguments(
            Batch({**example.tensors, "input_ids": other}, example.mask, example.rows)
        )
        output = main_output(forward(arguments))
    if output is None or output.shape != whole.shape:
        return False
    return torch.allclose(output[:, :-1], whole[:, :-1], rtol=1e-3, atol=1e-5)


def _only_the_stream(module: nn.Module, example: Batch, seen: Probe, found: Anatomy) -> bool:
    """Whether the embeddings reach the output through the first block's input alone.

    A pass with the embeddings spoiled and that input as it was must give the same output: some models hand the
    embeddings, or what they make of them, to later blocks as well.
    """
    table, block = found.entries.get("embeddings"), found.entries.get("resid_pre.0")
    before = None if table is None else seen.at(table.place)
    if table is None or block is None or before is None or before is not seen.at(block.place):
        return False
    right = seen.value(block.place)
    if right is None:
        return False
    handles = [
        table.place.module.register_forward_hook(
            lambda _m, _a, out: with_main_output(out, before * -0.7 + 0.3)
        ),
        block.place.module.register_forward_pre_hook(
            lambda _m, args, kwargs: with_main_input(args, kwargs, right), with_kwargs=True
        ),
    ]
    forward = Forward(module)
    try:
        with settled(module):
            output = main_output(forward(forward.arguments(example)))
    finally:
        for handle in handles:
            handle.remove()
    whole = seen.value(Place(module, "out"))
    return output is not None and whole is not None and torch.allclose(output, whole, rtol=1e-3, atol=1e-5)
