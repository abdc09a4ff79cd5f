"""The dormant direction against patches of the opened network."""

import pytest
import torch

from prosect.model.edits import patch, zero
from prosect.organisms import dormant


@pytest.fixture(scope="module")
def opened():
    model, truth = dormant.build(2)
    batch = next(dormant.source(2).batches("explore", rows=256))
    x = batch.tensors["inputs"]
    donor = model.run({"inputs": x.flip(0)}, capture=("hidden",))
    return model, truth, x, donor


def far(model, x, donor, direction):
    """How far a patch goes from one run's first output to another's: the slope over all rows."""
    clean = model.run({"inputs": x}).output
    out = model.run({"inputs": x}, edits=[patch("hidden", donor["hidden"], direction=direction)]).output
    gap = (donor.output - clean)[:, 0]
    return float(((out - clean)[:, 0] @ gap) / (gap @ gap))


def directions(truth):
    (features,) = truth.features
    return {n: torch.from_numpy(d).float() for n, d in zip(features.names, features.directions, strict=True)}


def test_outputs_are_inputs(opened):
    model, _, x, _ = opened
    assert (model.run({"inputs": x}).output - x[:, : dormant.OUTPUTS]).abs().max() < 1e-5


def test_every_direction_carries_as_far_as_the_truth_says(opened):
    model, truth, x, donor = opened
    for name, direction in directions(truth).items():
        assert far(model, x, donor, direction) == pytest.approx(truth.quantities[f"patch {name}"], abs=0.02)
    assert truth.quantities["patch true"] == 1 == pytest.approx(truth.quantities["patch illusion"])


def test_the_illusion_is_in_the_mixture_alone(opened):
    model, truth, x, donor = opened
    d = directions(truth)
    both = torch.stack([d["disconnected"], d["dormant"]])
    # the plane of the two: what is written along each is its own, and the mixture's effect is gone
    assert abs(far(model, x, donor, both)) < 1e-4
    assert far(model, x, donor, d["illusion"]) == pytest.approx(1, abs=0.02)


def test_labels_say_what_moves_and_what_is_read(opened):
    model, truth, x, _ = opened
    hidden = model.run({"inputs": x}, capture=("hidden",))["hidden"]
    clean = model.run({"inputs": x}).output
    for i, (name, direction) in enumerate(directions(truth).items()):
        assert ((hidden @ direction).std() > 1e-4) == truth.labels["carries"][i]
        pushed = model.run({"inputs": x}, edits=[patch("hidden", hidden + direction)]).output
        assert ((pushed - clean).abs().max() > 1e-4) == truth.labels["read"][i]
        lost = model.run({"inputs": x}, edits=[zero("hidden", direction=direction)]).output
        moved = (lost - clean).abs().max() > 1e-4
        assert moved == (truth.labels["mechanism"][i] or name == "illusion")


def test_the_model_null_has_no_such_directions(opened):
    _, truth, x, _ = opened
    module = dormant.untrained(0)
    with torch.no_grad():
        moved = module.hidden(x) @ directions(truth)["dormant"]
    assert moved.std() > 0.05
