"""Level 1 for activations, on networks whose rules are known."""

import numpy as np
import pytest

from prosect.core.errors import OutOfScope
from prosect.core.records import Executable
from prosect.core.seeds import Seed
from prosect.validate.session import open_fold
from prosect.validate.subject import runnable
from subjects import (
    claim,
    constant_rule,
    control,
    formula,
    modular_subject,
    plan,
    planted_subject,
    token_rule,
)


def waves(truth):
    return [v for v in truth.variables if v.kind == "trigonometric"]


@pytest.fixture(scope="module")
def modular():
    return modular_subject()


def test_a_true_formula_predicts_and_a_wrong_one_does_not(modular):
    subject, truth, neurons = modular
    right, wrong = (
        waves(truth)[0],
        next(v for v in waves(truth) if v.parameters["frequency"] != waves(truth)[0].parameters["frequency"]),
    )
    c = neurons.component(right.index)
    tests = [plan(rivals=[control("flat", descriptions=[formula(wrong)])])]
    found = open_fold(
        [
            claim(subject, c, cause=formula(right), tests=tests),
            claim(subject, c, cause=formula(wrong), tests=tests),
        ],
        subject,
        "validate.0",
        Seed(0),
    )
    good, bad = found.evidence
    assert good.measured.estimate > 0.99
    assert good.p < 0.01
    assert abs(bad.measured.estimate) < 0.4
    assert bad.comparisons[0].difference.estimate == pytest.approx(0.0)
    assert bad.p == 1.0
    assert good.units == subject.source.units["validate.0"]


def test_the_metric_is_the_correlation_over_every_unseen_input(modular):
    subject, truth, neurons = modular
    v, other = waves(truth)[3:5]
    code = runnable(formula(v), subject.shelf)
    x, y = [], []
    for batch in subject.batches("validate.0"):
        hidden = subject.model.run(batch, capture=("hidden",))["hidden"]
        x.append(hidden[:, v.index].double().numpy())
        y.append(code.activation(batch))
    expected = np.corrcoef(np.concatenate(x), np.concatenate(y))[0, 1]
    tests = [plan(rivals=[control("c", descriptions=[formula(other)])])]
    c = claim(subject, neurons.component(v.index), cause=formula(v), tests=tests)
    got = open_fold([c], subject, "validate.0", Seed(0)).evidence[0]
    assert got.measured.estimate == pytest.approx(expected, abs=1e-9)
    assert got.measured.low <= expected <= got.measured.high


def test_evidence_comes_in_the_order_of_registration_whatever_the_kinds(modular):
    subject, truth, neurons = modular
    outputs = [
        Executable(
            kind="trigonometric-output",
            parameters={
                "p": 31,
                "k": v.effect["frequency"],
                "theta": v.effect["phase"],
                "amplitude": v.effect["amplitude"],
                "cause": None,
                "level": 1.0,
            },
        )
        for v in waves(truth)[:3]
    ]
    claims = []
    for i, v in enumerate(waves(truth)[:3]):
        c = neurons.component(v.index)
        claims.append(
            claim(
                subject,
                c,
                cause=formula(v),
                tests=[plan(rivals=[control("c", descriptions=[formula(waves(truth)[5])])])],
            )
        )
        claims.append(
            claim(
                subject,
                c,
                effect=outputs[i],
                tests=[plan(kind="change-outputs", rivals=[control("c", descriptions=[outputs[i - 1]])])],
            )
        )
    found = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    assert [e.hypothesis for e in found] == [c.id for c in claims]


def test_the_same_seed_gives_the_same_evidence(modular):
    subject, truth, neurons = modular
    v = waves(truth)[0]
    c = claim(
        subject,
        neurons.component(v.index),
        cause=formula(v),
        tests=[plan(rivals=[control("c", descriptions=[formula(waves(truth)[1])])])],
    )
    one, two = (open_fold([c], subject, "validate.0", Seed(5)).evidence for _ in range(2))
    assert one == two


def test_a_claim_about_something_else_is_not_tested(modular):
    subject, truth, neurons = modular
    v = waves(truth)[0]
    c = claim(subject, neurons.component(v.index), cause=formula(v), tests=[plan(rivals=[])])
    other = c.model_copy(update={"scope": c.scope.model_copy(update={"data": "0" * 64})})
    with pytest.raises(OutOfScope, match="data"):
        open_fold([other], subject, "validate.0", Seed(0))


def test_the_statistical_null_breaks_a_true_rule():
    for null, holds in (("", True), ("statistical", False)):
        subject, truth, neurons = modular_subject(null=null)
        v = waves(truth)[0]
        tests = [plan(rivals=[control("c", descriptions=[formula(waves(truth)[7])])])]
        c = claim(subject, neurons.component(v.index), cause=formula(v), tests=tests)
        found = open_fold([c], subject, "validate.0", Seed(0)).evidence[0]
        assert (found.measured.estimate > 0.9) is holds


def test_planted_rules_predict_as_well_as_they_were_planted_to():
    subject, truth, neurons, controls = planted_subject()
    rules = [v for v in truth.variables if v.kind == "token-rule" and v.parameters["previous"] is None]
    tests = [
        plan(
            rivals=[
                control(
                    "random-direction",
                    components=[controls.component(i) for i in range(4)],
                    descriptions=[constant_rule()] * 4,
                )
            ],
            unit="cluster",
            firing_min=20,
        )
    ]
    claims = []
    for v in rules:
        tree = {"value": 0.0}
        for token, strength in zip(v.parameters["current"], v.parameters["strengths"], strict=True):
            tree = {
                "if": {"what": "token", "back": 0, "tokens": [token]},
                "then": {"value": strength},
                "else": tree,
            }
        cause = Executable(kind="token-rule", parameters={"tree": tree})
        claims.append(claim(subject, neurons.component(v.index), cause=cause, tests=tests))
    found = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    for v, e in zip(rules, found, strict=True):
        if e.enough:
            assert e.measured.estimate == pytest.approx(v.parameters["correlation"], abs=0.12)
    assert sum(e.enough for e in found) > 5


def test_a_component_that_is_rarely_active_cannot_be_judged():
    subject, truth, neurons, _ = planted_subject()
    dead = next(v for v in truth.variables if v.parameters.get("sort") == "dead")
    c = claim(
        subject,
        neurons.component(dead.index),
        cause=token_rule([3]),
        tests=[plan(rivals=[control("c", descriptions=[token_rule([4])])], unit="cluster", firing_min=20)],
    )
    e = open_fold([c], subject, "validate.0", Seed(0)).evidence[0]
    assert not e.enough
    assert "active in 0 units" in e.note
