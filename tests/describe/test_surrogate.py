"""Readable models as descriptions: what is stored predicts what the library's model did."""

import numpy as np
import pytest
import torch

from describe.texts import batches, contexts, documents, flat, names
from prosect.core.errors import BadInput
from prosect.core.registries import DESCRIPTIONS
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.additive import AdditiveTable
from prosect.describe.attribution.surrogates import fit
from prosect.describe.surrogate import SurrogateRule, surrogates
from prosect.describe.tables import TokenTable
from prosect.store.shelf import Shelf

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(600, 4))
FRESH = np.concatenate([DRAW.normal(size=(300, 4)), 9 * DRAW.normal(size=(50, 4))])  # some far outside
Y = np.sin(2 * X[:, 0]) + np.abs(X[:, 2]) + 0.1 * DRAW.normal(size=600)


def batch_of(x, name="features"):
    return Batch({name: torch.from_numpy(x)}, None, tuple(Row(i) for i in range(len(x))))


@pytest.mark.parametrize("kind", ["linear", "tree", "additive"])
def test_what_is_stored_predicts_what_the_fitted_model_did(kind):
    made, shelf = fit(kind, X, Y, Seed(0)), Shelf()
    rule = SurrogateRule.made("features", (0, 1, 2, 3), made)
    stored = rule.executable(shelf)
    back = DESCRIPTIONS.get(stored.kind).of(stored, shelf)
    assert back.activation(batch_of(FRESH)) == pytest.approx(made.predict(FRESH), abs=1e-9)


def test_knots_that_fall_together_are_no_trouble():
    """Sparse features are 0 nearly everywhere, and so are most of their quantiles."""
    x = X * (DRAW.random(X.shape) < 0.1)
    made, shelf = fit("additive", x, Y, Seed(0)), Shelf()
    stored = SurrogateRule.made("features", (0, 1, 2, 3), made).executable(shelf)
    back = DESCRIPTIONS.get(stored.kind).of(stored, shelf)
    for rows in (x, FRESH):
        found = back.activation(batch_of(rows))
        assert np.isfinite(found).all()
        assert found == pytest.approx(made.predict(rows), rel=1e-6, abs=1e-6)


def test_features_of_few_values_get_a_number_for_each():
    pairs = DRAW.integers(0, 31, size=(900, 2))
    y = np.cos(2 * np.pi * 7 * pairs[:, 0] / 31) + np.cos(2 * np.pi * 11 * pairs[:, 1] / 31)
    found = surrogates(pairs, y, "pairs", Seed(0), levels=31)
    predicted = found["additive"].activation(batch_of(pairs, "pairs"))
    assert np.corrcoef(predicted, y)[0, 1] > 0.999
    smooth = surrogates(pairs, y, "pairs", Seed(0))["additive"]  # twelve knots cannot turn eleven times
    assert np.corrcoef(smooth.activation(batch_of(pairs, "pairs")), y)[0, 1] < 0.9


def test_of_many_features_those_that_matter_are_read():
    x = DRAW.normal(size=(1500, 40))
    y = x[:, 7] - 2 * (x[:, 23] > 0)
    found = surrogates(x, y, "features", Seed(1))
    for rule in found.values():
        assert {7, 23} <= set(rule.inputs) and len(rule.inputs) == 8
    assert np.corrcoef(found["additive"].activation(batch_of(x)), y)[0, 1] > 0.98
    assert np.corrcoef(found["linear"].activation(batch_of(x)), y)[0, 1] < 0.96


def test_inputs_that_do_not_fit_are_refused():
    rule = SurrogateRule.made("features", (0, 9), fit("linear", X[:, :2], Y, Seed(0)))
    with pytest.raises(BadInput, match="4 features"):
        rule.activation(batch_of(X))
    with pytest.raises(BadInput, match="pairs"):
        rule.activation(batch_of(X, "pairs"))
    shelf = Shelf()
    wrong = rule.executable(shelf)
    with pytest.raises(BadInput, match="form"):
        SurrogateRule.of(
            wrong.model_copy(update={"parameters": {**wrong.parameters, "form": "oracle"}}), shelf
        )


DOCS = documents(count=60)
CONTEXTS = contexts(DOCS, names(60))
CURRENT, BEFORE = flat(DOCS)
PLACE = np.concatenate([np.arange(len(d)) for d in DOCS])


def predicted(table):
    return np.concatenate([table.activation(b) for b in batches(DOCS)])


def explained(y, p):
    return 1 - np.square(y - p).sum() / np.square(y - y.mean()).sum()


def test_a_sum_of_functions_of_single_tokens_is_recovered():
    a, b = DRAW.normal(size=60), DRAW.normal(size=61)
    y = a[CURRENT] + b[BEFORE] + 0.01 * PLACE
    assert explained(y, predicted(AdditiveTable.fit(CONTEXTS, y))) > 0.995
    assert explained(y, predicted(TokenTable.fit(CONTEXTS, y))) < 0.7


def test_what_is_left_on_an_interaction_is_the_interactions_variance():
    """y = s(current) · t(before) with s and t of mean zero over positions: no function of one token sees any of it."""
    s, t = DRAW.choice([-1.0, 1.0], 60), DRAW.choice([-1.0, 1.0], 61)
    y = s[CURRENT] * t[BEFORE]
    alone = explained(y, predicted(AdditiveTable.fit(CONTEXTS, y)))
    both = explained(y + 2 * s[CURRENT], predicted(AdditiveTable.fit(CONTEXTS, y + 2 * s[CURRENT])))
    # what the means of the factors leave to single tokens, by least squares on the same columns
    design = np.concatenate([np.eye(60)[CURRENT], np.eye(61)[BEFORE]], axis=1)
    best = explained(y, design @ np.linalg.lstsq(design, y, rcond=None)[0])
    assert alone < best + 0.05
    assert both > 0.75


def test_an_additive_table_comes_back_from_json_and_meets_new_tokens():
    shelf = Shelf()
    table = AdditiveTable.fit(CONTEXTS, np.cos(CURRENT) + np.sin(BEFORE))
    back = DESCRIPTIONS.get("additive-table").of(table.executable(shelf), shelf)
    (batch,) = batches([[59, 3, 1] + [2] * 200])
    assert back.activation(batch) == pytest.approx(table.activation(batch))
    assert np.isfinite(back.activation(batch)).all()
    with pytest.raises(BadInput, match="tables"):
        AdditiveTable(0.0, [np.zeros(3)])
