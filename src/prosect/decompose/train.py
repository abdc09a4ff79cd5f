"""Training a sparse dictionary over a stream, with checkpoints from which it goes on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, Conflict, ShapeMismatch, TooLittleData
from prosect.core.progress import step as progress_step
from prosect.core.schema import SCHEMA, check_version
from prosect.decompose.base import needed
from prosect.decompose.calibrate import calibrated
from prosect.decompose.contract import ActivationStream
from prosect.decompose.dictionary import Weights
from prosect.decompose.streams import batches, first
from prosect.decompose.trainer import Trainer
from prosect.store.tensors import load_tensors, save_tensors

if TYPE_CHECKING:
    from prosect.decompose.dictionary import Dictionary

NOTES = 200
"""Points of the training's history."""


class Trained(NamedTuple):
    """What training gives.

    Attributes:
        weights: in the form used after training.
        history: L0, FVU and share of dead latents in the batches at about `NOTES` steps.
        facts: see `Dictionary.facts_`.
    """

    weights: Weights
    history: list[dict[str, Json]]
    facts: dict[str, Json]


def train(
    dictionary: Dictionary,
    stream: ActivationStream,
    workspace: Path | None = None,
    every: int = 500,
    fresh: ActivationStream | None = None,
) -> Trained:
    """Train what ``dictionary`` asks for; see `Dictionary.fit`."""
    batch_rows = dictionary.recipe.batch
    steps = len(stream) // batch_rows
    if steps < 1:
        raise TooLittleData(
            f"{len(stream):,} positions for {dictionary.name}",
            f"at least one batch of {batch_rows:,}",
            "more positions, more epochs, or a smaller batch",
        )
    if every < 1:
        raise BadInput(f"a checkpoint every {every} steps", "at least 1")
    sites = needed(dictionary, stream)
    trainer = Trainer(dictionary, {site: stream.widths[site] for site in sites}, steps)
    checkpoint, key = None, ""
    if workspace is not None:
        checkpoint = Path(workspace) / "checkpoint.safetensors"
        key = digest({"asked": dictionary.asked(), "stream": stream.digest, "positions": len(stream)})
    if checkpoint is not None and checkpoint.exists():
        trainer.restore(*_read(checkpoint, key))
    else:
        trainer.start(stream)

    note_every = max(1, steps // NOTES)
    with progress_step(f"training {dictionary.name}", total=steps, unit="steps") as shown:
        shown.advance(trainer.step)
        for batch in batches(stream, sites, batch_rows, skip=trainer.step * batch_rows):
            trainer.advance(batch)
            shown.advance()
            if trainer.step % note_every == 0 or trainer.step == steps:
                shown.note(trainer.note())
            if checkpoint is not None and trainer.step % every == 0 and trainer.step < steps:
                about = {
                    "schema": SCHEMA,
                    "key": key,
                    "step": trainer.step,
                    "history": trainer.history,
                }
                save_tensors(checkpoint, trainer.tensors(), about)
    if trainer.step != steps:
        raise ShapeMismatch(
            f"{trainer.step * batch_rows:,} positions in a stream of {len(stream):,}", "as many as it says"
        )
    return finished(trainer, stream, fresh)


def finished(trainer: Trainer, stream: ActivationStream, fresh: ActivationStream | None = None) -> Trained:
    """What a training gives that has done all its steps; see `Dictionary.fit` for ``fresh``."""
    dictionary = trainer.dictionary
    sample = first(stream if fresh is None else fresh, dictionary.recipe.calibration_rows).arrays
    x = torch.cat([sample[site].to(trainer.encoder) for site in dictionary.reads], dim=1)
    weights, facts = calibrated(trainer.weights(), trainer.objective, x)
    facts |= {"fresh": fresh is not None, "scales": trainer.scales()}
    return Trained(weights, trainer.history, facts)


def _read(checkpoint: Path, key: str) -> tuple[dict[str, Tensor], int, list[dict[str, Json]]]:
    tensors, about = load_tensors(checkpoint)
    check_version(about.get("schema") if isinstance(about, dict) else None, str(checkpoint))
    if about["key"] != key:
        raise Conflict(
            f"{checkpoint}, a checkpoint of another training",
            "one of this dictionary on these activations, or none",
            "another workspace, or deleting it",
        )
    return tensors, about["step"], about["history"]
