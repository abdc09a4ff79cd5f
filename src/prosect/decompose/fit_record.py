"""The record of a fit, ``fit.json``: what was asked for and, in the end, what came of it."""

from __future__ import annotations

import json
from pathlib import Path

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, Conflict
from prosect.core.schema import check_version
from prosect.store.lock import LOCK
from prosect.store.run import differences

RECORD = "fit.json"


def read_record(out: Path) -> Json:
    """What ``fit.json`` in a folder holds.

    Raises:
        BadInput: there is none, or it is unreadable.
        NewerSchema: a later prosect wrote it.
    """
    path = Path(out) / RECORD
    if not path.exists():
        raise BadInput(f"{out}, which holds no {RECORD}", "a folder that prosect fit made")
    try:
        content = json.loads(path.read_bytes())
        check_version(content.get("schema"), str(path))
        if not isinstance(content["complete"], bool) or not isinstance(content["asked"], dict):
            raise TypeError("not what was written")
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path}, which is unreadable ({error})", "the record of a fit") from error
    return content


def found_record(out: Path, asked: Json) -> Json | None:
    """The record of the same fit in a folder, None in an empty one.

    Raises:
        Conflict: it holds another fit, and what differs is named, or other files.
        BadInput: the record is unreadable.
        NewerSchema: a later prosect wrote it.
    """
    if not (out / RECORD).exists():
        others = [p.name for p in out.iterdir() if p.name != LOCK and not p.name.startswith(f".{RECORD}.")]
        if others:
            raise Conflict(f"{out}, which holds other files", "an empty folder or a fit", "another --out")
        return None
    found = read_record(out)
    if found["asked"] != asked:
        raise Conflict(
            f"{out}, which holds another fit ({'; '.join(differences(found['asked'], asked))})",
            "an empty folder or the same fit",
            "another --out",
        )
    return found


def check_place(out: Path, found: Json, fresh: Json) -> None:
    """Refuse to go on with what was begun by other code or on another machine: bits would differ.

    Raises:
        Conflict: it was; what differs is named.
    """
    keys = ("versions", "source", "machine", "ranks")
    old, new = ({k: r["provenance"].get(k) for k in keys} for r in (found, plain(fresh)))
    if changed := differences(old, new):
        raise Conflict(
            f"{out}, begun elsewhere ({'; '.join(changed)})",
            "the code, versions, device and thread count that began it, so that it ends with the same numbers",
            "another --out",
        )
