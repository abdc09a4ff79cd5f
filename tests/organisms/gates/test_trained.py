"""The gates that learned, against the opened network with its edges cut one subset at a time."""

import numpy as np
import torch

from prosect.model.edits import patch
from prosect.organisms.gates import trained
from prosect.organisms.gates.network import wiring_of
from prosect.organisms.gates.subcircuits import subcircuits


def test_it_learned_exclusive_or_and_its_subcircuits_are_those_of_the_network():
    model, truth = trained.build_trained(1)
    bits = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    answer = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    assert torch.equal(model.run({"bits": bits}).output[:, 0].sign(), answer)
    found = subcircuits(wiring_of(model.module), "zero")
    assert found.tried == 2**18 and len(found.parts) == 18
    assert truth.quantities["subsets of edges that suffice (zero)"] == found.count
    rng = np.random.default_rng(0)
    fine = found.kept[rng.permutation(found.count)[:20]]
    near = fine ^ (rng.random(fine.shape) < 0.1)  # most of these are none
    outcomes = set()
    for kept in [*fine, *near, *found.minimal]:
        edits = []
        for on, (_, reader), edge in zip(kept, found.parts, wiring_of(model.module).edges, strict=True):
            if not on:
                direction = torch.eye(trained.SIZES[edge.layer])[edge.writer]
                edits.append(patch(reader, torch.zeros(trained.SIZES[edge.layer]), direction=direction))
        computes = bool((model.run({"bits": bits}, edits=edits).output[:, 0].sign() == answer).all())
        assert computes == found.among(kept)
        outcomes.add(computes)
    assert outcomes == {True, False}


def test_training_is_deterministic_and_leaves_the_global_generator_alone(monkeypatch):
    monkeypatch.setattr(trained, "STEPS", 150)
    state = torch.get_rng_state()
    first, second = (trained.train.__wrapped__(2) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))
    assert torch.equal(state, torch.get_rng_state())
