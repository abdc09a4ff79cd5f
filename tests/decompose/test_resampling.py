"""Drawing dead latents anew: what is touched and what is not, and that it brings them back."""

import pytest
import torch
from scipy.stats import chisquare

from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.objectives import L1, BatchTopK, EachTopK, Gated, JumpReLU, Matryoshka
from prosect.decompose.recipe import RESAMPLE, Recipe
from prosect.decompose.resampling import SHARE, redraw
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).torch())


def test_new_rows_point_at_what_single_positions_lack():
    x, residual, encoder = normal(50, 6), normal(50, 6, seed=1), 3 * normal(20, 6, seed=2)
    dead = torch.tensor([2, 5, 11, 19])
    made = redraw(dead, x, residual, encoder, Seed(0).torch(), tied=True)
    assert made.latents.tolist() == dead.tolist()
    assert torch.allclose(made.decoder.norm(dim=1), torch.ones(4))
    cosines = made.decoder @ (residual / residual.norm(dim=1, keepdim=True)).T
    assert torch.allclose(cosines.max(dim=1).values, torch.ones(4), atol=1e-5)
    assert len(set(cosines.argmax(dim=1).tolist())) == 4  # without replacement
    living = torch.ones(20, dtype=torch.bool)
    living[dead] = False
    size = SHARE * encoder[living].norm(dim=1).mean()
    assert torch.allclose(made.encoder, made.decoder * size, atol=1e-5)
    apart = redraw(dead, x, residual, encoder, Seed(0).torch(), tied=False)
    assert torch.equal(apart.decoder, made.decoder)
    of = (x / x.norm(dim=1, keepdim=True))[cosines.argmax(dim=1)]
    assert torch.allclose(apart.encoder, of * size, atol=1e-5)


def test_positions_are_drawn_by_the_square_of_their_error():
    residual = torch.diag(torch.tensor([1.0, 1.5, 2.0, 0.0]))
    generator, counts = Seed(0).torch(), torch.zeros(4)
    for _ in range(2000):
        made = redraw(torch.tensor([0]), residual, residual, torch.eye(4), generator, tied=True)
        counts[int(made.decoder.argmax())] += 1
    weight = torch.tensor([1.0, 1.5, 2.0]) ** 4
    assert counts[3] == 0
    assert chisquare(counts[:3].numpy(), (2000 * weight / weight.sum()).numpy()).pvalue > 0.001


def test_no_more_are_drawn_than_positions_that_have_an_error():
    residual = torch.zeros(5, 3)
    assert len(redraw(torch.arange(4), residual, residual, torch.eye(3), Seed(0).torch(), True).latents) == 0
    residual[1, 0], residual[3, 2] = 1.0, 1e-3
    made = redraw(torch.arange(4), residual, residual, torch.eye(3), Seed(0).torch(), True)
    assert made.latents.tolist() == [0, 1]


@pytest.mark.parametrize("objective", [L1(0.1), Gated(0.1), JumpReLU(weight=0.01)], ids=lambda o: o.name)
def test_only_dead_latents_are_touched_and_their_moments_forgotten(objective):
    x = normal(64, 8) @ normal(8, 8, seed=5)
    recipe = Recipe(batch=64, rate=1e-2, dead_after=1000, resample=(0.5,), aux=0.0)
    made = Trainer(Dictionary("x", 24, objective, recipe=recipe), {"x": 8}, 8)
    other = Trainer(
        Dictionary("x", 24, objective, recipe=Recipe(**{**vars(recipe), "resample": ()})), {"x": 8}, 8
    )
    dead = torch.tensor([1, 7, 8])
    for t in (made, other):
        t.start(ArrayStream({"x": x}))
        with torch.no_grad():
            t.bias[dead] = -100.0
        for _ in range(3):
            t.advance({"x": x})
        t.idle[dead] = 10**6
        t.advance({"x": x})
    assert made.step == 4
    living = torch.ones(24, dtype=torch.bool)
    living[dead] = False
    initial = {"bias": torch.zeros(24), **objective.extra(24)}
    for name, p in made.parameters().items():
        if name == "offset":
            continue
        q = other.parameters()[name]
        assert torch.equal(p[living], q[living])
        if name in initial:
            assert torch.equal(p[dead], initial[name][dead])
        else:
            assert not torch.isclose(p[dead], q[dead]).all(dim=1).any()
        for moment in ("exp_avg", "exp_avg_sq"):
            assert (made.optimiser.state[p][moment][dead] == 0).all()
            assert torch.equal(
                made.optimiser.state[p][moment][living], other.optimiser.state[q][moment][living]
            )
    assert (made.idle[dead] == 0).all()
    assert (other.idle[dead] > 10**6).all()


@pytest.mark.parametrize("objective", [L1(0.2), Gated(0.4)], ids=lambda o: o.name)
def test_latents_that_no_gradient_reaches_come_back(objective):
    generator = Seed(0).child("test").torch()
    s = (torch.rand(4096, 24, generator=generator) < 0.1) * torch.rand(4096, 24, generator=generator)
    x = s @ torch.randn(24, 12, generator=generator)
    share = {}
    for resample in ((), (0.2, 0.4)):
        recipe = Recipe(batch=128, rate=1e-2, dead_after=1000, resample=resample)
        made = Trainer(Dictionary("x", 32, objective, recipe=recipe), {"x": 12}, 100)
        made.start(ArrayStream({"x": x}))
        with torch.no_grad():
            made.bias[:16] = -100.0
        for step in range(100):
            made.advance({"x": x[128 * (step % 32) :][:128]})
        share[resample] = float((made.idle[:16] >= 1000).double().mean())
    assert share[()] == 1.0
    assert share[0.2, 0.4] < 0.4


def test_who_is_drawn_anew_unless_told_otherwise():
    for objective in (L1(), Gated()):
        assert Recipe().resamples(objective.auxk) == RESAMPLE
    for objective in (EachTopK(1), BatchTopK(1), Matryoshka(1), JumpReLU()):
        assert Recipe().resamples(objective.auxk) == ()
    assert Recipe(resample=(0.5,)).resamples(True) == (0.5,)
    assert Recipe(resample=()).resamples(False) == ()
