"""Expert and cluster: mutual information against scikit-learn's, its bias, and experts that were trained."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.specialisation import specialisation
from prosect.organisms.intrinsic import experts


def test_one_expert_for_each_input_is_sklearns_mutual_information():
    rng = Seed(0).numpy()
    clusters = rng.integers(0, 5, 400)
    chosen = np.where(rng.random(400) < 0.5, clusters, rng.integers(0, 5, 400))
    found = specialisation(np.eye(5)[chosen], clusters, Seed(1))
    assert found.information == pytest.approx(mutual_info_score(clusters, chosen))
    assert found.p == pytest.approx(1 / 201)


def test_independent_ones_have_what_miller_says_by_chance_and_nothing_after():
    rng = Seed(2).numpy()
    values = [
        specialisation(np.eye(4)[rng.integers(0, 4, 300)], rng.integers(0, 3, 300), Seed(i), 50)
        for i in range(30)
    ]
    assert np.mean([v.chance for v in values]) == pytest.approx(3 * 2 / (2 * 300), rel=0.05)
    assert np.mean([v.information - v.chance for v in values]) == pytest.approx(0, abs=0.002)
    assert np.mean([v.p <= 0.05 for v in values]) < 0.2


def test_soft_shares_that_do_not_depend_on_the_input_say_nothing():
    clusters = np.arange(100) % 4
    assert specialisation(np.full((100, 4), 0.3), clusters, Seed(0)).information == pytest.approx(
        0, abs=1e-12
    )
    perfect = specialisation(np.eye(4)[clusters], clusters, Seed(0))
    assert perfect.information == pytest.approx(np.log(4)) == pytest.approx(perfect.most)


def test_experts_specialise_and_blocks_of_the_dense_twin_do_not():
    (batch,) = experts.source(0).batches("validate.0", rows=2048)
    clusters = experts.clusters_of(0, "validate.0")

    def found(module):
        with torch.no_grad():
            shares = module.shares(batch.tensors["x"]).norm(dim=2).double().numpy()
        return specialisation(shares, clusters, Seed(0), draws=50)

    moe, dense = found(experts.network(0)[0]), found(experts.network_dense(0)[0])
    assert moe.corrected > 0.95 * moe.most
    assert dense.corrected < 0.06 * dense.most
    assert found(experts.untrained(0)).corrected < 0.6 * moe.most


def test_bad_input_is_named():
    with pytest.raises(ShapeMismatch):
        specialisation(np.ones((4, 2)), np.zeros(3, dtype=int), Seed(0))
    with pytest.raises(BadInput, match="without any"):
        specialisation(np.zeros((4, 2)), np.zeros(4, dtype=int), Seed(0))
    with pytest.raises(NotFinite):
        specialisation(np.full((4, 2), np.nan), np.zeros(4, dtype=int), Seed(0))
