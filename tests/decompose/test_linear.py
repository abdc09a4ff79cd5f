"""The classical methods against scikit-learn, NumPy, SciPy and planted structure."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.decomposition import PCA, TruncatedSVD

from prosect.core.errors import BadInput, TooLittleData, UnknownName, Unsupported
from prosect.core.progress import shown
from prosect.core.seeds import Seed
from prosect.decompose.linear import Heads, Ica, KMeans, Neurons, Nmf, Pca, RandomDirections, Svd
from prosect.decompose.moments import Moments
from prosect.decompose.quality import recovery
from prosect.decompose.streams import ArrayStream, first


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).child("test").torch(), dtype=torch.float64)


def stream(x, block=100):
    return ArrayStream({"a": x}, block=block)


def sources(n, m, seed=0):
    """Independent, skewed, non-negative."""
    generator = Seed(seed).child("sources").torch()
    return torch.empty(n, m, dtype=torch.float64).exponential_(generator=generator)


@given(rows=st.integers(2, 60), width=st.integers(1, 6), block=st.integers(1, 70), shift=st.floats(-1e6, 1e6))
@settings(max_examples=40, deadline=None)
def test_streamed_moments_are_the_moments(rows, width, block, shift):
    x = normal(rows, width) + shift
    found = Moments.of(stream(x, block), "a")
    centred = x.numpy() - x.numpy().mean(axis=0)
    assert found.n == rows
    assert np.allclose(found.mean, x.numpy().mean(axis=0), rtol=1e-12)
    assert np.allclose(found.scatter, centred.T @ centred, rtol=1e-6, atol=1e-9 * (1 + abs(shift)))


def test_pca_is_scikit_learns():
    x = normal(500, 6) @ normal(6, 6, seed=1) + 3
    pca, oracle = Pca("a", 4).fit(stream(x)), PCA(4).fit(x.numpy())
    signs = np.sign((pca.directions.numpy() * oracle.components_).sum(axis=1))
    assert np.allclose(pca.directions.numpy(), oracle.components_ * signs[:, None], atol=1e-9)
    assert np.allclose(pca.variance_, oracle.explained_variance_)
    assert np.allclose(pca.explained_, oracle.explained_variance_ratio_)
    codes = pca.encode({"a": x})
    assert np.allclose(codes.dense(), oracle.transform(x.numpy()) * signs, atol=1e-9)
    assert np.allclose(pca.decode(codes)["a"], oracle.inverse_transform(oracle.transform(x.numpy())))


def test_pca_survives_a_mean_far_larger_than_the_spread():
    x = normal(400, 3) @ torch.diag(torch.tensor([3.0, 1.0, 0.1], dtype=torch.float64))
    near, far = Pca("a").fit(stream(x, 33)), Pca("a").fit(stream(x + 1e6, 33))
    assert torch.allclose(near.variance_, far.variance_, rtol=1e-6)
    assert torch.allclose(near.directions, far.directions, atol=1e-5)


def test_svd_is_numpys():
    x = normal(300, 5) + torch.tensor([4.0, 0, -1, 0, 2])
    svd = Svd("a").fit(stream(x))
    _, values, rows = np.linalg.svd(x.numpy(), full_matrices=False)
    assert np.allclose(svd.singular_values_, values)
    signs = np.sign((svd.directions.numpy() * rows).sum(axis=1))
    assert np.allclose(svd.directions, rows * signs[:, None], atol=1e-9)
    truncated = Svd("a", 2).fit(stream(x))
    oracle = TruncatedSVD(2, algorithm="arpack", random_state=0).fit(x.numpy())
    made = truncated.decode(truncated.encode({"a": x}))["a"]
    assert np.allclose(made, oracle.inverse_transform(oracle.transform(x.numpy())), atol=1e-6)


def test_signs_do_not_depend_on_the_sign_of_the_data():
    x = normal(300, 5) @ normal(5, 5, seed=1)
    for make in (Pca, Svd):
        assert torch.allclose(make("a").fit(stream(x)).directions, make("a").fit(stream(-x)).directions)
    peaks = Pca("a").fit(stream(x)).directions
    assert (peaks.gather(1, peaks.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("make", [Pca, Svd, Ica])
def test_more_components_than_dimensions_are_refused(make):
    for asked in (0, 4):
        with pytest.raises(BadInput, match="1 to 3"):
            make("a", asked).fit(stream(normal(50, 3)))


def test_ica_recovers_independent_sources_where_pca_cannot():
    s = sources(4000, 5)
    mixing = normal(5, 5, seed=2)
    x = s @ mixing + 1
    ica = Ica("a").fit(stream(x))
    assert ica.converged_
    assert recovery(ica.directions, mixing, signed=True).matched > 0.99
    assert recovery(Pca("a").fit(stream(x)).directions, mixing, signed=True).matched < 0.95
    codes = ica.encode({"a": x}).dense()
    variance = codes.var(dim=0)
    assert torch.equal(variance.argsort(descending=True), torch.arange(5))
    correlation = np.corrcoef(codes.T, s.T)[:5, 5:]
    assert (np.abs(correlation).max(axis=0) > 0.99).all()


def test_ica_says_when_it_did_not_converge(capsys):
    with shown():
        ica = Ica("a", iterations=1).fit(stream(sources(200, 4) @ normal(4, 4)))
    assert not ica.converged_
    assert "did not converge" in capsys.readouterr().err


@pytest.mark.parametrize("split", [True, False])
def test_nmf_codes_are_the_non_negative_least_squares_solution(split):
    x = sources(200, 4) @ normal(4, 7, seed=3).abs()
    nmf = Nmf("a", 4, split=split).fit(stream(x))
    codes = nmf.encode({"a": x[:20]}).dense()
    centred = (x[:20] - nmf.mean_).numpy()
    target = np.hstack([centred.clip(min=0), (-centred).clip(min=0)]) if split else centred
    for row, code in zip(target, codes.numpy(), strict=True):
        assert code == pytest.approx(nnls(nmf.parts_.numpy().T, row)[0], abs=1e-5)


def test_nmf_finds_parts_that_do_not_overlap():
    parts = torch.zeros(3, 9, dtype=torch.float64)
    for i in range(3):
        parts[i, 3 * i : 3 * i + 3] = torch.tensor([1.0, 2.0, 1.0])
    nmf = Nmf("a", 3, split=False).fit(stream(sources(500, 3) @ parts))
    assert recovery(nmf.directions, parts).matched > 0.99


def test_nmf_splits_signs_or_refuses():
    x = normal(200, 4)
    with pytest.raises(BadInput, match=r"negative activations at a.*split=True"):
        Nmf("a", 3, split=False).fit(stream(x))
    one_sided = Nmf("a", 3, split=False).fit(stream(x.abs()))
    with pytest.raises(BadInput, match="negative"):
        one_sided.encode({"a": x})
    nmf = Nmf("a", 8).fit(stream(x))  # one part for each sign of each axis reconstructs all
    made = nmf.reconstruct({"a": x})["a"]
    assert (made - x).square().sum() / (x - x.mean(0)).square().sum() < 0.05


def test_kmeans_finds_clusters_and_agrees_with_scikit_learn():
    centres = 10 * normal(4, 3, seed=4)
    label = torch.arange(400) % 4
    label[:60] = 0
    x = centres[label] + normal(400, 3) + 1000
    kmeans = KMeans("a", 4).fit(stream(x))
    codes = kmeans.encode({"a": x})
    assert codes.values.unique().tolist() == [1.0]
    assert codes.indices.shape == (400, 1)
    oracle = SklearnKMeans(4, n_init=4, random_state=0).fit(x.numpy())
    inertia = float((kmeans.decode(codes)["a"] - x).square().sum())
    assert inertia == pytest.approx(oracle.inertia_, rel=1e-6)
    counts = codes.firing()
    assert (counts.diff() <= 0).all()
    assert recovery(kmeans.directions - 1000, centres).matched > 0.99


@pytest.mark.parametrize(
    "make",
    [lambda b: Ica("a", budget=b), lambda b: Nmf("a", 2, budget=b), lambda b: KMeans("a", 2, budget=b)],
)
def test_whole_array_methods_refuse_more_than_their_memory(make):
    full = stream(sources(1000, 4))
    with pytest.raises(Unsupported, match=r"first\(stream, (\d+)\)") as refused:
        make(50_000).fit(full)
    fits = int(str(refused.value).split("first(stream, ")[1].split(")")[0])
    assert 50 < fits < 1000
    make(50_000).fit(first(full, fits))


@pytest.mark.parametrize(
    ("make", "rows"),
    [(lambda: Pca("a"), 1), (lambda: Ica("a"), 3), (lambda: KMeans("a", 9), 8), (lambda: Nmf("a", 2), 1)],
)
def test_too_few_positions_are_refused(make, rows):
    with pytest.raises(TooLittleData):
        make().fit(stream(sources(rows, 3)))


def test_a_site_that_the_stream_lacks_is_refused():
    with pytest.raises(UnknownName, match="resid_post"):
        Pca("resid_post.1").fit(ArrayStream({"resid_post.0": normal(20, 3)}))


def test_random_directions_fire_as_often_as_asked():
    x = sources(1000, 6) @ normal(6, 6, seed=5)
    rates = (0.001, 0.01, 0.1234, 0.5, 0.01)
    random = RandomDirections("a", rates).fit(stream(x, 77))
    asked = torch.tensor([int(r * 1000) / 1000 for r in rates], dtype=torch.float64)
    assert torch.equal(random.rates_, asked)
    codes = random.encode({"a": x}).dense()
    assert torch.equal((codes > 0).double().mean(dim=0), asked)
    projected = (x - x.mean(dim=0)) @ random.directions.T
    expected = torch.relu(projected - random.thresholds_)
    assert torch.allclose(codes, expected, atol=1e-9)
    again = RandomDirections("a", rates, seed=Seed(1)).fit(stream(x, 77))
    assert (again.directions @ random.directions.T).abs().max() < 0.999


def test_random_directions_are_uniform_on_the_sphere():
    random = RandomDirections.alike("a", 4000, 0.5).fit(stream(normal(50, 3)))
    # Archimedes: each coordinate of a uniform point on the sphere in three dimensions is uniform on [-1, 1]
    for axis in random.directions.T:
        assert axis.sort().values.numpy() == pytest.approx(np.linspace(-1, 1, 4000), abs=0.05)


def test_where_activations_repeat_a_random_direction_fires_at_most_as_often_as_asked():
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(50, 1)
    random = RandomDirections("a", (0.25, 0.75)).fit(stream(x))
    assert set(random.rates_.tolist()) <= {0.0, 0.5}
    assert (random.rates_ <= torch.tensor([0.25, 0.75])).all()


def test_random_directions_refuse_what_they_cannot_do():
    for rates in ((), (0.0,), (1.0,), (0.5, -0.1)):
        with pytest.raises(BadInput, match="rate"):
            RandomDirections("a", rates)
    with pytest.raises(TooLittleData, match="at least 1,000"):
        RandomDirections("a", (0.001,)).fit(stream(normal(999, 2)))
    with pytest.raises(Unsupported, match="fewer directions"):
        RandomDirections("a", (0.5,) * 100, budget=1000).fit(stream(normal(100, 2)))


def test_heads_are_components_as_wide_as_their_site():
    z = {f"z.1.h{i}": normal(30, 4, seed=i) for i in range(3)}
    heads = Heads.of_layers(1, 3).fit(ArrayStream(z))
    assert heads.name == "heads@z.1"
    component = heads.component(2)
    assert (component.name, component.reads, component.width) == ("heads@z.1/2", ("z.1.h2",), 4)
    assert torch.allclose(heads.encode(z).dense()[:, 1], torch.linalg.norm(z["z.1.h1"], dim=1))
    everywhere = Heads.of_layers(range(2), 3)
    assert everywhere.name == "heads"
    assert everywhere.reads[4] == "z.1.h1"
    for bad in ((), ("z.0.h0", "z.0.h0")):
        with pytest.raises(BadInput):
            Heads(bad)


def test_neurons_are_the_axes():
    x = normal(10, 4)
    neurons = Neurons("a").fit(stream(x))
    assert torch.equal(neurons.encode({"a": x}).columns([3, 1]), x[:, [3, 1]])
    assert neurons.component(3).name == "neurons@a/3"


def test_a_card_says_what_it_is_and_shows_no_script():
    for made in (Neurons("<script>"), Pca("a").fit(stream(normal(20, 3)))):
        html = made._repr_html_()
        assert "<script" not in html
        assert made.name.split("@")[0] in html
    assert "variance explained" in html
