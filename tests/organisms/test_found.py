"""Every organism's functions are found beside its builder, and its model null is one."""

import pytest
import torch

from prosect.core.errors import UnknownName
from prosect.organisms import compiler, toy
from prosect.organisms.compiler import zoo
from prosect.organisms.found import functions

NAMES = ("induction", "superposition", "pentagon", "modular", "modular-grokked", "planted", "deceptive")


@pytest.mark.parametrize("name", [*NAMES, "compiled-histogram", "compiled-sort-superposed"])
def test_the_model_null_has_the_sizes_of_the_network_and_other_weights(name, built):
    found = functions(name)
    assert found.source is not None and found.untrained is not None
    module = built(name)[0].module
    batch = next(found.source(0).batches("validate.0", rows=64))
    nulls = [found.untrained(seed) for seed in (0, 0, 2)]
    states = [null.state_dict() for null in nulls]
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in module.state_dict().items()}
    moved = [k for k, v in states[0].items() if v.any()]
    assert moved and not any(
        torch.equal(states[0][k], states[2][k]) for k in moved if states[2][k].numel() > 1
    )
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    with torch.no_grad():
        given, real = (m.eval()(**batch.tensors) for m in (nulls[0], module))
    given, real = (getattr(out, "logits", out) for out in (given, real))
    assert given.shape == real.shape and given.isfinite().all() and not torch.allclose(given, real, atol=1e-3)


@pytest.mark.parametrize("name", ["induction", "planted", "modular", "superposition"])
def test_weights_that_are_set_by_hand_are_redrawn_at_their_scale(name, built):
    found = functions(name)
    module = built(name)[0].module
    for key, weights in found.untrained(0).state_dict().items():
        real = module.state_dict()[key]
        if real.numel() > 500:
            assert torch.isclose(weights.square().mean(), real.square().mean(), rtol=0.3)


def test_functions_go_by_the_ending_of_the_builder():
    found = functions("pentagon")
    assert found.source(0).digest == toy.source_pentagon(0).digest
    sort = functions("compiled-sort")
    assert sort.source(0).digest == zoo.source("sort", 0).digest == zoo.source_sort(0).digest
    assert sort.targets is not None and functions("pylm").source is None
    with pytest.raises(UnknownName):
        functions("pentagone")
    assert compiler is not None
