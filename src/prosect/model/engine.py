"""Where a decoder keeps each tensor that has a name, as interp-engine reads it off the module.

interp-engine knows at which side of which module each point of the residual stream lies, for the families it
recognises; what lies inside attention is found in the recorded pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prosect.model.anatomy import Anatomy, enter, interior
from prosect.model.probe import Probe
from prosect.model.sitemap import Place
from prosect.model.sites import KINDS

FOREIGN = ("resid_cross", "cross_attn", "mixer", "attn_sum", "mlp_sum", "attn2", "mlp2")
"""Kinds of sites that interp-engine has no points for."""


class _NoTokenizer:
    """Stands where interp-engine would otherwise ask the hub for a tokenizer."""


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Gives modes and ``requires_grad`` back as they were."""
    modes = [(m, m.training) for m in module.modules()]
    grads = [(p, p.requires_grad) for p in module.parameters()]
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for p, wanted in grads:
            p.requires_grad_(wanted)


def engine(module: nn.Module) -> Any | None:
    """interp-engine's view of a decoder; None for what it does not know."""
    from interp_engine.model import EagerModel

    with _unchanged(module):
        try:
            # the space keeps this from being the id of anything that could be downloaded
            return EagerModel("in memory", hf_model=module, tokenizer=_NoTokenizer())
        except (ValueError, AttributeError, IndexError, KeyError, TypeError):
            return None  # an encoder, a vision model, a trunk without an unembedding


def decoder(found: Anatomy, seen: Probe, paths: dict[int, str], engine: Any) -> None:
    arch = engine.arch
    found.decoder = True
    found.layers, found.d_model, found.heads = arch.n_layers, arch.d_model, arch.n_heads
    found.d_head, found.vocab = arch.head_dim, arch.vocab_size
    found.norm, found.head = arch.final_norm, arch.lm_head
    _place(found, seen, paths, engine, "embeddings", None)
    for layer in range(arch.n_layers):
        for kind in KINDS.values():
            if not kind.layered or kind.name.startswith(FOREIGN):
                continue
            if kind.interior:
                interior(found, seen, paths, kind.name, layer, _attention(engine, layer))
            elif kind.name == "resid_mid":
                _resid_mid(found, seen, paths, engine, layer)
            else:
                _place(found, seen, paths, engine, kind.name, layer)
    _place(found, seen, paths, engine, "final_norm", None)


def _place(
    found: Anatomy, seen: Probe, paths: dict[int, str], engine: Any, kind: str, layer: int | None
) -> Place | None:
    """Map one point of interp-engine, or note why there is none."""
    name = kind if layer is None else f"{kind}.{layer}"
    try:
        module, side = engine.resolve_point(kind, layer)
    except (ValueError, AttributeError, IndexError) as error:
        found.refused[name] = _reason(str(error))
        return None
    if id(module) not in paths or side not in ("input", "output"):
        found.refused[name] = "it is not at the boundary of a module"
        return None
    place = Place(module, "in" if side == "input" else "out", through=kind == "resid_mid")
    enter(found, seen, paths, kind, layer, place)
    return place


def _attention(engine: Any, layer: int) -> nn.Module | None:
    try:
        module: nn.Module = engine.arch.attn_module(layer)
    except (ValueError, AttributeError, IndexError):
        return None
    return module


def _resid_mid(found: Anatomy, seen: Probe, paths: dict[int, str], engine: Any, layer: int) -> None:
    """The stream between attention and MLP: where interp-engine has it, else what an MLP without a norm reads.

    The second is taken only where, in the recorded pass, it equals the stream before plus what attention added.
    """
    name = f"resid_mid.{layer}"
    try:
        mlp, side = engine.resolve_point("mlp_in", layer)
    except (ValueError, AttributeError, IndexError):
        found.refused[name] = "this block has no MLP, so nothing lies before one"
        return
    place = Place(mlp, "in" if side == "input" else "out", through=True)
    there = seen.at(place)
    known = {
        kind: seen.at(found.entries[f"{kind}.{layer}"].place)
        for kind in ("resid_pre", "attn_in", "attn_out_post")
        if f"{kind}.{layer}" in found.entries
    }
    parallel = there is not None and known.get("attn_in") is there
    if parallel or engine.arch.quirks.parallel_attn_mlp:
        found.refused[name] = "attention and MLP read the same stream, so nothing lies between them"
        return
    if _place(found, seen, paths, engine, "resid_mid", layer) is not None or there is None:
        return
    before, added = known.get("resid_pre"), known.get("attn_out_post")
    if before is None or added is None or not before.shape == added.shape == there.shape:
        return
    if torch.equal(before + added, there):
        del found.refused[name]
        enter(found, seen, paths, "resid_mid", layer, place)


def _reason(text: str) -> str:
    """The first sentence of a longer explanation."""
    first = text.split(". ")[0].split(": ")[0] if len(text) > 160 else text
    return first.strip().rstrip(".")
