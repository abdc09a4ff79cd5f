"""Opening a fold: every test of a family in one pass, evidence appended in the order of registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prosect.core.progress import step
from prosect.core.records import Evidence, Hypothesis
from prosect.core.registries import TESTS
from prosect.core.seeds import Seed
from prosect.validate.subject import Subject
from prosect.validate.tester import DrawCache, Illustrated, Illustrations, Item, Tester


@dataclass(frozen=True)
class Tested:
    """What came of opening a fold: evidence in the order of registration, and pictures of it."""

    evidence: Sequence[Evidence]
    seen: Illustrations


def open_fold(hypotheses: Sequence[Hypothesis], subject: Subject, fold: str, seed: Seed) -> Tested:
    """Run every registered test of these hypotheses on one fold.

    Args:
        hypotheses: a closed family; plans for other folds are left out.
        subject: what they are about.
        fold: the part of the data to open.
        seed: of the resampling.

    Raises:
        OutOfScope: a claim was made about another model, data, dtype or tokenizer.
        UnknownName: a test of an unknown kind.
    """
    items: dict[str, list[Item]] = {}
    order: list[tuple[str, str]] = []
    for hypothesis in hypotheses:
        subject.check_scope(hypothesis)
        for plan in hypothesis.tests:
            if plan.fold == fold:
                items.setdefault(plan.kind, []).append(Item(hypothesis, plan))
                order.append((hypothesis.id, plan.name))
    testers: list[Tester] = [TESTS.get(kind)(found, subject, fold) for kind, found in items.items()]
    wanted = tuple(dict.fromkeys(site for tester in testers for site in tester.sites()))
    what = f"testing {len(order)} claims on {fold}"
    with (
        subject.metered("validate"),
        step(what, subject.source.units[fold], subject.source.unit) as shown,
    ):
        seen: set[int] = set()
        for batch in subject.batches(fold):
            trace = subject.model.run(batch, capture=wanted)
            subject.spend(batch, "validate")
            for tester in testers:
                tester.update(batch, trace, trace.output)
            new = set(batch.units.tolist()) - seen
            seen |= new
            shown.advance(len(new))
        draws = DrawCache(seed)
        found = {(e.hypothesis, e.test): e for tester in testers for e in tester.finish(draws)}
    pictures = Illustrations()
    for tester in testers:
        if isinstance(tester, Illustrated):
            pictures.add(tester.illustrate())
    return Tested([found[key] for key in order], pictures)
