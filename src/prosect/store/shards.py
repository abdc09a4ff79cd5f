"""Rows too many for memory, kept as files of bounded size: written in order, resumed, checked on reading.

A folder holds ``index.json`` and shards ``000000.safetensors`` ... . The index says what the rows are, and
size and digest of each shard; it is replaced whole after each shard, so whatever kills the process, it
names complete shards only. A shard is parsed only after its bytes were found to be those that were written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prosect.core.canonical import Json, digest, plain
from prosect.core.errors import BadInput, Conflict, ShapeMismatch
from prosect.core.progress import say
from prosect.core.schema import SCHEMA, check_version
from prosect.store.atomic import write_bytes, write_json
from prosect.store.run import differences, inside

if TYPE_CHECKING:
    import torch

INDEX = "index.json"


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        file: its name in the folder.
        rows: rows of every tensor in it.
        size: bytes.
        digest: SHA-256 of its bytes.
    """

    file: str
    rows: int
    size: int
    digest: str


class Shards:
    """A folder of shards. Use `Shards.begin` to write it, `Shards.open` to read it.

    Attributes:
        folder: where it is.
        about: what the rows are, as JSON; the same for all shards.
        shards: the complete ones, in order.
        complete: whether all rows have been written.
    """

    def __init__(self, folder: Path, about: Json, shards: list[Shard], complete: bool) -> None:
        self.folder, self.about, self.shards, self.complete = folder, about, shards, complete

    @classmethod
    def begin(cls, folder: Path, about: Json) -> Shards:
        """Start writing, or go on after the last complete shard.

        Shards from the first one whose file is gone are forgotten, so that deleting a damaged file and
        starting again mends the folder.

        Args:
            folder: where; made if it is not there.
            about: everything that determines the rows.

        Raises:
            Conflict: the folder holds rows of something else, or other files.
            NewerSchema: a later prosect wrote it.
            BadInput: the index is unreadable.
        """
        folder, about = Path(folder), plain(about)
        if not (folder / INDEX).exists():
            if folder.exists() and any(not p.name.startswith(f".{INDEX}.") for p in folder.iterdir()):
                raise Conflict(f"{folder}, which holds other files", "an empty folder or one of shards")
            made = cls(folder, about, [], False)
            made._write_index()
            return made
        found = cls._read(folder)
        if found.about != about:
            raise Conflict(
                f"{folder}, which holds other rows ({'; '.join(differences(found.about, about))})",
                "an empty folder or the same rows",
                "another folder",
            )
        for i, shard in enumerate(found.shards):
            if not inside(folder, shard.file).exists():
                say(f"{shard.file} in {folder.name} is gone: rows from there on are made again")
                found.shards, found.complete = found.shards[:i], False
                break
        return found

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Open what was completely written.

        Raises:
            BadInput: there are no shards here, or they were never finished.
            NewerSchema: a later prosect wrote it.
        """
        found = cls._read(Path(folder))
        if not found.complete:
            raise BadInput(
                f"{folder}, of which only {found.rows:,} rows were written",
                "a folder that was finished",
                "writing it again: it goes on where it stopped",
            )
        return found

    @property
    def rows(self) -> int:
        """Rows in the complete shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def digest(self) -> str:
        """Of what the rows are and of every shard's bytes."""
        return digest({"about": self.about, "shards": [shard.digest for shard in self.shards]})

    def __len__(self) -> int:
        return len(self.shards)

    def append(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the next shard, whole or not at all.

        Raises:
            ShapeMismatch: the tensors differ in rows, or there are none.
            BadInput: the disk is full or the folder cannot be written.
        """
        from safetensors.torch import save

        rows = {len(t) for t in tensors.values()}
        if len(rows) != 1 or rows == {0}:
            raise ShapeMismatch(f"tensors of {sorted(rows)} rows in one shard", "the same rows, at least one")
        data = save({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()})
        file = f"{len(self.shards):06d}.safetensors"
        write_bytes(self.folder / file, data)
        self.shards.append(Shard(file, rows.pop(), len(data), hashlib.sha256(data).hexdigest()))
        self._write_index()

    def finish(self) -> None:
        """Mark the folder as complete."""
        self.complete = True
        self._write_index()

    def load(self, number: int) -> dict[str, torch.Tensor]:
        """The tensors of one shard.

        Raises:
            BadInput: its file is gone, was cut short, or changed; the message names it.
        """
        from safetensors.torch import load

        shard = self.shards[number]
        path, mend = self._file(shard)
        data = path.read_bytes()
        if len(data) != shard.size:
            raise BadInput(f"{path} with {len(data):,} bytes", f"the {shard.size:,} that were written", mend)
        if hashlib.sha256(data).hexdigest() != shard.digest:
            raise BadInput(
                f"{path}, which was changed after it was written", f"digest {shard.digest[:16]}…", mend
            )
        return load(data)

    def shapes(self, number: int) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of a shard, from its header alone; its rows are not checked.

        Raises:
            BadInput: its file is gone or its header unreadable.
        """
        from safetensors import SafetensorError, safe_open

        path, mend = self._file(self.shards[number])
        try:
            with safe_open(path, framework="pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise BadInput(
                f"{path}, which is unreadable ({error})", "a shard as it was written", mend
            ) from error

    def _file(self, shard: Shard) -> tuple[Path, str]:
        """Where a shard lies, and what mends it."""
        path = inside(self.folder, shard.file)
        mend = f"deleting {shard.file} and making the folder again: rows before it are kept"
        if not path.exists():
            raise BadInput(f"{path}, which is gone", f"a shard of {shard.rows:,} rows", mend)
        return path, mend

    def _write_index(self) -> None:
        content = {
            "schema": SCHEMA,
            "about": self.about,
            "complete": self.complete,
            "shards": [asdict(shard) for shard in self.shards],
        }
        write_json(self.folder / INDEX, content)

    @classmethod
    def _read(cls, folder: Path) -> Shards:
        path = folder / INDEX
        if not path.exists():
            raise BadInput(f"{folder}, which holds no {INDEX}", "a folder of shards")
        try:
            content = json.loads(path.read_bytes())
            check_version(content["schema"], str(path))
            shards = [Shard(**entry) for entry in content["shards"]]
            return cls(folder, content["about"], shards, bool(content["complete"]))
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BadInput(
                f"{path}, which is unreadable ({error})", "the index of a folder of shards", "another folder"
            ) from error
