"""Activation patching: the two extremes exactly, single cells as one run each, closed forms on linear networks."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData, UnknownName, Unsupported
from prosect.model import edits as e
from prosect.model.inputs import of_ids
from prosect.model.patching import Pairs, by_row, denoising, logit_difference, noising, re_estimate

FAMILIES = ["gpt2", "llama", "gemma2", "neox"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("way", [noising, denoising])
def test_patching_everything_is_the_other_run_and_nothing_is_no_change(open_, rows, logit, name, way):
    model = open_(name)
    found = way(model, rows(0), rows(1), logit(), ["resid_pre", "z"], positions="all")
    gap = np.abs(found.other.values - found.base.values).max()
    assert gap > 0.05
    assert found.ends.nothing < 1e-5 * gap
    assert found.ends.everything < 1e-5 * gap
    whole = found.effects.values[found.nodes.index("resid_pre.0"), 0]
    assert np.allclose(whole, found.other.values - found.base.values, atol=1e-5 * gap)
    one = way(model, rows(0)[:1], rows(1)[:1], logit(), "resid_pre.0", positions="all")
    assert one.share("resid_pre.0").estimate == pytest.approx(1.0, abs=1e-4)
    assert one.share("resid_pre.0").low is None and one.share("resid_pre.0").note  # one unit has no interval


@pytest.mark.parametrize("way", [noising, denoising])
def test_each_cell_is_one_run_with_that_edit(open_, logit, way):
    model, metric = open_("llama"), logit()
    clean = of_ids([[1, 2, 3], [4, 5, 6, 7, 8], [3, 1, 4, 1]])
    other = of_ids([[1, 9, 3], [4, 2, 6, 7, 1], [8, 1, 4, 2]])
    found = way(model, clean, other, metric, ["resid_mid.1", "k.0", "z.1.h2", "mlp_act.0.n3"])
    base, donor = (clean, other) if way is noising else (other, clean)
    there = model.run(donor, ["resid_mid.1", "k.0", "z.1", "mlp_act.0"])
    unit = torch.zeros(24)
    unit[3] = 1.0
    before = metric(model.run(base).output, base).double().numpy()
    for i, (site, extra) in enumerate(
        [("resid_mid.1", {}), ("k.0", {}), ("z.1", {"heads": 2}), ("mlp_act.0", {"direction": unit})]
    ):
        for j in range(5):
            for row, length in enumerate([3, 5, 4]):
                if j >= length:
                    assert np.isnan(found.effects.values[i, j, row])
                    continue
                edit = e.patch(site, there[site], rows=[row], positions=[j], **extra)
                after = metric(model.run(base, edits=[edit]).output, base).double().numpy()
                assert found.effects.values[i, j, row] == pytest.approx((after - before)[row], abs=2e-5)
    assert found.effects.rows[0].tolist() == [3, 3, 3, 2, 1]
    assert np.abs(found.effects.mean[:, 0]).max() > 1e-3


def test_on_a_linear_network_effects_are_the_weights_times_the_difference(linear, rows, logit):
    model, w = linear
    clean, other = rows(2), rows(3)
    found = noising(model, clean, other, logit(5), "resid_post.2")
    difference = (
        model.run(other, ["resid_post.2"])["resid_post.2"]
        - model.run(clean, ["resid_post.2"])["resid_post.2"]
    )
    expected = difference.double().numpy() @ w.unembed[:, 5]
    assert np.allclose(found.effects.values[0, -1], expected[:, -1], atol=1e-3)
    assert np.allclose(found.effects.values[0, :-1], 0.0, atol=1e-3)  # only the last position is read


def test_noising_and_denoising_mirror_each_other_where_everything_is_linear(linear, rows, logit):
    model, _ = linear
    there = noising(model, rows(2), rows(3), logit(), "z", each="head", positions=[0, 2])
    back = denoising(model, rows(2), rows(3), logit(), "z", each="head", positions=[0, 2])
    assert np.allclose(there.effects.values, -back.effects.values, atol=2e-3)
    assert np.abs(there.effects.values).max() > 0.05


def test_intervals_and_n_are_of_units_not_of_rows(open_, rows, logit):
    from dataclasses import replace

    from prosect.data.batch import Row

    model = open_("gpt2")
    batch = model.batch(rows(0, count=6))
    grouped = replace(batch, rows=tuple(Row(unit=i // 2, offset=i) for i in range(6)))
    found = noising(model, grouped, rows(1, count=6), logit(), "resid_pre.1", positions="all")
    (cell,) = found.table()
    assert cell.effect.n == cell.mismatched.n == 3
    assert cell.effect.low < cell.effect.estimate < cell.effect.high
    assert cell.effect.estimate == pytest.approx(found.effects.values[0, 0].mean())


def test_the_control_takes_values_from_an_unrelated_row(open_, rows, logit):
    model, metric = open_("gpt2"), logit()
    clean, other = rows(0, count=2), rows(1, count=2)
    found = noising(model, clean, other, metric, "resid_pre.1", positions=[5])
    value = model.run(other, ["resid_pre.1"])["resid_pre.1"].flip(0)  # of two rows, each gets the other's
    after = metric(
        model.run(clean, edits=[e.patch("resid_pre.1", value, positions=[5])]).output,
        found_batch(model, clean),
    )
    assert np.allclose(found.mismatched.values[0, 0], after.numpy() - found.base.values, atol=1e-5)
    alone = noising(model, clean[:1], other[:1], metric, "resid_pre.1", positions=[5])
    assert alone.mismatched is None
    assert any("unrelated" in note for note in alone.notes)
    assert "unrelated" in alone.table()[0].mismatched.note


def found_batch(model, x):
    return model.batch(x)


def test_a_gap_that_may_be_zero_is_not_divided_by(open_, rows, logit):
    model = open_("gpt2")
    clean, other = rows(0, count=8), rows(1, count=8)
    found = noising(model, clean, other, logit(), "resid_pre.1", positions="all")
    assert found.gap.low < 0 < found.gap.high  # two sets of random rows do not differ on average
    assert found.share("resid_pre.1").estimate is None
    assert "includes zero" in found.share("resid_pre.1").note
    assert any("includes zero" in note for note in found.notes)
    wide = noising(
        model, clean, other, lambda out, b: logit()(out, b).abs() * 0 + 1.0, "z.0", positions="all"
    )
    assert "do not differ" in wide.share("z.0").note


def test_pairs_of_unequal_length_need_an_alignment(open_, logit):
    model, metric = open_("gpt2"), logit()
    clean, other = [[1, 2, 3, 4]], [[1, 9, 2, 3, 4]]
    with pytest.raises(ShapeMismatch, match=r"row 0 of 4 positions .* 5.*alignment"):
        noising(model, clean, other, metric, "resid_pre")
    alignment = [(0, 0), (1, 2), (2, 3), (-1, -1)]
    found = noising(model, clean, other, metric, ["resid_post.1"], alignment=alignment)
    assert found.positions == ("0", "1", "2", "3")
    # the last block's output at the last position decides the logits, so patching it gives the other run
    assert found.effects.values[0, 3, 0] == pytest.approx(
        found.other.values[0] - found.base.values[0], abs=1e-5
    )
    assert found.effects.values[0, :3, 0] == pytest.approx(0.0, abs=1e-6)
    assert found.ends.everything is None and found.ends.note
    back = denoising(model, clean, other, metric, ["resid_mid.0"], alignment=alignment, positions=[1])
    value = model.run(clean, ["resid_mid.0"])["resid_mid.0"][:, [0, 0, 1, 2, 3]]
    after = model.run(other, edits=[e.patch("resid_mid.0", value, positions=[2])]).output[0, -1, 5]
    assert back.effects.values[0, 0, 0] == pytest.approx(float(after) - back.base.values[0], abs=1e-5)


@pytest.mark.parametrize(
    ("alignment", "words"),
    [
        ([(0, 0), (0, 1)], "twice"),
        ([(0, 0), (1, 0)], "twice"),
        ([(9, 0)], "position 9"),
        ([(0, 7)], "position 7"),
        ([], "no positions"),
        ([[(0, 0)], [(0, 0)]], "alignments of 2 rows"),
    ],
)
def test_bad_alignments_are_named(open_, alignment, words):
    with pytest.raises(BadInput, match=words):
        Pairs.of(open_("gpt2"), [[1, 2, 3, 4]], [[1, 9, 2, 3, 4]], alignment)


def test_patterns_are_not_moved_between_rows_of_other_positions(open_, logit):
    with pytest.raises(Unsupported, match="pattern"):
        noising(open_("gpt2"), [[1, 2, 3]], [[1, 9, 2, 3]], logit(), "probs.0", alignment=[(0, 0), (1, 2)])


def test_named_positions_may_differ_from_row_to_row(open_, rows, logit):
    model = open_("gpt2")
    found = noising(
        model, rows(0), rows(1), logit(), "resid_pre.1", positions={"here": [[0], [1, 2], [-1]], "end": [-1]}
    )
    single = noising(model, rows(0), rows(1), logit(), "resid_pre.1", positions="each")
    assert found.positions == ("here", "end")
    assert found.effects.values[0, 0, 0] == pytest.approx(single.effects.values[0, 0, 0], abs=1e-5)
    assert found.effects.values[0, 0, 2] == pytest.approx(single.effects.values[0, 5, 2], abs=1e-5)
    assert np.allclose(found.effects.values[0, 1], single.effects.values[0, 5], atol=1e-5)


def test_bad_input_is_named(open_, rows, logit):
    model, clean, other = open_("llama"), rows(0), rows(1)
    with pytest.raises(UnknownName, match=r"z\.0\.h9"):
        noising(model, clean, other, logit(), "z.0.h9")
    with pytest.raises(UnknownName, match=r"n99"):
        noising(model, clean, other, logit(), "mlp_act.0.n99")
    with pytest.raises(UnknownName, match=r"resid_pre\.7"):
        noising(model, clean, other, logit(), "resid_pre.7")
    with pytest.raises(Unsupported, match=r"heads of resid_pre\.0"):
        noising(model, clean, other, logit(), "resid_pre.0", each="head")
    with pytest.raises(Unsupported, match=r"units of z\.0"):
        noising(model, clean, other, logit(), "z.0.n1")
    with pytest.raises(BadInput, match="position 6"):
        noising(model, clean, other, logit(), "resid_pre.0", positions=[6])
    with pytest.raises(BadInput, match="twice"):
        noising(model, clean, other, logit(), ["z.0", "z.0"])
    with pytest.raises(BadInput, match="no site"):
        noising(model, clean, other, logit(), [])
    with pytest.raises(BadInput, match="'each', 'all'"):
        noising(model, clean, other, logit(), "resid_pre", positions=[])
    with pytest.raises(ShapeMismatch, match="3 clean rows and 2 corrupted"):
        noising(model, clean, other[:2], logit(), "resid_pre")
    with pytest.raises(ShapeMismatch, match="one number for each row"):
        noising(model, clean, other, lambda out, b: out.mean(), "resid_pre.0", positions="all")
    with pytest.raises(NotFinite, match="metric"):
        noising(model, clean, other, lambda out, b: out[:, -1, 0] / 0, "resid_pre.0", positions="all")


def test_metrics_know_their_rows_however_a_sweep_cuts_them(open_, rows):
    model = open_("gpt2")
    batch = model.batch(rows(0, count=4))
    metric = logit_difference(batch, [1, 2, 3, 4], [5, 6, 7, 8])
    out = model.run(batch).output[:, -1]
    expected = out[range(4), [1, 2, 3, 4]] - out[range(4), [5, 6, 7, 8]]
    for budget in (1e-6, 512.0):
        got = model.sweep([[], [e.zero("z.0", rows=[2])]], batch, metric, budget)
        assert np.allclose(got[0], expected.detach().numpy(), atol=1e-5)
        assert got[1, 2] != pytest.approx(got[0, 2], abs=1e-4)
    from dataclasses import replace

    twins = replace(batch, rows=(batch.rows[0],) * 4)
    with pytest.raises(BadInput, match="two rows with the same"):
        by_row(twins, lambda out, b, which: out[:, 0, 0])


def test_chosen_cells_are_measured_again_on_rows_not_seen(open_, rows, logit):
    model, metric = open_("gpt2"), logit()
    found = noising(model, rows(0, 6), rows(1, 6), metric, "z", each="head")
    chosen = found.top(3)
    sizes = [abs(c.explored) for c in chosen]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(np.nanmax(np.abs(found.effects.mean)))
    assert not hasattr(chosen[0], "effect")  # no candidate carries an estimate
    again = re_estimate(model, found, chosen, rows(2, 6), rows(3, 6), metric)
    fresh = noising(model, rows(2, 6), rows(3, 6), metric, "z", each="head")
    for cell, row in zip(chosen, again.table(), strict=True):
        assert row.effect.estimate == pytest.approx(fresh.effect(cell.node, cell.position).estimate, abs=1e-6)
        assert row.effect.n == 6 and row.effect.low < row.effect.high and row.mismatched.n == 6
    with pytest.raises(TooLittleData, match="not yet seen"):
        re_estimate(
            model,
            found,
            chosen,
            torch.cat([rows(2, 5), rows(0, 1)]),
            torch.cat([rows(3, 5), rows(1, 6)[:1]]),
            metric,
        )
    with pytest.raises(BadInput, match="no cells"):
        re_estimate(model, found, [], rows(2, 6), rows(3, 6), metric)


def test_the_largest_of_many_is_too_large_and_measuring_again_mends_it():
    """Cells that differ by noise alone: the explored figure of the winner exceeds its effect, the second does not."""
    from torch import nn

    from prosect.model.model import Model

    generator = torch.Generator().manual_seed(0)

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Identity()

        def forward(self, x):
            return self.read(x).sum(dim=1, keepdim=True)

    model = Model.of(Sum(), inputs=torch.zeros(2, 40))
    first, second = (torch.randn(12, 40, generator=generator) for _ in range(2))
    zeros, metric = torch.zeros(12, 40), lambda out, batch: out[:, 0]
    found = noising(model, zeros, first, metric, "read", positions="all", control=False)
    assert found.effects.values[0, 0] == pytest.approx(first.sum(dim=1).numpy(), abs=1e-4)
    with pytest.raises(Unsupported, match=r"heads of read"):
        noising(model, zeros, first, metric, "read", each="head", positions="all")
    each = noising(model, zeros, first, metric, "read", each="unit", positions="all", control=False)
    (best,) = each.top(1)
    again = re_estimate(model, each, [best], zeros + 1e-9, second, metric)
    (row,) = again.table()
    assert abs(best.explored) > 0.4
    assert abs(row.effect.estimate) < abs(best.explored) / 2
    assert row.effect.low < 0 < row.effect.high
