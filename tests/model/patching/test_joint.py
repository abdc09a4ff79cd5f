"""Sets: OR and AND gates told apart, and a feature that lies half in one layer and half in the next."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput
from prosect.model.model import Model
from prosect.model.patching import joint_effects, noising
from prosect.organisms.wiring import Wiring

ON, OFF = torch.ones(6, 1), torch.zeros(6, 1)


def value(output, batch):
    return output[:, 0]


def test_an_or_gate_shows_nothing_one_at_a_time_and_everything_jointly(gate):
    found = joint_effects(gate("or"), ON, OFF, value, {"both": ["first", "second"]})
    (row,) = found.table()
    assert [s.estimate for s in row.singles] == [0.0, 0.0]
    assert row.joint.estimate == -1.0
    assert row.relation == "redundant"
    assert found.share("both").estimate == 1.0
    map_ = noising(gate("or"), ON, OFF, value, ["first", "second"], positions="all")
    assert map_.effects.mean.tolist() == [[0.0], [0.0]]
    assert map_.joint.mean == -1.0
    assert any("redundancy" in note for note in map_.notes)


def test_the_other_direction_sees_what_this_one_misses(gate):
    mended = joint_effects(gate("or"), ON, OFF, value, {"both": ["first", "second"]}, direction="denoising")
    (row,) = mended.table()
    assert [s.estimate for s in row.singles] == [1.0, 1.0]
    assert row.joint.estimate == 1.0 and row.relation == "overlapping"


def test_an_and_gate_is_the_mirror_image(gate):
    (broken,) = joint_effects(gate("and"), ON, OFF, value, {"both": ["first", "second"]}).table()
    assert [s.estimate for s in broken.singles] == [-1.0, -1.0]
    assert broken.relation == "overlapping"
    map_ = noising(gate("and"), ON, OFF, value, ["first", "second"], positions="all")
    assert not any("redundancy" in note for note in map_.notes)
    (mended,) = joint_effects(
        gate("and"), ON, OFF, value, {"both": ["first", "second"]}, direction="denoising"
    ).table()
    assert mended.relation == "redundant" and [s.estimate for s in mended.singles] == [0.0, 0.0]


def test_linear_parts_add_up(linear, rows, logit):
    model, _ = linear
    sets = {"heads": ["z.1.h0", "z.1.h1"], "same layer": ["z.0.h0", "z.0.h1"]}
    for row in joint_effects(model, rows(2), rows(3), logit(), sets).table():
        assert row.joint.estimate == pytest.approx(sum(s.estimate for s in row.singles), abs=1e-3)
        assert abs(row.interaction.estimate) < 1e-3


@pytest.fixture(scope="module")
def spread():
    """A feature of the input written half by the MLP of layer 1 and half by that of layer 2; the output adds up both."""
    w = Wiring.blank(4, 4, 6, layers=3, heads=1, head=2, neurons=1)
    w.tokens[1, 0] = 1.0  # token 1 has the feature
    for layer in (1, 2):
        w.up[layer, 0, 0], w.down[layer, 0, 1] = 1.0, 0.5
    w.unembed[1, 3] = 1.0
    return Model.of(w.turned(np.random.default_rng(0)).decoder(), name="spread")


def test_a_feature_in_two_layers_takes_a_patch_in_both(spread, logit):
    clean, other = torch.ones(4, 2, dtype=torch.long), torch.zeros(4, 2, dtype=torch.long)
    sets = {"both": ["mlp_out.1", "mlp_out.2"], "with an idle layer": ["mlp_out.0", "mlp_out.1"]}
    found = joint_effects(spread, clean, other, logit(3), sets)
    both, idle = found.table()
    assert both.joint.estimate == pytest.approx(-1.0, abs=1e-5)
    assert [s.estimate for s in both.singles] == pytest.approx([-0.5, -0.5], abs=1e-5)
    assert all(abs(s.estimate) < abs(both.joint.estimate) for s in both.singles)
    assert both.relation == "additive"
    assert [s.estimate for s in idle.singles] == pytest.approx([0.0, -0.5], abs=1e-5)
    assert found.share("both").estimate == pytest.approx(1.0, abs=1e-5)


def test_bad_sets_are_named(spread, logit):
    clean, other = torch.ones(4, 2, dtype=torch.long), torch.zeros(4, 2, dtype=torch.long)
    with pytest.raises(BadInput, match="no sets"):
        joint_effects(spread, clean, other, logit(3), {})
    with pytest.raises(BadInput, match="one"):
        joint_effects(spread, clean, other, logit(3), {"a": ["mlp_out.1"]}, positions="each")
