"""Sweeps: the same numbers as one run for each list of edits, however they are cut into passes."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch
from prosect.model import edits as e
from prosect.model import sweep as room
from prosect.model.inputs import of_ids

BATCH = of_ids([[1, 2, 3], [4, 5, 6, 7, 8], [3, 1, 4, 1], [2, 7]])


def last_logit(output, batch):
    """The logit of token 5 at the last real position."""
    return output[torch.arange(len(batch)), torch.as_tensor(batch.lengths) - 1, 5]


def lists(model):
    other = model.run(of_ids([[9, 8, 7], [6, 5, 4, 3, 2], [1, 0, 1, 0], [3, 3]]), ["resid_mid.0", "z.1"])
    bank = torch.randn(6, model.d_model, generator=torch.Generator().manual_seed(0))
    return [
        [],
        [e.zero("mlp_out_post.0")],
        [e.patch("resid_mid.0", other["resid_mid.0"], positions=[-1])],
        [e.patch("resid_mid.0", other["resid_mid.0"], rows=[1, 3], positions=[[0, 4], [-2]])],
        [e.patch("z.1.h0", other["z.1"][:, :, 0])],
        [e.resample("resid_post.0", bank, seed=2), e.scale("resid_post.0", 0.5, rows=[2])],
        [e.steer("embeddings", bank[0], positions=0), e.zero("attn_out_post.1")],
        [e.replace("mlp_out.1", lambda x: x.flip(0))],  # depends on all the rows
    ]


@pytest.mark.parametrize("name", ["llama", "decoder"])
@pytest.mark.parametrize("fit", [1, 3, 6, 10_000])
def test_a_sweep_is_one_run_for_each_list(opened, name, fit, monkeypatch):
    model = opened(name)
    edits = lists(model)
    expected = [last_logit(model.run(BATCH, [], listed).output, BATCH).double().numpy() for listed in edits]
    monkeypatch.setattr(room, "rows_that_fit", lambda *a: fit)
    got = model.sweep(edits, BATCH, last_logit)
    assert got.shape == (len(edits), 4)
    assert got.dtype == np.float64
    assert np.allclose(got, expected, atol=1e-5)
    assert not np.allclose(got[1:], got[0])


def test_edits_inside_attention_are_swept_too(opened):
    model = opened("llama")
    other = model.run(of_ids([[9, 8, 7, 6, 5]] * 4), ["probs.0"])["probs.0"]
    edits = [[], [e.patch("probs.0", other, positions=[1])], [e.zero("v.1.h1")], [e.zero("resid_mid.1")]]
    got = model.sweep(edits, BATCH, last_logit, budget_mb=0.05)
    for row, listed in zip(got, edits, strict=True):
        assert np.allclose(row, last_logit(model.run(BATCH, [], listed).output, BATCH), atol=1e-5)


@pytest.mark.parametrize("fit", [1, 2, 3, 5, 8, 100])
def test_plans_keep_to_the_budget_and_miss_nothing(fit):
    edits = [()] * 5
    passes = room.plan(edits, 4, fit)
    assert all(sum(len(cell.rows) for cell in cells) <= fit for cells in passes)
    seen = [(cell.number, row) for cells in passes for cell in cells for row in cell.rows]
    assert sorted(seen) == [(k, row) for k in range(5) for row in range(4)]
    if fit >= 8:
        assert len(passes) == -(-5 // (fit // 4))


def test_the_budget_counts_the_output_and_the_patterns(opened):
    model = opened("gpt2")
    one = room.rows_that_fit(model, BATCH, 1.0, False)
    assert room.rows_that_fit(model, BATCH, 2.0, False) in (2 * one, 2 * one + 1)
    assert room.rows_that_fit(model, BATCH, 1.0, True) < one
    assert room.rows_that_fit(model, BATCH, 1e-9, False) == 1


def test_models_without_positions_sweep_too(small):
    model, x = small("mlp")
    got = model.sweep([[], [e.zero("0", rows=[1])]], x, lambda out, batch: out[:, 0])
    assert np.allclose(got[0, [0, 2, 3]], got[1, [0, 2, 3]])
    assert got[1, 1] == pytest.approx(float(model.module[2].bias[0].detach()))


def test_bad_sweeps_say_what_is_wrong(opened):
    model = opened("gpt2")
    with pytest.raises(ShapeMismatch, match="one number for each row"):
        model.sweep([[]], BATCH, lambda out, batch: out.mean())
    with pytest.raises(NotFinite, match=r"zero at resid_post\.1"):
        model.sweep([[e.zero("resid_post.1")]], BATCH, lambda out, batch: out[:, 0, 0] / 0)
    with pytest.raises(BadInput, match="more than 0"):
        model.sweep([[]], BATCH, last_logit, budget_mb=0)
    ran = []
    with pytest.raises(BadInput, match="rows from 0 to 3"):
        model.sweep([[], [e.zero("z.0", rows=[4])]], BATCH, lambda out, batch: ran.append(1))
    assert not ran
    assert model.sweep([], BATCH, last_logit).shape == (0, 4)
