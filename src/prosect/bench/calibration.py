"""Level 4: how often what a method's claims say is true, measured by running the loop on organisms and marking the claims.

A method of the loop is judged by what the loop supports of its claims, so the loop is what runs here: the same presets as
`prosect run`, on seeds kept for this, each in a process of its own. What comes out is the file that ships as
``assay/calibrations.json``: for every method, side and organism its error rates with intervals over seeds.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosect.bench.worker import dies_with_parent
from prosect.core.canonical import Json
from prosect.core.errors import BadInput, ProsectError, UnknownName
from prosect.core.progress import step
from prosect.core.provenance import environment
from prosect.core.records import Calibration
from prosect.core.seeds import Seed
from prosect.store.atomic import write_bytes
from prosect.store.run import RunFolder, finished

FIRST = 1000
"""Seeds from here on are for calibrating."""
SEEDS = 24
EACH = 40
"""Runs that a process does before another takes its place."""
SMALL: dict[str, Any] = {
    "describe.components": 7,
    "describe.effects": 2,
    "data.inputs": 100,
    "describe.controls": 2,
    "describe.tokens": 4_000,
    "validate.effect_rows": 40,
    "validate.seal": False,
}
"""What runs on ``planted`` change of the preset: fewer components, so that a run takes seconds."""
WHOLE: dict[str, Any] = {"validate.seal": False, "scripted": False}


@dataclass(frozen=True)
class Measured:
    """An organism that the loop is calibrated on.

    Attributes:
        size: in words.
        kind: what its components are.
        components: how many there are.
        changes: of the preset.
    """

    size: str
    kind: str
    components: int
    changes: Mapping[str, Any]


ORGANISMS: dict[str, Measured] = {
    "planted": Measured("1 layer, 97 tokens, 48 neurons", "neurons", 48, SMALL),
    "induction": Measured("2 layers of attention", "heads", 8, WHOLE),
    "modular": Measured("1 hidden layer, modulus 31", "neurons", 576, WHOLE),
    "superposition": Measured("64 dimensions, 256 features", "latents", 256, WHOLE),
}
Task = tuple[str, int, str, Mapping[str, Any]]
"""(preset, seed, null, what is changed of it)."""


def calibrate(
    out: Path, seeds: int = SEEDS, organisms: Sequence[str] = (), jobs: int = 1
) -> list[Calibration]:
    """Run the loop on every organism and seed, or on those that are left, and count.

    Args:
        out: the run folder; the same call resumes.
        seeds: of each organism.
        organisms: names; all of `ORGANISMS` without any.
        jobs: processes side by side.

    Raises:
        UnknownName: an organism that the loop is not calibrated on.
        BadInput: fewer than two seeds, or than one job.
    """
    names = wanted(organisms, seeds)
    if jobs < 1:
        raise BadInput(f"{jobs} jobs", "at least 1")
    tasks: list[Task] = [(o, s, "", ORGANISMS[o].changes) for o in names for s in range(FIRST, FIRST + seeds)]
    spec = {"bench": "calibrate", "organisms": list(names), "seeds": seeds}
    done = finished(out) is not None
    with RunFolder.open(out, spec, environment()) as folder, step("calibrate", len(tasks), "runs") as shown:
        keys = [folder.path / "artefacts" / f"{folder.key('loop', list(t))}.json" for t in tasks]
        left = [task for task, key in zip(tasks, keys, strict=True) if not key.exists()]
        for task, found in runs(left, jobs):
            folder.json_step("loop", list(task), lambda found=found: found)  # type: ignore[misc]
            shown.advance()
        every = [folder.json_step("loop", list(t), lambda: None) for t in tasks]
        made = counted(every)
        folder.append(*made)
        if not done:
            folder.finish({"calibrations": len(made)})
    return made


def wanted(organisms: Sequence[str], seeds: int) -> tuple[str, ...]:
    """The organisms that are asked for, each once; all without any.

    Raises:
        UnknownName: an organism that the loop is not calibrated on.
        BadInput: fewer than two seeds.
    """
    for name in organisms:
        if name not in ORGANISMS:
            raise UnknownName("organism to calibrate on", name, ORGANISMS)
    if seeds < 2:
        raise BadInput(f"{seeds} seeds", "at least two, for an interval")
    return tuple(dict.fromkeys(organisms)) or tuple(ORGANISMS)


def write(made: Sequence[Calibration], file: Path) -> None:
    """The file that ships."""
    content = [c.model_dump(mode="json") for c in made]
    write_bytes(file, json.dumps(content, indent=1).encode() + b"\n")


def runs(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Json]]:
    """Every run, in processes of their own, with what it was; those that end first come first.

    Raises:
        ProsectError: a process was killed, which happens where memory runs out.
    """
    for start in range(
        0, len(tasks), jobs * EACH
    ):  # fresh processes now and then: what a run leaves in memory adds up
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), dies_with_parent)
        try:
            asked = [pool.submit(_named, task) for task in tasks[start : start + jobs * EACH]]
            for future in as_completed(asked):
                yield future.result()
        except BrokenProcessPool as error:
            raise ProsectError(
                "a process that ran the loop was killed, perhaps for want of memory; what was done is kept, "
                "and the same command goes on from there, with less memory under --jobs 1"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def one(task: Task) -> Json:
    """A run of the loop; what it claimed, what it supported, and what of that is true."""
    import torch

    from prosect.assay import assay

    torch.set_num_threads(1)
    target, seed, null, changes = task
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        run = assay(target, out=Path(scratch) / "run", seed=seed, **nested({**changes, "null": null}))
        took = time.perf_counter() - start
        claims = [
            {
                "method": v.hypothesis.explainer,
                "side": v.hypothesis.side,
                "component": f"{v.hypothesis.scope.model[:8]} {v.hypothesis.component.name}",
                "scripted": v.hypothesis.draw == "scripted",
                "supported": v.overall == "supported",
                "overall": v.overall,
                "holds": None if v.truth is None else v.truth.holds,
            }
            for v in run.verdicts.values()
        ]
    return {"target": target, "seed": seed, "null": null, "seconds": took, "claims": claims}


def _named(task: Task) -> tuple[Task, Json]:
    return task, one(task)


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as tables."""
    out: dict[str, Any] = {}
    for key, value in changes.items():
        *tables, last = key.split(".")
        place = out
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = value
    return out


def counted(found: Sequence[Json]) -> list[Calibration]:
    """Rates of every method, side and organism, over seeds; claims that a script asked for are left out."""
    from prosect.assay.calibrations import code_of
    from prosect.validate.truth import calibrate as rates

    out = []
    keys = sorted({(r["target"], c["method"], c["side"]) for r in found for c in r["claims"] if _counts(c)})
    for target, method, side in keys:
        table = [
            _tally(r["claims"], method, side)
            for r in sorted((r for r in found if r["target"] == target), key=lambda r: r["seed"])
        ]
        known = ORGANISMS[target]
        made = rates(
            method,
            side,
            f"organism:{target}",
            table,
            code=code_of(method),
            size=known.size,
            kind=known.kind,
            components=known.components,
            seed=Seed(0).child("calibrate", target, method, side),
        )
        out.append(made)
    return out


def _tally(claims: Sequence[Json], method: str, side: str) -> tuple[int, int, int, int]:
    """Supported claims, true ones among them, true parts that there are, true parts supported."""
    mine = [c for c in claims if (c["method"], c["side"]) == (method, side) and _counts(c)]
    said = [c for c in mine if c["supported"]]
    parts, found = ({c["component"] for c in some if c["holds"]} for some in (mine, said))
    return len(said), sum(c["holds"] for c in said), len(parts), len(found)


def _counts(claim: Json) -> bool:
    """Whether the truth speaks of a claim that the method made of its own accord."""
    return claim["holds"] is not None and not claim["scripted"]
