"""Verdicts are a pure function of the ledger: what each state and outcome requires."""

import pytest

from claims import evidence, family, hypothesis, plan
from prosect.core.proportions import share
from prosect.core.records import Calibration, TruthCheck
from prosect.core.verdicts import combine, verdicts


def one(*records):
    return next(iter(verdicts(records).values()))


def test_a_registered_claim_is_not_tested_yet():
    h = hypothesis()
    v = one(h, family(1, h))
    assert (v.state, v.overall, v.levels) == ("registered", "not tested", {1: "not tested"})


def test_a_claim_without_evidence_cannot_be_supported_by_anything_else():
    h, other = hypothesis(0), hypothesis(1)
    found = verdicts(
        [h, other, family(1, h, other), evidence(other), TruthCheck(hypothesis=h.id, holds=True)]
    )
    assert found[h.id].overall == "not tested"
    assert found[other.id].overall == "supported"


def test_evidence_outside_a_closed_family_decides_nothing():
    h = hypothesis()
    assert one(h, evidence(h)).overall == "not tested"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"p": 0.001}, "supported"),
        ({"p": 0.2, "difference": -0.2}, "refuted"),
        ({"p": 0.2, "difference": 0.1}, "inconclusive"),
        ({"p": 0.001, "enough": False}, "inconclusive"),
        ({"p": None}, "inconclusive"),
    ],
)
def test_outcomes(made, expected):
    h = hypothesis()
    v = one(h, family(1, h), evidence(h, **made))
    assert v.overall == expected
    assert v.levels == {1: expected}
    assert v.state == "tested"


def test_holm_counts_every_registered_test_not_only_those_that_ran():
    claims = [hypothesis(i) for i in range(30)]
    v = verdicts([*claims, family(1, *claims), evidence(claims[0], p=0.001)])
    assert v[claims[0].id].overall == "inconclusive"  # .001 × 30 > .025
    v = verdicts([*claims[:10], family(1, *claims[:10]), evidence(claims[0], p=0.001)])
    assert v[claims[0].id].overall == "supported"


def test_too_little_data_never_counts_as_a_small_p():
    a, b = hypothesis(0), hypothesis(1)
    v = verdicts([a, b, family(1, a, b), evidence(a, p=1e-6, enough=False), evidence(b, p=0.02)])
    assert v[a.id].overall == "inconclusive"
    assert v[b.id].tests["predicts"].holm == pytest.approx(0.04)


def test_the_first_evidence_counts_and_a_second_try_changes_nothing():
    h = hypothesis()
    v = one(h, family(1, h), evidence(h, p=0.5, difference=-0.3), evidence(h, p=1e-6))
    assert v.overall == "refuted"


def test_levels_are_a_set():
    h = hypothesis(tests=(plan("predicts"), plan("replaces", level=3)))
    v = one(h, family(1, h), evidence(h, "replaces", p=1e-4), evidence(h, "predicts", p=0.9, difference=-0.3))
    assert v.levels == {1: "refuted", 3: "supported"}
    assert v.overall == "refuted"


def test_tests_without_a_level_do_not_decide():
    h = hypothesis(tests=(plan("predicts"), plan("learned", level=None)))
    v = one(h, family(1, h), evidence(h, "predicts", p=1e-4), evidence(h, "learned", p=0.9, difference=-0.3))
    assert v.overall == "supported"
    assert v.tests["learned"].outcome == "refuted"


def test_combining():
    assert combine([]) == "not tested"
    assert combine(["supported", "not tested"]) == "not tested"
    assert combine(["refuted", "not tested"]) == "refuted"
    assert combine(["supported", "inconclusive"]) == "inconclusive"


def calibration(true, supported, method="rules@1", side="cause"):
    return Calibration(
        method=method,
        side=side,
        organism="planted",
        supported=supported,
        true=true,
        precision=share(true, supported),
        recall=share(1, 2),
        seeds=20,
        code="c",
    )


def test_level_four_belongs_to_the_method_and_needs_its_whole_interval():
    h = hypothesis()
    assert one(h, calibration(40, 40)).earned
    assert not one(h, calibration(9, 10)).earned
    assert not one(h, calibration(40, 40, side="effect")).earned
    assert not one(h, calibration(40, 40, method="rules@2")).earned
    assert not one(h, calibration(40, 40), calibration(2, 40)).earned
    assert one(h).method == ()
