"""Attribution patching: exact where everything is linear, finite differences elsewhere, and its known failures."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, Unsupported
from prosect.model import edits as e
from prosect.model.model import Model
from prosect.model.patching import attribution_patching, noising, re_estimate
from prosect.organisms.wiring import Wiring

SITES = ["resid_pre", "attn_out", "mlp_out", "resid_post"]


def test_on_a_linear_network_estimates_are_exact(linear, rows, logit):
    model, _ = linear
    for sites, each in ((SITES, "site"), ("z", "head"), ("v", "head"), ("mlp_act", "unit")):
        found = attribution_patching(model, rows(2), rows(3), logit(), sites, each=each, sample=40)
        exact = noising(model, rows(2), rows(3), logit(), sites, each=each, control=False)
        assert np.allclose(found.estimates.values, exact.effects.values, atol=2e-3)
        assert found.accuracy.correlation.estimate == pytest.approx(1.0, abs=1e-4)
        assert found.accuracy.error.estimate < 1e-3 < found.accuracy.nothing.estimate
        assert found.accuracy.missed.estimate == 0.0
        assert not found.saturated.any()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_estimates_are_the_slope_of_a_small_step(open_, rows, logit, name, direction):
    model, metric = open_(name), logit()
    sites = ["resid_mid.0", "k.1", "q.0", "z.0.h2", "mlp_act.1.n5", "probs.1.h1"]
    found = attribution_patching(
        model, rows(0), rows(1), metric, sites, direction=direction, sample=8, saturation=False
    )
    base, other = (rows(0), rows(1)) if direction == "noising" else (rows(1), rows(0))
    here, there = (
        model.run(x, ["resid_mid.0", "k.1", "q.0", "z.0", "mlp_act.1", "probs.1"]) for x in (base, other)
    )
    unit = torch.zeros(here["mlp_act.1"].shape[-1])
    unit[5] = 1.0
    extra = {"z.0.h2": {"heads": 2}, "mlp_act.1.n5": {"direction": unit}, "probs.1.h1": {"heads": 1}}
    step = 1e-2
    for i, node in enumerate(sites):
        site = ".".join(node.split(".")[:2])
        value = here[site] + step * (there[site] - here[site])
        for p in (2, 5):
            for sign in (1.0,):
                edit = e.patch(site, value, positions=[p], **extra.get(node, {}))
                after = metric(model.run(base, edits=[edit]).output, model.batch(base)).double().numpy()
                slope = sign * (after - found.base.values) / step
                assert np.allclose(
                    found.estimates.values[i, p], slope, atol=0.02 * np.abs(slope).max() + 2e-3
                )


def test_cost_is_two_forward_and_one_backward_and_the_check_is_apart(open_, rows, logit):
    found = attribution_patching(open_("gpt2"), rows(0), rows(1), logit(), "resid_pre", sample=10)
    assert (found.cost.forward, found.cost.backward) == (3, 1)  # the third is the metric on the other run
    assert found.checking.forward >= 10
    assert found.accuracy.cells == (10, 2 * 6)
    for number in (found.accuracy.correlation, found.accuracy.rank, found.accuracy.error):
        assert number.n == 10 and number.low <= number.estimate <= number.high and number.low < number.high
    assert found.accuracy.mismatched.estimate < found.accuracy.correlation.estimate


class Sigmoid(nn.Module):
    """A saturated sigmoid: flat at both ends of the change, a step in between. Beside it a straight line."""

    def __init__(self):
        super().__init__()
        self.steep, self.straight = nn.Identity(), nn.Identity()

    def forward(self, x):
        return torch.sigmoid(self.steep(x[:, :1])) + 0.1 * self.straight(x[:, 1:])


def test_a_saturated_sigmoid_is_missed_and_flagged():
    clean = torch.tensor([[12.0, 1.0]]).repeat(4, 1)
    model = Model.of(Sigmoid(), name="sigmoid", inputs=clean)
    found = attribution_patching(
        model, clean, -clean, lambda out, b: out[:, 0], ["steep", "straight"], positions="all"
    )
    exact = noising(model, clean, -clean, lambda out, b: out[:, 0], ["steep", "straight"], positions="all")
    assert abs(found.estimates.mean[0, 0]) < 1e-3 < 0.9 < abs(exact.effects.mean[0, 0])
    assert found.estimates.mean[1, 0] == pytest.approx(exact.effects.mean[1, 0], abs=1e-6)
    assert found.saturated.tolist() == [[True], [False]]
    assert found.accuracy.missed.estimate == 0.5
    assert found.table()[0].saturated and not found.table()[1].saturated


@pytest.fixture(scope="module")
def sharp():
    """One head that looks at token 1 with certainty and writes token 1's value to the output."""
    w = Wiring.blank(4, 4, 6, layers=2, heads=1, head=4, neurons=0)
    w.tokens[:4, :4] = np.eye(4)
    w.query[0, 0, :4, 0] = 30.0  # any token asks
    w.key[0, 0, 1, 0] = w.key[0, 0, 2, 0] = 1.0
    w.key[0, 0, 2, 0] = 0.0  # token 2 does not answer
    w.value[0, 0, 1, 1] = 1.0
    w.out[0, 0, 1, 4] = 1.0
    w.unembed[4, 3] = 1.0
    return Model.of(w.turned(np.random.default_rng(1)).decoder(), name="sharp")


@pytest.mark.parametrize("site", ["k.0", "q.0"])
def test_the_qk_fix_recovers_what_a_saturated_softmax_hides(sharp, logit, site):
    """Clean: the key of token 1 wins by 30. Corrupted: it is token 2, which no query looks for."""
    clean, other = torch.tensor([[0, 1, 3, 3]] * 3), torch.tensor([[0, 2, 3, 3]] * 3)
    if site == "q.0":  # the asking token is replaced by one that asks for nothing: made so by its position
        clean, other = torch.tensor([[2, 1, 0, 3]] * 3), torch.tensor([[2, 1, 0, 2]] * 3)
    model = sharp
    plain = attribution_patching(model, clean, other, logit(3), site, each="head", sample=8)
    star = attribution_patching(model, clean, other, logit(3), site, each="head", sample=8, star=True)
    exact = noising(model, clean, other, logit(3), site, each="head", control=False)
    if site == "k.0":
        assert exact.effects.mean[0, 1] < -0.5  # a token that is looked for is gone
        assert abs(plain.estimates.mean[0, 1]) < 1e-6
        assert plain.saturated[0, 1]
        assert plain.accuracy.missed.estimate > 0
        assert star.accuracy.missed.estimate == 0
        assert not star.saturated[0, 1]
    assert np.allclose(star.estimates.values, exact.effects.values, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt-oss"])
def test_the_fix_is_exact_where_only_attention_lies_between(open_, rows, name):
    """A metric that is linear in the last layer's head outputs: probabilities are all that is not linear."""
    model = open_(name)
    weights = torch.randn(20, generator=torch.Generator().manual_seed(3))
    last = (model.n_layers or 0) - 1
    site = f"z.{last}"
    held = {}

    def metric(output, batch):
        return output[:, -1] @ weights

    # an output that is linear in z: everything behind the attention is taken out
    edits = model.run(rows(0), [site, f"q.{last}", f"k.{last}", f"probs.{last}", f"scores.{last}"])
    held["z"] = edits[site]
    other = model.run(rows(1), [f"q.{last}", f"k.{last}"])
    from prosect.model.patching.qk import of_keys, of_queries, patched_patterns

    values = {name: edits[name] for name in (f"q.{last}", f"k.{last}")}
    values |= {f"other {name}": other[name] for name in (f"q.{last}", f"k.{last}")}
    batch = model.batch(rows(0))
    slope = torch.randn(edits[f"probs.{last}"].shape, generator=torch.Generator().manual_seed(4))
    base = (edits[f"probs.{last}"].double() * slope.double()).sum(dim=(-1, -2))
    queries = of_queries(
        edits[f"probs.{last}"], patched_patterns(model, batch, values, [last], "q")[last], slope
    )
    new_scores = patched_patterns(model, batch, values, [last], "k")[last]
    heads, groups = (
        edits[f"k.{last}"].shape[2],
        edits[f"probs.{last}"].shape[1] // edits[f"k.{last}"].shape[2],
    )
    for p in ([1], [3], [0, 2, 5]):
        run = model.run(rows(0), [f"probs.{last}"], [e.patch(f"k.{last}", other[f"k.{last}"], positions=p)])[
            f"probs.{last}"
        ]
        change = (run.double() * slope.double()).sum(dim=(-1, -2)) - base
        expected = change.reshape(3, heads, groups).sum(dim=-1)
        got = of_keys(edits[f"scores.{last}"], new_scores, edits[f"probs.{last}"], slope, [p] * 3, groups)
        assert torch.allclose(got, expected, atol=1e-4)
        assert got.abs().max() > 1e-3
        run = model.run(rows(0), [f"probs.{last}"], [e.patch(f"q.{last}", other[f"q.{last}"], positions=p)])[
            f"probs.{last}"
        ]
        change = (run.double() * slope.double()).sum(dim=(-1, -2)) - base
        assert torch.allclose(queries[:, p].sum(dim=1), change, atol=1e-4)


def test_keys_come_back_from_probabilities_too_small_to_be_written():
    from prosect.model.patching.qk import of_keys

    scores = torch.tensor([[[[0.0, -200.0]]]])
    probs, patched = scores.softmax(-1), torch.tensor([[[[0.0, 50.0]]]])
    assert probs[0, 0, 0, 1] == 0.0
    slope = torch.tensor([[[[0.0, 1.0]]]])
    assert of_keys(scores, patched, probs, slope, [[1]]).item() == pytest.approx(1.0)
    patched = torch.tensor([[[[0.0, 1e4]]]])
    assert of_keys(scores, patched, probs, slope, [[1]]).item() == pytest.approx(1.0)


def test_graddrop_tells_effects_that_cancel(logit):
    """The first MLP writes a feature to the output and, through the second MLP, its negative: to first order nothing."""
    w = Wiring.blank(4, 4, 6, layers=3, heads=1, head=2, neurons=1)
    w.tokens[1, 0] = 1.0
    w.up[0, 0, 0], w.down[0, 0, 1] = 1.0, 1.0
    w.up[1, 1, 0], w.down[1, 0, 2] = 1.0, -1.0
    w.unembed[1, 3] = w.unembed[2, 3] = 1.0
    w.bias[1] = 0.1
    model = Model.of(w.decoder(), name="cancelling")
    clean, other = torch.ones(3, 2, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long)
    # without the bias' kink both runs agree; a third token makes the metric's gap real
    metric = lambda out, b: out[:, -1, 3] + 0.0 * out[:, -1, 0]  # noqa: E731
    with pytest.raises(BadInput, match="gradient is zero"):
        attribution_patching(model, clean, other, lambda out, b: 0.0 * out[:, -1, 3], "mlp_out")
    found = attribution_patching(model, clean, other, metric, "mlp_out", star=True, positions=[1])
    at = found.nodes.index("mlp_out.0")
    assert found.estimates.mean[at, 0] == pytest.approx(0.0, abs=1e-6)
    # dropping layer 1 leaves the direct way (-1), dropping 0 nothing, dropping 2 what there was (0): (1 + 0 + 0) / 2
    assert found.magnitude.mean[at, 0] == pytest.approx(0.5, abs=1e-6)
    assert [c.node for c in found.top(2)] == ["mlp_out.1", "mlp_out.0"]
    assert found.cost.backward == 1 + 3


def test_a_divergence_from_the_run_itself_is_refused(open_, rows):
    model = open_("gpt2")
    reference = model.run(rows(0)).output[:, -1].log_softmax(-1)

    def divergence(output, batch):
        return (reference.exp() * (reference - output[:, -1].log_softmax(-1))).sum(dim=-1)

    with pytest.raises(BadInput, match=r"gradient is zero.*difference of logits"):
        attribution_patching(model, rows(0), rows(1), divergence, "z")
    found = attribution_patching(model, rows(0), rows(1), divergence, "z", direction="denoising", sample=4)
    assert np.abs(found.estimates.values).max() > 1e-3  # at the other run it has a slope


def test_metrics_that_cannot_be_differentiated_are_named(open_, rows):
    model, clean, other = open_("gpt2"), rows(0), rows(1)
    with pytest.raises(BadInput, match="without a gradient"):
        attribution_patching(model, clean, other, lambda out, b: out[:, -1].argmax(-1).float(), "z")
    with pytest.raises(ShapeMismatch, match="one number for each row"):
        attribution_patching(model, clean, other, lambda out, b: out[:, -1], "z")
    with pytest.raises(NotFinite, match="metric"):
        attribution_patching(model, clean, other, lambda out, b: out[:, -1, 0] / 0, "z")


def test_quantised_models_have_no_gradient():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
        model = Model.of(quantised, name="quantised", inputs=torch.ones(2, 4))
        with pytest.raises(Unsupported, match=r"quantised.*exact patching"):
            attribution_patching(
                model, torch.ones(2, 4), torch.zeros(2, 4), lambda out, b: out[:, 0], "1", positions="all"
            )


def test_candidates_are_confirmed_by_exact_patching_on_other_rows(open_, rows, logit):
    model = open_("gpt2")
    found = attribution_patching(model, rows(0, 4), rows(1, 4), logit(), "z", each="head", sample=8)
    again = re_estimate(model, found, found.top(2), rows(2, 4), rows(3, 4), logit())
    fresh = noising(model, rows(2, 4), rows(3, 4), logit(), "z", each="head", control=False)
    for cell, row in zip(found.top(2), again.table(), strict=True):
        assert row.effect.estimate == pytest.approx(fresh.effect(cell.node, cell.position).estimate, abs=1e-6)


def test_rows_of_several_lengths_and_alignments(open_, logit):
    model = open_("llama")
    clean, other = [[1, 2, 3], [4, 5, 6, 7, 8]], [[1, 9, 3], [4, 2, 6, 7, 1]]
    found = attribution_patching(model, clean, other, logit(), "k", each="head", star=True, sample=6)
    exact = noising(model, clean, other, logit(), "k", each="head", control=False)
    assert np.array_equal(np.isnan(found.estimates.values), np.isnan(exact.effects.values))
    alone = attribution_patching(model, clean[:1], other[:1], logit(), "k", each="head", star=True, sample=6)
    assert np.allclose(found.estimates.values[:, :3, 0], alone.estimates.values[:, :, 0], atol=1e-5)
    moved = attribution_patching(
        model, [[1, 2, 3]], [[1, 9, 2, 3]], logit(), "resid_pre", alignment=[(0, 0), (1, 2), (2, 3)], sample=6
    )
    assert moved.positions == ("0", "1", "2")


def test_a_backward_rule_changes_the_gradient_and_is_recorded(open_, rows, logit):
    from prosect.model.backward import frozen_attention, frozen_norms, relp

    model = open_("llama")
    plain = attribution_patching(
        model, rows(0), rows(1), logit(), "z", each="head", sample=4, saturation=False
    )
    ruled = attribution_patching(
        model, rows(0), rows(1), logit(), "z", each="head", sample=4, saturation=False, rule=relp
    )
    assert any("relp" in note for note in ruled.notes) and not plain.notes
    assert not np.allclose(plain.estimates.values, ruled.estimates.values, atol=1e-3)
    with pytest.raises(Unsupported, match=r"q\.1, which none reaches"):
        attribution_patching(model, rows(0), rows(1), logit(), "q.1", rule=frozen_attention)
    # with one block behind it and norms frozen, the last MLP's estimate is its exact direct effect up to the scale
    late = attribution_patching(
        model, rows(0), rows(1), logit(), "mlp_out.1", positions=[5], rule=frozen_norms, saturation=False
    )
    change = (
        model.run(rows(1), ["mlp_out.1"])["mlp_out.1"] - model.run(rows(0), ["mlp_out.1"])["mlp_out.1"]
    )[:, 5]
    stream = model.run(rows(0), ["resid_post.1"])["resid_post.1"][:, 5]
    scale = (stream.pow(2).mean(dim=-1) + 1e-6).sqrt()
    assert np.allclose(
        late.estimates.values[0, 0], (change @ model.unembedding[5] / scale).numpy(), atol=1e-4
    )
