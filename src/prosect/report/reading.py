"""A run folder as records, with what is wrong with it said rather than guessed.

Only JSON is read; nothing from the run is executed and no path in it is followed out of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prosect.core.canonical import Json, canonical_json, digest
from prosect.core.errors import BadInput, VerificationFailed
from prosect.core.exhibits import Exhibit, Findings
from prosect.core.records import Family, Hypothesis, Record
from prosect.core.schema import unwrap
from prosect.core.verdicts import Verdict, verdicts
from prosect.report.text import prose
from prosect.store.ledger import GENESIS, Entry, Head, check_head, head_of, parse, read_head
from prosect.store.run import finished, head_file, inside, read_header
from prosect.store.verify import check_rules

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Shelved:
    """Where an exhibit lies, and what filters need of it; the rest is read when its card is drawn."""

    path: Path
    kind: str
    site: str
    layer: int

    def read(self) -> Exhibit:
        """The whole exhibit."""
        return _record(self.path, Exhibit)


@dataclass(frozen=True)
class Run:
    """Everything that a report may show.

    Attributes:
        header: spec and provenance.
        entries: the ledger's lines, those before the break where it is broken.
        broken: how the ledger does not hold; empty if it does.
        lost: lines after the break, which are not read.
        finished: whether the run ended.
        verdicts: by hypothesis id, in order of registration.
        findings: what the run says of itself; a stand-in where it did not come so far.
        stand_in: whether ``findings`` is one.
        exhibits: by component name.
        metrics: numbers of the whole run.
        repairs: lines torn by a crash and mended.
    """

    header: Json
    entries: tuple[Entry, ...]
    broken: str
    lost: int
    finished: bool
    verdicts: dict[str, Verdict]
    findings: Findings
    stand_in: bool
    exhibits: dict[str, Shelved]
    metrics: Json
    repairs: int

    @property
    def head(self) -> Head:
        """Count and hash of the last line that holds."""
        return head_of(self.entries)


def read_run(run: Path, *, exhibits: bool = True) -> Run:
    """Read a run folder.

    Args:
        run: the folder.
        exhibits: whether to look through the exhibits too.

    Raises:
        BadInput: this is no run folder, or a file in it is malformed (it is named).
        NewerSchema: a later prosect wrote it.
        UnsafeFile: a file in it is a link that leads out.
    """
    run = Path(run)
    header = read_header(run)
    if not isinstance(header, dict):
        raise BadInput(f"{run / 'run.json'}, which holds no header", "spec and provenance of a run")
    done = finished(run)
    entries, broken, lost = _ledger(run, done)
    path = inside(run, "findings.json")
    there = path.exists()
    return Run(
        header=header,
        entries=tuple(entries),
        broken=broken,
        lost=lost,
        finished=done is not None,
        verdicts=_judged(entries, whole=not broken),
        findings=_record(path, Findings) if there else stand_in(),
        stand_in=not there,
        exhibits=_exhibits(run) if exhibits else {},
        metrics=_json(inside(run, "metrics.json")),
        repairs=_lines(inside(run, "repairs.jsonl")),
    )


def stand_in() -> Findings:
    """What is said of a run that ended before it could say anything of itself."""
    return Findings(
        title="A run without findings",
        question="The run ended before it wrote down its question.",
        model="not recorded",
        data="not recorded",
    )


def _ledger(run: Path, done: Head | None) -> tuple[list[Entry], str, int]:
    path = inside(run, "ledger.jsonl")
    if done is not None and done.count and not path.exists():
        return [], "ledger.jsonl is missing", 0
    try:
        entries, _ = parse(path, allow_torn=done is None)
    except VerificationFailed as error:
        entries, lost = _before_the_break(path)
        return entries, str(error), lost
    try:
        check_head(entries, read_head(head_file(run)), finished=done is not None)
        check_head(entries, done, finished=done is not None)
        check_rules(e.record for e in entries)
    except VerificationFailed as error:
        return entries, str(error), 0
    return entries, "", 0


def _judged(entries: list[Entry], whole: bool) -> dict[str, Verdict]:
    """Verdicts; in a ledger that does not hold, a family that names unregistered claims judges nothing."""
    if whole:
        return verdicts(e.record for e in entries)
    known = {e.record.id for e in entries if isinstance(e.record, Hypothesis)}
    return verdicts(
        e.record for e in entries if not isinstance(e.record, Family) or known.issuperset(e.record.hypotheses)
    )


def _before_the_break(path: Path) -> tuple[list[Entry], int]:
    """The lines whose chain holds from the first on, and how many lines follow them."""
    lines = path.read_bytes().splitlines()
    entries: list[Entry] = []
    prev = GENESIS
    for n, raw in enumerate(lines):
        try:
            content = json.loads(raw)
            own = content.pop("hash")
            whole = canonical_json({**content, "hash": own}) == raw and digest(content) == own
            if not whole or content["prev"] != prev or content["n"] != n:
                break
            entries.append(Entry(n, unwrap(content), prev, own))
        except (ValueError, KeyError, TypeError, AttributeError):
            break
        prev = own
    return entries, len(lines) - len(entries)


def _exhibits(run: Path) -> dict[str, Shelved]:
    found: dict[str, Shelved] = {}
    folder = inside(run, "exhibits")
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        made = _record(inside(run, f"exhibits/{path.name}"), Exhibit)
        name = made.component.name
        if name in found:
            raise BadInput(f"two exhibits of {name!r} ({found[name].path.name}, {path.name})", "one")
        found[name] = Shelved(path, made.kind, made.site, made.layer)
    return found


def _record(path: Path, cls: type[R]) -> R:
    try:
        return cls.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise BadInput(
            f"a malformed {path.parent.name}/{path.name} ({prose(error, 300)})",
            f"the fields of {cls.__name__}",
            "running the same command again",
        ) from error


def _json(path: Path) -> Json:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInput(f"{path.name}, which is not JSON ({error})", "the metrics of a run") from error


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0
