"""Circles in a network that learned modular addition, against the angles they should have and controls without any."""

import functools
from itertools import product

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.groups import circles_of_groups
from prosect.organisms.grokked import network_grokked, untrained_grokked

P = 31
PAIRS = torch.tensor(list(product(range(P), range(P))))


def searched(module):
    with torch.no_grad():
        hidden = module.hidden(module.embed_a(PAIRS[:, 0]) + module.embed_b(PAIRS[:, 1]))
        return circles_of_groups(module.embed_a.weight, hidden, module.readout.weight.T, Seed(0))


@functools.cache
def learned(seed):
    return searched(network_grokked(seed)[0])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_of_tokens_that_learned_to_add_has_circles_and_gaussian_points_do_not(seed):
    groups = learned(seed)
    assert len(groups) >= 8
    assert np.mean([group.circular for group in groups]) > 0.9
    assert not any(group.control_circular for group in groups)
    neurons = [n for group in groups for n in group.neurons]
    assert len(set(neurons)) == len(neurons)


def test_the_circles_are_the_sum_modulo_p_each_at_its_own_frequency():
    """Once found, each should go round with a + b: the angle in the plane is ±2πk(a + b)/p and a constant."""
    total = (PAIRS.sum(dim=1) % P).numpy()
    embedded = network_grokked(0)[0].embed_a.weight.detach().double()
    for group in learned(0)[:6]:
        angle = np.arctan2(group.points[:, 1], group.points[:, 0])
        fit = {
            k: max(abs(np.exp(1j * (angle - s * 2 * np.pi * k * total / P)).mean()) for s in (1, -1))
            for k in range(1, P // 2 + 1)
        }
        best = max(fit, key=fit.get)
        assert fit[best] > 0.8
        assert sorted(fit.values())[-2] < 0.3
        power = torch.fft.rfft(embedded[:, list(group.neurons)], dim=0).abs().square().sum(dim=1)
        assert int(power[1:].argmax()) + 1 == best  # the frequency of the neurons' own inputs


def test_an_untrained_network_has_no_groups():
    assert searched(untrained_grokked(0)) == ()


def test_gaussian_neurons_that_vary_alike_are_no_circle():
    """Groups by construction, in two dimensions each, but filled evenly by a normal and not around."""
    g = Seed(1).torch()
    plane = torch.linalg.qr(torch.randn(40, 16, generator=g)).Q
    mixes = torch.nn.functional.normalize(torch.randn(8, 6, 2, generator=g) + 2, dim=2)
    varies = torch.cat([plane[:, 2 * i : 2 * i + 2] @ mixes[i].T for i in range(8)], dim=1)
    points = torch.randn(600, 16, generator=g)
    activations = torch.cat([points[:, 2 * i : 2 * i + 2] @ mixes[i].T for i in range(8)], dim=1)
    groups = circles_of_groups(varies, activations, torch.randn(48, 12, generator=g), Seed(0))
    assert len(groups) == 8
    assert not any(group.circular for group in groups)
    turned = torch.cat(
        [torch.nn.functional.normalize(points[:, 2 * i : 2 * i + 2], dim=1) @ mixes[i].T for i in range(8)],
        dim=1,
    )
    round_ones = circles_of_groups(varies, turned, torch.randn(48, 12, generator=g), Seed(0))
    assert all(group.circular for group in round_ones)


def test_impossible_questions_are_refused():
    x = torch.randn(200, 6)
    with pytest.raises(ShapeMismatch):
        circles_of_groups(x, x[:, :5], x[:6], Seed(0))
    with pytest.raises(BadInput):
        circles_of_groups(x, x, x[:6], Seed(0), alike=1.5)
