"""Training a sparse dictionary over a stream, with checkpoints from which it goes on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, Conflict, ShapeMismatch, TooLittleData
from prosect.core.progress import say
from prosect.core.progress import step as progress_step
from prosect.decompose.base import needed
from prosect.decompose.calibrate import calibrated
from prosect.decompose.contract import ActivationStream
from prosect.decompose.dictionary import Weights
from prosect.decompose.products import PLAIN
from prosect.decompose.ranks.checkpoints import ELSE, found, keep
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.streams import first
from prosect.decompose.trainer import Trainer
from prosect.store.run import differences

if TYPE_CHECKING:
    from prosect.decompose.dictionary import Dictionary

NOTES = 200
"""Points of the training's history."""


class Trained(NamedTuple):
    """What training gives.

    Attributes:
        weights: in the form used after training; where latents are dealt, of those that are here.
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
    ranks: Ranks = ALONE,
) -> Trained:
    """Train what ``dictionary`` asks for; see `Dictionary.fit`."""
    if every < 1:
        raise BadInput(f"a checkpoint every {every} steps", "at least 1")
    trainer = trainer_for(dictionary, stream, ranks)
    steps = trainer.steps
    say_products(trainer)
    checkpoint = None if workspace is None else Path(workspace) / "checkpoint.safetensors"
    asked = None if checkpoint is None and ranks.size == 1 else asked_of(trainer, stream)
    if not resumed(trainer, checkpoint, asked):
        trainer.start(stream)

    note_every = max(1, steps // NOTES)
    with progress_step(f"training {dictionary.name}", total=steps, unit="steps") as shown:
        shown.advance(trainer.step)
        for _ in trainer.over(stream):
            shown.advance()
            if trainer.step % note_every == 0 or trainer.step == steps:
                shown.note(trainer.note())
            if checkpoint is not None and trainer.step % every == 0 and trainer.step < steps:
                about = {"asked": asked, "step": trainer.step, "history": trainer.history}
                keep(checkpoint, trainer.tensors(), about, ranks)
    if trainer.step != steps:
        raise ShapeMismatch(
            f"{trainer.step:,} batches in a stream of {len(stream):,} positions", "as many as it says"
        )
    return finished(trainer, stream, fresh)


def steps_over(stream: ActivationStream, rows: int, what: str) -> int:
    """Training steps of so many rows that a stream has.

    Raises:
        TooLittleData: not one; ``what`` is to be trained.
    """
    steps = len(stream) // rows
    if steps < 1:
        raise TooLittleData(
            f"{len(stream):,} positions to train {what} on",
            f"at least one batch of {rows:,}",
            "more positions, more epochs, or a smaller batch",
        )
    return steps


def trainer_for(dictionary: Dictionary, stream: ActivationStream, ranks: Ranks = ALONE) -> Trainer:
    """What trains it on that stream, not started yet.

    Raises:
        TooLittleData: the stream has less than one batch.
        UnknownName: it lacks a site.
        Unsupported: end-to-end training where it cannot be.
    """
    sites = needed(dictionary, stream)
    if dictionary.recipe.end_to_end:
        from prosect.decompose.through import ThroughTrainer

        return ThroughTrainer(dictionary, stream, ranks)
    steps = steps_over(stream, dictionary.recipe.batch, dictionary.name)
    return Trainer(dictionary, {site: stream.widths[site] for site in sites}, steps, ranks)


def asked_of(trainer: Trainer, stream: ActivationStream) -> Json:
    """What a checkpoint is for, and what made its products: others round otherwise."""
    return plain(
        {
            "dictionary": trainer.dictionary.asked(),
            "stream": stream.digest,
            "positions": len(stream),
            "products": trainer.products.words,
        }
    )


def say_products(*trainers: Trainer) -> None:
    """Say what makes the products of trainings, where it is not torch in float32 on a CPU."""
    for trainer in trainers:
        made, device = trainer.products, trainer.dictionary.device
        if made != PLAIN or torch.device(device).type != "cpu":
            because = f": {made.why}" if made.why else ""
            say(f"{trainer.dictionary.name} on {device}: products by {made.words}{because}")


def resumed(trainer: Trainer, checkpoint: Path | None, asked: Json) -> bool:
    """Whether there was a checkpoint to go on from, as all ranks now do.

    Args:
        trainer: as it was made.
        checkpoint: where one may be.
        asked: what it must be for.

    Raises:
        Conflict: it is of another training (what differs is named), other ranks wrote it, or ranks are not at
            the same thing.
        BadInput: it is damaged.
    """
    kept = None if checkpoint is None else found(checkpoint, trainer.ranks)
    if kept is not None and kept[1].get("asked") != asked:
        raise Conflict(
            f"{checkpoint}, a checkpoint of another training "
            f"({'; '.join(differences(kept[1].get('asked'), asked))})",
            "one of this dictionary on these activations",
            ELSE,
        )
    trainer.ranks.agree(
        "training or checkpoint", {"asked": asked, "step": None if kept is None else kept[1]["step"]}
    )
    if kept is None:
        return False
    tensors, about = kept
    trainer.restore(tensors, about["step"], about["history"])
    return True


def finished(trainer: Trainer, stream: ActivationStream, fresh: ActivationStream | None = None) -> Trained:
    """What a training gives that has done all its steps; see `Dictionary.fit` for ``fresh``."""
    dictionary = trainer.dictionary
    sample = first(stream if fresh is None else fresh, dictionary.recipe.calibration_rows).arrays
    x = torch.cat([sample[site].to(trainer.encoder) for site in dictionary.reads], dim=1)
    weights, facts = calibrated(trainer.weights(), trainer.objective, x, trainer.ranks.lasting)
    made = trainer.products
    facts |= {"fresh": fresh is not None, "scales": trainer.scales()}
    facts |= {"products": f"{made.words} ({made.why})" if made.why else made.words}
    return Trained(weights, trainer.history, facts)
