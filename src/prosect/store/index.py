"""The SQLite index of a ledger: rebuilt from it at will, never the truth. Auditors can open it anywhere."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from prosect.core.canonical import canonical_json
from prosect.core.records import Evidence, Hypothesis
from prosect.core.schema import kind_of
from prosect.core.verdicts import Verdict, verdicts
from prosect.store.atomic import replacing
from prosect.store.ledger import Entry, parse

TABLES = """
create table entries (n integer primary key, kind text, hash text, prev text, body text);
create table hypotheses (id text primary key, round integer, component text, side text, words text,
  explainer text, draw text, parent text, state text, overall text);
create table evidence (hypothesis text, test text, estimate real, low real, high real, p real, units integer,
  enough integer);
create table comparisons (hypothesis text, test text, rival text, role text, decides integer, estimate real,
  difference real, low real, high real, margin real, p real);
"""


def rebuild(ledger: Path, index: Path) -> None:
    """Make ``index`` anew from ``ledger``.

    Raises:
        VerificationFailed: the ledger's chain does not hold.
        BadInput: the disk is full.
    """
    entries, _ = parse(ledger)
    found = verdicts(e.record for e in entries)
    with replacing(index) as temporary:
        try:
            _fill(temporary, entries, found)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(index)) from error


def _fill(path: Path, entries: list[Entry], found: Mapping[str, Verdict]) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(TABLES)
        for e in entries:
            body = canonical_json(e.record).decode()
            db.execute(
                "insert into entries values (?,?,?,?,?)", (e.n, kind_of(e.record), e.hash, e.prev, body)
            )
            if isinstance(e.record, Hypothesis):
                h, own = e.record, e.record.id
                v = found[own]
                db.execute(
                    "insert or ignore into hypotheses values (?,?,?,?,?,?,?,?,?,?)",
                    (
                        own,
                        h.round,
                        h.component.name,
                        h.side,
                        h.description.words,
                        h.explainer,
                        h.draw,
                        h.parent,
                        v.state,
                        v.overall,
                    ),
                )
            elif isinstance(e.record, Evidence):
                ev, m = e.record, e.record.measured
                db.execute(
                    "insert into evidence values (?,?,?,?,?,?,?,?)",
                    (ev.hypothesis, ev.test, m.estimate, m.low, m.high, ev.p, ev.units, int(ev.enough)),
                )
                for c in ev.comparisons:
                    d = c.difference
                    db.execute(
                        "insert into comparisons values (?,?,?,?,?,?,?,?,?,?,?)",
                        (
                            ev.hypothesis,
                            ev.test,
                            c.rival,
                            c.role,
                            int(c.decides),
                            c.measured.estimate,
                            d.estimate,
                            d.low,
                            d.high,
                            c.margin,
                            c.p,
                        ),
                    )
        db.commit()
