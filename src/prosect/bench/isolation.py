"""The parent's side of a method's process: start it, hand over, take what comes back.

Nothing of the parent's memory, arguments or environment goes along, and the folder it works in is a temporary one with
nothing else in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from torch import Tensor

from prosect.bench.given import Given
from prosect.bench.handover import Order, outcome, preloaded, put

ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""What a method's process inherits."""


@dataclass(frozen=True)
class Ran:
    """How a method's process ended.

    Attributes:
        answer: what it gave; None if it failed.
        reason: why it failed; empty if it did not.
        seconds: that the method itself took; 0 if it failed.
        passes: forward passes of the network.
    """

    answer: dict[str, Tensor] | None
    reason: str = ""
    seconds: float = 0.0
    passes: int = 0


class Isolated:
    """A process that runs methods, each in a fresh one of its own. A context manager.

    Started when it is first needed, and again if it died.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def run(self, given: Given, order: Order) -> Ran:
        """Run a method on what it is given."""
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            folder = Path(scratch)
            put(folder, given, order)
            if hasattr(os, "fork"):
                ended = self._ask(folder, given, order)
            else:
                ended = _alone(folder, given)
            found = outcome(folder)
        if ended or isinstance(found, str):
            return Ran(None, ended or str(found) or "it ended without an answer")
        answer, spent = found
        return Ran(answer, "", float(spent["seconds"]), int(spent["passes"]))

    def _ask(self, folder: Path, given: Given, order: Order) -> str:
        asked = {
            "folder": str(folder),
            "seconds": given.seconds,
            "preload": list(preloaded(order, given.network is not None)),
        }
        for _ in range(2):
            if self._closed:
                break
            if self._process is None or self._process.poll() is not None:
                self._process = _started()
            assert self._process.stdin is not None and self._process.stdout is not None
            with contextlib.suppress(BrokenPipeError, ValueError):  # it died, or was closed by another thread
                self._process.stdin.write(json.dumps(asked) + "\n")
                self._process.stdin.flush()
                said = self._process.stdout.readline()
                if said:
                    return str(json.loads(said)["ended"])
        return "the process that runs methods died"

    def close(self) -> None:
        """End the process for good; may be called by another thread than the one that waits for it."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._process = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def environment() -> dict[str, str]:
    """What a method's process sees of this one's environment."""
    kept = {k: v for k, v in os.environ.items() if k in ENVIRONMENT}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "prosect.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
        cwd=tempfile.gettempdir(),
    )


def _alone(folder: Path, given: Given) -> str:
    """Without fork: a new interpreter for every method."""
    command = [sys.executable, "-m", "prosect.bench.worker", str(folder)]
    try:
        subprocess.run(
            command, env=environment(), timeout=given.seconds + 30, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return f"past its budget of {given.seconds:g} seconds"
    return ""
