"""What each edit does, against the same thing written out by hand on the captured tensor."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.model import edits as e
from prosect.model.inputs import of_ids

SITE = "resid_mid.0"


@pytest.fixture(scope="module")
def ragged():
    """Three rows of 3, 7 and 5 real tokens."""
    return of_ids([[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [3, 1, 4, 1, 5]])


def before_and_after(model, batch, edit, site=SITE):
    return model.run(batch, [site])[site], model.run(batch, [site], [edit])[site]


@pytest.mark.parametrize("name", ["gpt2", "decoder"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_only_selected_real_positions_change(opened, ragged, name, data):
    rows = data.draw(st.none() | st.lists(st.integers(0, 2), min_size=1, unique=True))
    chosen = [0, 1, 2] if rows is None else rows
    lengths = ragged.lengths
    per_row = data.draw(st.booleans())
    if per_row:
        sets = [
            data.draw(st.lists(st.integers(-int(lengths[r]), int(lengths[r]) - 1), min_size=1, max_size=3))
            for r in chosen
        ]
        positions = sets
    else:
        positions = data.draw(st.none() | st.lists(st.integers(-3, 2), min_size=1, max_size=3))
        sets = [list(range(lengths[r])) if positions is None else positions for r in chosen]
    before, after = before_and_after(
        opened(name),
        ragged,
        e.steer(SITE, torch.ones(before_width(opened(name))), 2.0, rows=rows, positions=positions),
    )
    expected = before.clone()
    for row, places in zip(chosen, sets, strict=True):
        for column in {p % int(lengths[row]) for p in places}:
            expected[row, column] += 2.0
    assert torch.equal(after, expected)


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def before_width(model):
    return model.sites.info(SITE).width


def unit(width, seed=0):
    x = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return x / x.norm()


CASES = {
    "patch": (lambda v, u: e.patch(SITE, v), lambda x, v, u: v),
    "patch along": (
        lambda v, u: e.patch(SITE, v, direction=3 * u),
        lambda x, v, u: x + ((v - x) @ u)[..., None] * u,
    ),
    "zero": (lambda v, u: e.zero(SITE), lambda x, v, u: 0 * x),
    "mean": (lambda v, u: e.mean(SITE, v.mean((0, 1))), lambda x, v, u: v.mean((0, 1)).expand_as(x)),
    "steer": (lambda v, u: e.steer(SITE, u, -1.5), lambda x, v, u: x - 1.5 * u),
    "project_out": (lambda v, u: e.project_out(SITE, 7 * u), lambda x, v, u: x - (x @ u)[..., None] * u),
    "scale": (lambda v, u: e.scale(SITE, 0.25), lambda x, v, u: 0.25 * x),
    "scale along": (
        lambda v, u: e.scale(SITE, 3.0, direction=u),
        lambda x, v, u: x + 2 * (x @ u)[..., None] * u,
    ),
    "freeze": (lambda v, u: e.freeze(SITE, v), lambda x, v, u: v),
    "freeze as it is": (lambda v, u: e.freeze(SITE), lambda x, v, u: x),
    "replace": (lambda v, u: e.replace(SITE, torch.tanh), lambda x, v, u: torch.tanh(x)),
}


@pytest.mark.parametrize("case", CASES)
def test_each_edit_does_what_it_says(opened, tokens, case):
    model = opened("gpt2")
    value = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(5))
    make, expected = CASES[case]
    before, after = before_and_after(model, tokens(), make(value, unit(32)))
    assert torch.allclose(after, expected(before, value, unit(32)), atol=1e-5)
    everywhere = case not in ("freeze as it is",)
    assert torch.equal(before, after) != everywhere


def test_projecting_out_a_plane_leaves_nothing_in_it(opened, tokens):
    plane = torch.stack([unit(32, 1), unit(32, 1) + 1e-3 * unit(32, 2)])  # nearly parallel
    before, after = before_and_after(opened("gpt2"), tokens(), e.project_out(SITE, plane))
    assert (after @ plane.T).abs().max() < 1e-4
    assert torch.linalg.matrix_rank((before - after).reshape(-1, 32).double(), atol=1e-4) == 2


def test_edits_at_one_site_apply_in_list_order_under_any_of_its_names(opened, tokens):
    model, v = opened("gpt2"), torch.full((32,), 2.0)
    for first, second in (("resid_post.0", "resid_pre.1"), ("resid_pre.1", "blocks.0.hook_resid_post")):
        trace = model.run(tokens(), [first], [e.steer(first, v), e.scale(second, 3.0)])
        plain = model.run(tokens(), [first])[first]
        assert torch.allclose(trace[first], 3 * (plain + v), atol=1e-5)
        trace = model.run(tokens(), [second], [e.scale(second, 3.0), e.steer(first, v)])
        assert torch.allclose(trace[second], 3 * plain + v, atol=1e-5)


def test_a_later_site_sees_an_earlier_edit(opened, tokens):
    model = opened("llama")
    trace = model.run(
        tokens(), ["resid_post.0", "resid_post.1"], [e.zero("attn_out_post.0"), e.zero("mlp_out_post.0")]
    )
    assert torch.equal(trace["resid_post.0"], model.run(tokens(), ["resid_pre.0"])["resid_pre.0"])
    assert not torch.equal(trace["resid_post.1"], model.run(tokens(), ["resid_post.1"])["resid_post.1"])


def test_one_head_and_several(opened, tokens):
    model = opened("llama")
    plain = model.run(tokens(), ["z.1"])["z.1"]
    one = model.run(tokens(), ["z.1", "z.1.h2"], [e.zero("z.1.h2")])
    assert (one["z.1"][:, :, 2] == 0).all()
    assert torch.equal(one["z.1.h2"], one["z.1"][:, :, 2])
    assert torch.equal(one["z.1"][:, :, [0, 1, 3]], plain[:, :, [0, 1, 3]])
    two = model.run(tokens(), ["z.1"], [e.patch("z.1", plain.flip(0), heads=[0, 3], positions=[-1])])["z.1"]
    expected = plain.clone()
    expected[:, -1, [0, 3]] = plain.flip(0)[:, -1, [0, 3]]
    assert torch.equal(two, expected)
    value = torch.randn(3, 7, 8)
    assert torch.equal(model.run(tokens(), ["z.1.h1"], [e.patch("z.1.h1", value)])["z.1.h1"], value)
    doubled = model.run(tokens(), ["z.1"], [e.replace("z.1.h1", lambda x: 2 * x)])["z.1"]
    assert torch.equal(doubled[:, :, 1], 2 * plain[:, :, 1])
    assert torch.equal(doubled[:, :, 0], plain[:, :, 0])


def test_resampling_draws_from_the_bank_and_from_nothing_else(opened, tokens):
    model, bank = opened("gpt2"), torch.randn(5, 32)
    got = model.run(tokens(), [SITE], [e.resample(SITE, bank, seed=3)])[SITE].reshape(-1, 32)
    hits = (got[:, None] == bank[None]).all(-1)
    assert hits.any(1).all()
    assert len(set(hits.float().argmax(1).tolist())) > 1
    again = model.run(tokens(), [SITE], [e.resample(SITE, bank, seed=3)])[SITE].reshape(-1, 32)
    assert torch.equal(got, again)
    other = model.run(tokens(), [SITE], [e.resample(SITE, bank, seed=4)])[SITE].reshape(-1, 32)
    assert not torch.equal(got, other)
    heads = torch.randn(6, 8)
    z = model.run(tokens(), ["z.0"], [e.resample("z.0.h1", heads)])["z.0"]
    assert (z[:, :, 1].reshape(-1, 1, 8) == heads[None]).all(-1).any(1).all()


def test_values_are_never_changed_in_place(opened, small, tokens):
    model = opened("gpt2")
    value = torch.randn(3, 7, 32)
    kept = value.clone()
    model.run(tokens(), [], [e.patch("resid_mid.0", value), e.scale("resid_mid.0", 2.0)])
    assert torch.equal(value, kept)
    cnn, image = small("cnn")
    held = torch.randn(3, 4, 4, 4)
    kept = held.clone()
    cnn.run(image, [], [e.patch("conv", held)])  # ReLU(inplace=True) comes next
    assert torch.equal(held, kept)
    cnn.run(image, [], [e.replace("conv", lambda x: held)])
    assert torch.equal(held, kept)
    plain = model.run(tokens(), ["attn_in.0"])["attn_in.0"]
    seen = {}
    hook = model.module.transformer.h[0].ln_1.register_forward_hook(lambda m, a, out: seen.update(ln=out))
    model.run(tokens(), [], [e.replace("attn_in.0", lambda x: x.mul_(0))])
    hook.remove()
    assert torch.equal(seen["ln"], plain)


def test_padding_changes_nothing_about_what_an_edit_does(opened):
    model, v = opened("llama"), torch.ones(32)
    together = of_ids([[1, 2, 3], [4, 5, 6, 7, 8, 9]])
    edit = e.steer("resid_post.0", v, positions=[-1])
    both = model.run(together, [], [edit]).output
    alone = model.run(of_ids([[1, 2, 3]]), [], [edit]).output
    assert torch.allclose(both[0, :3], alone[0], atol=1e-5)
    zeroed = model.run(together, ["resid_post.0"], [e.zero("resid_post.0")])["resid_post.0"]
    assert (zeroed[0, :3] == 0).all()
    assert (zeroed[0, 3:] != 0).any()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: e.zero(SITE, rows=[3]), BadInput, "rows from 0 to 2"),
        (lambda: e.zero(SITE, rows=-1), BadInput, "rows from 0 to 2"),
        (lambda: e.zero(SITE, positions=3), BadInput, "row 0, which has 3 real positions"),
        (lambda: e.zero(SITE, positions=[-6], rows=[2]), BadInput, "row 2, which has 5 real"),
        (lambda: e.zero(SITE, positions=[[0], [1]]), BadInput, "one for each of 3 rows"),
        (lambda: e.zero(SITE, positions=[0, [1]]), BadInput, "mix"),
        (lambda: e.zero(SITE, positions=[]), BadInput, "no positions"),
        (lambda: e.zero(SITE, heads=0), Unsupported, "with heads"),
        (lambda: e.zero("z.0", heads=[4]), BadInput, "heads from 0 to 3"),
        (lambda: e.zero("z.0.h1", heads=[1]), BadInput, "either"),
        (lambda: e.zero(SITE, column=[1]), BadInput, "column"),
        (lambda: e.patch(SITE, torch.zeros(3, 32)), ShapeMismatch, r"\(3, 7, 32\)"),
        (lambda: e.patch(SITE, torch.zeros(2, 7, 32)), ShapeMismatch, r"\(3, 7, 32\)"),
        (lambda: e.patch(SITE, torch.zeros(31)), ShapeMismatch, "32"),
        (lambda: e.patch(SITE, torch.zeros(32, dtype=torch.float64)), ShapeMismatch, "float32"),
        (lambda: e.steer(SITE, torch.zeros(32)), BadInput, "zero"),
        (lambda: e.steer(SITE, torch.ones(31)), ShapeMismatch, "32"),
        (lambda: e.steer(SITE, torch.ones(2, 32)), ShapeMismatch, "width"),
        (lambda: e.steer(SITE, torch.ones(32).half()), ShapeMismatch, "float32"),
        (lambda: e.zero(SITE, direction=torch.ones(3, 31)), ShapeMismatch, "32"),
        (lambda: e.zero("probs.0", direction=torch.ones(7)), Unsupported, "vector"),
        (lambda: e.resample("probs.0", torch.ones(3, 7)), Unsupported, "patch"),
        (lambda: e.resample(SITE, torch.ones(3, 31)), ShapeMismatch, "31|32"),
        (lambda: e.resample(SITE, torch.ones(0, 32)), ShapeMismatch, "at least 1"),
        (lambda: e.replace(SITE, lambda x: x[0]), ShapeMismatch, "function"),
        (lambda: e.replace(SITE, lambda x: x.double()), ShapeMismatch, "float64"),
        (lambda: e.zero("resid_pots.0"), BadInput, r"resid_post\.0"),
    ],
)
def test_bad_edits_say_what_is_wrong(opened, ragged, make, error, words):
    model = opened("gpt2")
    before = hooks(model.module)
    with pytest.raises(error, match=words):
        model.run(ragged, [], [make()])
    assert hooks(model.module) == before


def test_positions_need_an_axis_of_positions(small):
    mlp, x = small("mlp")
    with pytest.raises(Unsupported, match="axis of positions"):
        mlp.run(x, [], [e.zero("0", positions=0)])
    lstm, x = small("lstm")
    assert (lstm.run(x, ["lstm"], [e.zero("lstm", rows=[1])])["lstm"][1] == 0).all()


def test_a_module_without_rows_is_read_and_not_edited(opened, tokens):
    model = opened("gpt2")
    assert model.run(tokens(), ["transformer.wpe"])["transformer.wpe"].shape[0] == 1
    with pytest.raises(Unsupported, match="rows of the batch"):
        model.run(tokens(), [], [e.zero("transformer.wpe")])
