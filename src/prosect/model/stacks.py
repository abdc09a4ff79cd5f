"""The sites of a model that is a stack of blocks, whatever its family: from its lists of modules and one pass.

A stack is a list of modules that each ran once, each given and giving a stream (rows, positions, width), each
given what the one before gave. What a block adds to the stream is found by arithmetic (`streams`). Encoder and
decoder of one model are two stacks; their blocks are numbered on, in the order in which they run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from prosect.model.anatomy import NOT_ROUTED, Anatomy, enter, interior
from prosect.model.probe import Probe
from prosect.model.sitemap import Place
from prosect.model.sites import INTERIOR, KINDS
from prosect.model.streams import Part, Step, steps
from prosect.model.sums import is_norm

PRECISION = {torch.float64: 1e-9, torch.float32: 3e-6}
"""Of the sums that are searched, by dtype; 1e-2 for shorter ones."""


def stacks(module: nn.Module, seen: Probe) -> list[tuple[nn.Module, ...]]:
    """Every stack, in the order in which they run; those inside a block of another are left out."""
    turn = {id(e.module): i for i, e in reversed(list(enumerate(seen.events)))}
    found: list[tuple[nn.Module, ...]] = []
    for m in module.modules():
        if not isinstance(m, nn.ModuleList | nn.Sequential) or not _is_stack(m, seen):
            continue
        inside = {id(x) for blocks in found for block in blocks for x in block.modules()}
        if id(m) not in inside:
            found.append(tuple(m))
    return sorted(found, key=lambda blocks: turn[id(blocks[0])])


def _is_stack(listed: nn.ModuleList | nn.Sequential, seen: Probe) -> bool:
    """Whether the modules of a list hand one stream on."""
    before: Tensor | None = None
    for block in listed:
        given, gave = seen.value(Place(block, "in")), seen.value(Place(block, "out"))
        if given is None or gave is None or given.ndim != 3 or given.shape != gave.shape:
            return False
        if is_norm(block) or not any(True for _ in block.children()):
            return False
        if before is not None and not torch.equal(before, given):
            return False
        before = gave
    return before is not None


def stacked(found: Anatomy, seen: Probe, paths: dict[int, str], module: nn.Module) -> bool:
    """Enter the sites of every block of every stack; whether what each block adds was found for all of them."""
    every = stacks(module, seen)
    blocks = [block for stack in every for block in stack]
    found.starts = tuple(accumulate((len(stack) for stack in every[:-1]), initial=0))
    if not blocks:
        return False
    first = seen.input(blocks[0])
    found.layers, found.d_model = len(blocks), None if first is None else int(first.shape[-1])
    if seen.attention:
        found.heads, found.d_head = seen.attention[0].heads, seen.attention[0].d_head
    precision = PRECISION.get(first.dtype if first is not None else torch.float32, 1e-2)
    complete = True
    _embeddings(found, seen, paths, module)
    for layer, block in enumerate(blocks):
        sums = steps(block, seen, precision)
        places: dict[str, tuple[Place, float]] = {
            "resid_pre": (Place(block, "in"), 1.0),
            "resid_post": (Place(block, "out"), 1.0),
        }
        attention: list[nn.Module] = list(block.modules())
        if isinstance(sums, str):
            complete = False
            for kind in ("attn_out_post", "mlp_out_post"):
                found.refused[f"{kind}.{layer}"] = sums
        else:
            parts = [part for step in sums for part in step.parts]
            complete &= len({part.kind for part in parts}) == len(parts)
            places |= _places(sums)
            complete &= f"{parts[-1].kind}_out_post" in places
            attends = [part for part in parts if part.kind == "attn"]
            attention = [m for part in attends for x in part.modules for m in x.modules()]
        _enter_all(found, seen, paths, layer, places, attention)
    unembedding(found, seen, paths, module)
    return complete


def _places(sums: Sequence[Step]) -> dict[str, tuple[Place, float]]:
    """Where the sites of a block lie, by kind, with the factor of each; the first of a kind counts."""
    places: dict[str, tuple[Place, float]] = {}
    if sums[0].before is not None:
        places["resid_pre"] = (sums[0].before, 1.0)
    for number, step in enumerate(sums):
        for part in step.parts:
            for kind, at in _of(part).items():
                places.setdefault(kind, at)
        kinds = [part.kind for part in step.parts]
        if step.total is not None:
            places.setdefault(f"{kinds[-1]}_sum", (step.total, 1.0))
        before = sums[number - 1].after if number else None
        name = {"mlp": "resid_mid", "cross_attn": "resid_cross"}.get(kinds[0])
        name = name if all(kind.startswith(kinds[0]) for kind in kinds) else None
        if before is not None and name is not None:
            places.setdefault(name, (before, 1.0))
    return places


def _of(part: Part) -> dict[str, tuple[Place, float]]:
    at = {
        f"{part.kind}_out_post": (part.added, part.factor),
        f"{part.kind}_out": (part.out, 1.0),
    }
    if part.read is not None:
        at[f"{part.kind}_in"] = (part.read, 1.0)
    if part.inner is not None and part.kind in ("attn", "mlp"):
        at["z" if part.kind == "attn" else "mlp_act"] = (part.inner, 1.0)
    return at


def _enter_all(
    found: Anatomy,
    seen: Probe,
    paths: dict[int, str],
    layer: int,
    places: dict[str, tuple[Place, float]],
    attention: Sequence[nn.Module],
) -> None:
    """Enter a block's sites in the order of the forward pass, and say why it lacks the usual ones it lacks."""
    inside = {id(m) for m in attention}
    calls = [call for call in seen.attention if id(call.module) in inside]
    attends = any(id(m) in seen.attending for m in attention)
    for kind in KINDS.values():
        name = f"{kind.name}.{layer}"
        if kind.name in places:
            place, factor = places[kind.name]
            enter(found, seen, paths, kind.name, layer, place, factor)
        elif kind.name in (*INTERIOR, "z") and len(calls) == 1:
            interior(found, seen, paths, kind.name, layer, calls[0].module)
        elif kind.name in (*INTERIOR, "z"):
            unrouted = f"{len(calls)} attention calls in this layer" if calls else NOT_ROUTED
            found.refused[name] = unrouted if attends else "this layer has no softmax attention"
        elif kind.layered and name not in found.refused:
            why = _lacking(kind.name, places)
            if why:
                found.refused[name] = why


def _lacking(kind: str, places: Collection[str]) -> str:
    """Why a block does not have one of the usual sites; empty for a kind that most blocks lack."""
    mlp, attn = "mlp_out_post" in places, "attn_out_post" in places
    if kind == "resid_mid":
        if not mlp:
            return "this block has no MLP, so nothing lies before one"
        beside = "attention and MLP read the same stream, so nothing lies between them"
        return beside if attn or "mixer_out_post" in places else "nothing lies before the MLP in this block"
    if kind in ("mlp_in", "mlp_out", "mlp_out_post", "mlp_act") and not mlp:
        return "this block has no MLP"
    if kind == "mlp_act":
        return "no one projection gives what the MLP adds (an MoE has one for each expert)"
    if kind in ("attn_in", "attn_out", "attn_out_post") and not attn:
        return "this layer has no softmax attention"
    return "it is not at the boundary of a module" if kind in ("attn_in", "mlp_in") else ""


def _embeddings(found: Anatomy, seen: Probe, paths: dict[int, str], module: nn.Module) -> None:
    table = _asked(module, "get_input_embeddings")
    value = None if table is None or id(table) not in paths else seen.value(Place(table, "out"))
    if value is not None and value.ndim == 3 and table is not None:
        enter(found, seen, paths, "embeddings", None, Place(table, "out"))


def unembedding(found: Anatomy, seen: Probe, paths: dict[int, str], module: nn.Module) -> None:
    """The head that gives the outputs, and the norm before it, if it reads the last block's stream.

    A final norm that is entered already stays, if what it gives is what the head reads.
    """
    head = _asked(module, "get_output_embeddings")
    last = found.entries.get(f"resid_post.{(found.layers or 0) - 1}")
    if head is None or id(head) not in paths or last is None:
        return
    read, stream = seen.value(Place(head, "in")), seen.value(last.place)
    if read is None or stream is None or read.ndim != 3:
        return
    found.head, found.decoder = head, True
    entered = found.entries.get("final_norm")
    if entered is not None and _same(seen.value(entered.place), read):
        return
    for m in module.modules():
        given, gave = seen.value(Place(m, "in")), seen.value(Place(m, "out"))
        if is_norm(m) and _same(given, stream) and _same(gave, read):
            found.norm = m
            enter(found, seen, paths, "final_norm", None, Place(m, "out"))
            found.refused.pop("final_norm", None)
            return
    if entered is None:
        found.refused["final_norm"] = "what the unembedding reads is not the last stream after one norm"


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and torch.equal(a, b)


def _asked(module: nn.Module, name: str) -> nn.Module | None:
    """A module that a transformers model says it has."""
    try:
        given = getattr(module, name)()
    except (AttributeError, NotImplementedError, TypeError):
        return None
    return given if isinstance(given, nn.Module) else None
