"""`prosect verify`: does a run's ledger hold, and does what it says follow the rules?

First the chain (nothing edited, deleted, inserted, reordered or lost at the end), then the order of
events: claims registered before their family closed, families closed before a fold opened, evidence only
for registered tests on opened folds, each fold once per lineage.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prosect.core.errors import BadInput, VerificationFailed
from prosect.core.records import Evidence, Family, Hypothesis, Opening, Record
from prosect.store.ledger import Head, check_head, head_of, parse, read_head
from prosect.store.run import finished, head_file, inside


def verify(run: Path, head: str | None = None) -> Head:
    """Check a run folder.

    Args:
        run: the folder.
        head: a head hash published elsewhere, to compare with; a prefix of at least 8 digits will do.

    Returns:
        Count and head of the ledger that was found to hold.

    Raises:
        VerificationFailed: it does not hold; the message says where and how.
        BadInput: there is no ledger here, or ``head`` is too short to mean anything.
        UnsafeFile: the ledger is a link that leads out of the folder.
    """
    run = Path(run)
    path = inside(run, "ledger.jsonl")
    if not path.exists():
        raise BadInput(f"{run}, which holds no ledger.jsonl", "a run folder", "prosect run")
    done = finished(run)
    entries, _ = parse(path, allow_torn=done is None)
    beside = read_head(head_file(run))
    if done is not None and beside is None:
        raise VerificationFailed(f"{head_file(run).name}, the head kept beside the run, is missing")
    check_head(entries, beside, finished=done is not None)
    check_head(entries, done, finished=done is not None)
    found = head_of(entries)
    if head is not None:
        if len(head) < 8:
            raise BadInput(f"the head {head!r}", "at least 8 hex digits of a published head")
        if not found.hash.startswith(head.lower()):
            raise VerificationFailed(f"the ledger's head is {found.hash[:16]}…, not {head}: it was rewritten")
    check_rules(e.record for e in entries)
    return found


def lineage(own: str, known: dict[str, Hypothesis]) -> str:
    """The id of the first ancestor of the known hypothesis with id ``own``."""
    seen = {own}
    while (parent := known[own].parent) is not None and parent in known and parent not in seen:
        own = parent
        seen.add(own)
    return own


def check_rules(records: Iterable[Record]) -> None:
    """The order of events.

    Raises:
        VerificationFailed: a rule is broken; the message names the record.
    """
    known: dict[str, Hypothesis] = {}
    closed: set[str] = set()
    opened: set[tuple[str, int]] = set()
    used: dict[tuple[str, str], int] = {}
    done: set[tuple[str, str]] = set()
    for record in records:
        match record:
            case Hypothesis():
                own = record.id
                if own in known:
                    raise VerificationFailed(f"hypothesis {own} is registered twice")
                if record.parent is not None and record.parent not in known:
                    raise VerificationFailed(f"hypothesis {own} names a parent that is not in the ledger")
                known[own] = record
                first = lineage(own, known)
                for fold in {t.fold for t in record.tests}:
                    place = (first, fold)
                    if used.setdefault(place, record.round) != record.round:
                        raise VerificationFailed(
                            f"hypothesis {own} reuses fold {fold}, which its lineage already opened"
                        )
            case Family():
                missing = [h for h in record.hypotheses if h not in known]
                if missing:
                    raise VerificationFailed(f"a family lists {missing[0]}, which is not registered")
                if sum(len(known[h].tests) for h in record.hypotheses) != record.tests:
                    raise VerificationFailed(f"the family of round {record.round} miscounts its tests")
                left_out = {h for h, k in known.items() if k.round == record.round} - set(record.hypotheses)
                if left_out:
                    raise VerificationFailed(f"the family of round {record.round} leaves out {min(left_out)}")
                closed.update(record.hypotheses)
            case Opening():
                opened.add((record.fold, record.round))
            case Evidence():
                hypothesis = known.get(record.hypothesis)
                if hypothesis is None or record.hypothesis not in closed:
                    raise VerificationFailed(
                        f"evidence for {record.hypothesis} comes before its family was closed"
                    )
                if (record.hypothesis, record.test) in done:
                    raise VerificationFailed(f"{record.hypothesis} was tested twice by {record.test}")
                done.add((record.hypothesis, record.test))
                plan = next((t for t in hypothesis.tests if t.name == record.test), None)
                fold = plan.fold if plan else "sealed"
                if plan is None and not record.test.endswith("@sealed"):
                    raise VerificationFailed(f"{record.hypothesis} was never registered for {record.test}")
                if fold not in {f for f, r in opened if plan is None or r == hypothesis.round}:
                    raise VerificationFailed(
                        f"evidence for {record.hypothesis} on {fold}, which was not opened"
                    )
            case _:
                pass
