"""The process that a method runs in: ``python -m prosect.bench.worker``.

It reads orders, one JSON object a line, and forks a fresh process for each, so that torch is imported once and no
method sees what another left. It is never told a truth or an organism's seed. A process over its time is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosect.bench.given import Given
from prosect.bench.guard import withhold
from prosect.bench.handover import fail, give, take
from prosect.bench.skeleton import found
from prosect.core.seeds import Seed

POLL = 0.01
LONGEST = 600
"""Characters of a reason that are kept."""


def work(folder: Path) -> None:
    """Run the method that the folder asks for, and leave its answer or the reason why there is none."""
    import torch

    torch.set_num_threads(1)
    os.chdir(folder)
    try:
        given, order = take(folder)
        if given.network is not None:
            _ = given.module
        withhold(order.withheld)
        passes = _counted(given)
        method = found(order.method)
        start = time.perf_counter()
        answer = method(given, Seed(order.seed))
        spent = {"seconds": time.perf_counter() - start, "passes": passes["passes"]}
        if not isinstance(answer, Mapping) or not all(isinstance(t, torch.Tensor) for t in answer.values()):
            raise TypeError(f"the method gave back a {type(answer).__name__}, not tensors by name")
        give(folder, answer, spent)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        fail(folder, f"{type(error).__name__}: {error} ({place})"[:LONGEST])


def _counted(given: Given) -> dict[str, int]:
    """Counts the network's forward passes."""
    counts = {"passes": 0}

    def count(*_: Any) -> None:
        counts["passes"] += 1

    if given.network is not None:
        given.module.register_forward_pre_hook(count)
    return counts


def _forked(folder: str, seconds: float, parent: int) -> str:
    """Do it in a process of its own; how that ended, in words, empty where it ended by itself."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        dies_with_parent()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        try:
            work(Path(folder))
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.getppid() == parent:  # a killed bench asks for nothing any more
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else ""
        time.sleep(POLL)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return f"past its budget of {seconds:g} seconds"


def dies_with_parent() -> None:
    """Where the system allows it: this process outlives nobody who waits for it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, on Linux


def serve() -> None:
    """Orders in, how each ended out, until there are no more."""
    parent = os.getppid()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what modules print is no answer
    for line in sys.stdin:
        order = json.loads(line)
        for module in order["preload"]:
            importlib.import_module(module)
        answers.write(json.dumps({"ended": _forked(order["folder"], order["seconds"], parent)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(Path(sys.argv[1]))
    else:
        serve()
