"""What a run would do and cost, without doing it: sites, passes, FLOPs, bytes and time on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from prosect.assay.opening import open_target
from prosect.assay.spec import Spec, dump
from prosect.assay.study import Study
from prosect.assay.work import Extent, Work, extent, folds
from prosect.core.canonical import Json
from prosect.core.provenance import environment
from prosect.data.batch import Batch
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject

BACKWARD = 2.0
"""What the way back costs, in passes."""


def forecast(spec: Spec) -> list[dict[str, Json]]:
    """One row for each study: what it reads, how often the model runs, and about how long that takes here.

    Every pass that a study will make is counted: cells of sweeps at what their causal cones cost, steps of
    training, gradients, searches. The model is opened and a few rows of explore are run, to see how fast this
    machine is; nothing is written, no fold is tested on, and nothing is decided from what was read. Describing
    and testing add statistics on top, so the time is a lower bound. A fold is read once for all studies of the
    same data, and is counted with the first of them; the sealed split as though every claim were supported.

    Raises:
        ProsectError: whatever opening the target refuses.
    """
    with (
        tempfile.TemporaryDirectory(prefix="prosect-") as folder,
        RunFolder.open(Path(folder) / "dry", dump(spec), environment(spec.device)) as run,
    ):
        out: list[dict[str, Json]] = []
        read: list[Subject] = []
        for study in open_target(spec, run).studies:
            out.append(_row(spec, study, fresh=not any(s is study.subject for s in read)))
            read.append(study.subject)
        return out


def _row(spec: Spec, study: Study, fresh: bool) -> dict[str, Json]:
    subject = study.subject
    parts = _parts(subject)
    opened = {"sealed"} if spec.validate_.seal else set()
    opened |= {"explore", "shift", *(f"validate.{i}" for i in range(spec.validate_.rounds))}
    used = {p: e for p, e in parts.items() if p in opened}
    planned, test = study.planned(used), folds(used)
    reading = (Work("reading each fold", float(test.rows), test.length),) if fresh else ()
    work = (*planned.explore, *planned.test, *reading)
    first = next(iter(subject.batches("explore")))
    positions = sum(w.rows * w.length for w in work)
    back = sum(w.gradients * w.length for w in work)
    weights = sum(p.numel() for p in subject.model.module.parameters())
    flops, more = 2.0 * weights * (positions + BACKWARD * back), sum(w.flops for w in work)
    seconds = (positions + BACKWARD * back) * _seconds(subject, first)
    row: dict[str, Json] = {
        "study": study.name,
        "site": planned.sites,
        "parts": ", ".join(f"{p} {e.rows} rows" for p, e in parts.items()),
        "positions read": sum(e.positions for e in parts.values()),
        "rows run on explore": _rows(planned.explore),
        "rows run on the folds": _rows((*planned.test, *reading)),
        "positions run": round(positions),
        "rows with gradients": round(sum(w.gradients for w in work)),
        "FLOPs": int(flops + more),
        "bytes of activations": planned.held,
        "seconds, at least": round(seconds + more / _throughput(), 1),
    }
    if planned.most:
        row["note"] = "searches may end sooner: these are upper bounds"
    return row


def _rows(work: Iterable[Work]) -> int:
    return round(sum(w.rows for w in work))


def _parts(subject: Subject) -> dict[str, Extent]:
    """How much there is of each part; halves of explore are not told apart."""
    names = [p for p in subject.source.units if not p.startswith("explore.")]
    return {p: extent(subject.batches(p)) for p in names}


def _seconds(subject: Subject, batch: Batch) -> float:
    """Seconds for one position of a bare forward pass here: the quicker of two."""
    took = []
    for _ in range(2):
        start = time.perf_counter()
        subject.model.run(batch)
        took.append(time.perf_counter() - start)
    return min(took) / max(batch.count, 1)


def _throughput() -> float:
    """FLOPs a second of a middling matrix product here."""
    x = torch.ones(512, 512)
    x @ x
    start = time.perf_counter()
    for _ in range(8):
        x @ x
    return 8 * 2 * 512**3 / max(time.perf_counter() - start, 1e-9)
