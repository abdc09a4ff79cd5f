"""Envelopes: every stored record says what it is and which version of the format it uses.

Older records are migrated when they are read; newer ones are refused.
"""

from __future__ import annotations

from collections.abc import Callable

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, NewerSchema
from prosect.core.records import (
    Calibration,
    Evidence,
    Family,
    Hypothesis,
    Note,
    Opening,
    Record,
    TruthCheck,
)

SCHEMA = 1

KINDS: dict[str, type[Record]] = {
    "hypothesis": Hypothesis,
    "family": Family,
    "opening": Opening,
    "evidence": Evidence,
    "truth": TruthCheck,
    "calibration": Calibration,
    "note": Note,
}

MIGRATIONS: dict[tuple[str, int], Callable[[Json], Json]] = {}
"""(kind, version) → body in the next version."""


def kind_of(record: Record) -> str:
    """The name under which ``record`` is stored."""
    for kind, cls in KINDS.items():
        if type(record) is cls:
            return kind
    raise BadInput(f"a {type(record).__name__} for the ledger", f"one of {', '.join(KINDS)}")


def wrap(record: Record) -> dict[str, Json]:
    """The record in its envelope."""
    return {"schema": SCHEMA, "kind": kind_of(record), "body": plain(record)}


def check_version(found: object, what: str) -> int:
    """The schema number of something read from disk.

    Raises:
        NewerSchema: it was written by a later prosect.
        BadInput: it is no number.
    """
    if not isinstance(found, int) or isinstance(found, bool):
        raise BadInput(f"schema {found!r} in {what}", f"a whole number up to {SCHEMA}")
    if found > SCHEMA:
        raise NewerSchema(
            f"schema {found} in {what}", f"at most {SCHEMA}, which this version writes", "a newer prosect"
        )
    return found


def unwrap(envelope: dict[str, Json], what: str = "a record") -> Record:
    """The record inside an envelope, migrated to this version.

    Raises:
        NewerSchema: it was written by a later prosect.
        BadInput: its kind is unknown or its body does not fit.
    """
    version = check_version(envelope.get("schema"), what)
    kind = envelope.get("kind")
    if kind not in KINDS:
        raise BadInput(f"a record of kind {kind!r} in {what}", f"one of {', '.join(KINDS)}")
    body = envelope.get("body")
    for step in range(version, SCHEMA):
        migrate = MIGRATIONS.get((kind, step))
        body = migrate(body) if migrate else body
    try:
        return KINDS[kind].model_validate(body)
    except ValueError as error:
        raise BadInput(f"a malformed {kind} in {what} ({error})", "the fields of that record") from error
