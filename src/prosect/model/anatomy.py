"""What was found in a module: its named sites, its sizes, and how a site is entered into the map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prosect.model.probe import Probe
from prosect.model.sitemap import Entry, Place, Side, SiteInfo
from prosect.model.sites import KINDS, SUBLAYERS, Trait

NOT_ROUTED = "its attention does not go through transformers' AttentionInterface, where this is read"


@dataclass
class Anatomy:
    """What was found.

    Attributes:
        entries: the named sites, in forward order.
        refused: named sites that this architecture lacks → why.
        widths: module path (``path:in`` for inputs) → last axis, for modules that ran.
        traits: on which TransformerLens names mean something else.
        starts: the first block of each stack.
        layers, d_model, heads, d_head, vocab, max_positions: sizes, None where meaningless.
        norm, head: the last norm and the unembedding of a decoder.
        decoder: whether it is a language model whose residual stream is mapped.
        routed: whether its attention can be tapped.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    traits: set[Trait] = field(default_factory=set)
    starts: tuple[int, ...] = (0,)
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


def enter(
    found: Anatomy,
    seen: Probe,
    paths: dict[int, str],
    kind: str,
    layer: int | None,
    place: Place,
    factor: float = 1.0,
) -> None:
    """Add a site at a module's boundary, heads split off where the kind has them."""
    name = kind if layer is None else f"{kind}.{layer}"
    tensor = seen.at(place)
    if tensor is None:
        found.refused[name] = f"{paths[id(place.module)]} does not run once in each pass"
        return
    if not seen.fits(tensor):
        shape = f"{tuple(tensor.shape)} for {seen.rows} rows of {seen.positions or 'some'} positions"
        does = "is given" if place.side == "in" else "gives"
        found.refused[name] = f"{paths[id(place.module)]} {does} {shape}"
        return
    width, heads = int(tensor.shape[-1]), None
    if KINDS[kind].heads:
        heads = query_heads(seen, place.module, paths) or found.heads
        if not heads or width % heads:
            found.refused[name] = f"its width {width} does not divide into {heads} heads"
            return
        width //= heads
    info = SiteInfo(
        name, kind, KINDS[kind].about, layer, KINDS[kind].layout, width, heads, paths[id(place.module)]
    )
    found.entries[name] = Entry(place, info, heads is not None, factor)


def query_heads(seen: Probe, projection: nn.Module, paths: dict[int, str]) -> int | None:
    """Heads of the attention call that the projection follows: the recorded call of a module around it."""
    path = paths[id(projection)]
    for call in seen.attention:
        around = paths[id(call.module)]
        if path.startswith(f"{around}."):
            return call.heads
    return None


def interior(
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
    positions = call.keys if kind in ("k", "v") else call.queries
    if KINDS[kind].layout == "stream" and seen.positions not in (None, positions):
        found.refused[name] = f"it has {positions} positions where the batch has {seen.positions}"
        return
    heads = call.key_heads if kind in ("k", "v") else call.heads
    width = {"q": call.d_head, "k": call.d_head, "v": call.d_value, "z": call.d_value}.get(kind)
    side: Side = kind  # type: ignore[assignment]
    info = SiteInfo(
        name, kind, KINDS[kind].about, layer, KINDS[kind].layout, width, heads, paths[id(call.module)]
    )
    found.entries[name] = Entry(Place(call.module, side), info)


def settle_heads(found: Anatomy, seen: Probe, paths: dict[int, str]) -> None:
    """Let ``z`` lie inside attention where something is done to it on its way to the projection: a gate, a norm."""
    for layer in range(found.layers or 0):
        entry, inside = found.entries.get(f"z.{layer}"), found.entries.get(f"q.{layer}")
        if entry is None or inside is None or entry.place.inside or not seen.reproduced:
            continue
        calls = [call for call in seen.attention if call.module is inside.place.module]
        value = seen.value(entry.place)
        if len(calls) != 1 or value is None:
            continue
        z = calls[0].z
        fits = value.numel() == z.numel()
        if not fits or not torch.allclose(value.double().reshape(z.shape), z.double(), rtol=1e-2, atol=1e-2):
            interior(found, seen, paths, "z", layer, calls[0].module)


def join(found: Anatomy, seen: Probe, embeddings: bool) -> None:
    """Let two names of one tensor share a place: what leaves a block and what enters the next.

    An edit under either name is then one edit at one place, in the order of the list.

    Args:
        found: what has places.
        seen: the recorded pass.
        embeddings: whether what leaves the embedding enters the first block and reaches nothing else.
    """
    pairs = [("embeddings", "resid_pre.0")] if embeddings else []
    pairs += [(f"resid_post.{i}", f"resid_pre.{i + 1}") for i in range((found.layers or 1) - 1)]
    for first, second in pairs:
        a, b = found.entries.get(first), found.entries.get(second)
        there = None if a is None else seen.at(a.place)
        if a is not None and b is not None and there is not None and there is seen.at(b.place):
            found.entries[second] = Entry(a.place, b.info, b.split)


STARTS = {name: "resid_mid" if name.startswith("mlp") else "resid_pre" for name in SUBLAYERS}
STARTS["cross_attn"] = "resid_cross"
"""What each sublayer adds to, where a norm lies on the stream after each sum."""


def additive(value: Callable[[str], Tensor | None]) -> float:
    """By how much the parts of one block miss what it adds to the stream, relative to the stream's largest number.

    Args:
        value: kind of site → its tensor in this block, None where it has no such site.

    Returns:
        Infinite where the stream, or everything that is added to it, has no name.
    """
    before, after = value("resid_pre"), value("resid_post")
    every = {name: value(f"{name}_out_post") for name in SUBLAYERS}
    added = {name: x for name, x in every.items() if x is not None}
    if before is None or after is None or not added:
        return float("inf")
    ends = {name: value(f"{name}_sum") for name in added}
    if all(end is None for end in ends.values()):
        return _missed([before, *added.values()], after)
    worst = 0.0
    for name, part in added.items():
        start, end = value(STARTS[name]), ends[name]
        worst = max(worst, _missed([before if start is None else start, part], after if end is None else end))
    return worst


def _missed(parts: Sequence[Tensor], whole: Tensor) -> float:
    if any(x.shape != whole.shape for x in parts):
        return float("inf")
    total = sum((x.double() for x in parts[1:]), parts[0].double())
    return float((total - whole).abs().max()) / (float(whole.abs().max()) or 1.0)


def traits(found: Anatomy, module: nn.Module, seen: Probe) -> set[Trait]:
    """On which properties TransformerLens names depend here."""
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


def whole(config: Any, *names: str) -> int | None:
    """The first of these fields that holds a positive whole number."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
