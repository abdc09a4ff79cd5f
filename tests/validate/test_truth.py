"""Claims against truth: what counts as true, and what the truth does not speak of."""

import math

import numpy as np
import pytest

from prosect.core.records import Component, Executable
from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth, Variable
from prosect.core.verdicts import earns_level_four
from prosect.validate.truth import calibrate, check, rule_tokens, tally
from subjects import (
    claim,
    formula,
    head,
    induction_subject,
    modular_subject,
    planted_subject,
    role,
    token_rule,
)


def test_a_frequency_is_true_under_any_of_its_names_and_false_otherwise():
    subject, truth, neurons = modular_subject()
    v = next(v for v in truth.variables if v.kind == "trigonometric")
    c = neurons.component(v.index)
    said = formula(v)
    assert check(claim(subject, c, cause=said), truth).holds
    turned = {k: said.parameters[k] + math.pi for k in ("phi", "psi")}
    assert check(
        claim(subject, c, cause=said.model_copy(update={"parameters": {**said.parameters, **turned}})), truth
    ).holds
    for wrong in ({"k": v.parameters["frequency"] % 15 + 1}, {"phi": said.parameters["phi"] + 0.5}):
        bad = said.model_copy(update={"parameters": {**said.parameters, **wrong}})
        assert check(claim(subject, c, cause=bad), truth).holds is False
    decoy = next(v for v in truth.variables if v.kind == "nothing")
    assert check(claim(subject, neurons.component(decoy.index), cause=said), truth).holds is False


def test_roles_are_compared_and_effects_ask_whether_the_head_matters():
    subject, truth = induction_subject()
    for v in truth.variables:
        _, layer, number = v.site.split(".")
        c = head(int(layer), int(number[1:]))
        assert check(claim(subject, c, cause=role("duplicate")), truth).holds is False
        if v.parameters["role"] in ("previous", "induction", "first"):
            assert check(claim(subject, c, cause=role(v.parameters["role"])), truth).holds
        assert check(claim(subject, c, effect=role("previous")), truth).holds is bool(v.effect["matters"])
    assert check(claim(subject, head(7, 0), cause=role("first")), truth).holds is None


def test_what_the_truth_says_in_other_words_is_neither_true_nor_false():
    """Of a compiled network it is known which variable a neuron makes, not on which tokens it fires."""
    subject, _ = induction_subject()
    variables = (
        Variable("mlp_act.0", 0, "compiled-neuron", {"makes": "rank", "fires": "rank is 1"}),
        Variable("z.0.h0", 0, "compiled-head", {"makes": "rank"}, {"matters": True}),
        Variable("z.0.h1", 0, "compiled-head", {"makes": "rank"}),
    )
    truth = Truth("compiled", variables=variables)
    neuron = Component(decomposition="n", index=0, reads=("mlp_act.0",), writes=("mlp_act.0",), width=1)
    outputs = Executable(kind="output-sets", version=1, parameters={"raised": [1], "lowered": []})
    assert check(claim(subject, neuron, cause=token_rule([1])), truth).holds is None
    assert check(claim(subject, neuron, effect=outputs), truth).holds is None
    assert check(claim(subject, head(0, 0), cause=role("previous")), truth).holds is None
    assert check(claim(subject, head(0, 0), effect=role("previous")), truth).holds is True
    assert check(claim(subject, head(0, 1), effect=role("previous")), truth).holds is None


def test_token_rules_are_compared_by_their_strongest_case():
    subject, truth, neurons, _ = planted_subject()
    v = next(v for v in truth.variables if v.parameters.get("sort") == "context")
    now, before = v.parameters["current"], v.parameters["previous"]
    c = neurons.component(v.index)
    assert rule_tokens(token_rule(now, before)) == (set(now), set(before))
    assert check(claim(subject, c, cause=token_rule(now, before)), truth).holds
    assert check(claim(subject, c, cause=token_rule(now)), truth).holds is False
    assert check(claim(subject, c, cause=token_rule([90, 91], before)), truth).holds is False
    effect = Executable(
        kind="output-sets",
        parameters={"raised": v.effect["raises"], "lowered": v.effect["lowers"]},
    )
    assert check(claim(subject, c, effect=effect), truth).holds
    swapped = Executable(
        kind="output-sets",
        parameters={"raised": v.effect["lowers"], "lowered": v.effect["raises"]},
    )
    assert check(claim(subject, c, effect=swapped), truth).holds is False


def test_a_direction_stands_for_the_feature_it_points_at():
    subject, _, _ = modular_subject()
    truth = Truth("x", features=(FeatureDirections("hidden", np.eye(3), np.ones(3)),))
    component = Component(decomposition="topk@hidden", index=0, reads=("hidden",))
    rule = Executable(
        kind="input-rule", parameters={"inputs": [1], "coefficients": [1.0], "bias": 0.0, "tensor": "x"}
    )
    c = claim(subject, component, cause=rule)
    assert check(c, truth, np.array([0.1, 2.0, 0.0])).holds
    assert check(c, truth, np.array([2.0, 0.1, 0.0])).holds is False
    assert check(c, truth, np.array([0.1, -2.0, 0.0])).holds is False


def test_further_inputs_of_a_rule_must_interfere_as_it_says():
    subject, _, _ = modular_subject()
    truth = Truth("x", features=(FeatureDirections("hidden", np.eye(3), np.ones(3)),))
    component = Component(decomposition="topk@hidden", index=0, reads=("hidden",))

    def holds(coefficients, direction):
        parameters = {"inputs": [1, 2], "coefficients": coefficients, "bias": 0.0, "tensor": "x"}
        rule = Executable(kind="input-rule", parameters=parameters)
        return check(claim(subject, component, cause=rule), truth, np.array(direction)).holds

    assert holds([1.0, -0.2], [0.0, 1.0, -0.3])
    assert holds([1.0, 0.2], [0.0, 1.0, -0.3]) is False  # the other sign
    assert holds([1.0, -0.2], [-0.3, 1.0, -0.1]) is False  # another one interferes more
    assert holds([0.2, 1.0], [0.0, 1.0, 0.3]) is False  # the wrong one first


def test_an_unknown_truth_says_nothing_and_is_not_empty():
    subject, _ = induction_subject()
    assert check(claim(subject, head(0, 0), cause=role("first")), Truth("pylm", unknown=True)).holds is None


def test_calibration_counts_over_seeds():
    made = calibrate("m@1", "cause", "o", [(5, 5, 6, 5)] * 20, code="c", seed=Seed(0))
    assert (made.supported, made.true, made.seeds) == (100, 100, 20)
    assert made.precision.estimate == 1.0
    assert made.precision.low == pytest.approx(0.025 ** (1 / 20))
    assert made.recall.estimate == pytest.approx(5 / 6)
    assert earns_level_four([made])
    mixed = calibrate("m@1", "cause", "o", [(4, 4, 4, 4), (4, 1, 4, 1)] * 10, code="c", seed=Seed(0))
    assert mixed.precision.low < 0.625 < mixed.precision.high
    assert not earns_level_four([mixed])
    empty = calibrate("m@1", "cause", "o", [(0, 0, 0, 0)], code="c", seed=Seed(0))
    assert empty.precision.estimate is None
    assert not earns_level_four([empty])


def test_tallies_leave_out_what_the_truth_does_not_speak_of():
    from prosect.core.records import TruthCheck

    checks = [
        TruthCheck(hypothesis="a", holds=True),
        TruthCheck(hypothesis="b", holds=False),
        TruthCheck(hypothesis="c", holds=None),
    ]
    assert tally(checks, ["a", "b", "c"]) == (2, 1)
    assert tally(checks, []) == (0, 0)
