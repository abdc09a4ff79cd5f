"""Directions that go with a token: on planted data the means differ by what was planted, and a probe sees past noise."""

import pytest
import torch

from prosect.core.errors import TooLittleData
from prosect.core.seeds import Seed
from prosect.describe.direction import Before, as_long_as

WIDTH = 12


def planted(noise):
    """A stream that is shifted along one axis before the token, with a second axis that varies more than all others."""
    found = Before(Seed(0))
    g = Seed(0).child("planted").torch()
    for _ in range(6):
        x = torch.randn(16, 20, WIDTH, generator=g)
        x[..., 1] *= noise
        there = torch.rand(16, 20, generator=g) < 0.2
        x[there, 0] += 2.0
        x[there, 1] += 2.0
        found.add(x, there, ~there)
    return found


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def test_the_difference_of_means_is_what_was_planted():
    found = planted(1.0)
    assert found.means()[:2].tolist() == pytest.approx([2.0, 2.0], abs=0.2)
    assert found.means()[2:].abs().max() < 0.2


def test_a_probe_is_the_discriminant_of_gaussians():
    """For normal classes of one covariance the best normal is covariance⁻¹ times the difference of means (Fisher)."""
    found = planted(6.0)
    best = torch.zeros(WIDTH)
    best[0], best[1] = 2.0, 2.0 / 36
    assert cosine(found.probe(), best) > 0.97
    assert cosine(found.means(), best) < 0.8
    assert found.probe().norm() == pytest.approx(float(found.means().norm()), rel=1e-5)


def test_a_token_that_is_too_rare_is_refused():
    found = Before(Seed(0))
    there = torch.zeros(4, 8, dtype=torch.bool)
    there[0, 0] = True
    found.add(torch.randn(4, 8, WIDTH, generator=Seed(0).torch()), there, ~there)
    with pytest.raises(TooLittleData, match="' x' follows"):
        found.check(" x")


def test_lengths_are_made_equal():
    made = as_long_as(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 10.0]))
    assert made.tolist() == pytest.approx([6.0, 8.0])
