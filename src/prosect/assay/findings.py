"""Writes what the report reads: an exhibit for each component, and the findings of the run."""

from __future__ import annotations

from collections.abc import Sequence

from prosect.assay.metrics import clears
from prosect.assay.opened import Opened
from prosect.assay.spec import Spec
from prosect.core.canonical import canonical_json
from prosect.core.exhibits import FigureTable, Findings, SiteCell
from prosect.core.pictures import Picture
from prosect.core.records import Evidence
from prosect.core.verdicts import verdicts
from prosect.store.atomic import write_bytes
from prosect.store.run import RunFolder
from prosect.validate.tester import Illustrations


def write_findings(
    spec: Spec,
    run: RunFolder,
    opened: Opened,
    seen: Illustrations,
    openings: Sequence[tuple[str, int]],
    command: str,
) -> None:
    """Exhibits and findings of a run that has ended; the page is made from them."""
    found = verdicts(run.ledger.records)
    cells: list[SiteCell] = []
    tables: list[FigureTable] = []
    pictures: list[Picture] = []
    decisions, limits = list(opened.decisions), list(opened.limits)
    cost: dict[str, int] = {}
    for study in opened.studies:
        shown = study.show(found, seen)
        for exhibit in shown.exhibits:
            write_bytes(run.path / "exhibits" / f"{exhibit.slug}.json", canonical_json(exhibit) + b"\n")
        cells += shown.map
        tables += shown.tables
        pictures += shown.pictures
        decisions += shown.decisions
        limits += shown.limits
    for subject in {id(s.subject): s.subject for s in opened.studies}.values():
        for key, amount in subject.cost.items():
            cost[key] = cost.get(key, 0) + amount
    findings = Findings(
        title=title(spec),
        question=question(spec, opened),
        model=opened.model,
        model_facts=opened.model_facts,
        data=opened.data,
        map=tuple(cells),
        splits=tuple(opened.splits),
        tables=tuple(tables),
        pictures=tuple(pictures),
        decisions=tuple(decisions),
        limits=(*limits, *LIMITS),
        cost=dict(sorted(cost.items())),
        partial=f"limited to {spec.limit} documents or inputs in each part" if spec.limit else "",
        command=command,
        unit=opened.studies[0].subject.source.unit if opened.studies else "",
        sealed=sealed_words(run, openings),
    )
    write_bytes(run.path / "findings.json", canonical_json(findings) + b"\n")


TITLES = {
    "patching": "Where {} finds its answer",
    "lens": "What the layers of {} already say",
    "flow": "What the heads of {} get from where they look",
    "steering": "What a direction does to {}",
    "probing": "What can be read off {}",
    "attribution": "What the answers of {} depend on",
    "synthesis": "What activates units of {}",
}
"""Titles of runs with one study; any other run says what the network is made of."""


def title(spec: Spec) -> str:
    """The page's title."""
    alone = spec.studies[0] if len(spec.studies) == 1 else ""
    return TITLES.get(alone, "What {} is made of").format(spec.target)


LIMITS = (
    "a rule that predicts an activation need not be how the network computes it",
    "components were described one at a time; what several do together was not examined",
    "precision on organisms says nothing certain of larger models: transfer is unmeasured",
)


def question(spec: Spec, opened: Opened) -> str:
    """What was asked, in one sentence."""
    what = {
        "latents": "which of its directions can be predicted from the text, and change the outputs they seem to",
        "heads": "which of its attention heads look where a simple role says, and matter there",
        "residues": "which of its neurons are waves of one frequency, and whether those suffice",
        "features": "which of its latents stand for one input",
        "patching": "which places carry what an answer depends on",
        "lens": "where its prediction can already be read",
        "flow": "which of its heads get what matters from where they look",
        "attribution": "which inputs an answer depends on, and which maps of that can be believed",
        "steering": "what a direction does as more of it is added",
        "probing": "where a concept can be read off by a line, and whether several sites together say more",
        "synthesis": "which strings of tokens activate its units, beyond what text does",
        "replacement": "whether it still works with its parts replaced by their descriptions",
    }
    asked = [what[s] for s in spec.studies if s in what]
    false_by_construction = " In this run every claim is false by construction." if spec.null else ""
    return f"Of {spec.target}: " + "; ".join(asked) + "?" + false_by_construction


def sealed_words(run: RunFolder, openings: Sequence[tuple[str, int]]) -> str:
    """What the sealed split said."""
    sealed = [r for r in run.ledger.records if isinstance(r, Evidence) and r.test.endswith("@sealed")]
    if not sealed:
        return "The sealed split was not opened."
    cleared = sum(clears(e) for e in sealed)
    again = sum(n for _, n in openings)
    words = (
        f"{cleared} of {len(sealed)} supported tests clear every margin again on the sealed split, "
        "which nothing had seen."
    )
    if again:
        words += (
            f" This machine's record shows {again} earlier run(s) that opened the same split, so its figures "
            "are no longer fresh."
        )
    return words
