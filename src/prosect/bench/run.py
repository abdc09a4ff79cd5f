"""A run of the bench: organisms built, methods asked, answers scored, all of it kept; killed, it goes on where it stopped.

Each thread has a process for methods of its own. Organisms are built, and answers scored, by one thread at a time.
Results go into the ledger in the order of the plan, whatever order they come in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from prosect.bench.answers import Cell, answered, referred
from prosect.bench.isolation import Isolated
from prosect.bench.plan import REFERENCES, Entry, Instance, Plan, task_of
from prosect.bench.subject import Subject, subject
from prosect.bench.task import Case, Task
from prosect.core.canonical import Json
from prosect.core.errors import BadInput, ProsectError
from prosect.core.progress import Step, step
from prosect.core.provenance import environment
from prosect.core.records import Note
from prosect.core.seeds import Seed
from prosect.store.run import RunFolder, finished

Made = TypeVar("Made")


class Stopped(Exception):
    """The run is being ended; nothing more is to be written."""


@dataclass(frozen=True)
class Done:
    """What a run came to.

    Attributes:
        cells: every cell, in the order of the plan.
        skipped: (task, organism) → why nothing could be asked there, where the truth would have answered.
    """

    cells: list[Cell]
    skipped: dict[tuple[str, str], str]


def run(plan: Plan, out: Path, jobs: int = 1) -> Done:
    """Do what a plan says, or what is left of it.

    Args:
        plan: what to do.
        out: the run folder.
        jobs: processes that methods run in, side by side.

    Raises:
        Conflict: the folder holds another run.
        BadInput: fewer than one job, or an organism that is built again with other weights (both hashes are named).
    """
    if jobs < 1:
        raise BadInput(f"{jobs} jobs", "at least 1")
    import torch

    torch.set_num_threads(1)
    done = finished(out) is not None
    with (
        RunFolder.open(out, plan.spec(), environment()) as folder,
        step("bench", plan.cells, "answers") as shown,
    ):
        runner = _Runner(plan, folder, shown)
        cells = runner.all(jobs)
        for (task, organism), why in sorted(runner.skipped.items()):
            folder.append(Note(about="bench", text=f"{task} is not asked on {organism}: {why}"))
        for cell in cells:
            folder.append(Note(about="bench", text=_sentence(cell), data=cell.record()))
        if not done:
            folder.finish({"cells": len(cells), "failed": sum(bool(c.failures) for c in cells)})
    return Done(cells, runner.skipped)


class _Once(Generic[Made]):
    """Something made when it is first asked for."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: list[Made] = []

    def __call__(self) -> Made:
        if not self._made:
            self._made.append(self._make())
        return self._made[0]


class _Runner:
    def __init__(self, plan: Plan, folder: RunFolder, shown: Step) -> None:
        self.plan, self.folder, self.shown = plan, folder, shown
        self.stop = threading.Event()
        self.alone = threading.Lock()
        self.skipped: dict[tuple[str, str], str] = {}

    def all(self, jobs: int) -> list[Cell]:
        every = [Isolated() for _ in range(jobs)]
        free = list(every)
        own = threading.local()

        def work(instance: Instance) -> list[Cell]:
            if not hasattr(own, "isolated"):
                own.isolated = free.pop()
            return self._instance(instance, own.isolated)

        pool = ThreadPoolExecutor(jobs)
        try:
            futures = [pool.submit(work, i) for i in self.plan.instances]
            return [cell for future in futures for cell in future.result()]
        except BaseException:
            self.stop.set()
            raise
        finally:
            for isolated in every:
                isolated.close()
            pool.shutdown(cancel_futures=True)

    def _instance(self, instance: Instance, isolated: Isolated) -> list[Cell]:
        """All methods of all tasks on one organism; it is not built where nothing is left to do."""
        built = _Once(partial(self._built, instance))
        out = []
        for name in instance.tasks:
            task = task_of(name)
            cases = _Once(partial(self._cases, task, built))
            about = {**self._about(instance), "task": name, "version": task.version}
            asked = self.folder.json_step("asked", about, partial(self._asked, cases, built))
            if asked["why not"]:
                self.skipped[name, instance.organism] = asked["why not"]
            if not asked["cases"]:
                self.shown.advance(len(REFERENCES) + len(self.plan.methods[name]))
                continue
            for reference in REFERENCES:
                make = partial(self._referred, task, cases, reference, instance)
                out.append(self._kept(instance, task, reference, "", make))
            for entry in self.plan.methods[name]:
                make = partial(self._answered, task, cases, entry, instance, built, isolated)
                out.append(self._kept(instance, task, entry.name, entry.code, make))
        return out

    def _kept(self, instance: Instance, task: Task, method: str, code: str, make: Callable[[], Json]) -> Cell:
        """A cell, made or read back."""
        about = {
            **self._about(instance),
            "task": task.name,
            "version": task.version,
            "method": method,
            "code": code,
        }
        found = self.folder.json_step("cell", about, make)
        self.shown.advance()
        return Cell(task.name, instance.organism, instance.label, method, found)

    def _about(self, instance: Instance) -> dict[str, Json]:
        return {
            "organism": instance.organism,
            "seed": instance.label,
            "sealed": self.plan.sealed,
            "setup": self.plan.setup,
        }

    def _built(self, instance: Instance) -> Subject:
        with self._turn():
            made = subject(instance.organism, instance.seed)
            before = self.folder.json_step("organism", self._about(instance), lambda: made.digest)
            if before != made.digest:
                raise BadInput(
                    f"{instance.organism} of seed {instance.label} with weights {made.digest[:16]}",
                    f"the weights {before[:16]} that it had when this run began",
                    "another --out",
                )
            return made

    def _cases(self, task: Task, built: _Once[Subject]) -> list[Case]:
        made = built()
        with self._turn():
            return list(task.cases(made, self.plan.setup)) if task.suits(made.truth) else []

    def _asked(self, cases: _Once[list[Case]], built: _Once[Subject]) -> Json:
        """What a task asks of an organism; nothing where its truth does not answer, and with a reason if it should."""
        built()
        try:
            return {"cases": [case.name for case in cases()], "why not": ""}
        except ProsectError as error:
            return {"cases": [], "why not": str(error)}

    def _referred(self, task: Task, cases: _Once[list[Case]], name: str, instance: Instance) -> Json:
        asked = cases()
        with self._turn():
            return referred(task, asked, name, _seed(name, instance))

    def _answered(
        self,
        task: Task,
        cases: _Once[list[Case]],
        entry: Entry,
        instance: Instance,
        built: _Once[Subject],
        isolated: Isolated,
    ) -> Json:
        asked = cases()
        found = answered(task, asked, entry, _seed(entry.name, instance), isolated, built().withheld)
        if self.stop.is_set():  # its process may have been ended by us
            raise Stopped
        return found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self.alone:
            if self.stop.is_set():
                raise Stopped
            yield


def _seed(method: str, instance: Instance) -> Seed:
    return Seed(0).child("bench", "method", method, instance.label)


def _sentence(cell: Cell) -> str:
    failed = cell.failures
    said = f"failed on {len(failed)} of {len(cell.cases)} cases" if failed else "answered"
    return f"{cell.method} {said}: {cell.task} on {cell.organism}, seed {cell.seed}"
