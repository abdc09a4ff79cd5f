"""Agreement of seeds against permutations, brute force and chance; intervals against scipy."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import t, ttest_1samp

from known import written
from prosect.core.errors import NotFinite, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.seeds import over_pairs, over_seeds
from prosect.decompose.evaluation.stability import agreement, stability


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).child("test").torch(), dtype=torch.float64)


def random(seed, latents=12, width=8):
    return written(normal(latents, width, seed=seed), normal(latents, width, seed=seed + 100))


def test_a_permuted_dictionary_is_the_same():
    a = random(0)
    order = torch.randperm(12, generator=Seed(1).torch())
    b = written(a.encoder_[order], a.decoder_[order])
    found = agreement(a, b)
    assert found.mcc == pytest.approx(1)
    assert found.shared == 1


def test_the_matching_is_the_best_of_all():
    a, b = random(0, latents=6), random(1, latents=6)
    ours, theirs = (d.decoder_ / d.decoder_.norm(dim=1, keepdim=True) for d in (a, b))
    cosines = (ours @ theirs.T).double().numpy()
    best = max(np.mean([cosines[i, p[i]] for i in range(6)]) for p in permutations(range(6)))
    assert agreement(a, b).mcc == pytest.approx(best, abs=1e-6)


def test_what_writes_alike_and_reads_otherwise_is_not_shared():
    a = random(0)
    encoder = a.encoder_.clone()
    encoder[:3] = normal(3, 8, seed=7)
    found = agreement(a, written(encoder, a.decoder_))
    assert found.mcc == pytest.approx(1)
    assert found.shared == pytest.approx(9 / 12)
    assert (found.reads[3:] > 0.99).all()


def test_stability_separates_shared_latents_from_the_seeds_own():
    common = normal(6, 32)
    made = []
    for seed in range(4):
        rows = torch.cat([common, normal(6, 32, seed=seed + 1)])[
            torch.randperm(12, generator=Seed(seed).torch())
        ]
        made.append(written(rows, rows))
    found = stability(made, Seed(9))
    assert found.shared.estimate == pytest.approx(0.5)
    assert found.shared.n == 4
    for each in found.latents:
        assert sorted((each > 0.99).tolist()) == [False] * 6 + [True] * 6
    assert found.chance < 0.5 < found.mcc.estimate < 0.9
    assert found.mcc.low < found.mcc.estimate < found.mcc.high
    nothing = stability([random(s, 12, 32) for s in range(3)], Seed(9))
    assert nothing.mcc.estimate == pytest.approx(nothing.chance, abs=0.06)
    assert nothing.shared.estimate == 0


def test_dictionaries_of_different_models_or_alone_are_refused():
    with pytest.raises(TooLittleData):
        stability([random(0)], Seed(0))
    with pytest.raises(ShapeMismatch):
        agreement(random(0), random(0, width=9))


def test_a_smaller_dictionary_leaves_latents_unmatched():
    a = random(0)
    found = agreement(a, written(a.encoder_[:4], a.decoder_[:4]))
    assert found.writes[:4].tolist() == pytest.approx([1] * 4)
    assert found.writes[4:].tolist() == [0] * 8
    assert found.shared == pytest.approx(4 / 12)


def test_seeds_have_the_interval_of_student():
    values = [0.8, 0.82, 0.79, 0.9, 0.85]
    found, expected = over_seeds(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert over_seeds([0.3]).low is None
    for bad, error in (([], TooLittleData), ([1.0, float("nan")], NotFinite)):
        with pytest.raises(error):
            over_seeds(bad)


def test_for_sums_of_two_the_jackknife_over_pairs_is_exact():
    # the mean of x_i + x_j over pairs is twice the mean of x, so its standard error is known
    x = np.random.default_rng(0).normal(size=8)
    found = over_pairs(8, lambda i, j: float(x[i] + x[j]))
    error = 2 * x.std(ddof=1) / np.sqrt(8) * (8 - 1) / (8 - 1)
    assert found.estimate == pytest.approx(2 * x.mean())
    assert found.high - found.estimate == pytest.approx(t.ppf(0.975, 7) * error, rel=1e-9)
    assert over_pairs(2, lambda i, j: 0.5).low is None
    with pytest.raises(TooLittleData):
        over_pairs(1, lambda i, j: 0.0)
