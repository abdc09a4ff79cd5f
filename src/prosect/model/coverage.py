"""Which architectures open: a small random network of each is built, opened, and held to its own names.

A type opens if every block names the stream before and after it and everything it adds to the stream, and if
those add up, on tokens that opening did not see, to 1e-4 of the stream's largest number. Everything else is
refused with the reason by name. Types are examined in a process of their own, which is ended and replaced when
one of them takes too long or brings it down.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from prosect.core.errors import ProsectError, UnknownName
from prosect.core.progress import step
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.anatomy import additive
from prosect.model.families import build, types
from prosect.model.model import Model
from prosect.model.sites import INTERIOR, SUBLAYERS
from prosect.model.survey import LARGEST

START = 120.0
"""Seconds that a worker may take to begin, on top of those of its first type."""


@dataclass(frozen=True)
class Covered:
    """What became of one architecture.

    Attributes:
        type: as in a configuration's ``model_type``.
        outcome: ``opens``, ``refused``, or ``not built`` where no small network of it could be made.
        layers: blocks.
        sites: how many named sites it has.
        interior: how many blocks have queries, keys, values, scores and probabilities.
        additive: the largest error of the sums, relative; None where nothing could be summed.
        check: the largest error of the proofs that its named sites passed, relative; None without any.
        reason: why it does not open; empty if it does.
        seconds: that it took.
    """

    type: str
    outcome: str
    layers: int = 0
    sites: int = 0
    interior: int = 0
    additive: float | None = None
    check: float | None = None
    reason: str = ""
    seconds: float = 0.0


def additive_errors(model: Model, seed: int = 0) -> list[float]:
    """By how much what each block is said to add misses what it adds, on inputs that opening did not see.

    Args:
        model: open; one that reads token ids gets random ones, any other its example.
        seed: of the tokens.

    Returns:
        For each block the largest error relative to the largest number of the stream; infinite where the
        stream or all that is added to it has no name.
    """
    kinds = ["resid_pre", "resid_cross", "resid_mid", "resid_post"]
    kinds += [f"{name}{end}" for name in SUBLAYERS for end in ("_out_post", "_sum")]
    names = [n for n in model.sites.names() if n.partition(".")[0] in kinds]
    if not model.n_layers:
        return []
    trace = model.run(_fresh(model, seed), names)
    errors = []
    for layer in range(model.n_layers):

        def value(kind: str, layer: int = layer) -> Tensor | None:
            return trace[f"{kind}.{layer}"] if f"{kind}.{layer}" in names else None

        errors.append(additive(value))
    return errors


def _fresh(model: Model, seed: int) -> Batch:
    """Other token ids of the shapes of the example; the example where it holds something else."""
    given = model.example.tensors
    generator = Seed(seed).child("coverage").torch()
    if not all(name.endswith(("input_ids", "attention_mask")) for name in given):
        return model.example
    high = model.vocab_size or 2
    made = {
        name: torch.randint(high, tuple(t.shape), generator=generator) if name.endswith("ids") else t
        for name, t in given.items()
    }
    return model.batch(made)


def examine(model_type: str, seed: int = 0) -> Covered:
    """Build one type, open it, and hold it to its names; nothing is raised for what does not open.

    Raises:
        UnknownName: transformers has no such type of causal language model.
    """
    began = time.monotonic()
    try:
        module = build(model_type, seed)
    except UnknownName:
        raise
    except ProsectError as error:
        return Covered(model_type, "not built", reason=_got(error), seconds=time.monotonic() - began)
    try:
        model = Model.of(module, name=model_type)
        errors = additive_errors(model)
    except ProsectError as error:
        return Covered(model_type, "refused", reason=_got(error), seconds=time.monotonic() - began)
    except Exception as error:  # what is not refused by name is a defect, and shown as one
        reason = f"{type(error).__name__}: {error}"
        return Covered(model_type, "refused", reason=reason, seconds=time.monotonic() - began)
    reason = _reason(model, errors)
    return Covered(
        model_type,
        "refused" if reason else "opens",
        model.n_layers or 0,
        len([n for n in model.sites.names() if "." not in n or n.rpartition(".")[2].isdigit()]),
        sum(all(f"{kind}.{i}" in model.sites for kind in INTERIOR) for i in range(model.n_layers or 0)),
        max(errors, default=None) if all(map(math.isfinite, errors)) else None,
        _worst(model),
        reason,
        time.monotonic() - began,
    )


def _got(error: ProsectError) -> str:
    return str(getattr(error, "got", error))


def _reason(model: Model, errors: Sequence[float]) -> str:
    """Why a model does not open; empty if it does."""
    if not errors:
        return "no list of blocks hands one stream (rows, positions, width) on, each block run once"
    wrong = [layer for layer, error in enumerate(errors) if not error < LARGEST]
    if not wrong:
        return ""
    layer, refused = wrong[0], model.sites.refused
    said = [
        f"{kind}.{layer}: {refused[f'{kind}.{layer}']}" for kind in _NEEDED if f"{kind}.{layer}" in refused
    ]
    return (
        said[0] if said else f"what block {layer} is said to add misses what it adds by {errors[layer]:.2g}"
    )


_NEEDED = ("resid_pre", "resid_post", *(f"{name}_out_post" for name in SUBLAYERS))


def _worst(model: Model) -> float | None:
    """The largest error among the proofs of sites that are served."""
    if model.report is None:
        return None
    kept = [
        error
        for found in model.report.errors.values()
        for site, error in found.items()
        if site not in model.sites.refused
    ]
    return max(kept, default=None)


def cover(chosen: Sequence[str] | None = None, seconds: int | float = 60.0) -> Iterator[Covered]:
    """Examine types one after another in a worker process, and go on after any that fails.

    Args:
        chosen: types; every causal language model type of the installed transformers by default.
        seconds: that one type may take; one that takes longer is refused for that.

    Raises:
        UnknownName: transformers has no such type of causal language model.
    """
    known = types()
    for name in chosen or ():
        if name not in known:
            raise UnknownName("causal language model type", name, known)
    every = tuple(chosen or known)
    worker: _Worker | None = None
    with step("architectures", len(every), "types") as shown:
        try:
            for name in every:
                worker = worker or _Worker()
                found = worker.examine(name, seconds)
                if not worker.alive:
                    worker.close()
                    worker = None
                shown.note(name)
                shown.advance()
                yield found
        finally:
            if worker is not None:
                worker.close()


class _Worker:
    """A process that examines the types it is told, one line of JSON for each."""

    def __init__(self) -> None:
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prosect.model.coverage"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, **threads, **offline, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.alive, self.started = True, False
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def examine(self, name: str, seconds: int | float) -> Covered:
        """What became of a type; refused if it takes longer than ``seconds`` or ends the process."""
        assert self.process.stdin is not None
        began = time.monotonic()
        try:
            self.process.stdin.write(f"{name}\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=seconds + (0.0 if self.started else START))
        except queue.Empty:
            self.alive = False
            return Covered(
                name, "refused", reason=f"it took longer than {seconds:g} s", seconds=float(seconds)
            )
        except OSError:
            line = ""
        self.started = True
        if not line:
            self.alive = False
            took = time.monotonic() - began
            return Covered(name, "refused", reason="it ended the process that opened it", seconds=took)
        return Covered(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was never sent
                    pipe.close()


def _serve() -> None:
    """Examine every type named on standard input; anything that a model prints goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(asdict(examine(line.strip()))), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
