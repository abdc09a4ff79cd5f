"""Registering: what is frozen, what is refused."""

import pytest

from prosect.core.errors import BadInput, Conflict, OutOfScope, TooLittleData
from prosect.validate.registration import ALPHA, register
from subjects import claim, constant_rule, control, modular_subject, plan


@pytest.fixture(scope="module")
def made():
    subject, _, neurons = modular_subject()
    return subject, neurons


def drafts(made, n=3, **given):
    subject, neurons = made
    tests = [plan(rivals=[control("x", descriptions=[constant_rule()])], **given)]
    return [
        (claim(subject, neurons.component(i), cause=constant_rule(), tests=tests), subject) for i in range(n)
    ]


def test_draws_are_raised_until_the_corrected_threshold_can_be_reached(made):
    frozen, family = register(drafts(made, 40), round=1, rounds=2, known={})
    assert family.alpha == ALPHA / 2
    assert family.tests == 40
    assert family.hypotheses == tuple(h.id for h in frozen)
    for h in frozen:
        assert h.tests[0].smallest_p < family.alpha / family.tests


def test_rounds_share_the_error_budget(made):
    budget = sum(register(drafts(made), round=r, rounds=4, known={})[1].alpha for r in range(1, 5))
    assert budget == pytest.approx(ALPHA)


def test_what_is_frozen_changes_the_id(made):
    frozen, _ = register(drafts(made, 2), round=1, rounds=1, known={})
    other = frozen[0].tests[0].rivals[0].model_copy(update={"margin": 0.0})
    eased = frozen[0].model_copy(
        update={"tests": (frozen[0].tests[0].model_copy(update={"rivals": (other,)}),)}
    )
    assert eased.id != frozen[0].id


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"fold": "explore"}, BadInput, "explore was looked at"),
        ({"fold": "sealed"}, BadInput, "sealed is for the end"),
        ({"fold": "validate.7"}, BadInput, "validate.0"),
        ({"units_min": 39}, TooLittleData, "at least 40"),
        ({"kind": "learned", "draws": 30}, BadInput, "more untrained networks"),
    ],
)
def test_plans_that_cannot_judge_are_refused(made, given, error, match):
    with pytest.raises(error, match=match):
        register(drafts(made, **given), round=1, rounds=2, known={})


def test_nothing_to_register_and_claims_without_tests_are_refused(made):
    subject, neurons = made
    with pytest.raises(BadInput, match="no claim"):
        register([], round=1, rounds=1, known={})
    with pytest.raises(BadInput, match="without a test"):
        register(
            [(claim(subject, neurons.component(0), cause=constant_rule()), subject)],
            round=1,
            rounds=1,
            known={},
        )
    with pytest.raises(BadInput, match="no more rounds"):
        register(drafts(made), round=2, rounds=1, known={})


def test_a_claim_about_another_model_is_refused(made):
    subject, _ = made
    (draft, _), *_ = drafts(made)
    other = draft.model_copy(update={"scope": draft.scope.model_copy(update={"model": "f" * 64})})
    with pytest.raises(OutOfScope, match="made for model"):
        register([(other, subject)], round=1, rounds=1, known={})


def test_a_lineage_has_one_budget_and_fresh_folds(made):
    frozen, _ = register(drafts(made), round=1, rounds=2, known={})
    known = {h.id: h for h in frozen}
    subject, neurons = made
    tests = [plan(rivals=[control("x", descriptions=[constant_rule()])], fold="validate.1")]

    def second(parent, fold="validate.1"):
        own = [tests[0].model_copy(update={"fold": fold})]
        return claim(subject, neurons.component(0), cause=constant_rule(2.0), tests=own, parent=parent)

    with pytest.raises(Conflict, match="naming the parent"):
        register([(second(None), subject)], round=2, rounds=2, known=known)
    with pytest.raises(BadInput, match="parent"):
        register([(second("f" * 16), subject)], round=2, rounds=2, known=known)
    with pytest.raises(Conflict, match="opened before"):
        register([(second(frozen[0].id, "validate.0"), subject)], round=2, rounds=2, known=known)
    again, family = register([(second(frozen[0].id), subject)], round=2, rounds=2, known=known)
    assert again[0].parent == frozen[0].id
    assert family.round == 2


def test_the_same_claim_is_not_registered_twice(made):
    (draft, subject), *_ = drafts(made)
    with pytest.raises(Conflict, match="twice"):
        register([(draft, subject), (draft, subject)], round=1, rounds=1, known={})
