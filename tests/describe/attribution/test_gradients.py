"""Saliency, input × gradient, integrated and expected gradients against closed forms and other integrators."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from nets_of_attribution import itself, last_logit, numbers, opened, perceptron, tokens
from prosect.core.errors import BadInput, UnknownName
from prosect.describe.attribution import (
    ExpectedGradients,
    InputGradient,
    IntegratedGradients,
    Saliency,
    attribute,
)
from prosect.describe.attribution.integrated import QUADRATURES, nodes

W = torch.tensor([2.0, -1.0, 0.5, 0.0], dtype=torch.float64)


def linear():
    return opened(lambda x: x.double() @ W + 3.0, 4)


def curved():
    """A smooth function with interactions."""
    return opened(lambda x: torch.sin(x[:, 0] * x[:, 1]) + x[:, 2] ** 3 + torch.exp(0.3 * x[:, 0]), 3)


@pytest.mark.parametrize("method", [InputGradient(), *(IntegratedGradients(7, q) for q in QUADRATURES)])
def test_a_linear_function_gets_weight_times_difference_from_every_gradient_method(method):
    x, base = numbers(5, 4), numbers(1, 4, seed=1)[0]
    got = attribute(linear(), x, itself, method, baseline=base, sanity=None)
    assert np.allclose(got.values, (W * (x - base)).numpy(), atol=1e-12)
    if got.promised is not None:
        assert got.completeness.max() < 1e-12


@pytest.mark.parametrize("norm", ["l1", "l2", "signed"])
def test_saliency_is_the_gradient_folded_over_each_feature(norm):
    groups = torch.tensor([0, 1, 1, 2])
    got = attribute(linear(), numbers(3, 4), itself, Saliency(norm), groups=groups, sanity=None)
    fold = {"l1": lambda v: v.abs().sum(), "l2": torch.linalg.norm, "signed": torch.sum}[norm]
    expected = [float(fold(W[groups == g])) for g in range(3)]
    assert np.allclose(got.values, [expected] * 3)


def test_integrated_gradients_are_the_integral_that_an_adaptive_rule_finds():
    model, x, base = curved(), numbers(3, 3), numbers(1, 3, seed=5)[0]
    got = attribute(model, x, itself, IntegratedGradients(40), baseline=base, sanity=None)
    for row in range(3):
        for i in range(3):

            def slope(alpha, row=row, i=i):
                point = (base + alpha * (x[row] - base)).requires_grad_(True)
                (g,) = torch.autograd.grad(model.module(point[None]).sum(), point)
                return float(g[i] * (x[row, i] - base[i]))

            assert got.values[row, i] == pytest.approx(quad(slope, 0, 1)[0], abs=1e-9)


@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_completeness_error_is_reported_and_falls_with_more_steps(quadrature):
    errors = []
    for steps in (4, 16, 64):
        method = IntegratedGradients(steps, quadrature)
        got = attribute(curved(), numbers(6, 3), itself, method, sanity=None)
        difference = got.output - float(curved().module(torch.zeros(1, 3, dtype=torch.float64)))
        assert np.allclose(got.promised, difference)
        assert np.allclose(got.completeness, abs(got.values.sum(axis=1) - difference))
        errors.append(got.completeness.max())
    assert errors[0] > errors[1] > errors[2] or errors[1] < 1e-6
    bar = {"gauss-legendre": 1e-12, "middle": 1e-3, "trapezoid": 1e-3}.get(quadrature, 0.5)
    assert errors[2] < bar


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("steps", [2, 5, 33])
def test_rules_integrate_what_their_order_promises(quadrature, steps):
    at, weight = nodes(quadrature, steps)
    assert weight.sum() == pytest.approx(1.0) and at.min() >= 0 and at.max() <= 1
    exact = {"gauss-legendre": 2 * steps - 1, "middle": 1, "trapezoid": 1}.get(quadrature, 0)
    for power in range(exact + 1):
        assert weight @ at**power == pytest.approx(1 / (power + 1), abs=1e-12)


def test_several_baselines_are_averaged():
    x, background = numbers(2, 3), numbers(4, 3, seed=3)
    whole = attribute(curved(), x, itself, background=background, sanity=None)
    each = [attribute(curved(), x, itself, baseline=b, sanity=None).values for b in background]
    assert np.allclose(whole.values, np.mean(each, axis=0))
    assert whole.completeness.max() < 1e-9


def test_a_budget_changes_nothing():
    model, ids = tokens()
    for method in ("integrated-gradients", "saliency", "shapley"):
        a, b = (attribute(model, ids, last_logit, method, sanity=None, budget_mb=mb) for mb in (512, 1e-3))
        assert np.allclose(a.values, b.values, atol=1e-5)
        assert np.abs(a.values).max() > 0.01


def test_expected_gradients_agree_with_quadrature_over_the_background_within_their_errors():
    model, x, background = perceptron(), numbers(8, 6, dtype=torch.float32), numbers(5, 6, 2, torch.float32)
    metric = lambda output, batch: output[:, 1]  # noqa: E731
    exact = attribute(model, x, metric, IntegratedGradients(64), background=background, sanity=None)
    got = attribute(model, x, metric, ExpectedGradients(200), background=background, sanity=None, pairs=0)
    z = (got.values - exact.values) / got.errors
    assert np.sqrt((z**2).mean()) < 1.5  # strata can only make errors smaller than stated
    assert np.abs(got.values - exact.values).max() > 1e-4
    assert np.allclose(got.promised, exact.promised)
    more = attribute(model, x, metric, ExpectedGradients(2000), background=background, sanity=None, pairs=0)
    assert more.completeness.mean() < got.completeness.mean()


def test_tokens_get_the_sum_over_their_embedding_row_and_padding_gets_nothing():
    model, ids = tokens()
    got = attribute(model, ids, last_logit, baseline="zero", sanity=None)
    batch = model.batch(ids)
    table = model.module.get_input_embeddings()
    x = table(batch.tensors["input_ids"]).detach()
    slopes = torch.zeros_like(x, dtype=torch.float64)
    at, weight = nodes("gauss-legendre", 32)
    for a, w in zip(at, weight, strict=True):  # by the forward of the model itself, without prosect
        point = (float(a) * x).requires_grad_(True)
        handle = table.register_forward_hook(lambda m, i, o, p=point: p)
        logits = model.module(**batch.tensors, attention_mask=batch.mask.long()).logits
        handle.remove()
        slopes += w * torch.autograd.grad(last_logit(logits, batch).sum(), point)[0].double()
    expected = (slopes * x).sum(dim=-1) * batch.mask
    assert np.allclose(got.values, expected.detach().numpy(), atol=1e-4)
    assert (got.values[~batch.mask.numpy()] == 0).all() and (~got.present == ~batch.mask.numpy()).all()
    # a path to zero ends where a norm divides by nothing: the error says that the integral was not reached
    assert got.completeness.max() > 0.1 and any("completeness" in note for note in got.notes)


def test_positions_of_a_later_stream_and_a_token_as_baseline():
    model, ids = tokens()
    where = {"features": "positions", "site": "resid_pre.1", "sanity": None}
    coarse, fine = (
        attribute(model, ids, last_logit, IntegratedGradients(steps), **where) for steps in (16, 256)
    )
    assert fine.completeness.max() < 0.2 * coarse.completeness.max() and "resid_pre.1" in fine.features.words
    token = attribute(model, ids, last_logit, baseline=0, sanity=None)
    lengths = [len(row) for row in ids]
    zeros = model.batch([[0] * n for n in lengths])
    there = last_logit(model.run(zeros).output, zeros).double().numpy()
    assert np.allclose(token.promised, token.output - there, atol=1e-5)


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(UnknownName, match="quadrature 'simpson'"):
        IntegratedGradients(4, "simpson")
    with pytest.raises(BadInput, match="at least 2"):
        IntegratedGradients(1, "trapezoid")
    with pytest.raises(BadInput, match="standard error"):
        ExpectedGradients(1)
    with pytest.raises(UnknownName, match="norm"):
        Saliency("l3")
