"""Screening in bfloat16 finds what float32 finds, whatever the numbers: near ties, wild norms, hostile rows."""

import pytest
import torch

from prosect.core.seeds import Seed
from prosect.decompose import screening
from prosect.decompose.screening import products, screened, worthwhile

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


def test_one_latent_of_huge_norm_does_not_spoil_the_others():
    x, encoder = drawn("x", 100, D), drawn("w", N, D)
    encoder[17] *= 1e3
    same(screened(x, encoder, torch.zeros(N), K), x, encoder, torch.zeros(N), K)


def test_without_the_check_near_ties_would_be_wrong(monkeypatch):
    """The bound is what makes it exact: with an error of nothing some rows would keep the wrong latents."""
    base = drawn("one", 1, D)
    encoder = base.repeat(N, 1) * (1 + 1e-4 * torch.arange(N)[:, None] / N)
    x = drawn("x", 50, D).abs() * base.sign()
    wanted = {tuple(sorted(r)) for r in plain(x, encoder, torch.zeros(N), K).indices.tolist()}
    rounded = torch.addmm(torch.zeros(N).bfloat16(), x.bfloat16(), encoder.bfloat16().T)
    guessed = {tuple(sorted(r)) for r in rounded.topk(K, dim=1).indices.tolist()}
    assert guessed != wanted


def test_products_are_those_written_out():
    x, table = drawn("x", 7, D), drawn("w", N, D)
    indices = torch.stack([torch.randperm(N, generator=Seed(1).torch())[:5] for _ in range(7)])
    assert torch.allclose(products(indices, x, table), (table[indices] * x[:, None]).sum(dim=-1), atol=1e-5)


def test_it_is_used_only_where_it_pays(monkeypatch):
    wide = torch.zeros(8192, 512)
    monkeypatch.setattr(screening, "available", lambda: True)
    assert worthwhile(wide, 32)
    assert not worthwhile(torch.zeros(1024, 64), 32)
    assert not worthwhile(wide.double(), 32)
    assert not worthwhile(wide, 600)
    monkeypatch.setattr(screening, "available", lambda: False)
    assert not worthwhile(wide, 32)
