"""Trees, linear and additive models: what they recover, and that fidelity is what it says."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from nets_of_attribution import itself, opened
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData, UnknownName
from prosect.core.intervals import Resamples
from prosect.core.seeds import Seed
from prosect.describe.attribution.fidelity import Determination, sums
from prosect.describe.attribution.imitate import imitate
from prosect.describe.attribution.surrogates import KINDS, fit


def uniform(rows, width, seed=0):
    return Seed(seed).numpy().uniform(-1, 1, (rows, width))


def test_a_tree_recovers_the_splits_of_the_tree_that_made_the_data():
    x = uniform(800, 4)
    y = np.where(x[:, 1] <= 0.3, np.where(x[:, 2] <= -0.4, 1.0, 3.0), 7.0)
    noisy = y + 0.2 * Seed(1).numpy().standard_normal(800)
    for target in (y, noisy):
        tree = fit("tree", x, target, Seed(0))
        assert tree.leaves == 3
        (root, below) = tree.splits
        assert root.feature == 1 and below.feature == 2
        for split, true in ((root, 0.3), (below, -0.4)):
            near = np.sort(x[:, split.feature])
            at = np.searchsorted(near, true)
            assert near[at - 3] <= split.threshold <= near[at + 2]  # between the neighbours of the true one
    assert "x1 ≤ 0.3" in tree.words and tree.words.count(";") == 2


def test_an_additive_model_recovers_additive_functions():
    x = uniform(1500, 3)
    true = [lambda v: np.sin(3 * v), lambda v: v**2, lambda v: np.abs(v)]
    y = 2.0 + sum(g(x[:, i]) for i, g in enumerate(true))
    made = fit("additive", x, y, Seed(0))
    fresh = uniform(500, 3, seed=1)
    expected = 2.0 + sum(g(fresh[:, i]) for i, g in enumerate(true))
    assert r2_score(expected, made.predict(fresh)) > 0.999
    grid = np.linspace(-0.95, 0.95, 50)
    for i, g in enumerate(true):
        assert np.abs(made.part(i, grid) - (g(grid) - g(x[:, i]).mean())).max() < 0.06
    with pytest.raises(BadInput, match="feature 3"):
        made.part(3, grid)


def test_its_gap_on_an_interaction_is_the_interactions_variance():
    """With independent centred features x₀x₁ is orthogonal to every function of one: R² lacks exactly its share."""
    c = 1.5
    model = opened(lambda p: p[:, 0] + p[:, 2].square() + c * p[:, 0] * p[:, 1], 3)
    x = torch.from_numpy(uniform(3000, 3))
    third = 1 / 3  # variance of a uniform number in [−1, 1]; of its square 4/45
    share = c**2 * third**2 / (third + 4 / 45 + c**2 * third**2)
    found = imitate(model, x, itself, "additive")
    assert found.fidelity.low < 1 - share < found.fidelity.high
    assert found.fidelity.high - found.fidelity.low < 0.1
    assert found.difference["linear"].low > 0.05  # the square is additive and not linear
    assert found.shuffled.estimate < 0.02 and found.shuffled.high < 0.1
    assert (found.fitted, found.heldout) == (2100, 900) and found.fidelity.n == 900


def test_a_linear_function_is_imitated_exactly_and_read_off():
    w = np.array([2.0, -1.0, 0.0])
    found = imitate(
        opened(lambda p: p.double() @ torch.from_numpy(w) + 4, 3),
        torch.from_numpy(uniform(60, 3)),
        itself,
        "linear",
    )
    assert np.allclose(found.surrogate.weights, w) and found.surrogate.intercept == pytest.approx(4)
    assert found.fidelity.estimate == pytest.approx(1.0)
    assert found.surrogate.words.startswith("4 +2 x0 -1 x1")


def test_features_of_few_values_are_tables():
    rng = Seed(0).numpy()
    x = rng.integers(0, 4, (400, 2)).astype(float)
    y = np.array([3.0, -1.0, 5.0, 0.0])[x[:, 0].astype(int)] - x[:, 1] ** 2
    made = fit("additive", x, y, Seed(0))
    assert np.allclose(made.predict(x), y, atol=1e-3)


def test_coinciding_quantiles_do_not_matter():
    x = uniform(400, 1)
    x[:300] = 0.0
    assert r2_score(x[:, 0] ** 2, fit("additive", x, x[:, 0] ** 2, Seed(0)).predict(x)) > 0.99


def test_fidelity_is_a_librarys_r2_and_its_gradient_is_right():
    rng = Seed(3).numpy()
    y, p = rng.standard_normal(40), rng.standard_normal(40)
    made = sums(y, p, np.repeat(np.arange(10), 4))
    statistic = Determination()
    total = made.sum(axis=0)
    assert statistic.value(total) == pytest.approx(r2_score(y, p))
    step = 1e-6 * np.eye(4)
    slope = [(statistic.value(total + s) - statistic.value(total - s)) / 2e-6 for s in step]
    assert np.allclose(statistic.gradient(total), slope, rtol=1e-4, atol=1e-8)
    v = np.array([-2.0, 0.0, 0.9])
    assert np.allclose(statistic.back(statistic.transform(v)), v)
    assert statistic.value(sums(np.ones(4), np.zeros(4), np.arange(4)).sum(axis=0)) == 0.0


def test_its_interval_covers():
    """y = s + noise, predicted by s: the population's R² is one half."""
    inside = 0
    for i in range(60):
        rng = Seed(i).numpy()
        s, noise = rng.standard_normal((2, 50))
        draws = Resamples(50, 500, Seed(i))
        found = draws.measure([sums(s + noise, s, np.arange(50))], Determination()).measured
        inside += found.low < 0.5 < found.high
    assert inside >= 52  # 57 expected


def test_no_unit_is_fitted_and_judged_on():
    from prosect.data.batch import Batch, Row

    x = torch.from_numpy(uniform(120, 2))
    seen = {}

    def spy(kind):
        original = KINDS[kind]

        def fitted(a, b, seed):
            seen.setdefault("x", a)
            return original(a, b, seed)

        return fitted

    model = opened(lambda p: p[:, 0], 2)
    given = Batch({"x": x}, None, tuple(Row(unit=i // 4) for i in range(120)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "linear", spy("linear"))
        found = imitate(model, given, itself, "linear")
    learned = {i // 4 for i in range(120) if (seen["x"] == x[i].numpy()).all(axis=1).any()}
    assert len(learned) * 4 == found.fitted == 84 and found.fidelity.n == 9


def test_what_cannot_be_is_refused_in_words():
    x, y = uniform(20, 2), np.zeros(20)
    with pytest.raises(UnknownName, match="forest"):
        fit("forest", x, y, Seed(0))
    with pytest.raises(ShapeMismatch):
        fit("tree", x, y[:5], Seed(0))
    with pytest.raises(TooLittleData, match="at least 10"):
        fit("tree", x[:5], y[:5], Seed(0))
    with pytest.raises(NotFinite):
        fit("tree", x, np.full(20, np.nan), Seed(0))
    with pytest.raises(BadInput, match="between 0 and 1"):
        imitate(opened(lambda p: p[:, 0], 2), torch.from_numpy(x), itself, heldout=1.0)
