"""Where a module keeps each tensor that has a name: read off the module, never guessed from a family's name.

For decoders, interp-engine knows at which side of which module each point of the residual stream lies. What
lies inside attention is found by running the model once with every attention call recorded. A model that
interp-engine does not know still gets the sites that can be read off its list of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prosect.data.batch import Batch
from prosect.model.probe import Probe, probe
from prosect.model.sitemap import Entry, Place, Side, SiteInfo
from prosect.model.sites import INTERIOR, KINDS, Trait

ENGINE_KINDS = tuple(kind for kind in KINDS if kind not in INTERIOR)
NOT_ROUTED = "its attention does not go through transformers' AttentionInterface, where this is read"


@dataclass
class Anatomy:
    """What was found.

    Attributes:
        entries: the named sites, in forward order.
        refused: named sites that this architecture lacks → why.
        widths: module path (``path:in`` for inputs) → last axis, for modules that ran.
        traits: on which TransformerLens names mean something else.
        layers, d_model, heads, d_head, vocab, max_positions: sizes, None where meaningless.
        norm, head: the last norm and the unembedding of a decoder.
        decoder: whether it is a language model whose residual stream is mapped.
        routed: whether its attention can be tapped.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    traits: set[Trait] = field(default_factory=set)
    layers: int | None = None
    d_model: int | None = None
    heads: int | None = None
    d_head: int | None = None
    vocab: int | None = None
    max_positions: int | None = None
    norm: nn.Module | None = None
    head: nn.Module | None = None
    decoder: bool = False
    routed: bool = False


def survey(module: nn.Module, example: Batch) -> Anatomy:
    """Run ``module`` once on ``example`` and find its sites."""
    paths = {id(m): path for path, m in module.named_modules()}
    seen = probe(module, example)
    found = Anatomy(routed=bool(seen.attention))
    for path, m in module.named_modules():
        for side, tensor in (("", seen.output(m)), (":in", seen.input(m))):
            if path and tensor is not None and tensor.ndim:
                found.widths[path + side] = int(tensor.shape[-1])
    config = getattr(module, "config", None)
    if config is None:
        return found
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found.max_positions = _whole(text, "max_position_embeddings", "n_positions", "max_seq_len")
    if getattr(config, "is_encoder_decoder", False):
        return found
    arch = _engine(module)
    if arch is not None:
        _decoder(found, seen, paths, arch)
    else:
        _blocks(found, seen, paths, module)
        found.vocab = _whole(text, "vocab_size")
        found.heads = found.heads or _whole(text, "num_attention_heads", "n_head")
    found.traits |= _traits(found, module, seen)
    return found


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


def _engine(module: nn.Module) -> Any | None:
    """interp-engine's view of a decoder; None for what it does not know."""
    from interp_engine.model import EagerModel

    with _unchanged(module):
        try:
            # the space keeps this from being the id of anything that could be downloaded
            return EagerModel("in memory", hf_model=module, tokenizer=_NoTokenizer())
        except (ValueError, AttributeError, IndexError, KeyError, TypeError):
            return None  # an encoder, a vision model, a trunk without an unembedding


def _decoder(found: Anatomy, seen: Probe, paths: dict[int, str], engine: Any) -> None:
    arch = engine.arch
    found.decoder = True
    found.layers, found.d_model, found.heads = arch.n_layers, arch.d_model, arch.n_heads
    found.d_head, found.vocab = arch.head_dim, arch.vocab_size
    found.norm, found.head = arch.final_norm, arch.lm_head
    _place(found, seen, paths, engine, "embeddings", None)
    for layer in range(arch.n_layers):
        for kind in KINDS.values():
            if not kind.layered:
                continue
            if kind.interior:
                _interior(found, seen, paths, kind.name, layer, _attention(engine, layer))
            elif kind.name == "resid_mid":
                _resid_mid(found, seen, paths, engine, layer)
            else:
                _place(found, seen, paths, engine, kind.name, layer)
    _place(found, seen, paths, engine, "final_norm", None)
    _join(found, seen)


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
    _enter(found, seen, paths, kind, layer, place)
    return place


def _enter(
    found: Anatomy, seen: Probe, paths: dict[int, str], kind: str, layer: int | None, place: Place
) -> None:
    """Add a site at a module's boundary, heads split off where the kind has them."""
    name = kind if layer is None else f"{kind}.{layer}"
    tensor = seen.at(place)
    if tensor is None:
        found.refused[name] = f"{paths[id(place.module)]} does not run once in each pass"
        return
    width, heads = int(tensor.shape[-1]), None
    if KINDS[kind].heads:
        heads = _query_heads(seen, place.module, paths) or found.heads
        if not heads or width % heads:
            found.refused[name] = f"its width {width} does not divide into {heads} heads"
            return
        width //= heads
    info = SiteInfo(
        name, kind, KINDS[kind].about, layer, KINDS[kind].layout, width, heads, paths[id(place.module)]
    )
    found.entries[name] = Entry(place, info, split=heads is not None)


def _query_heads(seen: Probe, projection: nn.Module, paths: dict[int, str]) -> int | None:
    """Heads of the attention call that the projection follows: the recorded call of a module around it."""
    path = paths[id(projection)]
    for call in seen.attention:
        around = paths[id(call.module)]
        if path.startswith(f"{around}."):
            return call.heads
    return None


def _attention(engine: Any, layer: int) -> nn.Module | None:
    try:
        module: nn.Module = engine.arch.attn_module(layer)
    except (ValueError, AttributeError, IndexError):
        return None
    return module


def _interior(
    found: Anatomy, seen: Probe, paths: dict[int, str], kind: str, layer: int, around: nn.Module | None
) -> None:
    """Map a quantity of the one attention call made within ``around``."""
    name = f"{kind}.{layer}"
    if around is None:
        found.refused[name] = "this layer has no attention"
        return
    inside = {id(m) for m in around.modules()}
    calls = [call for call in seen.attention if id(call.module) in inside]
    if len(calls) != 1:
        found.refused[name] = NOT_ROUTED if not calls else f"{len(calls)} attention calls in this layer"
        return
    call = calls[0]
    heads = call.key_heads if kind in ("k", "v") else call.heads
    width = {"q": call.d_head, "k": call.d_head, "v": call.d_value, "z": call.d_value}.get(kind)
    side: Side = kind  # type: ignore[assignment]
    info = SiteInfo(
        name, kind, KINDS[kind].about, layer, KINDS[kind].layout, width, heads, paths[id(call.module)]
    )
    found.entries[name] = Entry(Place(call.module, side), info)


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
    if before is not None and added is not None and torch.equal(before + added, there):
        del found.refused[name]
        _enter(found, seen, paths, "resid_mid", layer, place)


def _join(found: Anatomy, seen: Probe) -> None:
    """Let two names of one tensor share a place: what leaves a block and what enters the next.

    An edit under either name is then one edit at one place, in the order of the list.
    """
    pairs = [("embeddings", "resid_pre.0")]
    pairs += [(f"resid_post.{i}", f"resid_pre.{i + 1}") for i in range((found.layers or 1) - 1)]
    for first, second in pairs:
        a, b = found.entries.get(first), found.entries.get(second)
        if a is not None and b is not None and seen.at(a.place) is seen.at(b.place):
            found.entries[second] = Entry(a.place, b.info, b.split)


def _blocks(found: Anatomy, seen: Probe, paths: dict[int, str], module: nn.Module) -> None:
    """Sites of a model that interp-engine does not know: streams around its blocks, and inside attention."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and _is_stack(m, seen)]
    if len(lists) != 1:
        return
    blocks = list(lists[0])
    found.layers = len(blocks)
    for layer, block in enumerate(blocks):
        _enter(found, seen, paths, "resid_pre", layer, Place(block, "in"))
        for kind in (*INTERIOR, "z"):
            _interior(found, seen, paths, kind, layer, block)
        _enter(found, seen, paths, "resid_post", layer, Place(block, "out"))
    calls = seen.attention
    if calls:
        found.heads, found.d_head = calls[0].heads, calls[0].d_head
    first = seen.input(blocks[0])
    found.d_model = int(first.shape[-1]) if first is not None else None
    _join(found, seen)


def _is_stack(blocks: nn.ModuleList, seen: Probe) -> bool:
    """Blocks of one class, each run once, each giving what it was given in shape."""
    if len(blocks) == 0 or len({type(b) for b in blocks}) != 1:
        return False
    for block in blocks:
        given, gave = seen.input(block), seen.output(block)
        if given is None or gave is None or given.shape != gave.shape or given.ndim != 3:
            return False
    return True


def _traits(found: Anatomy, module: nn.Module, seen: Probe) -> set[Trait]:
    out: set[Trait] = set()
    classes = " ".join({type(m).__name__.lower() for m in module.modules()})
    names = " ".join(path.rpartition(".")[2] for path in found.widths)
    if "rotary" in classes or "rope" in classes or "q_norm" in names or "query_layernorm" in names:
        out.add("rotary")
    gains = [m for m in module.modules() if "norm" in type(m).__name__.lower()]
    if any(not _plain_norm(m) for m in gains):
        out.add("gain")
    a, b = found.entries.get("embeddings"), found.entries.get("resid_pre.0")
    if a is not None and b is not None and _scaled(seen.at(a.place), seen.at(b.place)):
        out.add("scaled")
    return out


def _plain_norm(norm: nn.Module) -> bool:
    """Whether a norm has no gain or bias that changes anything."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    plain_weight = weight is None or bool((weight == 1).all())
    return plain_weight and (bias is None or bool((bias == 0).all()))


def _scaled(before: Tensor | None, after: Tensor | None) -> bool:
    """Whether ``after`` is ``before`` times a number other than 1."""
    if before is None or after is None or before.shape != after.shape or torch.equal(before, after):
        return False
    cosine = torch.cosine_similarity(before.double().flatten(), after.double().flatten(), dim=0)
    return bool(cosine > 0.999999)


def _reason(text: str) -> str:
    """The first sentence of a longer explanation."""
    first = text.split(". ")[0].split(": ")[0] if len(text) > 160 else text
    return first.strip().rstrip(".")


def _whole(config: Any, *names: str) -> int | None:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
