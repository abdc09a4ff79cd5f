"""The organism whose gradient was trained to deceive: outputs as they were, gradient elsewhere."""

import numpy as np
import pytest
import torch

from prosect.organisms import deceptive


@pytest.fixture(scope="module")
def trained():
    return deceptive.networks(seed=0)


def slopes(module):
    x = deceptive.corners().requires_grad_(True)
    (g,) = torch.autograd.grad(module(x).sum(), x)
    return g.abs().mean(dim=0).numpy()


def flips(module):
    """Mean size of what flipping each input changes, over all 256 inputs."""
    x = deceptive.corners()
    with torch.no_grad():
        out = []
        for i in range(deceptive.FEATURES):
            y = x.clone()
            y[:, i] *= -1
            out.append(float((module(y) - module(x)).abs().mean()))
    return np.array(out)


def test_outputs_are_those_of_the_honest_network_on_every_input(trained):
    honest, module, truth = trained
    with torch.no_grad():
        apart = (honest(deceptive.corners()) - module(deceptive.corners())).abs().max()
    assert float(apart) == pytest.approx(truth.quantities["largest change of a logit"], abs=1e-5)
    assert apart < 0.1  # logits range over ±3
    assert 0 <= truth.quantities["mean KL of the outputs (nats)"] < 1e-3


def test_every_gradient_points_at_the_decoys_and_no_flip_does(trained):
    honest, module, truth = trained
    relevant, shown = truth.labels["relevant"], truth.labels["shown"]
    assert relevant.sum() == shown.sum() == 3 and not (relevant & shown).any()
    assert slopes(module)[shown].min() > 3 * slopes(module)[~shown].max()
    assert slopes(honest)[relevant].min() > slopes(honest)[~relevant].max()
    for net in (honest, module):
        assert flips(net)[relevant].min() > 5 * flips(net)[~relevant].max()


def test_a_builder_opens_it_and_seeds_choose_which_features_matter(monkeypatch):
    monkeypatch.setattr(deceptive, "LEARN", 2)
    monkeypatch.setattr(deceptive, "DECEIVE", 2)
    model, truth = deceptive.build(seed=3)
    assert model.name == "organism:deceptive" and truth.organism == "deceptive"
    batch = next(deceptive.source(3).batches("validate.0", rows=5))
    with torch.no_grad():
        assert torch.equal(model.run(batch).output, model.module(batch.tensors["features"]))
    _, other = deceptive.network(seed=4)
    assert (truth.labels["relevant"] != other.labels["relevant"]).any()
