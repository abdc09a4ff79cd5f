"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prosect.core.errors import Conflict
from prosect.store.atomic import disk_errors

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if it is not there; a folder in which nothing was made is removed again.

    Raises:
        Conflict: another process holds it.
        BadInput: it cannot be made.
    """
    folder = Path(folder)
    with disk_errors(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
    handle = hold(folder)
    try:
        yield
    finally:
        if all(p.name == LOCK for p in folder.iterdir()):
            (folder / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(handle)


def hold(folder: Path) -> int:
    """Hold a folder until the descriptor that is given back is closed.

    Raises:
        Conflict: another process holds it.
        BadInput: the lock cannot be made.
    """
    with disk_errors(folder / LOCK):
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl
    except ImportError:  # Windows has no flock; the replay of a ledger would still notice two writers
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise Conflict(
            f"{folder}, in which another process is working",
            "a folder that nobody else is using",
            "waiting for it",
        ) from None
    return handle
