"""A run folder: spec, provenance, ledger, artefacts, report; killed at any moment it resumes to the same bits.

Every step is keyed by a digest of its inputs and its result is written atomically; a step that is found
is read back, never made again. Results are always used as read back, so that a resumed run and an
uninterrupted one see the same values.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prosect.core.canonical import Json, canonical_json, digest, plain
from prosect.core.errors import BadInput, Conflict, UnsafeFile
from prosect.core.progress import say
from prosect.core.records import Record
from prosect.core.schema import SCHEMA, check_version
from prosect.store.atomic import disk_errors, write_bytes, write_json
from prosect.store.index import rebuild
from prosect.store.ledger import Head, Ledger
from prosect.store.lock import LOCK, hold
from prosect.store.tensors import load_tensors, save_tensors

if TYPE_CHECKING:
    import torch


class RunFolder:
    """A run being made or resumed. Use `RunFolder.open`, and close it (it is a context manager).

    Attributes:
        path: the folder.
        ledger: its ledger, replaying if lines are already there.
        resumed: whether something was there already.
        id: drawn when the run was begun; tells it from a later one of the same name. Nothing that is
            measured depends on it.
    """

    def __init__(self, path: Path, ledger: Ledger, lock: int, resumed: bool, id: str) -> None:
        self.path, self.ledger, self.resumed, self.id = path, ledger, resumed, id
        self._lock = lock
        self._meters: list[dict[str, int]] = []

    @classmethod
    def open(cls, path: Path, spec: Json, provenance: Json) -> RunFolder:
        """Create the folder for this spec, or resume it.

        Args:
            path: the folder.
            spec: the resolved spec, every default included.
            provenance: versions, source digest, machine.

        Raises:
            Conflict: the folder holds another spec (the differences are named), was begun by other
                code, or another process is working in it.
            NewerSchema: a later prosect wrote it.
            BadInput: it cannot be written.
        """
        path = Path(path)
        with disk_errors(path / "run.json"):
            path.mkdir(parents=True, exist_ok=True)
        lock = hold(path)
        header = path / "run.json"
        try:
            fresh = {
                "schema": SCHEMA,
                "id": secrets.token_hex(8),
                "spec": plain(spec),
                "provenance": plain(provenance),
            }
            resumed = header.exists()
            if resumed:
                _check_same(path, json.loads(header.read_bytes()), fresh)
            elif any(p.name != LOCK and not p.name.startswith(".run.json.") for p in path.iterdir()):
                raise Conflict(
                    f"{path}, which holds other files", "an empty folder or a run", "another --out"
                )
            else:
                gone = head_file(path)
                if gone.exists():
                    say(f"{gone.name} tells of a run here that was deleted; this is a new one")
                    gone.unlink()
                write_json(header, fresh)
            ledger = Ledger(path / "ledger.jsonl", head_file(path))
            if ledger.repaired:
                _append_line(path / "repairs.jsonl", {"repaired": "a ledger line torn by a crash"})
            return cls(path, ledger, lock, resumed, str(json.loads(header.read_bytes()).get("id", "")))
        except BaseException:
            if not header.exists():  # not a run: nothing of ours stays behind
                (path / LOCK).unlink(missing_ok=True)
            os.close(lock)
            raise

    def close(self) -> None:
        """Let go of the folder."""
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BadInput) and not self.resumed:
            self._forget()
        self.close()

    def _forget(self) -> None:
        """Remove a folder in which nothing was made, so that the corrected spec finds its place free."""
        made = [p for p in self.path.rglob("*") if not p.is_dir() and p.name not in ("run.json", LOCK)]
        if not made:
            shutil.rmtree(self.path, ignore_errors=True)

    def key(self, name: str, inputs: Json) -> str:
        """The name under which a step with these inputs is kept."""
        return f"{name}-{digest({'step': name, 'inputs': plain(inputs)})[:16]}"

    def meter(self, counts: dict[str, int]) -> dict[str, int]:
        """Let steps keep what they add to ``counts``, so that a step read back has cost what it cost.

        Register the same meters in the same order each time, before the first step.
        """
        self._meters.append(counts)
        return counts

    def json_step(self, name: str, inputs: Json, make: Callable[[], Json]) -> Json:
        """The JSON result of a step, made once."""
        path = inside(self.path, f"artefacts/{self.key(name, inputs)}.json")
        if not path.exists():
            before = self._read_meters()
            value = make()
            write_json(path, {"value": value, "spent": self._spent_since(before)})
            return json.loads(path.read_bytes())["value"]
        content = json.loads(path.read_bytes())
        self._spend(content["spent"])
        return content["value"]

    def tensor_step(
        self, name: str, inputs: Json, make: Callable[[], tuple[dict[str, torch.Tensor], Json]]
    ) -> tuple[dict[str, torch.Tensor], Json]:
        """The tensors and JSON value of a step, made once."""
        path = inside(self.path, f"artefacts/{self.key(name, inputs)}.safetensors")
        if not path.exists():
            before = self._read_meters()
            tensors, value = make()
            save_tensors(path, tensors, {"value": value, "spent": self._spent_since(before)})
            tensors, about = load_tensors(path)
        else:
            tensors, about = load_tensors(path)
            self._spend(about["spent"])
        return tensors, about["value"]

    def _read_meters(self) -> list[dict[str, int]]:
        return [dict(m) for m in self._meters]

    def _spent_since(self, before: list[dict[str, int]]) -> list[dict[str, int]]:
        return [
            {k: n - b.get(k, 0) for k, n in m.items() if n != b.get(k, 0)}
            for m, b in zip(self._meters, before, strict=True)
        ]

    def _spend(self, spent: list[dict[str, int]]) -> None:
        for meter, amounts in zip(self._meters, spent, strict=True):
            for key, amount in amounts.items():
                meter[key] = meter.get(key, 0) + amount

    def workspace(self, name: str, inputs: Json) -> Path:
        """A folder for a long step's own checkpoints; call `discard` when its result is kept."""
        path = self.path / "work" / self.key(name, inputs)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def discard(self, workspace: Path) -> None:
        """Remove a step's checkpoints."""
        shutil.rmtree(workspace, ignore_errors=True)

    def append(self, *records: Record) -> None:
        """Append to the ledger (or check against it, when resuming)."""
        self.ledger.append(*records)

    def finish(self, metrics: Json) -> Head:
        """Write the metrics, rebuild the index and mark the run as done."""
        write_bytes(
            self.path / "metrics.json", json.dumps(plain(metrics), indent=1, sort_keys=True).encode() + b"\n"
        )
        rebuild(self.path / "ledger.jsonl", self.path / "ledger.sqlite")
        shutil.rmtree(self.path / "work", ignore_errors=True)
        head = self.ledger.head
        write_json(self.path / "done.json", {"schema": SCHEMA, "entries": head.count, "head": head.hash})
        return head


def head_file(run: Path) -> Path:
    """Where count and head of a run's ledger are kept: beside its folder, not in it."""
    run = Path(run)
    return run.parent / f"{run.name}.head"


def finished(run: Path) -> Head | None:
    """Count and head of a finished run, None if it is not finished.

    Raises:
        NewerSchema: a later prosect wrote it.
        BadInput: the mark is unreadable.
    """
    path = Path(run) / "done.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        check_version(content.get("schema"), str(path))
        return Head(int(content["entries"]), str(content["head"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path}, which is unreadable ({error})", "the mark of a finished run") from error


def read_header(run: Path) -> Json:
    """Spec and provenance of a run.

    Raises:
        BadInput: this is no run folder.
        NewerSchema: a later prosect wrote it.
    """
    path = Path(run) / "run.json"
    if not path.exists():
        raise BadInput(f"{run}, which holds no run.json", "a run folder", "prosect run")
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}, which is not JSON ({error})", "the header of a run") from error
    check_version(content.get("schema") if isinstance(content, dict) else None, str(path))
    return content


def inside(run: Path, name: str) -> Path:
    """The path of a file named in a record, refused if it leads out of the run folder.

    Raises:
        UnsafeFile: it is absolute, climbs out, or follows a link out.
    """
    root = Path(run).resolve()
    path = (root / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(root):
        raise UnsafeFile(f"the path {name!r} in a run's records", "a path inside the run folder")
    return path


def _check_same(path: Path, there: Json, fresh: Json) -> None:
    check_version(there.get("schema") if isinstance(there, dict) else None, str(path / "run.json"))
    if there["spec"] != fresh["spec"]:
        raise Conflict(
            f"{path}, which holds a run of another spec ({'; '.join(differences(there['spec'], fresh['spec']))})",
            "an empty folder or the same spec",
            "another --out",
        )
    old, new = there["provenance"], fresh["provenance"]
    changed = differences(
        {k: old.get(k) for k in ("versions", "source", "machine")},
        {k: new.get(k) for k in ("versions", "source", "machine")},
    )
    if changed and not (path / "done.json").exists():
        raise Conflict(
            f"{path}, begun elsewhere ({'; '.join(changed)})",
            "the code, versions, device and thread count that began it, so that it ends with the same numbers",
            "another --out",
        )


def differences(old: Json, new: Json, at: str = "") -> list[str]:
    """Where two JSON values differ, as ``key: old → new``; at most eight."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = [
            d
            for key in sorted({*old, *new})
            for d in differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
        ]
        return found[:8]
    return [] if old == new else [f"{at}: {_brief(old)} → {_brief(new)}"]


def _brief(value: Json) -> str:
    text = canonical_json(value).decode()
    return text if len(text) <= 40 else text[:37] + "..."


def _append_line(path: Path, value: Json) -> None:
    with disk_errors(path), path.open("ab") as file:
        file.write(canonical_json(value) + b"\n")
