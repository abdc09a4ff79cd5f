"""Superposition, drawn and learned, against closed forms."""

import itertools

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.organisms import toy
from prosect.organisms.superposition import NOISE, network, source
from prosect.organisms.toy import dimensionality, network_dense, source_pentagon


def hidden_of(module, tensors):
    seen = []
    hook = module.hidden.register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        output = module(**tensors)
    hook.remove()
    return seen[0], output


@pytest.fixture(scope="module")
def drawn():
    module, truth = network(3)
    (features,) = truth.features
    return module, truth, features, next(source(3).batches("explore", rows=4000)).tensors


def test_hidden_is_the_sum_of_the_true_directions_and_the_noise(drawn):
    module, _, features, inputs = drawn
    hidden, _ = hidden_of(module, inputs)
    expected = inputs["features"].double() @ torch.from_numpy(features.directions) + inputs["noise"]
    assert features.directions.shape == (256, 64)
    assert (hidden - expected).abs().max() < 1e-5
    assert np.allclose(np.linalg.norm(features.directions, axis=1), 1)
    assert inputs["noise"].std().item() == pytest.approx(NOISE, rel=0.02)


def test_features_fire_as_often_as_the_truth_says(drawn):
    _, truth, features, inputs = drawn
    on = (inputs["features"] > 0).double().mean(dim=0).numpy()
    error = np.sqrt(features.frequency * (1 - features.frequency) / len(inputs["features"]))
    assert np.abs((on - features.frequency) / error).max() < 4.5
    assert features.frequency.sum() == pytest.approx(truth.quantities["active"])
    assert features.frequency.max() / features.frequency.min() > 15
    assert inputs["features"].min() >= 0


def test_turning_a_feature_on_moves_hidden_along_its_direction_and_raises_its_output(drawn):
    module, _, features, inputs = drawn
    some = {k: v[:400] for k, v in inputs.items()}
    before, low = hidden_of(module, some)
    for i in range(0, 256, 37):
        more = some | {"features": some["features"] + torch.eye(256)[i]}
        after, high = hidden_of(module, more)
        assert np.abs((after - before).numpy() - features.directions[i]).max() < 1e-5
        assert (high - low).mean(dim=0).argmax() == i


def test_coherence_lies_between_the_welch_bound_and_one(drawn):
    _, truth, _, _ = drawn
    assert truth.quantities["welch bound"] == pytest.approx(np.sqrt(192 / (64 * 255)))
    assert truth.quantities["welch bound"] < truth.quantities["coherence"] < 0.9


def test_under_the_shift_frequent_and_rare_features_are_alike():
    (batch,) = source(3).batches("shift", rows=2048)
    on = (batch.tensors["features"] > 0).double().mean(dim=0)
    assert on.sum() == pytest.approx(9.0, rel=0.03)
    assert on.max() / on.min() < 5


def test_seeds_have_other_directions_and_other_frequent_features():
    a, b = (network(seed)[1].features[0] for seed in (0, 1))
    assert np.abs(a.directions @ b.directions.T).max() < 0.8
    assert not np.array_equal(np.argsort(a.frequency), np.argsort(b.frequency))


@pytest.mark.parametrize("active", [0.0, 200.0])
def test_impossible_densities_are_refused(active):
    with pytest.raises(BadInput, match="at most half of the time"):
        network(active=active)


# --- the toy model ---


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rare_features_form_a_regular_pentagon(seed, built):
    model, truth = built("pentagon", seed)
    module = model.module
    (features,) = truth.features
    angles = np.sort(np.degrees(np.arctan2(*features.directions.T[::-1])))
    gaps = np.diff(np.append(angles, angles[0] + 360))
    assert np.abs(gaps - 72).max() < 1
    weights = module.hidden.directions.detach().double().numpy()
    assert np.abs(dimensionality(weights) - 2 / 5).max() < 0.01
    assert truth.quantities["dimensionality"] == 2 / 5
    assert truth.labels["represented"].all()
    norms = np.linalg.norm(weights, axis=1)
    assert np.abs(features.directions * norms[:, None] - weights).max() < 1e-6


def test_features_that_are_always_there_leave_room_for_the_two_most_important():
    module, truth = network_dense(0)
    weights = module.hidden.directions.detach().double().numpy()
    sizes = dimensionality(weights) * (np.linalg.norm(weights, axis=1) > 0.05)
    assert np.abs(sizes - [1, 1, 0, 0, 0]).max() < 0.01
    assert truth.labels["represented"].tolist() == [True, True, False, False, False]
    assert truth.features[0].directions.shape == (2, 2)
    assert abs(np.prod(truth.features[0].directions, axis=0).sum()) < 0.01  # at right angles


def test_the_gradient_is_autograds():
    rng = torch.Generator().manual_seed(0)
    theta = torch.randn(3, 3, 5, generator=rng, dtype=torch.double, requires_grad=True)
    x = torch.rand(17, 5, generator=rng, dtype=torch.double)
    weight = torch.tensor([1.0, 0.5, 2.0, 0.1, 1.0], dtype=torch.double)
    w, b = theta[:, :2], theta[:, 2:]
    out = (x @ w.transpose(1, 2) @ w + b).relu()
    ((out - x) ** 2 * weight).mean(dim=(1, 2)).sum().backward()
    assert (theta.grad - toy.gradient(theta.detach(), x, weight)).abs().max() < 1e-12


def test_adam_is_adam():
    rng = torch.Generator().manual_seed(0)
    mine = torch.randn(4, 3, generator=rng)
    theirs = torch.nn.Parameter(mine.clone())
    adam, oracle = toy.Adam(mine), torch.optim.Adam([theirs], lr=0.01)
    for _ in range(50):
        grad = torch.randn(4, 3, generator=rng)
        theirs.grad = grad.clone()
        oracle.step()
        adam.step(grad, 0.01)
    assert (mine - theirs.detach()).abs().max() < 1e-6


def test_dimensionality_has_its_known_values():
    pairs = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert dimensionality(pairs) == pytest.approx([1 / 2, 1 / 2, 1, 0])
    corners = np.array([[np.cos(2 * np.pi * i / 5), np.sin(2 * np.pi * i / 5)] for i in range(5)])
    assert dimensionality(corners) == pytest.approx([2 / 5] * 5)


def test_training_is_deterministic_and_seeds_differ(monkeypatch):
    monkeypatch.setattr(toy, "STEPS", 2 * toy.CHUNK)
    state = torch.get_rng_state()
    (a, _), (b, _), (c, _) = (toy.train(Seed(seed), 0.05, 1.0) for seed in (5, 5, 6))
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)
    assert torch.equal(state, torch.get_rng_state())


def test_toy_inputs_are_as_dense_as_asked():
    for part, density in (("explore", 0.05), ("shift", 0.2)):
        x = torch.cat(
            [b.tensors["features"] for b in itertools.islice(source_pentagon().batches(part, 512), 4)]
        )
        assert (x > 0).double().mean() == pytest.approx(density, rel=0.15)
        assert x.min() >= 0 and x.max() <= 1
