"""Grids of dictionaries: every combination of widths, sparsities and seeds, under names that tell them apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, replace
from typing import Any

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.objectives import OBJECTIVES, fitting, objective_named
from prosect.decompose.recipe import DEFAULT, Recipe

OWN = ("kind", "latents", "seed")
"""Settings of every dictionary; others belong to its kind or to the recipe."""


def parsed(text: str) -> dict[str, list[Json]]:
    """``"latents=512,1024 k=16,32 seed=0,1"`` as lists of values by name.

    Raises:
        BadInput: a word is not NAME=VALUE,VALUE or a name comes twice.
    """
    out: dict[str, list[Json]] = {}
    for word in text.split():
        name, _, values = word.partition("=")
        each = [v for v in values.split(",") if v]
        if not name or not each or name in out or len(set(each)) != len(each):
            raise BadInput(
                f"{word!r} in a sweep",
                "NAME=VALUE,VALUE... with each name and value once",
                "latents=512,1024",
            )
        out[name] = [_value(v) for v in each]
    return out


def grid(
    sites: Sequence[str],
    settings: Mapping[str, Json],
    sweep: Mapping[str, Sequence[Json]] | None = None,
    targets: Sequence[str] | None = None,
    joint: bool = False,
    skip: bool = False,
    recipe: Recipe = DEFAULT,
    device: str = "cpu",
    cross_layer: bool = False,
    defaults: Mapping[str, Json] | None = None,
) -> dict[str, Dictionary]:
    """Dictionaries for each site and each combination of a sweep's values, by name.

    Args:
        sites: what is read.
        settings: ``kind``, ``latents``, ``seed``, parameters of the kind such as ``k``, and fields of the
            recipe such as ``rate``.
        sweep: several values for some of them, laid over.
        targets: what is written, where that is not what is read: one for each site, or any number if joint.
        joint: one dictionary over all sites (a crosscoder) rather than one for each.
        skip: with a linear path around the latents.
        recipe: what the recipe's fields are where no setting says otherwise.
        device: where they are trained.
        cross_layer: the sites of a joint dictionary are layers (a cross-layer transcoder; see `Dictionary`).
        defaults: parameters of kinds that have them, where no setting says otherwise; others ignore them.

    Raises:
        BadInput: a value does not fit, or targets do not pair with sites.
        UnknownName: there is no such setting or kind.
    """
    if cross_layer and not joint:
        raise BadInput("a cross-layer transcoder for each site", "one over all of them", "--joint")
    over = dict(sweep or {})
    pairs = _pairs(sites, targets, joint)
    out: dict[str, Dictionary] = {}
    for read, written in pairs:
        for values in itertools.product(*over.values()):
            chosen = {**settings, **dict(zip(over, values, strict=True))}
            own = _parameters(str(chosen.get("kind", "topk")))
            chosen = {n: v for n, v in (defaults or {}).items() if n in own} | chosen
            made = _dictionary(read, written, chosen, skip, recipe, device, cross_layer)
            kind = str(chosen.get("kind", "topk"))
            said = dict.fromkeys(("latents", *own, *(n for n in over if n not in OWN), "seed"))
            words = [f"{name}{chosen[name]}" for name in said if name in chosen]
            where = made.name.partition("@")[2].replace("/", "_")
            out["-".join([f"{kind}@{where}", *words])] = made
    return out


def _pairs(
    sites: Sequence[str], targets: Sequence[str] | None, joint: bool
) -> list[tuple[tuple[str, ...], tuple[str, ...] | None]]:
    if joint:
        return [(tuple(sites), tuple(targets) if targets else None)]
    if targets and len(targets) != len(sites):
        raise BadInput(
            f"{len(targets)} sites to write for {len(sites)} to read",
            "one for each",
            "--joint for one dictionary over all",
        )
    return [((s,), (t,) if t else None) for s, t in itertools.zip_longest(sites, targets or ())]


def _dictionary(
    read: tuple[str, ...],
    written: tuple[str, ...] | None,
    chosen: Mapping[str, Json],
    skip: bool,
    recipe: Recipe,
    device: str,
    cross_layer: bool,
) -> Dictionary:
    kind = chosen.get("kind", "topk")
    own = _parameters(str(kind))
    training = {f.name: f for f in fields(Recipe)}
    parameters: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for name, value in chosen.items():
        if name in own:
            parameters[name] = value
        elif name in training:
            changes[name] = fitting(training[name], value)
        elif name not in OWN:
            raise UnknownName("setting", name, [*OWN, *own, *training])
    for name in ("latents", "seed"):
        if not isinstance(chosen.get(name, 0), int):
            raise BadInput(f"{name} = {chosen[name]!r}", "a whole number")
    if "latents" not in chosen:
        raise BadInput("a dictionary of no said size", "latents", "latents=1024")
    objective = objective_named(str(kind), parameters)
    return Dictionary(
        read,
        chosen["latents"],
        objective.after,
        targets=written,
        skip=skip,
        recipe=replace(recipe, **changes),
        seed=Seed(chosen.get("seed", 0)).child("fit"),
        device=device,
        objective=objective,
        cross_layer=cross_layer,
    )


def _parameters(kind: str) -> dict[str, Field[Any]]:
    """What can be said of a kind."""
    if kind not in OBJECTIVES:
        raise UnknownName("kind of dictionary", kind, OBJECTIVES)
    return {f.name: f for f in fields(OBJECTIVES[kind])}  # type: ignore[arg-type]  # all are dataclasses


def _value(text: str) -> Json:
    """A number where it is one, else the word."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return text
    return found if isinstance(found, int | float | bool) else text
