"""Description length of codes whose entropy is known, against rate-distortion, and as a judge between models."""

import math

import numpy as np
import pytest
import torch
from scipy.special import xlogy
from scipy.stats import norm

from known import Labelled, written
from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.contract import Codes
from prosect.decompose.evaluation.description import description_length
from prosect.decompose.linear import Neurons, Pca, RandomDirections
from prosect.decompose.streams import ArrayStream


def rng(name="test"):
    return Seed(0).child(name).torch()


def entropy(p):
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


def test_codes_that_are_there_or_not_cost_their_entropy():
    n, basis = 3000, torch.linalg.qr(torch.randn(6, 6, generator=rng("b"))).Q
    on = (torch.rand(n, 6, generator=rng()) < torch.tensor([0.5, 0.3, 0.2, 0.1, 0.05, 0.01])).float()
    stream = Labelled(on, basis, block=700)
    found = description_length(written(basis, basis, threshold=0.5), stream, 0.05)
    expected = n * sum(entropy(float(p)) for p in on.double().mean(dim=0))
    one = 0.5 * math.log(n)
    assert found.codes == pytest.approx(expected + 6 * one, rel=1e-9)
    assert found.parts == pytest.approx(one * 6 * 7)
    assert found.reached <= 0.05
    assert found.total == found.codes + found.parts
    assert found.per_position == pytest.approx(found.total / n)


def test_latents_that_never_fire_cost_nothing():
    basis = torch.eye(4)
    on = (torch.rand(800, 4, generator=rng()) < 0.3).float()
    stream = Labelled(on, basis)
    more = torch.cat([basis, torch.randn(3, 4, generator=rng("m"))])
    silent = written(torch.cat([basis, torch.zeros(3, 4)]), more, threshold=0.5)
    plain = description_length(written(basis, basis, threshold=0.5), stream, 0.1)
    assert description_length(silent, stream, 0.1).total == pytest.approx(plain.total)


@pytest.mark.parametrize("fvu", [0.1, 0.01])
def test_a_gaussian_costs_the_entropy_of_its_cells(fvu):
    n = 40_000
    stream = ArrayStream({"x": torch.randn(n, 1, generator=rng(), dtype=torch.float64)})
    found = description_length(Neurons("x").fit(stream), stream, fvu)
    centres = np.arange(-60, 61) * found.step
    low, high = centres - found.step / 2, centres + found.step / 2
    cells = norm.cdf(high) - norm.cdf(low)
    # ∫ (x - c)² φ over a cell, by parts
    square = cells + low * norm.pdf(low) - high * norm.pdf(high)
    error = square - 2 * centres * (norm.pdf(low) - norm.pdf(high)) + centres**2 * cells
    assert error.sum() == pytest.approx(fvu, rel=0.02)
    assert found.reached == pytest.approx(fvu, rel=1e-3)
    assert found.codes / n == pytest.approx(-xlogy(cells, cells).sum(), abs=0.01)
    if fvu < 0.05:  # rate-distortion, and what rounding one number at a time costs more
        rate = 0.5 * math.log(1 / fvu) + 0.5 * math.log(2 * math.pi * math.e / 12)
        assert found.codes / n == pytest.approx(rate, abs=0.02)


def test_the_unit_of_a_code_does_not_matter():
    on = (torch.rand(600, 3, generator=rng()) < 0.3) * (1 + torch.rand(600, 3, generator=rng("s")))
    stream = Labelled(on, torch.eye(3))
    a, b = (
        description_length(written(s * torch.eye(3), torch.eye(3) / s, threshold=0.1), stream, 0.02)
        for s in (1.0, 8.0)
    )
    assert a.total == pytest.approx(b.total, rel=1e-6)


def test_less_error_costs_more():
    x = torch.randn(2000, 4, generator=rng()) * torch.tensor([4.0, 2.0, 1.0, 0.5])
    stream = ArrayStream({"x": x})
    costs = [description_length(Pca("x").fit(stream), stream, fvu).total for fvu in (0.3, 0.1, 0.03, 0.01)]
    assert costs == sorted(costs)


def test_without_superposition_dense_parts_are_shorter_and_with_it_sparse_ones():
    g = rng()
    # four directions at work all the time, in sixteen dimensions
    dense = torch.randn(3000, 4, generator=g) @ torch.linalg.qr(torch.randn(16, 16, generator=g)).Q[:4]
    stream = ArrayStream({"x": dense})
    pca = description_length(Pca("x", 4).fit(stream), stream, 0.1)
    split = torch.cat([torch.eye(16), -torch.eye(16)])
    sdl = description_length(written(split, split), stream, 0.1)
    assert pca.total < 0.7 * sdl.total
    # sixty-four of which one or two are at work
    features = torch.randn(64, 16, generator=g)
    features /= features.norm(dim=1, keepdim=True)
    on = (torch.rand(6000, 64, generator=g) < 1.0 / 64).float() * (1 + torch.rand(6000, 64, generator=g))
    crowded = Labelled(on, features)

    perfect = written(
        features, features
    )  # given the strengths themselves as codes, as a perfect encoder would
    place = {tuple(row.tolist()): i for i, row in enumerate(crowded.x)}

    def exact(x):
        return Codes.of_sparse(on[[place[tuple(row.tolist())] for row in x["x"]]])

    perfect._encode = exact
    sdl = description_length(perfect, crowded, 0.1)
    pca = description_length(Pca("x").fit(crowded), crowded, 0.1)
    assert sdl.total < 0.7 * pca.total


def test_what_cannot_reach_an_error_is_not_compared_at_it():
    x = torch.randn(300, 5, generator=rng())
    stream = ArrayStream({"x": x})
    with pytest.raises(Unsupported, match="unexplained"):
        description_length(Pca("x", 2).fit(stream), stream, 0.1)
    with pytest.raises(Unsupported):
        description_length(RandomDirections.alike("x", 5, 0.1).fit(stream), stream, 0.1)
    with pytest.raises(BadInput):
        description_length(Pca("x").fit(stream), stream, 1.5)
    with pytest.raises(TooLittleData):
        still = ArrayStream({"x": torch.ones(9, 2)})
        description_length(Neurons("x").fit(still), still, 0.1)
