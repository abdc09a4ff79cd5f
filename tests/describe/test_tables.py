"""Plain baselines: shrunk means by token, position and frequency."""

import numpy as np
import pytest

from describe.texts import batches, contexts, documents, flat, names
from prosect.core.records import Executable
from prosect.describe.splits import shrinkage, shrunk_means
from prosect.describe.tables import FrequencyTable, PositionTable, TokenTable
from prosect.store.shelf import Shelf

DOCS = documents(count=40)
WORDS = names(60)  # ten of them never occur
CONTEXTS = contexts(DOCS, WORDS)
CURRENT, _ = flat(DOCS)
POSITION = np.concatenate([np.arange(len(d)) for d in DOCS])


def predicted(table):
    return np.concatenate([table.activation(b) for b in batches(DOCS)])


def test_a_function_of_the_token_is_learned_exactly():
    strength = np.random.default_rng(0).standard_normal(60)
    table = TokenTable.fit(CONTEXTS, strength[CURRENT])
    assert predicted(table) == pytest.approx(strength[CURRENT], abs=1e-12)
    assert table.means[55] == pytest.approx(strength[CURRENT].mean())


def test_a_function_of_the_position_is_learned_exactly():
    activation = np.cos(POSITION / 7.0)
    table = PositionTable.fit(CONTEXTS, activation)
    assert predicted(table) == pytest.approx(activation, abs=1e-12)
    (batch,) = batches([[1] * 200])
    assert table.activation(batch)[-1] == pytest.approx(activation.mean())


def test_a_function_of_how_common_a_token_is():
    counts = np.bincount(CURRENT, minlength=60)
    band = np.ceil(np.log2(counts + 1.0))
    activation = band[CURRENT] ** 2
    table = FrequencyTable.fit(CONTEXTS, activation)
    assert predicted(table) == pytest.approx(activation, abs=1e-9)
    # and knows nothing else of the token
    coin = np.random.default_rng(1).integers(0, 2, 60).astype(float)
    table = FrequencyTable.fit(CONTEXTS, coin[CURRENT])
    for b in np.unique(band):
        assert len(np.unique(table.means[band == b])) == 1


def test_noise_is_shrunk_away():
    noise = np.random.default_rng(2).standard_normal(len(CURRENT))
    raw = np.bincount(CURRENT, weights=noise, minlength=60)[:50] / np.bincount(CURRENT, minlength=60)[:50]
    table = TokenTable.fit(CONTEXTS, noise)
    assert np.var(table.means[:50]) < 0.2 * np.var(raw)


def test_shrinkage_is_the_best_linear_factor():
    # balanced one-way layout with known variances: n/(n + within/between)
    rng = np.random.default_rng(3)
    groups, n, between, within = 4000, 8, 0.5, 2.0
    means = np.sqrt(between) * rng.standard_normal(groups)
    y = means[:, None] + np.sqrt(within) * rng.standard_normal((groups, n))
    y -= y.mean()
    factor = shrinkage(np.full(groups, float(n)), y.sum(axis=1), float((y**2).sum()))
    assert factor == pytest.approx(n / (n + within / between), rel=0.03)


def test_no_observation_means_no_opinion():
    assert shrunk_means(np.zeros(3), np.zeros(3), 0.0).tolist() == [0.0, 0.0, 0.0]
    assert shrunk_means(np.array([0.0, 4.0]), np.array([0.0, 8.0]), 16.0).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("cls", [TokenTable, PositionTable, FrequencyTable])
def test_they_come_back_bit_identical(cls, tmp_path):
    activation = np.random.default_rng(4).exponential(size=len(CURRENT))
    table = cls.fit(CONTEXTS, activation)
    stored = table.executable(Shelf(tmp_path)).model_dump_json()
    again = cls.of(Executable.model_validate_json(stored), Shelf(tmp_path))
    assert np.array_equal(predicted(again), predicted(table))
    beyond = batches([[59, 500]])[0]
    assert np.isfinite(again.activation(beyond)).all()
