"""Hand-set weights and the bases they are hidden in."""

import numpy as np
import pytest
import torch

from prosect.organisms.wiring import Turn, Wiring


def filled(rng, causal=True):
    w = Wiring.blank(vocab=11, positions=9, d=20, layers=2, heads=3, head=5, neurons=7)
    w.query_bias, w.causal = np.zeros((2, 3, 5)), causal
    for array in vars(w).values():
        if isinstance(array, np.ndarray):
            array[...] = 0.3 * rng.standard_normal(array.shape)
    return w


def test_a_turn_is_orthogonal_and_leaves_no_coordinate_alone():
    n = 256
    matrix = Turn.draw(np.random.default_rng(0), n)(np.eye(n), -1)
    assert np.abs(matrix @ matrix.T - np.eye(n)).max() < 1e-12
    entries = matrix * np.sqrt(n)  # of a uniformly drawn one: nearly standard normal
    assert np.abs(entries).max() < 6
    assert (entries**4).mean() == pytest.approx(3, abs=0.2)


def test_turning_changes_every_weight_and_no_logit():
    rng = np.random.default_rng(1)
    straight = filled(rng)
    turned = straight.turned(rng)
    for name in vars(straight).keys() - {"causal"}:
        moved = np.abs(getattr(turned, name) - getattr(straight, name)).max()
        assert (moved == 0) if name == "bias" else (moved > 0.1), name
    ids = torch.from_numpy(rng.integers(0, 11, (4, 9)))
    with torch.no_grad():
        before, after = straight.decoder()(ids).logits, turned.decoder()(ids).logits
    assert before.abs().max() > 1
    assert (before - after).abs().max() < 1e-4


@pytest.mark.parametrize("causal", [True, False])
def test_every_weight_reaches_the_decoder(causal):
    """A weight that was left out or written to the wrong place would not change the logits, or not these."""
    rng = np.random.default_rng(2)
    straight = filled(rng, causal)
    ids = torch.from_numpy(rng.integers(0, 11, (4, 9)))
    with torch.no_grad():
        before = straight.decoder()(ids).logits
        x = torch.from_numpy(straight.tokens[ids] + straight.positions[None])
        reach = torch.ones(9, 9, dtype=torch.bool)
        reach = reach.tril() if causal else reach
        for i in range(2):
            q, k, v = (
                torch.einsum("btd,hde->bhte", x, torch.from_numpy(getattr(straight, n)[i]))
                for n in ("query", "key", "value")
            )
            q = q + torch.from_numpy(straight.query_bias[i])[:, None]
            probs = (q @ k.transpose(-1, -2)).masked_fill(~reach, -torch.inf).softmax(-1)
            x = x + torch.einsum("bhte,hed->btd", probs @ v, torch.from_numpy(straight.out[i]))
            act = (x @ torch.from_numpy(straight.up[i]) + torch.from_numpy(straight.bias[i])).relu()
            x = x + act @ torch.from_numpy(straight.down[i])
        by_hand = x @ torch.from_numpy(straight.unembed)
    assert (before - by_hand).abs().max() < 1e-4


def test_networks_without_them_say_nothing_of_a_bias_or_of_looking_ahead():
    """Their configuration, and with it their digest, is what it was."""
    config = Wiring.blank(3, 3, 4, 1, 1, 2).decoder().config
    assert not {"causal", "query_bias"} & set(config.to_dict())
    other = filled(np.random.default_rng(4), causal=False).decoder().config.to_dict()
    assert other["causal"] is False and other["query_bias"] is True


def test_building_leaves_the_global_random_state_and_training_mode_alone():
    state = torch.get_rng_state()
    module = filled(np.random.default_rng(3)).decoder()
    assert torch.equal(state, torch.get_rng_state())
    assert not module.training
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in module.parameters())
