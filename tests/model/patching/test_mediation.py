"""Direct, indirect and total effects: exact on linear networks, each by its own definition elsewhere."""

import numpy as np
import pytest

from prosect.core.errors import BadInput
from prosect.model.patching import edge_effects, mediation, noising


def test_on_a_linear_network_direct_and_indirect_add_up_exactly(linear, rows, logit):
    model, w = linear
    clean, other = rows(2), rows(3)
    found = mediation(model, clean, other, logit(5))
    assert found.components == (
        "resid_pre.0",
        *(f"{s}" for i in range(3) for s in (f"z.{i}.h0", f"z.{i}.h1", f"mlp_out_post.{i}")),
    )
    assert np.abs(found.interaction.values).max() < 1e-3
    head = found.components.index("z.1.h0")
    change = (model.run(other, ["z.1"])["z.1.h0"] - model.run(clean, ["z.1"])["z.1.h0"]).double().numpy()
    direct = change[:, -1] @ w.out[1, 0] @ w.unembed[:, 5]
    assert np.allclose(found.direct.values[head], direct, atol=1e-3)
    # through its own layer's MLP, and through the next layer's even attention and MLP
    stream = change @ w.out[1, 0] @ (np.eye(10) + w.up[1] @ w.down[1])
    mixed = stream[:, -1] + sum(stream.mean(axis=1) @ w.value[2, h] @ w.out[2, h] for h in (0, 1))
    total = mixed @ (np.eye(10) + w.up[2] @ w.down[2]) @ w.unembed[:, 5]
    assert np.allclose(found.total.values[head], total, atol=1e-3)
    assert np.allclose(found.indirect.values[head], total - direct, atol=1e-3)
    assert np.abs(total - direct).max() > 0.02


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_total_is_the_patch_and_direct_is_the_edge(open_, rows, logit, name):
    model, clean, other = open_(name), rows(0), rows(1)
    chosen = ["resid_pre.0", "z.0.h1", "mlp_out_post.0", "z.1.h2", "mlp_out_post.1"]
    found = mediation(model, clean, other, logit(), chosen)
    patched = noising(model, clean, other, logit(), chosen, positions="all")
    edges = edge_effects(model, clean, other, logit(), {c: [(c, "output")] for c in chosen})
    assert np.allclose(found.total.values, patched.effects.values[:, 0], atol=2e-5)
    assert np.allclose(found.direct.values, edges.effects.values, atol=2e-5)
    assert np.allclose(found.indirect.values[-1], 0.0, atol=2e-5)  # nothing lies behind the last MLP
    assert np.abs(found.indirect.values[:-2]).max() > 1e-2
    assert np.abs(found.interaction.values).max() > 1e-3  # the last norm is not linear
    row = found.table()[1]
    assert row.total.n == row.mismatched.n == 3 and row.direct.low < row.direct.high


def test_only_writers_are_components(open_, rows, logit):
    with pytest.raises(BadInput, match="as a writer"):
        mediation(open_("gpt2"), rows(0), rows(1), logit(), ["resid_pre.1"])
