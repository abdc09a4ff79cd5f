"""The numbers of a run: verdict counts and figures. No times and no paths, so that a resumed run ends the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prosect.assay.study import Study
from prosect.core.records import Evidence, Record
from prosect.core.verdicts import Verdict, verdicts
from prosect.validate.tester import Illustrations


def metrics(records: Sequence[Record], studies: Sequence[Study], seen: Illustrations) -> dict[str, Any]:
    """Everything a program would want to know of a run."""
    found = verdicts(records)
    by_method: dict[str, Counter[str]] = {}
    for v in found.values():
        key = f"{v.hypothesis.explainer} {v.hypothesis.side} {v.hypothesis.draw}"
        by_method.setdefault(key, Counter())[v.overall] += 1
    sealed = [r for r in records if isinstance(r, Evidence) and r.test.endswith("@sealed")]
    cost: Counter[str] = Counter()
    figures: dict[str, Any] = {}
    for subject in {id(s.subject): s.subject for s in studies}.values():
        cost.update(subject.cost)
    for study in studies:
        figures.update(study.show(found, seen).metrics)
    return {
        "claims": len(found),
        "verdicts": dict(Counter(v.overall for v in found.values())),
        "by method": {k: dict(c) for k, c in sorted(by_method.items())},
        "truth": _truth(found),
        "rounds": sorted({v.hypothesis.round for v in found.values()}),
        "refined": sum(v.hypothesis.parent is not None for v in found.values()),
        "replicated on sealed": _replicated(found, sealed),
        "cost": dict(sorted(cost.items())),
        "figures": figures,
    }


def _truth(found: Mapping[str, Verdict]) -> dict[str, Any]:
    """How supported and other claims stand to the organism's truth."""
    spoken = [v for v in found.values() if v.truth is not None and v.truth.holds is not None]
    return {
        "spoken of": len(spoken),
        "supported": sum(v.overall == "supported" for v in spoken),
        "supported and true": sum(
            v.overall == "supported" and bool(v.truth and v.truth.holds) for v in spoken
        ),
        "true": sum(bool(v.truth and v.truth.holds) for v in spoken),
    }


def _replicated(found: Mapping[str, Verdict], sealed: Sequence[Evidence]) -> dict[str, int]:
    """Supported claims whose every deciding margin is cleared again, and how many were tried."""
    cleared = sum(clears(e) for e in sealed)
    return {"tried": len(sealed), "cleared": cleared}


def clears(evidence: Evidence) -> bool:
    """Whether every deciding difference exceeds its margin; an estimate, not a test."""
    return all(
        c.difference.estimate is not None and c.difference.estimate > c.margin
        for c in evidence.comparisons
        if c.decides
    )
