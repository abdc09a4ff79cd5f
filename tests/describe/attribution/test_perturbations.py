"""LIME and occlusion: a library's ridge, additive functions, windows by hand, and redundancy."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from nets_of_attribution import itself, last_logit, numbers, opened, perceptron, tokens
from prosect.core.errors import BadInput, ShapeMismatch
from prosect.describe.attribution import Lime, Occlusion, attribute
from prosect.describe.attribution.occlusion import covered


def additive(p):
    return p[:, 0] ** 3 + torch.sin(p[:, 1]) - 2 * p[:, 2]


def test_the_fit_is_a_librarys_weighted_ridge():
    rng = np.random.default_rng(0)
    sets, v = rng.random((50, 6)) < 0.5, rng.standard_normal(50)
    weight = np.exp(-(~sets).mean(axis=1) / 0.6**2)
    oracle = Ridge(alpha=0.2 * weight.sum()).fit(sets, v, sample_weight=weight)
    assert np.allclose(Lime(width=0.6, ridge=0.2).fit(sets, v), oracle.coef_)


@pytest.mark.parametrize("method", [Lime(ridge=0.0), Occlusion()])
def test_an_additive_function_gets_each_features_own_difference(method):
    x, base = numbers(4, 3), torch.tensor([0.5, -0.2, 1.0], dtype=torch.float64)
    got = attribute(opened(additive, 3), x, itself, method, baseline=base, sanity=None)
    expected = torch.stack([x[:, 0] ** 3 - 0.5**3, x[:, 1].sin() - np.sin(-0.2), -2 * (x[:, 2] - 1.0)], dim=1)
    assert np.allclose(got.values, expected.numpy())


def test_lime_says_how_far_its_fits_differ():
    model, x = perceptron(width=10), numbers(5, 10, dtype=torch.float32)
    metric = lambda output, batch: output[:, 0]  # noqa: E731
    few = attribute(model, x, metric, Lime(samples=14), sanity=None)
    many = attribute(model, x, metric, Lime(samples=800), sanity=None)
    assert few.stability.estimate < 0.85 < many.stability.estimate
    assert few.stability.low < few.stability.high and few.stability.n == 5
    assert few.errors.mean() > 3 * many.errors.mean()
    assert "rank correlation between fits" in few.notes[-1]


def test_occlusion_is_what_replacing_each_token_changes():
    model, ids = tokens()
    got = attribute(model, ids, last_logit, "occlusion", baseline=0, sanity=None)
    base = model.run(model.batch([[0] * len(r) for r in ids]), ["embeddings"])["embeddings"]
    from prosect.model import edits

    for row, row_ids in enumerate(ids):
        for at in range(len(row_ids)):
            batch = model.batch([row_ids])
            change = edits.patch("embeddings", base[row, : len(row_ids)][None], positions=[at])
            without = last_logit(model.run(batch, edits=[change]).output, batch)
            assert got.values[row, at] == pytest.approx(got.output[row] - float(without), abs=1e-5)


def test_windows_over_a_picture_are_averaged_where_they_overlap():
    w = numbers(1, 16)[0].reshape(4, 4)
    model = opened(lambda p: (p.double().reshape(len(p), 4, 4) * w).sum(dim=(1, 2)), 16)
    x = numbers(1, 16, seed=1).reshape(1, 16)
    grid = covered((4, 4), (2, 2), (1, 1))
    assert grid.shape == (9, 16) and set(grid.sum(axis=1)) == {4}
    groups = torch.arange(16)
    got = attribute(model, x, itself, Occlusion((2,), (2,)), groups=groups, sanity=None)
    pairs = (x[0] * w.reshape(-1)).reshape(8, 2).sum(dim=1)
    assert np.allclose(got.values[0], pairs.repeat_interleave(2))
    overlapping = attribute(model, x, itself, Occlusion(3, 1), groups=groups, sanity=None)
    each = (x[0] * w.reshape(-1)).numpy()
    windows = [range(i, i + 3) for i in range(14)]
    expected = [np.mean([each[list(s)].sum() for s in windows if f in s]) for f in range(16)]
    assert np.allclose(overlapping.values[0], expected)


@pytest.mark.parametrize(
    ("grid", "window", "stride"), [((7,), 3, 2), ((5, 6), (2, 4), (2, 3)), ((2,), 5, None)]
)
def test_every_feature_is_covered(grid, window, stride):
    assert covered(grid, window, stride).any(axis=0).all()


def test_an_or_gate_is_called_redundant():
    """Either input is enough: no single replacement changes anything, both together do."""
    either = lambda p: p[:, 0] + p[:, 1] - p[:, 0] * p[:, 1]  # noqa: E731
    got = attribute(opened(either, 3), torch.ones(2, 3), itself, "occlusion", sanity=None)
    assert np.allclose(got.values, 0) and np.allclose(got.joint, 1)
    assert any("redundancy: in 2 of 2 rows" in note for note in got.notes)
    both = attribute(
        opened(lambda p: p[:, 0] * p[:, 1], 3), torch.ones(2, 3), itself, "occlusion", sanity=None
    )
    assert not any("redundancy" in note for note in both.notes)


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(BadInput, match="at least 2 of each"):
        Lime(repeats=1)
    with pytest.raises(ShapeMismatch, match="each axis"):
        covered((4, 4), (2,), None)
    with pytest.raises(BadInput, match="stride at most the window"):
        covered((4,), 2, 3)
