"""Passes that begin in the middle give what whole passes give, and refuse what they cannot know."""

import pytest
import torch

import prosect
from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.model import After, Model, mean, patch

IDS = torch.tensor([[5, 9, 4, 5, 9, 4], [7, 1, 7, 1, 2, 3]])


@pytest.fixture(scope="module")
def model():
    return prosect.load("organism:pylm")


def test_the_output_is_the_same_bit_by_bit(model):
    names = [f"resid_post.{i}" for i in range(model.n_layers)]
    whole = model.run(IDS, capture=names)
    assert model.can_enter
    for layer in range(model.n_layers - 1):
        entered = model.run(IDS, capture=names[layer + 1 :], after=After(layer, whole[names[layer]]))
        assert torch.equal(entered.output, whole.output)
        assert all(torch.equal(entered[n], whole[n]) for n in names[layer + 1 :])


@pytest.mark.parametrize("site", ["z.2.h1", "resid_post.1", "mlp_out.3"])
def test_an_edit_behind_it_does_what_it_does_in_a_whole_pass(model, site):
    layer = model.before(site)
    start = model.run(IDS, capture=[f"resid_post.{layer}"])[f"resid_post.{layer}"]
    held = mean(site, torch.full((model.sites.info(site).width or 1,), 0.3))
    whole, entered = model.run(IDS, edits=[held]), model.run(IDS, edits=[held], after=After(layer, start))
    assert torch.equal(whole.output, entered.output)
    assert not torch.equal(whole.output, model.run(IDS).output)


def test_nothing_stays_behind(model):
    before = model.run(IDS).output
    model.run(IDS, after=After(1, model.run(IDS, capture=["resid_post.1"])["resid_post.1"]))
    assert not any("forward" in m.__dict__ for m in model.module.modules())
    assert torch.equal(model.run(IDS).output, before)


def test_the_last_block_an_edit_leaves_alone(model):
    assert [model.before(s) for s in ("z.0", "resid_post.0", "z.3.h2", "resid_post.3")] == [None, 0, 2, 2]


def test_what_a_pass_from_the_middle_cannot_know_is_refused(model):
    start = model.run(IDS, capture=["resid_post.1"])["resid_post.1"]
    with pytest.raises(BadInput, match="begins after block 1"):
        model.run(IDS, capture=["z.1"], after=After(1, start))
    with pytest.raises(BadInput, match="block 3"):
        model.run(IDS, after=After(3, start))
    with pytest.raises(ShapeMismatch, match="1 rows"):
        model.run(IDS, after=After(1, start[:1]))
    with pytest.raises(BadInput, match="begins after block 1"):
        model.run(IDS, edits=[patch("resid_pre.1", start)], after=After(1, start))


def test_a_module_without_blocks_is_run_whole():
    plain = Model.of(
        torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)), inputs=torch.zeros(1, 3)
    )
    assert not plain.can_enter and plain.before("0") is None
    with pytest.raises(Unsupported):
        plain.run(torch.zeros(1, 3), after=After(0, torch.zeros(1, 1, 3)))
