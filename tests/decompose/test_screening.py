"""Screening in bfloat16 finds what float32 finds, whatever the numbers: near ties, wild norms, hostile rows."""

import pytest
import torch

from prosect.core.seeds import Seed
from prosect.decompose import screening
from prosect.decompose.objectives import BatchTopK, EachTopK, Matryoshka
from prosect.decompose.screening import dots, screened, screened_of_all, worthwhile

D, N, K = 24, 1024, 8


def drawn(name, *shape):
    return torch.randn(shape, generator=Seed(0).child("screening", name).torch())


def plain(x, encoder, bias, k):
    return torch.addmm(bias, x, encoder.T).topk(k, dim=1)


def same(found, x, encoder, bias, k):
    """Equal values, and equal latents wherever float32 tells them apart."""
    expected = plain(x, encoder, bias, k + 1 if k < len(encoder) else k)
    values = found.values.sort(dim=1, descending=True).values
    scale = expected.values.abs().amax(dim=1, keepdim=True) * 1e-5 + 1e-6
    assert bool(((values - expected.values[:, :k]).abs() <= scale).all())
    for row in range(len(x)):
        mine, theirs = set(found.indices[row].tolist()), set(expected.indices[row, :k].tolist())
        assert len(mine) == k
        if expected.values[row, k - 1] - expected.values[row, k] > 2 * scale[row]:
            assert mine == theirs


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_it_is_topk_of_the_product(scale):
    x, encoder, bias = scale * drawn("x", 300, D), drawn("w", N, D), 0.1 * scale * drawn("b", N)
    found = screened(x, encoder, bias, K)
    same(found, x, encoder, bias, K)
    assert found.dense < 60  # screening settles most rows


def test_near_ties_are_settled_densely_and_exactly():
    """Latents that differ by less than bfloat16 can tell: the bound must notice."""
    base = drawn("one", 1, D)
    encoder = base.repeat(N, 1) * (1 + 1e-4 * torch.arange(N)[:, None] / N)
    x = drawn("x", 50, D)
    found = screened(x, encoder, torch.zeros(N), K)
    assert found.dense == 50
    same(found, x, encoder, torch.zeros(N), K)


def test_a_latent_that_rounding_takes_all_it_can_from_is_not_missed():
    """Every weight of it is just below halfway to the next number in bfloat16, and so is its product.

    257 of them: 257.99 in float32, 256 in bfloat16, as many others have; those found first have 257.75.
    """
    encoder = torch.ones(N, 257)
    encoder[:, 0] = 0.0  # 256, in bfloat16 too
    encoder[8 : 8 + K, 0] = 1.75  # 257.75; 258 in bfloat16
    places = (3, 517, 1023)  # of equal ones any may be taken, so there are several
    encoder[list(places)] = 1 + 0.99 * 2.0**-8
    found = screened(torch.ones(2, 257), encoder, torch.zeros(N), K)
    for row in found.indices.tolist():
        assert set(places) <= set(row)


def test_one_latent_of_huge_norm_does_not_spoil_the_others():
    x, encoder = drawn("x", 100, D), drawn("w", N, D)
    encoder[17] *= 1e3
    same(screened(x, encoder, torch.zeros(N), K), x, encoder, torch.zeros(N), K)


def test_without_the_bound_rows_would_be_wrong(monkeypatch):
    """What is compared above is no accident: with an error of nothing, latents are missed."""
    monkeypatch.setattr(screening, "_errors", lambda x, _: torch.zeros(len(x)))
    monkeypatch.setattr(screening, "ROUNDOFF", 0.0)
    encoder = drawn("one", 1, D) * (1 + 1e-3 * torch.arange(N)[:, None] / N)
    x = drawn("x", 50, D)
    found = screened(x, encoder, torch.zeros(N), K)
    missed = plain(x, encoder, torch.zeros(N), K).values.sum() - found.values.sum()
    assert missed > 1e-4


def test_the_largest_of_all_need_the_margin_below_the_floor(monkeypatch):
    """At a floor that just enough entries reach, some of the largest in float32 screen below it.

    Rows share a large part that no latent sees, so that rounding moves products far.
    """
    x, encoder, bias, count = 30 + drawn("x", 200, D), drawn("w", N, D), torch.zeros(N), 800
    encoder -= encoder.mean(dim=1, keepdim=True)
    monkeypatch.setattr(screening, "floor_of_all", lambda a, n: a.reshape(-1).topk(n).values.min())
    flat = torch.addmm(bias, x, encoder.T).reshape(-1)

    def missed():
        found = screened_of_all(x, encoder, bias, count)
        return None if found is None else float(flat.topk(count).values.sum() - flat[found.places].sum())

    assert missed() == pytest.approx(0, abs=1e-2)
    monkeypatch.setattr(screening, "_errors", lambda x, _: torch.zeros(len(x)))
    monkeypatch.setattr(screening, "ROUNDOFF", 0.0)
    without = missed()
    assert without is None or without > 0.05


@pytest.mark.parametrize("case", ["plain", "near ties", "one huge", "large"])
def test_the_largest_of_all_are_those_of_the_product(case):
    x, encoder, bias = drawn("x", 200, D), drawn("w", N, D), 0.1 * drawn("b", N)
    if case == "near ties":
        encoder = drawn("one", 1, D) * (1 + 1e-4 * torch.arange(N)[:, None] / N)
    elif case == "one huge":
        encoder[17] *= 1e3
    elif case == "large":
        x, bias = 1e4 * x, 1e4 * bias
    count = 4 * len(x)
    found = screened_of_all(x, encoder, bias, count)
    flat = torch.addmm(bias, x, encoder.T).reshape(-1)
    expected = flat.topk(count + 1).values
    scale = 1e-5 * float(expected[0])
    assert len(found.places) == len(set(found.places.tolist())) == count
    assert (found.places.diff() > 0).all()
    assert torch.allclose(found.values, flat[found.places], rtol=0, atol=scale)
    assert (found.values >= expected[count - 1] - 2 * scale).all()


def test_what_holds_no_number_is_left_to_the_dense_way():
    x = drawn("x", 200, D)
    x[3] = float("nan")
    assert screened_of_all(x, drawn("w", N, D), torch.zeros(N), 800) is None


@pytest.mark.parametrize("objective", [EachTopK(8), BatchTopK(8), Matryoshka(8)], ids=str)
def test_training_chooses_the_same_with_screening_and_without(objective, monkeypatch):
    x, encoder, bias = drawn("x", 200, D), drawn("w", N, D), 0.1 * drawn("b", N)
    chosen = []
    for able in (False, True):
        monkeypatch.setattr("prosect.decompose.topk.worthwhile", lambda *_, able=able: able)
        picks, values = objective.choose(x, encoder, bias, {})
        order = picks.places.argsort()
        chosen.append((picks.places[order], values[order]))
    (plain_places, plain_values), (places, values) = chosen
    assert torch.equal(places, plain_places)
    assert torch.allclose(values, plain_values, atol=1e-5)


def test_products_are_those_written_out():
    x, table = drawn("x", 7, D), drawn("w", N, D)
    indices = torch.stack([torch.randperm(N, generator=Seed(1).torch())[:5] for _ in range(7)])
    assert torch.allclose(dots(indices, x, table), (table[indices] * x[:, None]).sum(dim=-1), atol=1e-5)


def test_it_is_used_only_where_it_pays(monkeypatch):
    wide = torch.zeros(8192, 512)
    monkeypatch.setattr(screening, "available", lambda: True)
    assert worthwhile(wide, 32)
    assert not worthwhile(torch.zeros(1024, 64), 32)
    assert not worthwhile(wide.double(), 32)
    assert not worthwhile(wide, 600)
    monkeypatch.setattr(screening, "available", lambda: False)
    assert not worthwhile(wide, 32)
