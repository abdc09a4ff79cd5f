"""`prosect fit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prosect.assay.openings.unstudied import Unstudied, unstudied
from prosect.assay.presets import folder_of, resolve
from prosect.assay.spec import Spec
from prosect.cli.show import table
from prosect.core.errors import BadInput
from prosect.core.progress import say, shown
from prosect.core.seeds import Seed
from prosect.decompose.fitting import Fitted, Harvesting, fit_dictionaries
from prosect.decompose.grids import grid, parsed
from prosect.decompose.ranks.dealt import ALONE, Positions, Ranks
from prosect.decompose.ranks.world import joined, launched
from prosect.model import Model

ALL = 10**6
"""Windows from one document: more than any has."""


@dataclass(frozen=True)
class Asked:
    """What the command line says about dictionaries.

    Attributes:
        sites: to read; none for the middle of the network.
        writes: to write; none for those it reads.
        joint: one dictionary over all sites.
        skip: a linear path around the latents.
        cross_layer: a latent reads its layer, and writes it and later ones.
        settings: kind, latents, k; None for the target's own.
        more: further settings, NAME=VALUE.
        sweep: several values for some.
        tokens: to train on; None for the target's own.
        live: nothing on disk.
        end_to_end: train through the model, which implies live.
        store: dtype of activations.
        activations: where they are kept.
        memory: GiB.
        every: steps between checkpoints.
    """

    sites: tuple[str, ...]
    writes: tuple[str, ...]
    joint: bool
    skip: bool
    cross_layer: bool
    settings: Mapping[str, Any]
    more: tuple[str, ...]
    sweep: str
    tokens: int | None
    live: bool
    end_to_end: bool
    store: str
    activations: Path | None
    memory: float | None
    every: int


def command(
    target: str, changes: dict[str, Any], asked: Asked, *, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Open the target as a run would, train on what a run may explore, print figures and where they are.

    One of several processes that torchrun started takes its share of the positions; the first prints.
    """
    if not launched():
        _command(target, changes, asked, out, as_json=as_json, quiet=quiet, ranks=ALONE)
        return
    with joined() as world:
        ranks = Positions(world)
        _command(target, changes, asked, out, as_json=as_json, quiet=quiet or not ranks.first, ranks=ranks)


def _command(
    target: str,
    changes: dict[str, Any],
    asked: Asked,
    out: Path | None,
    *,
    as_json: bool,
    quiet: bool,
    ranks: Ranks,
) -> None:
    sweep = parsed(asked.sweep)
    more = {name: values[0] for name, values in parsed(" ".join(asked.more)).items() if len(values) == 1}
    if len(more) < len(asked.more):
        raise BadInput(
            f"--set {' '.join(asked.more)}", "NAME=VALUE, one of each", "--sweep for several values"
        )
    if (asked.live or asked.end_to_end) and asked.activations is not None:
        raise BadInput("--live with --activations", "one of the two: live activations are not kept")
    if asked.end_to_end:
        more["end_to_end"] = True
    how = Harvesting(live=asked.live or asked.end_to_end, dtype=asked.store, folder=asked.activations)
    opening = {"data.explore_windows": ALL, **{k: v for k, v in changes.items() if v is not None}}
    spec = resolve(target, opening)
    settings = {**_settings(spec, asked.settings), **more}
    options: dict[str, Any] = {"joint": asked.joint, "skip": asked.skip, "cross_layer": asked.cross_layer}
    options["defaults"] = {"k": spec.decompose.active}
    grid(
        asked.sites or ("site",), settings, sweep, asked.writes, **options
    )  # refused before anything is opened
    folder = out if out is not None else Path("runs") / f"fit-{folder_of(spec, target)}"
    with shown(quiet):
        opened = unstudied(spec)
        model = opened.model
        sites, writes = (_resolved(model, given) for given in (asked.sites or (_site(opened),), asked.writes))
        fitted = fit_dictionaries(
            model,
            opened.source,
            grid(sites, settings, sweep, writes, device=str(model.device), **options),
            folder,
            spec.decompose.tokens if asked.tokens is None else asked.tokens,
            harvesting=replace(how, rows=opened.rows),
            seed=Seed(spec.seed).child("fit"),
            every=asked.every,
            memory=None if asked.memory is None else int(asked.memory * 2**30),
            about={"target": target, "changes": opening},
            ranks=ranks,
        )
    if not ranks.first:
        return
    table(
        _rows(fitted, paths=as_json),
        as_json=as_json,
        title=f"{folder}: a .safetensors file for each, fit.json",
    )


def _site(opened: Unstudied) -> str:
    """The site that a run of the same target would decompose."""
    if not opened.site:
        raise BadInput(
            f"no site of {opened.model.name}", "one of those that prosect ls sites lists", "--site"
        )
    say(f"no site was named: {opened.site} is what a run would decompose")
    return opened.site


def _resolved(model: Model, sites: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(model.sites.resolve(site) for site in sites)


def _settings(spec: Spec, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and the target's own sizes, batch and rate where nothing was."""
    own = spec.decompose
    settings: dict[str, Any] = {"kind": given["kind"], "latents": given["latents"] or own.width}
    if given["k"] is not None:
        settings["k"] = given["k"]
    settings |= {"seed": spec.seed, "batch": own.batch}
    return settings | ({"rate": own.rate} if own.rate else {})


def _rows(fitted: Fitted, *, paths: bool) -> list[dict[str, Any]]:
    """A row for each dictionary: numbers as they are with paths, short ones without."""
    rows: list[dict[str, Any]] = []
    for entry in fitted.record["dictionaries"]:
        if paths:
            rows.append({**entry, "file": str(fitted.folder / entry["file"])})
            continue
        many = len(entry["FVU"]) > 1
        fvu = {f"FVU at {s}" if many else "FVU": _short(v) for s, v in entry["FVU"].items()}
        rows.append(
            {"dictionary": entry["name"], "L0": _short(entry["L0"]), **fvu, "dead": f"{entry['dead']:.1%}"}
        )
    return rows


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
