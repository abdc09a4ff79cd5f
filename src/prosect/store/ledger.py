"""The ledger: append-only JSON lines in a hash chain. It is the truth; everything else is an index.

Each line is canonical JSON with its number, the hash of the line before it and its own hash. Editing,
deleting, inserting or reordering lines breaks the chain. Deleting the last lines leaves a valid chain,
so count and head are also kept in a file beside the run folder. Rewriting the whole ledger together with
that file is caught only against a head that was published elsewhere; nothing inside a folder can do more.

A resumed run replays: it appends what it would have appended from the start, and lines that are already
there are compared instead of written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, Conflict, VerificationFailed
from prosect.core.records import Record
from prosect.core.schema import unwrap, wrap
from prosect.store.atomic import disk_errors, write_json

GENESIS = "0" * 64


@dataclass(frozen=True)
class Head:
    """How many lines a ledger has and the hash of the last one."""

    count: int
    hash: str


@dataclass(frozen=True)
class Entry:
    """One line: its number from 0, the record, the hash of the line before, and its own."""

    n: int
    record: Record
    prev: str
    hash: str


def line_of(n: int, prev: str, record: Record) -> tuple[bytes, str]:
    """The bytes of line ``n`` and its hash."""
    content = {"n": n, "prev": prev, **wrap(record)}
    own = digest(_again(content))
    return _again({**content, "hash": own}) + b"\n", own


def parse(path: Path, *, allow_torn: bool = False) -> tuple[list[Entry], int]:
    """Read and check a ledger.

    Args:
        path: the JSON lines.
        allow_torn: leave out a last line that a crash cut short (it has no newline).

    Returns:
        The entries, and how many bytes of the file they occupy.

    Raises:
        VerificationFailed: the chain does not hold; the message names the line and what is wrong.
        NewerSchema: a later prosect wrote it.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole != len(data) and not allow_torn:
        raise VerificationFailed(f"{path.name} line {data.count(bytes([10])) + 1} is cut short")
    entries: list[Entry] = []
    prev = GENESIS
    for n, raw in enumerate(data[:whole].split(b"\n")[:-1]):
        place = f"{path.name} line {n + 1}"
        try:
            content = json.loads(raw)
            if not isinstance(content, dict) or "hash" not in content:
                raise VerificationFailed(f"{place} is not a ledger line")
            claimed = content.pop("hash")
            bare, whole_line = _again(content), _again({**content, "hash": claimed})
        except (ValueError, RecursionError):
            raise VerificationFailed(f"{place} is not JSON: it was edited") from None
        if digest(bare) != claimed:
            raise VerificationFailed(f"{place} was edited: its content does not match its hash")
        if whole_line != raw:
            raise VerificationFailed(f"{place} was edited: it is not in canonical form")
        if content.get("prev") != prev or content.get("n") != n:
            raise VerificationFailed(
                f"{place} does not follow the line before it: a line was deleted, inserted or moved"
            )
        entries.append(Entry(n, unwrap(content, place), prev, claimed))
        prev = claimed
    return entries, whole


def _again(content: Json) -> bytes:
    """The canonical JSON of what is plain already: parsed from JSON, or wrapped."""
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Ledger:
    """A ledger open for appending.

    Opening repairs a line torn by a crash (and says so in ``repaired``), then replays: the first appends
    are compared with the lines that are already there.

    Args:
        path: the JSON lines; created on the first append.
        head: where count and head hash are kept, beside the run folder.

    Raises:
        VerificationFailed: what is there does not hold.
    """

    def __init__(self, path: Path, head: Path) -> None:
        self.path, self.head_path = path, head
        self.repaired = False
        self._entries, whole = parse(path, allow_torn=True)
        if path.exists() and path.stat().st_size != whole:
            with path.open("rb+") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
            self.repaired = True
        beside = read_head(head)
        check_head(self._entries, beside, finished=False)
        self._beside = 0 if beside is None else beside.count  # behind by what a crash left unsaid
        self._cursor = 0

    @property
    def records(self) -> list[Record]:
        """The records appended or replayed so far, in order."""
        return [e.record for e in self._entries[: self._cursor]]

    @property
    def head(self) -> Head:
        """Count and hash at the replay cursor."""
        return head_of(self._entries[: self._cursor])

    def append(self, *records: Record) -> None:
        """Append records; on a resumed run, check that the lines already there are the same.

        Raises:
            Conflict: the line already there is another: the folder holds a different run.
            BadInput: the disk is full.
        """
        pending: list[bytes] = []
        for record in records:
            prev = self._entries[self._cursor - 1].hash if self._cursor else GENESIS
            raw, own = line_of(self._cursor, prev, record)
            if self._cursor < len(self._entries):
                there = self._entries[self._cursor]
                if there.hash != own:
                    raise Conflict(
                        f"another record at line {self._cursor + 1} of {self.path}",
                        "the record that this run makes there",
                        "a fresh --out folder: this one was written by other code, data or threads",
                    )
            else:
                self._entries.append(Entry(self._cursor, record, prev, own))
                pending.append(raw)
            self._cursor += 1
        if pending:
            with disk_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write(b"".join(pending))
                    file.flush()
                    os.fsync(file.fileno())
        if self.replayed and self._beside < len(self._entries):
            head = head_of(self._entries)
            write_json(self.head_path, {"entries": head.count, "head": head.hash})
            self._beside = head.count

    def continue_after_end(self) -> None:
        """Skip the replay: everything already there counts as appended (for additions by hand)."""
        self._cursor = len(self._entries)

    @property
    def replayed(self) -> bool:
        """Whether every line that was there when the ledger was opened has been passed."""
        return self._cursor >= len(self._entries)


def head_of(entries: Iterable[Entry]) -> Head:
    """Count and hash of the last of ``entries``."""
    found = list(entries)
    return Head(len(found), found[-1].hash if found else GENESIS)


def read_head(path: Path) -> Head | None:
    """The count and head kept beside a run, if they are there.

    Raises:
        VerificationFailed: the file is there and unreadable.
    """
    if not path.exists():
        return None
    try:
        content: Json = json.loads(path.read_bytes())
        return Head(int(content["entries"]), str(content["head"]))
    except (ValueError, KeyError, TypeError):
        raise VerificationFailed(f"{path.name} is not a head file: it was edited") from None


def check_head(entries: list[Entry], head: Head | None, *, finished: bool) -> None:
    """Compare a ledger with the head kept beside it.

    Raises:
        VerificationFailed: lines were lost at the end, or the ledger was rewritten.
    """
    if head is None:
        return
    if len(entries) < head.count:
        raise VerificationFailed(
            f"the ledger has {len(entries)} lines and its head file counts {head.count}: "
            "lines were deleted at the end"
        )
    at = entries[head.count - 1].hash if head.count else GENESIS
    if at != head.hash:
        raise VerificationFailed(f"line {head.count} does not have the hash kept beside the run: rewritten")
    if finished and len(entries) != head.count:
        raise VerificationFailed(
            f"the ledger has {len(entries)} lines and its head file counts {head.count}: lines were added"
        )


def read(path: Path) -> Iterator[Record]:
    """The records of a ledger whose chain holds.

    Raises:
        BadInput: there is no ledger.
        VerificationFailed: the chain does not hold.
    """
    if not path.exists():
        raise BadInput(f"{path}, which does not exist", "a ledger", "the folder of a run")
    entries, _ = parse(path, allow_torn=True)
    return (e.record for e in entries)
