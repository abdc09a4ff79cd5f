"""What a run of the bench will do, worked out before any of it is done, and the spec that its folder holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prosect.bench.programs import PROGRAM
from prosect.bench.subject import WORLDS
from prosect.bench.suites import AGAIN, ALL, Suite, suite_of
from prosect.bench.task import Setup, Task
from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName
from prosect.core.provenance import source_digest
from prosect.core.registries import BASELINES, METHODS, ORGANISMS, TASKS
from prosect.core.seeds import Seed

ORACLE, RANDOM = "oracle", "random"
REFERENCES = (ORACLE, RANDOM)
UNKNOWN = ("pylm",)
"""Organisms of which nothing is known."""
ROUNDS = 300_000
"""Of the hash of a sealed seed, so that a short one is not found by trying."""


@dataclass(frozen=True)
class Asked:
    """What the user asked for; empty means what the suite says.

    Attributes:
        suite: its name.
        tasks, methods, organisms: only these.
        seeds: of each organism.
        sealed: the user's own seed, from which those of organisms are derived; never written down.
        seconds: that each method has.
        rows: that each method sees, at most.
    """

    suite: str = "quick"
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    organisms: tuple[str, ...] = ()
    seeds: int | None = None
    sealed: str = field(default="", repr=False)
    seconds: float | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Entry:
    """A method on the bench.

    Attributes:
        name: without the task.
        where: ``module:function``.
        code: digest of its module's source.
        baseline: whether methods have to beat it.
    """

    name: str
    where: str
    code: str
    baseline: bool


@dataclass(frozen=True)
class Instance:
    """An organism of one seed, and the tasks it is asked about.

    Attributes:
        organism: its name.
        label: stands for the seed in records: the seed itself, or its number under a sealed one.
        seed: that it is built from.
        tasks: names.
    """

    organism: str
    label: str
    seed: int = field(repr=False)
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything a run will do.

    Attributes:
        suite: name.
        setup: budgets.
        instances: in the order in which results are written down.
        methods: task → what answers it, references left out.
        sealed: hash of the sealed seed; empty without one.
    """

    suite: str
    setup: Setup
    instances: tuple[Instance, ...]
    methods: dict[str, tuple[Entry, ...]]
    sealed: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, in the order of the suite."""
        return tuple(self.methods)

    @property
    def cells(self) -> int:
        """How many answers, references included."""
        each = {t: len(m) + len(REFERENCES) for t, m in self.methods.items()}
        return sum(each[t] for i in self.instances for t in i.tasks)

    def listed(self, task: str) -> bool:
        """Whether its organisms were chosen, rather than all tried."""
        tried = {i.organism for i in self.instances if task in i.tasks}
        return tried != set(known()) - set(AGAIN.get(task, ()))

    def spec(self) -> Json:
        """As the run folder holds it; seeds that are sealed are not in it."""
        organisms: dict[str, dict[str, list[str]]] = {}
        for i in self.instances:
            for t in i.tasks:
                organisms.setdefault(t, {}).setdefault(i.organism, []).append(i.label)
        return {
            "bench": self.suite,
            "organisms": organisms,
            "methods": {t: {m.name: m.code for m in found} for t, found in self.methods.items()},
            "versions": {t: task_of(t).version for t in self.methods},
            "setup": self.setup,
            "sealed": self.sealed,
        }


def task_of(name: str) -> Task:
    """A task by name.

    Raises:
        UnknownName: there is none.
    """
    task: Task = TASKS.get(name)()
    return task


def planned(asked: Asked) -> Plan:
    """Work out what will be done; nothing is built.

    Raises:
        UnknownName: no such suite, task, method or organism.
        BadInput: nothing is left to do, or fewer than one seed.
    """
    suite = suite_of(asked.suite)
    count = suite.seeds if asked.seeds is None else asked.seeds
    if count < 1:
        raise BadInput(f"{count} seeds", "at least 1; two or more for intervals")
    setup = replace(
        suite.setup,
        seconds=suite.setup.seconds if asked.seconds is None else asked.seconds,
        rows=suite.setup.rows if asked.rows is None else asked.rows,
    )
    for name in asked.tasks:
        if name not in TASKS:
            raise UnknownName("task", name, TASKS)
    for name in asked.organisms:
        if name not in known():
            raise UnknownName("organism", name, known())
    tasks = [t for t in suite.organisms if not asked.tasks or t in asked.tasks]
    methods = {t: _entries(t, asked.methods) for t in tasks}
    named = {m.name for found in methods.values() for m in found} | set(REFERENCES)
    for name in asked.methods:
        if name.rpartition("/")[2] not in named:
            raise UnknownName("method", name, sorted({*METHODS, *BASELINES}))
    wanted = {t: _organisms(suite, t, asked.organisms) for t in tasks}
    instances = []
    for i in range(
        count
    ):  # every organism once before any a second time: a run that is stopped has been everywhere
        for organism in dict.fromkeys(o for t in tasks for o in wanted[t]):
            mine = tuple(t for t in tasks if organism in wanted[t])
            label, seed = (
                (f"sealed.{i}", _derived(asked.sealed, organism, i)) if asked.sealed else (str(i), i)
            )
            instances.append(Instance(organism, label, seed, mine))
    if not instances:
        raise BadInput("nothing to do", "a task and an organism that go together", "prosect bench --dry-run")
    return Plan(asked.suite, setup, tuple(instances), methods, hashed(asked.sealed) if asked.sealed else "")


def known() -> tuple[str, ...]:
    """Every organism that can be on the bench."""
    return tuple(n for n in (*ORGANISMS, *WORLDS, PROGRAM) if n not in UNKNOWN)


def hashed(sealed: str) -> str:
    """What the record holds of a sealed seed: it tells two apart and gives none away."""
    return hashlib.pbkdf2_hmac("sha256", sealed.encode(), b"prosect bench", ROUNDS).hex()


def _derived(sealed: str, organism: str, i: int) -> int:
    root = int.from_bytes(hashlib.sha256(sealed.encode()).digest()[:8], "little")
    return Seed(root).child("bench", "sealed", organism, i).integer % 2**31


def _organisms(suite: Suite, task: str, only: Sequence[str]) -> tuple[str, ...]:
    listed = suite.organisms[task]
    if only:
        return tuple(only)
    return tuple(n for n in known() if n not in AGAIN.get(task, ())) if listed == ALL else listed


def _entries(task: str, only: Sequence[str]) -> tuple[Entry, ...]:
    out = []
    whose = task_of(task).methods
    for registry, baseline in ((METHODS, False), (BASELINES, True)):
        for full in registry:
            of, _, name = full.rpartition("/")
            if of != whose or (only and name not in only and full not in only):
                continue
            function: Any = registry.get(full)
            module = str(function.__module__)
            where = f"{module}:{function.__qualname__}"
            out.append(Entry(name, where, source_digest(module), baseline))
    return tuple(out)
