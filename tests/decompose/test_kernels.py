"""Sparse products against dense ones and autograd, and what they may not allocate."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.kernels import CROWDED, Every, Picks, decode, of_latents, picked
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import GROUP, TopK, largest, largest_of_all
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer


def problem(n, width, k, d, seed=0):
    generator = Seed(seed).child("test").torch()
    indices = torch.rand(n, width, generator=generator).argsort(dim=1)[:, :k]
    values = torch.randn(n, k, generator=generator, dtype=torch.float64)
    values = values * (torch.rand(n, k, generator=generator) < 0.8)
    table = torch.randn(width, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return indices, values, table, x


SIZES = st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))


@given(sizes=SIZES, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_decoding_and_its_gradients_are_the_dense_ones(sizes, seed):
    n, width, k, d = sizes
    indices, values, table, x = problem(n, width, min(k, width), d, seed)
    results = []
    for sparse in (True, False):
        v, t = values.clone().requires_grad_(), table.clone().requires_grad_()
        if sparse:
            made = decode(Picks.fixed(indices, width), v.reshape(-1), t)
        else:
            made = torch.zeros(n, width, dtype=torch.float64).scatter_add(1, indices, v) @ t
        (made * x).sum().backward()
        results.append((made.detach(), v.grad, t.grad))
    for sparse, dense in zip(*results, strict=True):
        assert torch.allclose(sparse, dense, atol=1e-12)


@given(sizes=SIZES, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_picked_pre_activations_have_the_dense_gradients(sizes, seed):
    n, width, k, d = sizes
    indices, values, encoder, x = problem(n, width, min(k, width), d, seed)
    bias = encoder[:, 0].clone()
    results = []
    for sparse in (True, False):
        e, b = encoder.clone().requires_grad_(), bias.clone().requires_grad_()
        pre = x @ e.T + b
        found = pre.gather(1, indices)
        if sparse:
            found = picked(
                Picks.fixed(indices, width), pre.detach().gather(1, indices).reshape(-1), e, b, x
            ).view(n, -1)
        (found * values).sum().backward()
        results.append((found.detach(), e.grad, b.grad))
    for sparse, dense in zip(*results, strict=True):
        assert torch.allclose(sparse, dense, atol=1e-12)


def test_latents_that_nothing_picked_get_no_gradient():
    table = torch.ones(5, 2, requires_grad=True)
    values = torch.ones(3, 1, requires_grad=True)
    decode(Picks.fixed(torch.tensor([[1], [3], [1]]), 5), values.reshape(-1), table).sum().backward()
    assert table.grad.tolist() == [[0, 0], [2, 2], [0, 0], [1, 1], [0, 0]]
    assert values.grad.tolist() == [[2]] * 3


@given(
    n=st.integers(0, 9),
    latents=st.integers(1, 130),
    k=st.integers(1, 12),
    values=st.integers(1, 400),
    seed=st.integers(0, 999),
)
@example(n=3, latents=16 * GROUP, k=8, values=5, seed=0)
@settings(max_examples=200, deadline=None)
def test_the_largest_entries_are_those_of_topk(n, latents, k, values, seed):
    """Few distinct values make ties, of which any may be taken."""
    k = min(k, latents)
    pre = torch.randint(values, (n, latents), generator=Seed(seed).torch()).float()
    found = largest(pre, k)
    assert found.shape == (n, k)
    assert all(len(set(row)) == k for row in found.tolist())
    expected = pre.topk(k, dim=1).values
    assert torch.equal(pre.gather(1, found).sort(dim=1, descending=True).values, expected)


def test_of_latents_is_indexing_with_its_gradient():
    picks = Picks.at(torch.tensor([0, 4, 6, 7, 14]), 3, 5)
    parameter = torch.randn(5, dtype=torch.float64, requires_grad=True)
    given = torch.randn(5, dtype=torch.float64)
    (of_latents(parameter, picks) * given).sum().backward()
    plain = parameter.detach().clone().requires_grad_()
    (plain[torch.tensor([0, 4, 1, 2, 4])] * given).sum().backward()
    assert torch.allclose(parameter.grad, plain.grad)


@given(n=st.integers(1, 12), width=st.integers(1, 9), share=st.floats(0, 1), seed=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_where_many_are_chosen_all_are_picked_and_what_is_not_chosen_changes_nothing(n, width, share, seed):
    generator = Seed(seed).torch()
    chosen = torch.rand(n, width, generator=generator) < share
    pre = torch.randn(n, width, generator=generator, dtype=torch.float64)
    table = torch.randn(width, 3, generator=generator, dtype=torch.float64)
    given = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    few = Picks.at(chosen.reshape(-1).nonzero().squeeze(1), n, width)
    picks = Picks.where(chosen)
    assert isinstance(picks, Every) == (int(chosen.sum()) > CROWDED * n * width)
    found = []
    for some in (picks, few):
        parameter = torch.linspace(-1, 1, width, dtype=torch.float64).requires_grad_()
        values = some.among(pre * chosen) * of_latents(parameter, some)
        made = decode(some, values, table)
        (made * given).sum().backward()
        found.append(
            (made.detach(), parameter.grad, some.total(values.detach()), some.fired(values).double())
        )
        assert torch.equal(some.rows * width + some.latents, some.places)
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b)


@given(n=st.integers(1, 12), width=st.integers(1, 9), d=st.integers(1, 5), seed=st.integers(0, 500))
@settings(max_examples=60, deadline=None)
def test_ragged_picks_decode_as_dense_ones_do(n, width, d, seed):
    generator = Seed(seed).torch()
    chosen = torch.rand(n, width, generator=generator) < 0.3
    dense = torch.randn(n, width, generator=generator, dtype=torch.float64) * chosen
    table = torch.randn(width, d, generator=generator, dtype=torch.float64)
    given = torch.randn(n, d, generator=generator, dtype=torch.float64)
    places = chosen.reshape(-1).nonzero().squeeze(1)
    groups = torch.tensor(sorted({max(1, width // 3), width}))
    for crowded in (False, True):
        picks = Picks.at(places, n, width)
        picks.crowded = crowded
        values, rows_of = dense.reshape(-1)[places].requires_grad_(), table.clone().requires_grad_()
        made = decode(picks, values, rows_of)
        (made * given).sum().backward()
        assert torch.allclose(made, dense @ table)
        assert torch.allclose(values.grad, (given @ table.T).reshape(-1)[places])
        assert torch.allclose(rows_of.grad, dense.T @ given)
        assert torch.allclose(picks.dense(values), dense)
        parts = decode(picks.grouped(groups), values.detach(), table).view(n, len(groups), d)
        assert torch.allclose(parts[:, 0], dense[:, : groups[0]] @ table[: groups[0]])
        assert torch.allclose(parts.sum(dim=1), dense @ table)


@given(
    n=st.integers(1, 40),
    width=st.integers(1, 200),
    share=st.floats(0, 1),
    values=st.integers(1, 400),
    seed=st.integers(0, 999),
)
@settings(max_examples=150, deadline=None)
def test_the_largest_of_all_are_those_of_a_sort(n, width, share, values, seed):
    count = max(1, round(share * share * n * width))
    x = torch.randint(values, (n, width), generator=Seed(seed).torch()).float()
    found = largest_of_all(x, count)
    assert len(set(found.tolist())) == count
    assert found.tolist() == sorted(found.tolist())
    expected = x.reshape(-1).sort(descending=True).values[:count]
    assert torch.equal(x.reshape(-1)[found].sort(descending=True).values, expected)


def test_the_largest_of_an_array_with_nan_are_found_all_the_same():
    x = torch.ones(64, 64)
    x[:, 3] = float("nan")
    assert len(largest_of_all(x, 5)) == 5


class Sizes(TorchDispatchMode):
    """Records the largest tensor that any operation gives."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else (out,):
            if isinstance(item, torch.Tensor):
                self.largest = max(self.largest, item.numel())
        return out


@pytest.mark.parametrize("dead", [False, True])
def test_no_tensor_of_positions_times_latents_times_width_is_made(dead):
    n, width, latents, k = 64, 40, 50, 20
    x = torch.randn(n, width, generator=Seed(0).torch())
    recipe = Recipe(batch=n, dead_after=1 if dead else None, aux_latents=20)
    trainer = Trainer(Dictionary("x", latents, TopK(k), recipe=recipe), {"x": width}, 10)
    trainer.start(ArrayStream({"x": x}))
    trainer.advance({"x": x})  # allocates the optimiser's moments
    if dead:
        trainer.idle[:30] = 10**6
    with Sizes() as sizes:
        trainer.advance({"x": x})
    assert n * latents <= sizes.largest <= max(n * latents, n * width, latents * width)
    assert sizes.largest < n * k * width / 10


def test_where_nothing_is_picked_nothing_is_decoded():
    table = torch.randn(3, 2, generator=Seed(0).torch(), requires_grad=True)
    picks = Picks.fixed(torch.zeros((4, 0), dtype=torch.long), 3)
    out = decode(picks, torch.zeros(0), table)
    assert torch.equal(out, torch.zeros(4, 2))
    out.sum().backward()
    assert torch.equal(table.grad, torch.zeros(3, 2))
