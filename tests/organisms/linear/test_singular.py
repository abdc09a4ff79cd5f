"""Learning coefficients against dimensions, symmetries and volumes that are integrated."""

import numpy as np
import pytest
from scipy.integrate import quad

from prosect.core.errors import BadInput
from prosect.organisms.linear import singular


def slope(a, b, low, high):
    """d log V / d log ε of the volume of {u, v in [0, 1]: (u^a v^b)² < ε}, by quadrature over log v."""

    def volume(eps):
        def inside(s):
            return min(1.0, np.exp((np.log(eps) + 2 * b * s) / (2 * a))) * np.exp(-s)

        return quad(inside, 0, 200, points=[-np.log(eps) / (2 * b)], limit=400)[0]

    return np.log(volume(high) / volume(low)) / np.log(high / low)


@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 1), (1, 3), (2, 3), (1, 1)])
def test_a_monomials_volume_shrinks_as_its_coefficient_says(a, b):
    value, multiplicity = singular.monomial(a, b)
    low, high = 1e-60, 1e-59
    logs = (multiplicity - 1) / np.log(low)  # what (−log ε)^(m−1) adds to the slope
    assert slope(a, b, low, high) == pytest.approx(value + logs, rel=0.01)
    assert (multiplicity == 2) == (a == b)


def test_reduced_rank_regression_in_the_cases_that_are_known_otherwise():
    for m in range(1, 7):
        for n in range(1, 7):
            for h in range(1, min(m, n) + 1):
                # of full rank: half the dimension of the matrices of rank h
                assert singular.reduced_rank(m, n, h, h) == (h * (m + n - h) / 2, 1)
            # one hidden unit and nothing to learn: |a|²|b|², the smaller of two balls
            assert singular.reduced_rank(m, n, 1, 0) == (min(m, n) / 2, 1 + (m == n))
    assert singular.reduced_rank(1, 1, 1, 0) == singular.monomial(1, 1)


def test_it_is_symmetric_grows_with_the_rank_and_is_never_above_a_regular_models():
    for m, n, h in np.ndindex(6, 6, 6):
        m, n, h = m + 1, n + 1, h + 1
        values = [singular.reduced_rank(m, n, h, r) for r in range(min(m, n, h) + 1)]
        assert values == [singular.reduced_rank(n, m, h, r) for r in range(min(m, n, h) + 1)]
        lambdas = [v for v, _ in values]
        assert lambdas == sorted(lambdas)
        assert lambdas[0] > 0 and lambdas[-1] <= min(h * (m + n), m * n) / 2


def test_the_networks_are_at_true_parameters_and_their_truths_agree():
    module, truth = singular.network(3)
    product = (module.wide.weight @ module.narrow.weight).detach().numpy()
    assert np.linalg.matrix_rank(product, tol=1e-4) == singular.RANK
    assert truth.quantities["lambda"] == 12 and truth.quantities["multiplicity"] == 2
    assert truth.quantities["lambda if regular"] == sum(p.numel() for p in module.parameters()) / 2
    module, truth = singular.network_monomial(0)
    batch = next(singular.source_monomial(0).batches("explore", rows=8))
    assert module(**batch.tensors).abs().max() == 0
    assert truth.quantities["lambda"] == 0.25 and truth.quantities["multiplicity"] == 1


def test_ranks_that_cannot_be_are_refused():
    with pytest.raises(BadInput):
        singular.reduced_rank(3, 3, 2, 3)
    with pytest.raises(BadInput):
        singular.reduced_rank(3, 0, 2, 0)
