"""Words follow from intervals by one rule; counts are exact; what is written can be read again."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from decoders import opened, text
from prosect.core.errors import BadInput, TooLittleData, UnknownName
from prosect.core.exhibits import Figure
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.source import TableSource
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.concepts import F1Gap, best_latent, erased
from prosect.decompose.audit.cost import flops, parameters
from prosect.decompose.audit.coverage import coverage, describes, parameters_of
from prosect.decompose.audit.function import excess, rotated
from prosect.decompose.audit.limitations import LIMITATIONS
from prosect.decompose.audit.linearity import Round, goes_round
from prosect.decompose.audit.lines import Line, Scorecard, as_json, exact, not_run, read
from prosect.decompose.audit.mechanism import mechanism
from prosect.decompose.audit.reconstruction import compute_equivalent, less
from prosect.decompose.audit.sample import Sample, Seen, sampled
from prosect.decompose.audit.wanted import CLASSES, token_classes, wanted
from prosect.decompose.contract import Codes
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.sparsity import Threshold, TopK


def about(value, reach=0.0):
    return Measured(estimate=value, low=value - reach, high=value + reach, n=50)


def line(value, reach=0.01, absent=0.0, present=1.0, spread=0.0, **more):
    return Line("L1", about(value, reach), about(absent, spread), about(present, spread), about(0.5), **more)


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (line(0.05), "inside"),
        (line(-0.3), "inside"),  # better than the control without the limitation
        (line(0.1, 0.05), "undecided"),
        (line(0.12), "outside"),
        (line(7.0), "outside"),
        (line(0.05, absent=0.4, present=0.5, spread=0.06), "cannot tell"),
        (line(0.05, absent=1.0, present=0.0), "cannot tell"),
        (Line("L1", Measured(estimate=0.01), about(0.0), about(1.0), about(0.5)), "undecided"),
        (not_run("L1", "no text"), "not run"),
    ],
)
def test_a_word_says_where_the_whole_interval_lies(found, word):
    assert found.word == word


@given(st.floats(-2, 2), st.floats(0, 1), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_a_worse_number_never_gets_a_better_word(value, reach, share):
    order = ["inside", "undecided", "outside"]
    words = [order.index(line(v, reach, share=share).word) for v in (value, value + 0.1, value + 3.0)]
    assert words == sorted(words)


def test_a_limit_lies_between_the_controls():
    found = line(0.3, absent=0.2, present=0.6, share=0.25)
    assert found.limit == pytest.approx(0.3)
    assert found.position == pytest.approx(0.25)
    assert not_run("L2", "why").limit is None
    with pytest.raises(UnknownName):
        not_run("L12", "why")


def test_a_scorecard_is_read_as_it_was_written():
    figures = (Figure(name="n", measured=about(1.0), unit="nats"),)
    card = Scorecard(
        "topk@x",
        {"latents": 3},
        (line(0.05, figures=figures, remarks=("r",)), not_run("L7", "one end")),
        ("note",),
        {"python": "3"},
    )
    content = json.loads(json.dumps(as_json(card)))
    assert read(content) == card
    assert content["lines"][0]["word"] == "inside" and content["lines"][1]["word"] == "not run"
    content["lines"][0]["word"] = "outside"  # what is written there is for people: words are computed
    assert read(content).line("L1").word == "inside"
    for broken in ({}, {**content, "schema": 99}, {**content, "lines": [{}]}, []):
        with pytest.raises(BadInput):
            read(broken)


def test_every_limitation_has_a_share_and_a_reason():
    assert list(LIMITATIONS) == [f"L{i}" for i in range(1, 10)]
    assert all(0 < found.share <= 1 and found.why for found in LIMITATIONS.values())


# -- counts ----------------------------------------------------------------------------------------


def test_L2_counts_every_number_once():
    made = Dictionary("x", 7, Threshold()).with_weights(
        Weights(torch.zeros(7, 5), torch.zeros(7), torch.zeros(5), torch.zeros(7, 5), torch.zeros(5)),
        {"x": 5},
    )
    assert parameters(made) == 7 * 5 * 2 + 7 + 5 + 5 + 7
    assert flops(made, 3.0) == 2 * 7 * 5 + 2 * 3 * 5
    sites = ("a", "b")
    layered = Dictionary(sites, 6, TopK(2), ("c", "d"), cross_layer=True)
    encoder, decoder = torch.zeros(6, 7), torch.zeros(6, 9)
    layered.with_weights(
        Weights(encoder, torch.zeros(6), torch.zeros(7), decoder, torch.zeros(9)),
        {"a": 3, "b": 4, "c": 4, "d": 5},
    )
    # the first three latents read a and write both, the others read b and write d
    assert parameters(layered) == (3 * 3 + 3 * 4) + (3 * 9 + 3 * 5) + 6 + 7 + 9


@pytest.mark.parametrize(
    ("site", "described"),
    [
        ("resid_post.1", {"attn_out_post.1", "mlp_out_post.1"}),
        ("resid_pre.1", {"attn_out_post.0", "mlp_out_post.0"}),
        ("resid_pre.0", {"embeddings"}),
        ("resid_mid.1", {"attn_out_post.1"}),
        ("mlp_out.0", {"mlp_out_post.0"}),
        ("mlp_act.0", {"mlp_out_post.0"}),
        ("z.1", {"attn_out_post.1"}),
        ("some.module", set()),
    ],
)
def test_L6_a_dictionary_describes_the_modules_whose_output_it_writes(site, described):
    writers = ["embeddings", *(f"{m}_out_post.{layer}" for layer in (0, 1) for m in ("attn", "mlp"))]
    assert {w for w in writers if describes(site, w)} == described


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_L6_parameters_are_those_of_the_modules(family):
    model = opened(family)
    named = dict(model.module.named_parameters())
    whole = sum(p.numel() for p in named.values())
    mlp = sum(p.numel() for n, p in named.items() if ".1.mlp." in n)
    assert mlp > 0
    assert parameters_of(model, {"mlp_out_post.1"}) == pytest.approx(mlp / whole)


def test_L6_writes_are_those_of_a_pass_made_by_hand():
    model, batch = opened("gpt2"), text()
    held = {part: tuple(batch.select([i]) for i in range(len(batch))) for part in ("explore", "validate.0")}
    made = Dictionary("resid_post.0", 4, TopK(1)).with_weights(
        Weights(torch.zeros(4, 32), torch.zeros(4), torch.zeros(32), torch.zeros(4, 32), torch.zeros(32)),
        {"resid_post.0": 32},
    )
    found = coverage(Case(model, made, Sample(held, "d", "row"), Seed(0)))
    names = [n for n in model.sites.names() if n.endswith(("_out_post.0", "_out_post.1"))]
    trace = model.run(batch, ["embeddings", *names])
    size = {n: float(batch.flat(trace[n]).double().norm(dim=1).sum()) for n in ("embeddings", *names)}
    described = sum(v for n, v in size.items() if n.endswith(".0"))
    assert found.measured.estimate == pytest.approx(1 - described / sum(size.values()))
    assert found.absent.estimate == 0 and found.present.estimate == 1


def test_L6_a_dictionary_of_everything_is_inside_and_one_of_a_sublayer_outside():
    model, batch = opened("gpt2"), text()
    held = {part: tuple(batch.select([i]) for i in range(len(batch))) for part in ("explore", "validate.0")}
    writers = ("embeddings", *(f"{m}_out_post.{layer}" for layer in (0, 1) for m in ("attn", "mlp")))
    words = []
    for sites in (writers, writers[1:2]):
        n = 32 * len(sites)
        zeros = torch.zeros(4, n)
        weights = Weights(zeros, torch.zeros(4), torch.zeros(n), zeros, torch.zeros(n))
        made = Dictionary(sites, 4, TopK(1)).with_weights(weights, dict.fromkeys(sites, 32))
        words.append(coverage(Case(model, made, Sample(held, "d", "row"), Seed(0))).word)
    assert words == ["inside", "outside"]


# -- pieces ----------------------------------------------------------------------------------------


def test_L1_compute_is_read_off_a_line_between_the_models():
    curve = [(1e3, 4.0), (1e5, 2.0), (1e4, 2.0 * 2**0.5)]
    for compute, loss in curve:
        assert compute_equivalent(curve, loss) == pytest.approx(compute)
    power = [(c, 10.0 * c**-0.1) for c in (1e2, 1e4, 1e6)]
    assert compute_equivalent(power, 10.0 * 3e3**-0.1) == pytest.approx(3e3)
    for bad, loss in (
        (curve, 1.0),
        (curve, 5.0),
        (curve[:1], 4.0),
        ([(1.0, 2.0), (2.0, 3.0)], 2.5),
        ([(0.0, 2.0), (1.0, 1.0)], 1.0),
    ):
        with pytest.raises(BadInput):
            compute_equivalent(bad, loss)


def test_one_minus_a_number_turns_its_interval():
    found = less(Measured(estimate=0.8, low=0.7, high=0.95, n=9))
    assert (found.estimate, found.low, found.high, found.n) == (
        pytest.approx(0.2),
        pytest.approx(0.05),
        pytest.approx(0.3),
        9,
    )
    assert less(Measured(estimate=None, note="x")).note == "x"


def test_L8_the_gap_is_sklearns_and_its_gradient_is_right():
    rng = np.random.default_rng(0)
    y, dense, few = (rng.random(400) < p for p in (0.3, 0.35, 0.2))
    sums = np.array([(dense & y).sum(), dense.sum(), (few & y).sum(), few.sum(), y.sum()], dtype=float)
    gap = F1Gap()
    assert gap.value(sums) == pytest.approx(f1_score(y, dense) - f1_score(y, few))
    for i in range(5):
        step = np.zeros(5)
        step[i] = 1e-4
        slope = (gap.value(sums + step) - gap.value(sums - step)) / 2e-4
        assert gap.gradient(sums)[i] == pytest.approx(float(slope), abs=1e-6)


def test_L8_the_best_latent_is_chosen_on_one_half_and_scored_on_the_other():
    rng = np.random.default_rng(1)
    label = torch.from_numpy(rng.random(600) < 0.4)
    fired = torch.from_numpy(rng.random((600, 6)) < 0.3)
    fired[:, 3] = label ^ torch.from_numpy(rng.random(600) < 0.1)
    found = best_latent(Codes.of_dense(fired.double()), label)
    assert found == pytest.approx(f1_score(label[1::2].numpy(), fired[1::2, 3].numpy()))


def test_L8_what_was_erased_has_equal_means_and_little_was_moved():
    g = Seed(3).torch()
    x = torch.randn(500, 6, generator=g, dtype=torch.float64) @ torch.randn(
        6, 6, generator=g, dtype=torch.float64
    )
    label = x[:, 0] + 0.3 * x[:, 1] > 0.2
    left = erased(x, label)
    assert torch.allclose(left[label].mean(dim=0), left[~label].mean(dim=0), atol=1e-9)
    covariance = ((left - left.mean(dim=0)) * (label.double() - label.double().mean())[:, None]).mean(dim=0)
    assert covariance.abs().max() < 1e-9  # no linear probe is left anything (LEACE)
    assert int(torch.linalg.matrix_rank(left - x, atol=1e-8)) == 1


def test_L5_permuted_latents_show_nothing_and_a_rotated_unembedding_what_a_real_one_does():
    g = Seed(5).torch()
    directions = torch.randn(30, 12, generator=g, dtype=torch.float64)
    unrelated = excess(directions, torch.randn(30, 40, generator=g, dtype=torch.float64), Seed(0), 99)
    assert abs(unrelated.number) < 0.1 and unrelated.p > 0.01
    linear = excess(
        directions, directions @ torch.randn(12, 40, generator=g, dtype=torch.float64), Seed(0), 99
    )
    assert linear.number > 0.4 and linear.p == 0.01
    # any linear readout shows it, so a random unembedding does not exceed its own rotations
    real, turned = rotated(torch.randn(40, 12, generator=g), directions, Seed(1))
    assert real > 0.4 and turned.low <= real <= turned.high
    # one whose spectrum lies along what tells the directions apart does
    spread = directions * torch.tensor([6.0, 6.0, *[0.5] * 10], dtype=torch.float64)
    aligned = torch.zeros(40, 12)
    aligned[0, 0] = aligned[1, 1] = 1.0
    real, turned = rotated(aligned, spread, Seed(1))
    assert real > (turned.high or 1.0)


def seen(n=400, units=20):
    unit = np.sort(np.random.default_rng(0).integers(units, size=n))
    unit = np.unique(unit, return_inverse=True)[1]
    return Seen(
        {"x": torch.randn(n, 3, generator=Seed(0).torch())},
        unit,
        torch.arange(n) % 5,
        (torch.arange(n) + 1) % 5,
    )


def test_halves_share_no_document():
    found = seen()
    order = found.halves(Seed(1))
    even, odd = (set(found.unit[order[i::2]].tolist()) for i in (0, 1))
    assert not even & odd and len(order) % 2 == 0 and len(set(order.tolist())) == len(order)
    assert len(order) > 0.7 * len(found)
    with pytest.raises(TooLittleData):
        Seen({"x": torch.zeros(4, 1)}, np.zeros(4, dtype=np.int64)).halves(Seed(1))


def test_a_sample_takes_a_window_of_every_unit_first():
    source = TableSource(lambda part: {"x": torch.arange(40.0)[:, None]}, {"validate.0": 40}, "d")
    made = sampled(source, {"validate.0": 12}, Seed(0))
    assert made.units == {"validate.0": 12}
    assert len(list(made.batches("validate.0", 5))) == 3
    assert sum(len(b) for b in made.batches("validate.0", 5)) == 12
    with pytest.raises(TooLittleData):
        sampled(source, {"validate.0": 3}, Seed(0))
    with pytest.raises(UnknownName):
        list(made.batches("sealed"))


def test_concepts_are_classes_of_tokens_here_and_next():
    words = ["the", " cat", "\n", "7", "_x"]
    labels = token_classes(seen(), words)
    assert len(labels) == 2 * len(CLASSES)
    assert labels["token begins with a space"].tolist()[:5] == [False, True, False, False, False]
    assert labels["next token begins with a space"].tolist()[:5] == [True, False, False, False, False]
    assert token_classes(Seen({}, np.zeros(0, dtype=np.int64)), words) == {}


def test_concepts_that_hardly_come_or_go_are_left_out_and_said():
    found = seen()
    codes = Codes(torch.zeros(400, 1, dtype=torch.long), torch.ones(400, 1), 4)
    rare = torch.zeros(400, dtype=torch.bool)
    rare[3] = True
    some = torch.arange(400) % 2 == 0
    made = wanted(found, codes, {"rare": rare, "some": some, "more": ~some}, Seed(0), most=1)
    assert list(made.labels) == ["some"]
    assert "too few" in made.left_out["rare"] and "first 1" in made.left_out["more"]
    with pytest.raises(TooLittleData):
        wanted(found, codes, {"rare": rare}, Seed(0))


def test_a_count_has_no_error():
    assert exact(3.0).low == exact(3.0).high == 3.0


def test_L3_a_few_circles_more_than_by_chance_are_no_finding():
    assert not Round(12, 4, 2, 8).more
    assert Round(12, 9, 2, 8).more
    assert not Round(0, 0, 0, 0).more


def test_L3_latents_that_tile_a_circle_are_found_and_as_many_on_their_own_are_not():
    g = Seed(4).torch()
    angle = 2 * torch.pi * torch.rand(600, generator=g, dtype=torch.float64)
    corners = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    codes = torch.relu(torch.cos(angle[:, None] - corners) - 0.5)
    ring = torch.zeros(8, 16, dtype=torch.float64)
    ring[:, 0], ring[:, 1] = torch.cos(corners), torch.sin(corners)
    assert goes_round(codes @ ring, Seed(0), 99, 1)
    alone = torch.relu(torch.randn(600, 8, generator=g, dtype=torch.float64))
    assert not goes_round(alone @ torch.eye(8, 16, dtype=torch.float64), Seed(0), 99, 1)


def test_L7_two_places_of_the_stream_are_compared_with_what_lies_between_left_out():
    model, batch = opened("gpt2"), text()
    held = {part: tuple(batch.select([i]) for i in range(len(batch))) for part in ("explore", "validate.0")}

    def both_signs(site):
        eye = torch.cat([torch.eye(32), -torch.eye(32)])
        weights = Weights(eye, torch.zeros(64), torch.zeros(32), eye, torch.zeros(32))
        return Dictionary(site, 64, Threshold()).with_weights(weights, {site: 32})

    case = Case(
        model,
        both_signs("resid_post.0"),
        Sample(held, "d", "row"),
        Seed(0),
        following=both_signs("resid_post.1"),
    )
    found = mechanism(case)
    trace = model.run(batch, ["resid_post.0", "resid_post.1"])
    before, after = (batch.flat(trace[f"resid_post.{i}"]).double() for i in (0, 1))
    z, made = (torch.cat([x.relu(), (-x).relu()], dim=1) for x in (after, before))
    by_hand = (z - made).square().sum() / (z - z.mean(dim=0)).square().sum()
    assert found.measured.estimate == pytest.approx(float(by_hand), rel=1e-4)
    assert found.absent.estimate == pytest.approx(0, abs=1e-10)
    assert found.present.estimate == pytest.approx(1)
    # it loses nothing itself, so the unchanged activations predict as much
    assert found.figures[0].measured.estimate == pytest.approx(found.measured.estimate, rel=1e-4)
