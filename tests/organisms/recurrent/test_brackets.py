"""The bracket networks against a stack, on every string there is."""

import numpy as np
import pytest
import torch

from prosect.model.edits import zero
from prosect.organisms.recurrent import brackets, counter, learned


def stacked(ids):
    """The right answers by pushing and popping."""
    out, stack, fine = [], [], True
    for token in ids:
        if token == brackets.OPEN:
            stack.append(token)
        elif token == brackets.CLOSE:
            fine = fine and bool(stack)
            if stack:
                stack.pop()
        out.append(fine and not stack)
    return out


def test_balance_is_what_a_stack_says_and_no_string_is_left_out():
    every = brackets.every(7)
    assert len({tuple(row) for row in every.tolist()}) == 3**7
    assert brackets.balanced(every).tolist() == [stacked(row) for row in every.tolist()]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_wired_network_is_right_on_every_string_of_nine_and_on_long_ones(seed):
    module, _ = counter.network(seed)
    rng = np.random.default_rng(seed)
    long = np.stack([brackets.draw(rng, 100) for _ in range(50)])
    assert learned.accuracy(module, brackets.every(9 if seed == 0 else 6)) == 1
    assert learned.accuracy(module, long) == 1


def test_it_is_right_on_every_string_of_twelve():
    module, _ = counter.network(4)
    for chunk in np.array_split(brackets.every(12), 30)[::10]:  # a tenth of them here; all were tried once
        assert learned.accuracy(module, chunk) == 1


def test_every_unit_counts_what_the_truth_says():
    model, truth = counter.build(1)
    ids = np.random.default_rng(0).integers(3, size=(200, 14))
    batch = {"input_ids": torch.from_numpy(ids)}
    states = model.run(batch, capture=("lstm",))["lstm"].numpy()
    depth, broken = brackets.depth(ids), brackets.broken(ids)
    counts = {
        "depth": depth,
        "opened": np.cumsum(ids == brackets.OPEN, axis=1),
        "length": np.broadcast_to(np.arange(1, 15), ids.shape),
    }
    assert [v.index for v in truth.variables] == list(range(states.shape[-1]))
    clean = model.run(batch).output
    for v in truth.variables:
        said = states[..., v.index] * v.parameters.get("sign", 1.0)
        name = v.parameters["counts"]
        if v.kind == "counter":
            assert np.abs(said - np.tanh(v.parameters["step"] * counts[name])).max() < 1e-5
        elif v.kind == "flag":
            assert said[broken].min() > 0.75 and np.abs(said[~broken]).max() < 1e-5
        elif v.kind == "token":
            assert np.abs(said - np.tanh(1) * (ids == brackets.CLOSE)).max() < 1e-5
        else:
            assert np.abs(said).max() < 1e-6
        direction = torch.eye(states.shape[-1])[v.index]
        lost = model.run(batch, edits=[zero("lstm", direction=direction)]).output
        assert ((lost - clean).abs().max() > 1e-3) == v.effect["matters"]


def test_labels_and_targets_are_of_whole_strings():
    data = counter.source(0)
    labels = brackets.labels(data)
    batch = next(data.batches("validate.1", rows=200))
    expected = [
        stacked(row[:n].tolist())[-1]
        for row, n in zip(batch.tensors["input_ids"], batch.lengths, strict=True)
    ]
    assert labels["balanced@validate.1"].tolist() == expected
    for part in ("explore", "sealed", "shift"):
        assert 0.15 < labels[f"balanced@{part}"].mean() < 0.75


def test_training_learns_counts_and_is_deterministic(monkeypatch):
    monkeypatch.setattr(learned, "STEPS", 5)
    state = torch.get_rng_state()
    first, second = (learned.train.__wrapped__(0).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())
    monkeypatch.setattr(learned, "STEPS", 120)
    monkeypatch.setattr(learned, "train", learned.train.__wrapped__)
    _, truth = learned.network(0)
    q = truth.quantities
    assert q["accuracy on every string of 8"] > q["majority"] + 0.03
    assert q["depth, linearly (R²)"] > 0.5
