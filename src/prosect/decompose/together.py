"""Several dictionaries trained in one pass over the activations, each to the bits it would have had alone.

Harvesting is most of the cost of a dictionary of a large model, and reading activations is much of it for a
small one: a grid of widths, sparsities and seeds should pay for either once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.core.progress import Step, say
from prosect.core.progress import step as progress_step
from prosect.decompose.base import needed
from prosect.decompose.contract import ActivationStream
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.ranks.checkpoints import keep
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.streams import batches, first
from prosect.decompose.train import NOTES, asked_of, finished, resumed, say_products, steps_over
from prosect.decompose.trainer import Trainer

PAUSE = 60.0
"""Seconds between lines on how training goes, where there is no terminal to show bars on."""


class Training:
    """One of the dictionaries under way.

    Args:
        name: what it is called beside the others, and its checkpoint's file.
        dictionary: what is trained.
        stream: on what.
        steps: of the whole training.
        workspace: where its checkpoint lies; None for nowhere.
        ranks: what positions are dealt to.

    Attributes:
        note: how it does, in words.
    """

    def __init__(
        self,
        name: str,
        dictionary: Dictionary,
        stream: ActivationStream,
        steps: int,
        workspace: Path | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.name, self.dictionary, self.note = name, dictionary, ""
        self.widths = {site: stream.widths[site] for site in needed(dictionary, stream)}
        self.trainer = Trainer(dictionary, self.widths, steps, ranks)
        self.path = None if workspace is None else Path(workspace) / f"{name}.safetensors"
        self.asked = asked_of(self.trainer, stream)
        self.begun = resumed(self.trainer, self.path, self.asked)

    def keep(self) -> None:
        """Write the checkpoint, in the place of the last one."""
        if self.path is not None:
            step, history = self.trainer.step, self.trainer.history
            about = {"asked": self.asked, "step": step, "history": history}
            keep(self.path, self.trainer.tensors(), about, self.trainer.ranks)

    def advance(self, batch: Mapping[str, Tensor], note_every: int, every: int) -> None:
        """One step; measured and kept where it is time."""
        trainer = self.trainer
        trainer.advance(trainer.ranks.share({site: batch[site] for site in self.widths}))
        last = trainer.step == trainer.steps
        if trainer.step % note_every == 0 or last:
            self.note = trainer.note()
        if trainer.step % every == 0 and not last:
            self.keep()

    def finish(self, stream: ActivationStream) -> None:
        """Give the dictionary what was learned; its threshold is found on the first rows of ``stream``."""
        weights, history, facts = finished(self.trainer, stream)
        self.dictionary.with_weights(weights, self.widths, history)
        self.dictionary.facts_ = facts


def train_together(
    dictionaries: Mapping[str, Dictionary],
    stream: ActivationStream,
    workspace: Path | None = None,
    every: int = 500,
    ranks: Ranks = ALONE,
) -> int:
    """Train dictionaries, each batch going to every one of them.

    Each ends with the bits that `Dictionary.fit` on the same stream gives it, whoever is beside it. Killed at
    any moment it goes on from the checkpoints; one that was written later than another waits for it.

    Args:
        dictionaries: by name; all take batches of one size.
        stream: activations at the sites that any of them reads or writes.
        workspace: a folder for checkpoints, one file for each.
        every: training steps between checkpoints.
        ranks: what positions are dealt to; each rank goes through the whole stream and takes its share.

    Returns:
        Positions gone through.

    Raises:
        BadInput: there are none, or their batches differ in size.
        TooLittleData: the stream has less than one batch.
        UnknownName: the stream lacks a site.
        NotFinite: an activation is NaN or infinite, or a training diverged.
        Conflict: the workspace holds a checkpoint of another training; what differs is named.
        Unsupported: one of them is to be trained end to end.
    """
    rows = batch_rows(dictionaries.values())
    steps = steps_over(stream, rows, ", ".join(dictionaries))
    through = [name for name, d in dictionaries.items() if d.recipe.end_to_end]
    if through:
        raise Unsupported(f"{through[0]}, trained end to end beside others", "Dictionary.fit, one by one")
    if every < 1:
        raise BadInput(f"a checkpoint every {every} steps", "at least 1")
    under_way = [Training(n, d, stream, steps, workspace, ranks) for n, d in dictionaries.items()]
    say_products(*(t.trainer for t in under_way))
    fresh = [t for t in under_way if not t.begun]
    if fresh:  # all start from the same rows, which are read once
        sample = first(stream, max(t.dictionary.recipe.start_rows for t in fresh))
        for training in fresh:
            training.trainer.start(sample)
    begin = min(t.trainer.step for t in under_way)
    sites = tuple(dict.fromkeys(site for t in under_way for site in t.widths))
    note_every = max(1, steps // NOTES)
    step = begin
    with Shown(under_way, begin, steps, rows) as shown:
        for batch in batches(stream, sites, rows, skip=begin * rows):
            for training in under_way:
                if training.trainer.step == step:
                    training.advance(batch, note_every, every)
            step += 1
            shown.advance()
    if step != steps:
        raise ShapeMismatch(f"{step * rows:,} positions in a stream of {len(stream):,}", "as many as it says")
    sample = first(stream, max(t.dictionary.recipe.calibration_rows for t in under_way))
    for training in under_way:
        training.finish(sample)
    return (steps - begin) * rows


def batch_rows(dictionaries: Iterable[Dictionary]) -> int:
    """Positions in a batch, the same for all.

    Raises:
        BadInput: there are no dictionaries, or their batches differ.
    """
    sizes = {d.recipe.batch for d in dictionaries}
    if len(sizes) != 1:
        raise BadInput(
            f"batches of {sorted(sizes)} positions" if sizes else "no dictionaries",
            "dictionaries that take batches of one size",
            "training them one after another",
        )
    return sizes.pop()


def rounds(
    dictionaries: Mapping[str, Dictionary], widths: Mapping[str, int], memory: int
) -> list[dict[str, Dictionary]]:
    """Dictionaries dealt into as few passes over the activations as memory allows, in their order.

    One that is trained end to end goes alone, for what it learns from are passes of the model with it inside.

    Args:
        dictionaries: by name.
        widths: of their sites.
        memory: bytes for what is trained at once.

    Raises:
        BadInput: one of them alone needs more.
    """
    out: list[dict[str, Dictionary]] = []
    held = 0
    for name, dictionary in sorted(dictionaries.items(), key=lambda item: item[1].recipe.end_to_end):
        bytes_needed = training_bytes(dictionary, widths)
        if bytes_needed > memory:
            raise BadInput(
                f"{name}, which needs {bytes_needed / 2**30:,.2f} GiB to be trained",
                f"at most {memory / 2**30:,.2f} GiB",
                "fewer latents, a smaller batch, or more memory for it",
            )
        alone = dictionary.recipe.end_to_end
        if not out or alone or held + bytes_needed > memory:
            out.append({})
            held = 0
        out[-1][name] = dictionary
        held = memory if alone else held + bytes_needed
    return out


def training_bytes(dictionary: Dictionary, widths: Mapping[str, int]) -> int:
    """About how much memory training a dictionary takes.

    Weights, their gradients and Adam's two moments; and what a step makes: pre-activations of a batch with
    as much again for choosing among them, and the batch itself in a few forms.
    """
    read = sum(widths[site] for site in dictionary.reads)
    written = sum(widths[site] for site in dictionary.writes)
    weights = dictionary.latents * (read + written + 1) + written * (1 + read * dictionary.skip)
    step = dictionary.recipe.batch * (2 * dictionary.latents + 4 * (read + written))
    return 4 * (4 * weights + step)


class Shown:
    """Bars: one for all with tokens a second, one for each with how it does; a few lines where there are no bars."""

    def __init__(self, under_way: list[Training], begin: int, steps: int, rows: int) -> None:
        self.under_way, self.steps, self.rows = under_way, steps, rows
        self.done = begin
        self.bars: list[tuple[Training, Step]] = []

    def __enter__(self) -> Shown:
        self.stack = ExitStack()
        many = len(self.under_way)
        label = f"training {many} dictionaries" if many > 1 else f"training {self.under_way[0].name}"
        total = self.steps * self.rows
        self.main = self.stack.enter_context(progress_step(label, total=total, unit="tokens"))
        self.main.advance(self.done * self.rows)
        if many > 1:
            for training in self.under_way:
                bar = self.stack.enter_context(progress_step(f"  {training.name}", total=self.steps))
                bar.advance(self.done)
                self.bars.append((training, bar))
        self.began = self.said = time.monotonic()
        self.begin = self.done
        return self

    def __exit__(self, *_: object) -> None:
        for training, bar in self.bars:
            bar.label = f"{bar.label}: {training.note}"
        self.stack.close()

    def advance(self) -> None:
        """A batch is done."""
        self.done += 1
        self.main.advance(self.rows)
        speed = (self.done - self.begin) * self.rows / max(time.monotonic() - self.began, 1e-9)
        pace = f"{speed:,.0f} tokens/s"
        self.main.note(pace if self.bars else f"{pace} {self.under_way[0].note}")
        for training, bar in self.bars:
            bar.advance()
            bar.note(training.note)
        now = time.monotonic()
        if sys.stderr.isatty() or now - self.said < PAUSE:
            return
        self.said = now
        left = (self.steps - self.done) * self.rows / speed
        say(f"{self.done / self.steps:.0%} of the training: {pace}, {left:,.0f} s left")
        for training in self.under_way:
            say(f"  {training.name}: {training.note}")
