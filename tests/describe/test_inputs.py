"""Rules over numeric inputs, against planted ones."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.records import Executable
from prosect.core.registries import DESCRIPTIONS
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.inputs import InputExplainer, InputRule
from prosect.store.shelf import Shelf


def sparse(seed, n=1500, features=80, rate=0.08):
    rng = np.random.default_rng(seed)
    return (rng.random((n, features)) < rate) * rng.exponential(size=(n, features))


INPUTS, FRESH = sparse(0), sparse(1)
EXPLAINER = InputExplainer(INPUTS, "s", Seed(0))


def batch(values):
    rows = tuple(Row(i) for i in range(len(values)))
    return Batch({"s": torch.from_numpy(values)}, None, rows)


def truth(values, weights, bias):
    return np.maximum(sum(c * values[:, i] for i, c in weights.items()) + bias, 0.0)


PLANTED = [({17: 2.0}, 0.0), ({17: 2.0}, -0.5), ({4: 1.0, 30: 0.7}, -0.2), ({4: 1.5, 30: -1.0}, 0.0)]


@pytest.mark.parametrize(("weights", "bias"), PLANTED)
def test_a_planted_rule_is_recovered_exactly(weights, bias):
    explained = EXPLAINER.explain(truth(INPUTS, weights, bias))
    rule = InputRule.of(explained.executable, Shelf())
    assert dict(zip(rule.inputs, rule.coefficients, strict=True)) == pytest.approx(weights, rel=1e-3)
    assert rule.activation(batch(FRESH)) == pytest.approx(truth(FRESH, weights, bias), abs=1e-3)
    assert explained.explored["correlation"] > 0.999 and explained.description.about["jaccard"] > 0.6


def test_words_name_the_inputs():
    assert EXPLAINER.explain(truth(INPUTS, {17: 2.0}, -0.3)).words == "fires on input 17"
    both = EXPLAINER.explain(truth(INPUTS, {4: 1.5, 30: -1.0}, 0.0))
    assert both.words == "fires on input 4, held down by input 30"


@pytest.mark.parametrize("correlation", [0.8, 0.5])
def test_a_rule_is_found_through_noise(correlation):
    rng = np.random.default_rng(2)
    signal = truth(INPUTS, {17: 2.0}, -0.2)
    noise = rng.standard_normal(len(signal)) * signal.std() * np.sqrt(1 / correlation**2 - 1)
    explained = EXPLAINER.explain(signal + noise)
    assert InputRule.of(explained.executable, Shelf()).inputs == (17,)


def test_superposed_features_are_told_by_the_largest():
    """A direction that reads feature 17 with interference from all others, as in superposition."""
    rng = np.random.default_rng(3)
    directions = rng.standard_normal((80, 32)) / np.sqrt(32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    code = np.maximum(INPUTS @ directions @ directions[17] - 0.8, 0.0)
    explained = EXPLAINER.explain(code)
    assert InputRule.of(explained.executable, Shelf()).inputs[0] == 17
    assert explained.explored["correlation"] > 0.6


def test_noise_and_shuffled_activations_give_nothing():
    rng = np.random.default_rng(4)
    signal = truth(INPUTS, {17: 2.0}, 0.0)
    found = [EXPLAINER.explain(rng.permutation(signal)) for _ in range(12)]
    assert sum(e.found for e in found) <= 1
    assert abs(np.mean([e.explored["correlation"] for e in found])) < 0.05
    nothing = next(e for e in found if not e.found)
    assert nothing.words == "no input found: its mean activation everywhere"
    predicted = InputRule.of(nothing.executable, Shelf()).activation(batch(FRESH))
    assert predicted == pytest.approx(np.full(len(FRESH), signal.mean()), rel=1e-5)
    assert not EXPLAINER.explain(np.zeros(len(INPUTS))).found


def test_renaming_inputs_renames_the_rule():
    order = np.random.default_rng(5).permutation(80)
    second = np.random.default_rng(6).random(len(INPUTS)) < 0.5
    y = truth(INPUTS, {4: 1.0, 30: 0.7}, -0.2)
    one = InputExplainer(INPUTS, "s", Seed(0), second).explain(y)
    two = InputExplainer(INPUTS[:, order], "s", Seed(0), second).explain(y)
    assert [int(order[i]) for i in two.executable.parameters["inputs"]] == one.executable.parameters["inputs"]


def test_scaling_the_activation_scales_the_rule():
    y = truth(INPUTS, {4: 1.0, 30: 0.7}, -0.2)
    one, two = EXPLAINER.explain(y), EXPLAINER.explain(y * 37.0)
    shelf = Shelf()
    assert InputRule.of(two.executable, shelf).activation(batch(FRESH)) == pytest.approx(
        37.0 * InputRule.of(one.executable, shelf).activation(batch(FRESH)), rel=1e-4, abs=1e-4
    )


def test_a_rule_comes_back_bit_identical():
    rule = DESCRIPTIONS.get("input-rule").of(
        EXPLAINER.explain(truth(INPUTS, {4: 1.0}, 0.0)).executable, Shelf()
    )
    again = InputRule.of(Executable.model_validate_json(rule.executable().model_dump_json()), Shelf())
    assert np.array_equal(rule.activation(batch(FRESH)), again.activation(batch(FRESH)))


def test_bad_input_is_refused():
    with pytest.raises(ShapeMismatch):
        EXPLAINER.explain(np.zeros(3))
    with pytest.raises(NotFinite):
        EXPLAINER.explain(np.full(len(INPUTS), np.nan))
    with pytest.raises(TooLittleData):
        InputExplainer(INPUTS[:5], "s", Seed(0))
    with pytest.raises(BadInput, match="finite"):
        InputRule("s", (1,), (float("nan"),), 0.0)
    with pytest.raises(BadInput, match="distinct"):
        InputRule("s", (1, 1), (1.0, 1.0), 0.0)
    with pytest.raises(BadInput, match="input 99"):
        InputRule("s", (99,), (1.0,), 0.0).activation(batch(FRESH))
    with pytest.raises(BadInput, match="numeric input"):
        InputRule("x", (9,), (1.0,), 0.0).activation(batch(FRESH))
    with pytest.raises(BadInput, match="malformed"):
        InputRule.of(Executable(kind="input-rule", parameters={"tensor": "s"}), Shelf())


def test_what_the_second_set_alone_gives_never_saw_the_first():
    second = np.arange(len(INPUTS)) % 2 == 1
    y = np.maximum(np.where(second, 4.0, 2.0) * INPUTS[:, 4] - 0.2, 0)
    found = InputExplainer(INPUTS, "s", Seed(0), second).explain(y)
    rule, again = (InputRule.of(e, Shelf()) for e in (found.executable, found.second))
    assert again.inputs == rule.inputs == (4,)
    assert again.coefficients == pytest.approx((4.0,), abs=1e-6) and 2.1 < rule.coefficients[0] < 3.9
