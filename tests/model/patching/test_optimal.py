"""Optimal ablation: closed forms, and never worse than the mean where it was fitted."""

import numpy as np
import pytest
import torch
from torch import nn

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.model.model import Model
from prosect.model.patching import optimal_ablation


class Clipped(nn.Module):
    """relu of the first input plus the second."""

    def __init__(self):
        super().__init__()
        self.read = nn.Identity()

    def forward(self, x):
        return torch.relu(self.read(x[:, :1])) + x[:, 1:]


def squared(model, batch):
    """Squared distance from the model's own output."""
    from prosect.model.patching import by_row

    reference = model.run(batch).output
    return by_row(
        batch, lambda out, rows, which: (out - reference[which]).pow(2).sum(dim=tuple(range(1, out.ndim)))
    )


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(40, 2, generator=generator) * 2 + 0.5 for _ in range(2)]


def test_the_constant_behind_a_relu_is_the_mean_of_what_it_lets_through(inputs):
    model = Model.of(Clipped(), name="clipped", inputs=inputs[0])
    found = optimal_ablation(model, "read", *inputs, squared)
    assert found.value.item() == pytest.approx(inputs[0][:, 0].relu().mean().item(), abs=1e-3)
    assert found.mean.item() == pytest.approx(inputs[0][:, 0].mean().item(), abs=1e-6)
    assert abs(found.value.item() - found.mean.item()) > 0.2
    assert min(found.fitted) < found.fitted[0]  # which is the mean's
    optimal, mean, zero = (found.loss(name) for name in ("optimal", "mean", "zero"))
    expected = (inputs[1][:, 0].relu() - found.value.item()).pow(2).numpy()
    assert optimal.estimate == pytest.approx(expected.mean(), abs=1e-4)
    assert optimal.estimate < mean.estimate < zero.estimate
    assert optimal.n == 40 and optimal.low < optimal.estimate < optimal.high
    assert found.saved("zero").low > 0


def test_where_everything_behind_is_linear_the_mean_is_optimal(linear, rows):
    model, _ = linear
    found = optimal_ablation(model, "mlp_out.2", rows(0, 6), rows(1, 6), squared, steps=60)
    assert min(found.fitted) == pytest.approx(found.fitted[0], rel=1e-3)
    assert found.saved("mean").estimate == pytest.approx(0.0, abs=0.02 * found.loss("mean").estimate)


def test_heads_of_a_transformer_are_fitted_too_and_the_edit_is_what_was_judged(open_, rows):
    model = open_("llama")
    found = optimal_ablation(model, "z.0.h1", rows(0, 4), rows(1, 4), steps=30)
    assert min(found.fitted) < 0.98 * found.fitted[0]
    from prosect.model.patching import divergence

    again = model.sweep([[], [found.edit()]], rows(1, 4), divergence(model, rows(1, 4)))
    assert np.allclose(again[1] - again[0], found.excess.values[0], atol=1e-6)
    whole = optimal_ablation(model, "z.0", rows(0, 4), rows(1, 4), steps=2)
    assert tuple(whole.value.shape) == (4, 4)


def test_bad_fits_are_named(open_, rows):
    model = open_("llama")
    with pytest.raises(TooLittleData, match="held-out rows"):
        optimal_ablation(model, "z.0", rows(0), rows(0))
    with pytest.raises(BadInput, match="at least one step"):
        optimal_ablation(model, "z.0", rows(0), rows(1), steps=0)
    with pytest.raises(Unsupported, match="optimal constant"):
        optimal_ablation(model, "probs.0", rows(0), rows(1))
