"""The loop: explore, register, test on a fresh fold, refine what failed, and write everything down.

Everything that is done is a step of the run folder, and everything that is claimed is in its ledger
before it is tested. A run that is killed and started again goes through the same steps, finds the ones
that are done, and ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosect.assay.calibrations import packaged
from prosect.assay.findings import write_findings
from prosect.assay.metrics import metrics
from prosect.assay.opened import Opened
from prosect.assay.run import Run
from prosect.assay.spec import Spec, dump
from prosect.assay.study import Study
from prosect.core.exhibits import Scatter
from prosect.core.intervals import INTERVAL_DRAWS
from prosect.core.progress import say, shown
from prosect.core.provenance import environment
from prosect.core.records import Evidence, Hypothesis, Measured, Note, Opening, Record
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict, verdicts
from prosect.report import build as build_page
from prosect.store.openings import record_opening
from prosect.store.run import RunFolder, finished, head_file, read_header
from prosect.validate.registration import register
from prosect.validate.session import Tested, open_fold
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations

Builder = Callable[[Spec, RunFolder], Opened]


def conduct(spec: Spec, out: Path, build: Builder, *, command: str = "", quiet: bool = False) -> Run:
    """Run the loop that a spec describes.

    Args:
        spec: resolved, every default included.
        out: the run folder; resumed if it holds a run of the same spec.
        build: makes the studies, opening whatever models they need.
        command: what reproduces the run, for the report.
        quiet: show no progress.

    Raises:
        Conflict: ``out`` holds another run or other files.
        ProsectError: whatever the steps refuse.
    """
    with shown(quiet):
        done = finished(out) if out.exists() else None
        if done is not None and read_header(out)["spec"] == dump(spec):
            if not (out / "report.html").exists():  # killed after the last record, before the page
                build_page(out)
            say(f"already done: {out / 'report.html'}")
            return Run(out, done, fresh=False)
        with RunFolder.open(out, dump(spec), environment(spec.device)) as run:
            if run.resumed:
                say(f"resuming {out}")
            return _conduct(spec, run, build(spec, run), command)


def _conduct(spec: Spec, run: RunFolder, opened: Opened, command: str) -> Run:
    studies = opened.studies
    for study in studies:
        study.explore()
    seen = Illustrations()
    owner: dict[str, Study] = {}
    for round in range(1, spec.validate_.rounds + 1):
        if not _round(spec, run, studies, round, seen, owner):
            break
    found = verdicts(run.ledger.records)
    checks = [c for h, v in found.items() if (c := owner[h].check(v.hypothesis)) is not None]
    run.append(*checks)
    openings = _sealed(run, spec, studies, found, owner) if spec.validate_.seal else []
    run.append(*packaged(found.values()))
    run.append(Note(about="end", text="the loop ended", data={"rounds": spec.validate_.rounds}))
    numbers = metrics(run.ledger.records, studies, seen)
    write_findings(spec, run, opened, seen, openings, command)
    head = run.finish(numbers)
    build_page(run.path)
    say(f"{head.count} ledger entries, head {head.hash[:16]}, kept in {head_file(run.path).name}")
    return Run(run.path, head)


def _round(
    spec: Spec,
    run: RunFolder,
    studies: Sequence[Study],
    round: int,
    seen: Illustrations,
    owner: dict[str, Study],
) -> bool:
    """One turn of the loop; False if there was nothing left to claim.

    ``owner`` learns which study made each claim: two of them may be about the same model and data.
    """
    fold = f"validate.{round - 1}"
    found = verdicts(run.ledger.records)
    drafts: list[tuple[Hypothesis, Subject]] = []
    whose: list[Study] = []
    for study in studies:
        made = study.draft(round, fold, {h: v for h, v in found.items() if owner[h] is study})
        drafts += [(h, study.subject) for h in made]
        whose += [study] * len(made)
    if not drafts:
        run.append(Note(about=f"round {round}", text="nothing was left to claim or refine"))
        return False
    known = {h: v.hypothesis for h, v in found.items()}
    frozen, family = register(drafts, round=round, rounds=spec.validate_.rounds, known=known)
    owner.update({h.id: study for h, study in zip(frozen, whose, strict=True)})
    run.append(*frozen, family)
    for name, subject in _subjects(studies).items():
        mine = [h for h in frozen if owner[h.id].subject is subject]
        if not mine:
            continue
        run.append(Opening(fold=fold, data=subject.source.digest, round=round, hypotheses=len(mine)))
        tested = _tested(run, name, subject, mine, fold, Seed(spec.seed).child("round", round, name))
        run.append(*tested.evidence)
        seen.add(tested.seen)
    return True


def _subjects(studies: Sequence[Study]) -> dict[str, Subject]:
    """Each model with its data once, under the name of the first study of it: a fold is read once for all claims."""
    out: dict[str, Subject] = {}
    for study in studies:
        if not any(s is study.subject for s in out.values()):
            out[study.name] = study.subject
    return out


def _tested(
    run: RunFolder, name: str, subject: Subject, claims: list[Hypothesis], fold: str, seed: Seed
) -> Tested:
    """The evidence of the claims about one subject, as a step of the run."""

    def make() -> dict[str, Any]:
        tested = open_fold(claims, subject, fold, seed)
        return {
            "evidence": [e.model_dump(mode="json") for e in tested.evidence],
            "scatters": {h: s.model_dump(mode="json") for h, s in tested.seen.scatters.items()},
            "outputs": {
                h: {str(i): m.model_dump(mode="json") for i, m in each.items()}
                for h, each in tested.seen.outputs.items()
            },
        }

    inputs = {"claims": [h.id for h in claims], "fold": fold, "seed": seed.integer}
    kept = run.json_step(f"evidence-{name}", inputs, make)
    seen = Illustrations(
        {h: Scatter.model_validate(s) for h, s in kept["scatters"].items()},
        {
            h: {int(i): Measured.model_validate(m) for i, m in each.items()}
            for h, each in kept["outputs"].items()
        },
    )
    return Tested([Evidence.model_validate(e) for e in kept["evidence"]], seen)


def _sealed(
    run: RunFolder,
    spec: Spec,
    studies: Sequence[Study],
    found: Mapping[str, Verdict],
    owner: Mapping[str, Study],
) -> list[tuple[str, int]]:
    """Supported claims measured once more on the sealed split: (data digest, earlier openings) of each."""
    out: list[tuple[str, int]] = []
    for name, subject in _subjects(studies).items():
        supported = [
            v.hypothesis
            for v in found.values()
            if v.overall == "supported" and owner[v.hypothesis.id].subject is subject
        ]
        if not supported or not subject.source.units.get("sealed"):
            continue
        data = subject.source.digest
        out.append((data, record_opening(data, run.id)))
        run.append(
            Opening(fold="sealed", data=data, round=spec.validate_.rounds + 1, hypotheses=len(supported))
        )
        copies = [sealed_copy(h) for h in supported]
        names = dict(zip([c.id for c in copies], [h.id for h in supported], strict=True))
        tested = _tested(run, name, subject, copies, "sealed", Seed(spec.seed).child("sealed", name))
        records: list[Record] = [
            e.model_copy(update={"hypothesis": names[e.hypothesis]}) for e in tested.evidence
        ]
        run.append(*records)
    return out


def sealed_copy(hypothesis: Hypothesis) -> Hypothesis:
    """The same claim with its tests set on the sealed split; a way to measure, not a new claim."""
    tests = tuple(
        p.model_copy(
            update={
                "fold": "sealed",
                "name": f"{p.name}@sealed",
                "draws": INTERVAL_DRAWS,
                "rivals": tuple(r for r in p.rivals if r.decides),
            }
        )
        for p in hypothesis.tests
    )
    return hypothesis.model_copy(update={"tests": tests})
