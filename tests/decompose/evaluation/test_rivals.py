"""Which account describes activations best at equal length: dense, sparse or curved, on data of each kind."""

import math

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.autoencoder import Autoencoder
from prosect.decompose.evaluation.description import description_length, error_at
from prosect.decompose.evaluation.rivals import Rivals, rivals, usual
from prosect.decompose.linear import Neurons, Pca
from prosect.decompose.streams import ArrayStream

D, ROWS, MANY = 16, 2000, 3000
SEEDS = [Seed(s) for s in range(3)]


def planted(m, rate):
    """G1: x = D s + noise; with a rate of 1 every feature is always at work, at a normal strength."""

    def draw(seed):
        g = seed.child("data").torch()
        features = torch.randn(m, D, generator=g)
        features /= features.norm(dim=1, keepdim=True)

        def rows():
            if rate == 1:
                s = torch.randn(ROWS, m, generator=g)
            else:
                s = (torch.rand(ROWS, m, generator=g) < rate) * (1 + torch.rand(ROWS, m, generator=g))
            return ArrayStream({"x": s @ features + 0.01 * torch.randn(ROWS, D, generator=g)})

        return rows(), rows()

    return draw


def torus(seed):
    """Two angles, of which every number is a smooth function."""
    g = seed.child("data").torch()
    mixed = torch.randn(8, D, generator=g)

    def rows():
        t, u = 2 * math.pi * torch.rand(2, MANY, 1, generator=g)
        waves = torch.cat([f(a) for a in (t, u, t + u, t - u) for f in (torch.sin, torch.cos)], dim=1)
        return ArrayStream({"x": waves @ mixed + 0.01 * torch.randn(MANY, D, generator=g)})

    return rows(), rows()


@pytest.mark.parametrize(
    ("draw", "nats", "account"),
    [(planted(4, 1), 9, "dense"), (planted(48, 1 / 32), 9, "sparse"), (torus, 9, "curved")],
    ids=["m < d", "m > d", "torus"],
)
def test_the_account_that_made_the_data_is_preferred(draw, nats, account):
    members = usual("x", D)
    accounts = {
        "dense": members["dense"][1:],
        "sparse": members["sparse"][:1],
        "curved": members["curved"][1:],
    }
    found = rivals(draw, accounts, nats, SEEDS)
    assert found.preferred == account
    for name, each in found.errors.items():
        assert all(one.per_position <= nats for one in each)
        assert name == account or found.more(name, account).low > 0


def test_preference_needs_more_than_one_lucky_seed():
    x = ArrayStream({"x": torch.randn(500, 3, generator=Seed(0).torch())})
    found = error_at(Pca("x").fit(x), x, 3000.0)

    def at(*errors):
        return tuple(type(found)(**{**vars(found), "reached": e}) for e in errors)

    close = Rivals(6.0, {"a": at(0.1, 0.3, 0.2), "b": at(0.2, 0.2, 0.3)})
    assert close.preferred is None
    clear = Rivals(6.0, {"a": at(0.1, 0.3, 0.2), "b": at(0.2, 0.41, 0.3)})  # apart within every seed
    assert clear.preferred == "a"
    assert clear.more("b", "a").estimate == pytest.approx(0.31 / 3)


def test_the_least_error_at_a_length_is_the_length_at_that_error():
    x = torch.randn(3000, 4, generator=Seed(0).torch()) * torch.tensor([4.0, 2.0, 1.0, 0.5])
    stream = ArrayStream({"x": x})
    made = Pca("x").fit(stream)
    there = description_length(made, stream, 0.05)
    back = error_at(made, stream, there.total)
    assert back.reached == pytest.approx(0.05, rel=0.02)
    assert back.total <= there.total
    errors = [error_at(made, stream, n * 3000).reached for n in (1.0, 2.0, 4.0, 8.0)]
    assert errors == sorted(errors, reverse=True)


def test_one_gaussian_reaches_the_error_of_rate_and_distortion():
    n = 20_000
    stream = ArrayStream({"x": torch.randn(n, 1, generator=Seed(1).torch())})
    found = error_at(Neurons("x").fit(stream), stream, 3.0 * n)
    bound = math.exp(-2 * 3.0)  # Shannon; rounding costs ½ ln(2πe/12) more
    assert bound < found.reached < bound * 2 * math.pi * math.e / 12 * 1.05


def test_an_autoencoder_is_charged_for_its_decoder_and_rounded_by_what_it_writes():
    explore, _ = torus(Seed(0))
    made = Autoencoder("x", 3, 10, steps=200, rate=2e-2).fit(explore)
    assert made.decoder_parameters == 3 * 10 + 10 + 10 * D + D + D + 1
    found = error_at(made, explore, 6.0 * MANY)
    assert found.parts == pytest.approx(0.5 * math.log(MANY) * made.decoder_parameters)
    z = made.encode({"x": explore.arrays["x"]})
    little = 1e-3
    moved = []
    for j in range(3):
        shifted = z.dense().clone()
        shifted[:, j] += little
        other = made.decode(type(z).of_dense(shifted))["x"]
        moved.append(float((other - made.decode(z)["x"]).double().square().sum(dim=1).mean().sqrt()) / little)
    assert np.asarray(moved) == pytest.approx(made.sizes.numpy(), rel=0.02)
    again = Autoencoder("x", 3, 10, steps=200, rate=2e-2).fit(explore)
    assert torch.equal(again.write_, made.write_)  # from a seed


def test_what_cannot_be_compared_is_refused():
    accounts = usual("x", D)
    with pytest.raises(TooLittleData, match="1 seeds"):
        rivals(torus, accounts, 9, SEEDS[:1])
    with pytest.raises(BadInput, match="1 accounts"):
        rivals(torus, {"dense": accounts["dense"]}, 9, SEEDS)
    with pytest.raises(Unsupported, match="curved"):
        rivals(
            torus, {"curved": [lambda s: Autoencoder("x", 2, 90, 5)], "dense": accounts["dense"]}, 0.5, SEEDS
        )
    with pytest.raises(BadInput):
        Autoencoder("x", 0)
