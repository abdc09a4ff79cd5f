"""Dictionaries of every shape: against written-out sums, and against planted features."""

from dataclasses import replace

import pytest
import torch

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName
from prosect.core.seeds import Seed
from prosect.decompose import dictionary as module
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.linear import Ica, Pca, RandomDirections
from prosect.decompose.quality import measure, recovery
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import Threshold, TopK
from prosect.decompose.streams import ArrayStream


def generator(*names):
    return Seed(0).child("test", *names).torch()


def planted(n, features, active, seed):
    """Non-negative sparse coefficients: each feature on in a share ``active`` of positions."""
    g = generator("planted", seed)
    on = torch.rand(n, features, generator=g) < active
    return on * (0.5 + torch.rand(n, features, generator=g))


def unit(*shape, seed=0):
    drawn = torch.randn(*shape, generator=generator("unit", seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def weights(latents=6, reads=3, writes=3, skip=False):
    g = generator("weights")
    return Weights(
        torch.randn(latents, reads, generator=g),
        torch.randn(latents, generator=g),
        torch.randn(reads, generator=g),
        torch.randn(latents, writes, generator=g),
        torch.randn(writes, generator=g),
        torch.randn(reads, writes, generator=g) if skip else None,
    )


def test_encoding_and_decoding_are_the_formulas():
    w = weights()
    made = Dictionary("x", 6, TopK(2)).with_weights(w, {"x": 3})
    x = torch.randn(50, 3, generator=generator("x"))
    pre = (x - w.centre) @ w.encoder.T + w.bias
    largest = pre >= pre.topk(2, dim=1).values[:, -1:]
    expected = pre.clamp_min(0) * largest
    codes = made.encode({"x": x})
    assert torch.allclose(codes.dense(), expected, atol=1e-5)
    assert codes.indices.shape == (50, 2)
    assert (codes.active < 2).any()  # the second largest may be negative
    assert torch.allclose(made.decode(codes)["x"], expected @ w.decoder + w.offset, atol=1e-5)
    assert torch.equal(made.encoder("x"), w.encoder)
    assert torch.equal(made.decoder("x"), w.decoder)
    assert "unit" not in made.supports  # these rows were never normalised


def test_thresholds_decide_where_a_dictionary_has_them():
    w = replace(weights(), threshold=torch.tensor([0.5, 0.0, -1.0, 1.0, 0.2, 3.0]))
    made = Dictionary("x", 6, Threshold()).with_weights(w, {"x": 3})
    x = torch.randn(50, 3, generator=generator("x"))
    pre = (x - w.centre) @ w.encoder.T + w.bias
    expected = torch.relu(pre) * (pre > w.threshold)
    codes = made.encode({"x": x})
    assert torch.allclose(codes.dense(), expected, atol=1e-5)
    assert codes.active.float().std() > 0  # how many fire is not fixed
    again = Dictionary.from_state(*made.state())
    assert torch.equal(again.encode({"x": x}).dense(), codes.dense())


def test_without_thresholds_it_is_a_relu():
    made = Dictionary("x", 6, Threshold()).with_weights(weights(), {"x": 3})
    x = torch.randn(50, 3, generator=generator("x"))
    expected = torch.relu((x - made.centre_) @ made.encoder_.T + made.bias_)
    assert torch.allclose(made.encode({"x": x}).dense(), expected, atol=1e-5)


@pytest.mark.parametrize("sparsity", [TopK(2), Threshold()])
def test_encoding_in_chunks_is_encoding_at_once(monkeypatch, sparsity):
    made = Dictionary("x", 6, sparsity).with_weights(weights(), {"x": 3})
    x = {"x": torch.randn(50, 3, generator=generator("x"))}
    at_once = made.encode(x).dense()
    monkeypatch.setattr(module, "CHUNK", 40)
    assert torch.allclose(made.encode(x).dense(), at_once, atol=1e-6)


def test_a_crosscoder_reads_and_writes_several_sites():
    w = weights(reads=5, writes=5)
    made = Dictionary(("a", "b"), 6, TopK(3)).with_weights(w, {"a": 2, "b": 3})
    x = {"b": torch.randn(9, 3, generator=generator("b")), "a": torch.randn(9, 2, generator=generator("a"))}
    pre = (x["a"] - w.centre[:2]) @ made.encoder("a").T + (x["b"] - w.centre[2:]) @ made.encoder("b").T
    codes = made.encode(x)
    chosen = (pre + w.bias).topk(3, dim=1)
    dense = torch.zeros(9, 6).scatter(1, chosen.indices, chosen.values.clamp_min(0))
    assert torch.allclose(codes.dense(), dense, atol=1e-5)
    y = made.decode(codes)
    assert torch.allclose(y["a"], dense @ made.decoder("a") + w.offset[:2], atol=1e-5)
    assert torch.allclose(y["b"], dense @ made.decoder("b") + w.offset[2:], atol=1e-5)
    assert made.name == "topk@a+b"
    assert made.component(1).reads == ("a", "b")


def test_a_cross_layer_transcoder_is_one_with_zero_blocks():
    """Two layers: latents 0-2 read layer 0 and write both, latents 3-5 read and write layer 1 alone."""
    w = weights(reads=4, writes=4)
    encoder, decoder = w.encoder.clone(), w.decoder.clone()
    encoder[:3, 2:], encoder[3:, :2], decoder[3:, :2] = 0, 0, 0
    w = Weights(encoder, w.bias, w.centre, decoder, w.offset)
    sites, targets = ("in.0", "in.1"), ("out.0", "out.1")
    made = Dictionary(sites, 6, TopK(6), targets).with_weights(w, dict.fromkeys((*sites, *targets), 2))
    x0, x1 = torch.randn(2, 20, 2, generator=generator("layers"))
    z0 = torch.relu((x0 - w.centre[:2]) @ encoder[:3, :2].T + w.bias[:3])
    z1 = torch.relu((x1 - w.centre[2:]) @ encoder[3:, 2:].T + w.bias[3:])
    y = made.reconstruct({"in.0": x0, "in.1": x1})
    assert torch.allclose(y["out.0"], z0 @ decoder[:3, :2] + w.offset[:2], atol=1e-5)
    assert torch.allclose(y["out.1"], z0 @ decoder[:3, 2:] + z1 @ decoder[3:, 2:] + w.offset[2:], atol=1e-5)
    assert made.name == "topk@in.0+in.1~out.0+out.1"


def test_a_skip_goes_around_the_latents():
    w = weights(reads=3, writes=2, skip=True)
    made = Dictionary("x", 6, TopK(2), "y", skip=True).with_weights(w, {"x": 3, "y": 2})
    x = torch.randn(9, 3, generator=generator("x"))
    around = made.reconstruct({"x": x})["y"] - made.decode(made.encode({"x": x}))["y"]
    assert torch.allclose(around, (x - w.centre) @ w.skip, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (weights(latents=5, skip=True), "encoder"),
        (weights(reads=4, skip=True), "encoder"),
        (weights(writes=2, skip=True), "decoder"),
        (weights(), "skip"),
    ],
)
def test_weights_of_another_size_are_refused(wrong, field):
    with pytest.raises(ShapeMismatch, match=field):
        Dictionary("x", 6, TopK(2), skip=True).with_weights(wrong, {"x": 3})


@pytest.mark.parametrize("field", ["encoder", "bias", "centre", "decoder", "offset", "skip"])
def test_weights_that_are_not_finite_are_refused(field):
    bad = weights(skip=True)
    getattr(bad, field).view(-1)[1] = float("nan")
    with pytest.raises(NotFinite, match=field):
        Dictionary("x", 6, TopK(2), skip=True).with_weights(bad, {"x": 3})


def test_weights_for_other_sites_are_refused():
    with pytest.raises(UnknownName):
        Dictionary("x", 6, TopK(2)).with_weights(weights(), {"y": 3})
    with pytest.raises(ShapeMismatch, match="skip"):
        Dictionary("x", 6, TopK(2)).with_weights(weights(skip=True), {"x": 3})


def test_requests_that_make_no_sense_are_refused():
    for make in (
        lambda: Dictionary("x", 0, TopK(1)),
        lambda: Dictionary("x", 4, TopK(5)),
        lambda: Dictionary("x", 4, TopK(0)),
        lambda: Dictionary((), 4, TopK(1)),
        lambda: Dictionary(("x", "x"), 4, TopK(1)),
        lambda: Dictionary("x", 4, TopK(1), ("y", "y")),
    ):
        with pytest.raises(BadInput):
            make()
    assert Dictionary("x", 4, TopK(1), "x").name == "topk@x"


def test_it_finds_more_features_than_there_are_dimensions():
    features = unit(60, 20)
    x = planted(20_000, 60, 0.03, 0) @ features + 0.5
    stream = ArrayStream({"x": x + 0.02 * torch.randn(x.shape, generator=generator("noise"))})
    made = Dictionary("x", 60, TopK(3), recipe=Recipe(batch=512, rate=1e-2))
    made.fit(stream.shuffled(Seed(0), epochs=8))
    quality = measure(made, stream)
    assert "unit" in made.supports
    assert quality.l0 <= 3
    assert quality.dead == 0
    found = recovery(made.directions, features)
    assert found.features_to_latents > 0.9
    assert found.latents_to_features > 0.9
    assert found.matched > 0.9
    random = RandomDirections.alike("x", 60, 0.03).fit(stream)
    floor = recovery(random.directions, features)
    for other in (Pca("x").fit(stream), Ica("x").fit(stream)):
        assert recovery(other.directions, features, signed=True).features_to_latents < 0.8
    assert floor.features_to_latents < 0.6
    assert floor.latents_to_features < 0.6


def test_a_transcoder_finds_the_units_of_a_sparse_mlp():
    """y = Wout relu(Win x - b), whose inputs switch few units on: its units are the transcoder's latents."""
    d, units = 20, 32
    inward, outward = unit(units, d, seed=1), unit(units, d, seed=2)
    x = planted(40_000, units, 0.04, 1) @ inward
    hidden = torch.relu(x @ inward.T - 0.6)
    stream = ArrayStream({"in": x, "out": hidden @ outward})
    made = Dictionary("in", units, TopK(3), "out", recipe=Recipe(batch=512, rate=1e-2))
    made.fit(stream.shuffled(Seed(0), epochs=8))
    assert made.name == "topk@in~out"
    match = recovery(made.directions, outward)
    assert match.features_to_latents > 0.9
    assert match.latents_to_features > 0.9
    read = torch.nn.functional.cosine_similarity(made.encoder("in")[match.match], inward)
    assert read.mean() > 0.8  # the same latents read what the unit reads
    codes = made.encode({"in": x}).dense()[:, match.match]
    correlation = torch.corrcoef(torch.cat([codes.T, hidden.T]))[:units, units:].diagonal()
    assert correlation.mean() > 0.8
    assert measure(made, stream).fvu["out"] < 0.12


def test_a_skip_takes_what_is_linear():
    x = torch.randn(20_000, 8, generator=generator("gauss"))
    linear = torch.randn(8, 8, generator=generator("map"))
    stream = ArrayStream({"in": x, "out": x @ linear + 3}).shuffled(Seed(0), epochs=4)
    left = {}
    for skip in (False, True):
        recipe = Recipe(batch=256, rate=1e-2)
        made = Dictionary("in", 8, TopK(1), "out", skip=skip, recipe=recipe).fit(stream)
        left[skip] = measure(made, stream).fvu["out"]
    assert left[True] < 0.01
    assert left[False] > 0.3


def test_a_crosscoder_tells_shared_from_exclusive_features():
    """Eight features write both sites, eight one, eight the other: relative decoder norms say which."""
    d, kind = 16, torch.arange(24) // 8
    a, b = unit(24, d, seed=3), unit(24, d, seed=4)
    a[kind == 2], b[kind == 1] = 0, 0
    s = planted(60_000, 24, 0.06, 2)
    stream = ArrayStream({"a": s @ a, "b": s @ b}).shuffled(Seed(0), epochs=6)
    made = Dictionary(("a", "b"), 24, TopK(3), recipe=Recipe(batch=512, rate=5e-3)).fit(stream)
    match = recovery(made.decoder_, torch.cat([a, b], dim=1))
    assert match.matched > 0.9
    in_a, in_b = made.decoder("a")[match.match].norm(dim=1), made.decoder("b")[match.match].norm(dim=1)
    share = in_a / (in_a + in_b)
    found = torch.where(share > 0.85, 1, torch.where(share < 0.15, 2, 0))
    assert (found == kind).double().mean() > 0.9
