"""What a run would do and cost, without doing it: sites, positions, FLOPs, bytes and time on this machine."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from prosect.assay.opening import open_target
from prosect.assay.spec import Spec, dump
from prosect.assay.studies.features import SITE, Features
from prosect.assay.studies.latents import Latents
from prosect.assay.study import Study
from prosect.core.canonical import Json
from prosect.core.provenance import environment
from prosect.data.batch import Batch
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject

TRAINING = 6
"""A step of training a dictionary does three matrix products forward and backward, each of two FLOPs a weight."""


def forecast(spec: Spec) -> list[dict[str, Json]]:
    """One row for each study: what it reads, how often, and about how long that takes here.

    The model is opened and one batch is run to see how fast this machine is; nothing is written, no fold is
    tested on, and nothing is decided from what was read. Describing and testing add statistics on top, so the
    time is a lower bound.

    Raises:
        ProsectError: whatever opening the target refuses.
    """
    with (
        tempfile.TemporaryDirectory(prefix="prosect-") as folder,
        RunFolder.open(Path(folder) / "dry", dump(spec), environment(spec.device)) as run,
    ):
        return [_row(spec, study) for study in open_target(spec, run).studies]


def _row(spec: Spec, study: Study) -> dict[str, Json]:
    subject = study.subject
    parts = {p: n for p, n in subject.source.units.items() if not p.startswith("explore.")}
    positions = {p: sum(b.count for b in subject.batches(p)) for p in parts}
    explored, folds = _times(spec, study)
    removed = _removed(spec, study)
    first = next(iter(subject.batches("explore")))
    per_row = first.count / max(len(first), 1)
    passes = sum(n * (explored if p == "explore" else folds) for p, n in positions.items() if p != "shift")
    total = round(passes + removed * per_row)
    weights = sum(p.numel() for p in subject.model.module.parameters())
    flops = 2.0 * weights * total
    seconds = total * _seconds(subject, first)
    stored, training = _training(spec, study, positions.get("explore", 0))
    return {
        "study": study.name,
        "site": _site(study),
        "parts": ", ".join(f"{p} {n}" for p, n in parts.items()),
        "positions read": sum(positions.values()),
        "positions run": total,
        "FLOPs": int(flops + training),
        "bytes of activations": stored,
        "seconds, at least": round(seconds + training / _throughput(), 1),
    }


def _times(spec: Spec, study: Study) -> tuple[float, float]:
    """How often explore, and every other part, goes through a model."""
    if isinstance(study, Latents):
        share = 1.0 + spec.describe.untrained / 3
        return 1.0 + share, 1.0 + spec.describe.untrained
    return (2.0 if isinstance(study, Features) else 1.0), 1.0


def _removed(spec: Spec, study: Study) -> int:
    """Rows that are run again with a component taken out."""
    if not isinstance(study, Latents):
        return 0
    taken = spec.describe.effects * (1 + spec.describe.controls)
    return taken * spec.validate_.effect_rows * spec.validate_.rounds


def _site(study: Study) -> str:
    if isinstance(study, Latents):
        return study.site
    return SITE if isinstance(study, Features) else "probs of every layer" if study.name == "heads" else ""


def _training(spec: Spec, study: Study, positions: int) -> tuple[int, float]:
    """Bytes of harvested activations, and FLOPs of fitting the decomposition."""
    if not isinstance(study, Latents | Features):
        return 0, 0.0
    width = study.subject.model.sites.info(_site(study)).width or 1
    flops = 0.0
    if spec.decompose.kind == "topk":
        flops = float(TRAINING * spec.decompose.width * width * max(spec.decompose.tokens, positions))
    return 4 * width * positions, flops


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
