"""The deep linear network against numpy's decomposition of the product of its weights."""

import numpy as np
import pytest
import torch

from prosect.organisms.linear import deep


@pytest.fixture(scope="module")
def drawn():
    module, truth = deep.network_deep(2)
    weights = [layer.weight.detach().double().numpy() for layer in module.layers]
    return module, truth, weights, weights[2] @ weights[1] @ weights[0]


def test_the_product_has_the_singular_values_and_the_rank(drawn):
    _, truth, _, product = drawn
    found = np.linalg.svd(product, compute_uv=False)
    expected = [truth.quantities[f"singular value {k}"] for k in range(deep.RANK)]
    assert np.allclose(found[: deep.RANK], expected, rtol=1e-5) and found[deep.RANK :].max() < 1e-5
    assert expected == sorted(expected, reverse=True)
    assert truth.quantities["rank"] == np.linalg.matrix_rank(product, tol=1e-4)


def test_each_mode_goes_along_its_direction_after_every_layer(drawn):
    _, truth, weights, product = drawn
    _, _, right = np.linalg.svd(product)
    for k in range(deep.RANK):
        x = right[k]
        for i, features in enumerate(truth.features):
            assert features.site == f"layers.{i}"
            x = weights[i] @ x
            assert abs(features.directions[k] @ x) == pytest.approx(np.linalg.norm(x), rel=1e-4)
            assert np.linalg.norm(features.directions[k]) == pytest.approx(1)


def test_a_regression_on_the_answers_gets_the_product_and_the_residual_variance(drawn):
    _, truth, _, product = drawn
    x = torch.cat([b.tensors["inputs"] for b in deep.source_deep(2).batches("explore", 4096)])
    y = deep.answers(2, x, "explore")
    fitted, left, _, _ = np.linalg.lstsq(x.double().numpy(), y.double().numpy(), rcond=None)
    assert np.abs(fitted.T - product).max() < 0.02
    assert (left / (len(x) - 12)).mean() == pytest.approx(truth.quantities["residual variance"], rel=0.05)
    assert not torch.equal(y, deep.answers(2, x, "sealed"))
