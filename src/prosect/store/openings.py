"""Who opened which sealed split, kept outside any run.

A sealed split gives one honest answer. Deleting a run does not close it again, so openings are recorded
in the user's own state folder (``PROSECT_HOME``, by default ``~/.prosect``), by the digest of the data.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from prosect.core.canonical import canonical_json
from prosect.store.atomic import disk_errors


def home() -> Path:
    """The user's state folder."""
    return Path(os.environ.get("PROSECT_HOME") or Path.home() / ".prosect")


def openings(data: str) -> list[str]:
    """Runs that opened the sealed split of the data with this digest, in order."""
    path = home() / "openings.jsonl"
    if not path.exists():
        return []
    found: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a line torn by a crash; the run that wrote it records itself again on resume
        if entry.get("data") == data:
            found.append(str(entry.get("run")))
    return found


def record_opening(data: str, run: str) -> int:
    """Note that ``run`` opens the sealed split of ``data``; returns how many other runs did before it.

    A run that resumes is recorded once.
    """
    before = openings(data)
    if run not in before:
        path = home() / "openings.jsonl"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            torn = path.exists() and path.read_bytes()[-1:] not in (b"\n", b"")
            with path.open("ab") as file:
                file.write((b"\n" if torn else b"") + canonical_json({"data": data, "run": run}) + b"\n")
        return len(set(before))
    return len(set(before[: before.index(run)]))
