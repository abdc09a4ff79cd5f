"""Writes that either happen whole or not at all, whatever kills the process."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prosect.core.canonical import Json, canonical_json
from prosect.core.errors import BadInput


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns "no space left", "not permitted" and "not a folder" into messages that name the place.

    Raises:
        BadInput: the disk is full, or the place cannot be written or is no folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BadInput(
                f"a full disk while writing {path.name} in {path.parent}",
                "room for it",
                "freeing space and running the same command again: it resumes where it stopped",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise BadInput(f"{path.parent}, which cannot be written", "a writable folder", "--out") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise BadInput(
                f"{path.parent}, which is a file or lies below one", "a folder", "another --out"
            ) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    Raises:
        BadInput: the disk is full or the folder cannot be written; nothing half-written is left.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` with ``data``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Json) -> None:
    """Replace ``path`` with the canonical JSON of ``value``."""
    write_bytes(path, canonical_json(value) + b"\n")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
