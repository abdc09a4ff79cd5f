"""Measures of quality against scikit-learn, brute force and cases with known answers."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.linear import Heads, KMeans, Neurons, Pca, RandomDirections
from prosect.decompose.quality import Quality, measure, recovery
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).child("test").torch(), dtype=torch.float64)


def test_fvu_is_one_minus_scikit_learns_r2():
    x = normal(500, 6) @ normal(6, 6, seed=1) + 1000
    stream = ArrayStream({"a": x}, block=77)
    for made in (Pca("a", 2), KMeans("a", 3)):
        found = measure(made.fit(stream), stream)
        made_of = made.reconstruct({"a": x})["a"]
        r2 = r2_score(x.numpy(), made_of.numpy(), multioutput="variance_weighted")
        assert found.fvu["a"] == pytest.approx(1 - r2, rel=1e-6)
        assert found.positions == 500


def constant(offset):
    """A dictionary that always writes ``offset``."""
    zero = torch.zeros(2, 3)
    return Dictionary("a", 2, TopK(1)).with_weights(
        Weights(zero, torch.zeros(2), torch.zeros(3), zero, offset.float()), {"a": 3}
    )


def test_the_ends_of_the_scale():
    x = normal(300, 3) + 5
    stream = ArrayStream({"a": x})
    assert measure(Neurons("a").fit(stream), stream).fvu["a"] == 0
    assert measure(constant(x.mean(dim=0)), stream).fvu["a"] == pytest.approx(1, rel=1e-6)
    assert measure(constant(x.mean(dim=0) + 9), stream).fvu["a"] > 10
    still = ArrayStream({"a": torch.ones(10, 3)})
    assert measure(constant(torch.ones(3)), still).fvu["a"] is None


def test_sparsity_and_firing_are_counts():
    x = torch.tensor([[0.0, 2.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    stream = ArrayStream({"a": x}, block=3)
    found = measure(Neurons("a").fit(stream), stream)
    assert found.l0 == 1.0
    assert found.firing.tolist() == [0.25, 0.75, 0.0]
    assert found.dead == pytest.approx(1 / 3)


def test_what_cannot_decode_has_no_fvu():
    z = {f"z.0.h{i}": normal(20, 2, seed=i) for i in range(2)}
    stream = ArrayStream(z)
    assert measure(Heads.of_layers(0, 2).fit(stream), stream).fvu == {}
    random = RandomDirections.alike("z.0.h0", 5, 0.2).fit(stream)
    assert measure(random, stream).l0 == pytest.approx(1.0)


def test_bad_streams_are_refused():
    made = Neurons("a").fit(ArrayStream({"a": normal(10, 3)}))
    with pytest.raises(UnknownName):
        measure(made, ArrayStream({"b": normal(10, 3)}))
    with pytest.raises(ShapeMismatch):
        measure(made, ArrayStream({"a": normal(10, 4)}))
    x = normal(10, 3)
    x[4, 1] = float("nan")
    with pytest.raises(NotFinite, match="a in block 0"):
        measure(made, ArrayStream({"a": x}))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_the_density_histogram_holds_every_component_that_fires(counts, bins):
    firing = torch.tensor(counts, dtype=torch.float64) / 1000
    edges, found = Quality("x", 1000, 0.0, {}, firing).density(bins)
    assert len(edges) == bins + 1
    assert (edges[0], edges[-1]) == (-3, 0)
    alive = firing[firing > 0].log10()
    assert int(found.sum()) == len(alive)
    nudged = alive.clamp(-3 + 1e-9, -1e-9).numpy()  # NumPy's last bin is closed, its others half-open
    inside = np.histogram(nudged, edges.numpy())[0]
    assert np.abs(np.cumsum(found.numpy()) - np.cumsum(inside)).max() <= len(alive)
    clear = [v for v in alive.tolist() if min(abs(v - e) for e in edges.tolist()) > 1e-6]
    if len(clear) == len(alive):
        assert found.tolist() == inside.tolist()


def test_a_histogram_needs_bins():
    with pytest.raises(BadInput):
        Quality("x", 10, 0.0, {}, torch.ones(1)).density(0)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 100), st.booleans())
@settings(max_examples=40, deadline=None)
def test_recovery_is_what_trying_everything_gives(m, n, seed, signed):
    features, directions = normal(m, 4, seed=seed), normal(n, 4, seed=seed + 1) * 7
    cosines = np.array(
        [[float(f @ d / (f.norm() * d.norm())) for d in directions] for f in features], dtype=np.float64
    )
    if signed:
        cosines = np.abs(cosines)
    found = recovery(directions, features, signed)
    assert found.features_to_latents == pytest.approx(cosines.max(axis=1).mean())
    assert found.latents_to_features == pytest.approx(cosines.max(axis=0).mean())
    small, large = sorted((m, n))
    square = cosines if m <= n else cosines.T
    best = max(sum(square[i, p[i]] for i in range(small)) for p in permutations(range(large), small))
    assert found.matched == pytest.approx(best / small)
    used = found.match[found.match >= 0].tolist()
    assert len(used) == len(set(used)) == small
    for i, j in enumerate(found.match.tolist()):
        assert float(found.cosines[i]) == pytest.approx(cosines[i, j] if j >= 0 else 0.0)


def test_neither_direction_of_recovery_can_be_had_cheaply():
    features = normal(8, 8)
    features = torch.linalg.qr(features).Q
    one_good = features[:1]
    many = torch.cat([features, normal(200, 8, seed=1)])
    assert recovery(one_good, features).latents_to_features == pytest.approx(1)
    assert recovery(one_good, features).features_to_latents < 0.2
    assert recovery(many, features).features_to_latents == pytest.approx(1)
    assert recovery(many, features).latents_to_features < 0.8


def test_directions_that_are_zero_match_nothing():
    found = recovery(torch.zeros(2, 3), torch.eye(3))
    assert found.features_to_latents == found.matched == 0
    with pytest.raises(ShapeMismatch):
        recovery(torch.zeros(2, 3), torch.eye(4))
    with pytest.raises(BadInput):
        recovery(torch.zeros(0, 3), torch.eye(3))


def test_a_card_shows_what_was_measured():
    html = Quality("<b>", 1000, 3.5, {"a": 0.25, "b": None}, torch.tensor([0.5, 0.0]))._repr_html_()
    for part in ("3.50", "0.2500", "undefined", "50.0%", "&lt;b&gt;"):
        assert part in html


def scaled(factor, offset=0.0):
    """A dictionary whose linear path gives ``factor`` times what it reads."""
    zero = torch.zeros(1, 3)
    weights = Weights(
        zero, torch.zeros(1), torch.zeros(3), zero, torch.full((3,), offset), factor * torch.eye(3)
    )
    return Dictionary("a", 1, TopK(1), skip=True).with_weights(weights, {"a": 3})


def test_shrinkage_is_the_factor_by_which_reconstructions_are_too_small():
    stream = ArrayStream({"a": normal(400, 3).float()}, block=70)
    found = measure(scaled(0.7), stream)
    assert found.bias["a"] == pytest.approx(0.7)
    assert found.l2_ratio["a"] == pytest.approx(0.7)
    assert measure(scaled(-1.0), stream).bias["a"] is None
    # what it is divided by is what makes the error least
    x, made = stream.arrays["a"], scaled(0.7, 0.4).reconstruct({"a": stream.arrays["a"]})["a"]
    best = measure(scaled(0.7, 0.4), stream).bias["a"]
    errors = [float((made / b - x).square().sum()) for b in (best * 0.99, best, best * 1.01)]
    assert errors[1] < min(errors[0], errors[2])


def test_dense_components_are_counted():
    firing = torch.tensor([0.5, 0.2, 0.05, 0.0], dtype=torch.float64)
    assert Quality("x", 1000, 0.0, {}, firing).dense() == 0.5
    assert Quality("x", 1000, 0.0, {}, firing).dense(0.3) == 0.25


def test_components_that_say_the_same_are_not_unique():
    features = torch.eye(4)
    assert recovery(features, features).uniqueness == 1
    assert recovery(features[[0, 0, 1, 1]], features).uniqueness == 0.5
