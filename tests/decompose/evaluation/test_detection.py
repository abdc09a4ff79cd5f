"""F1 of the best component by hand, by scikit-learn, and on planted features."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_fscore_support

from known import Labelled, written
from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.check import check_decomposition
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.evaluation.baselines import KeepLargest, Rotation, baselines
from prosect.decompose.evaluation.ceiling import ceiling
from prosect.decompose.evaluation.detection import LabelledStream, Overlap, best, detect, overlaps
from prosect.decompose.evaluation.logistic import best_threshold, logistic, marks
from prosect.decompose.evaluation.table import line, text
from prosect.decompose.linear import KMeans, Neurons, Pca
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.organisms.synthetic import SITE, World, plant


def rng(name="test"):
    return Seed(0).child(name).torch()


def test_counts_are_what_brute_force_counts():
    strengths = (torch.rand(501, 5, generator=rng()) < 0.3).float()
    stream = Labelled(strengths, torch.randn(5, 6, generator=rng("d")), block=37)
    made = Neurons("x").fit(stream)
    keep = KeepLargest(made, 2)
    halves = overlaps(keep, stream)
    codes = keep.encode({"x": stream.x}).dense() > 0
    for parity, found in enumerate(halves):
        there, fires = strengths[parity::2] > 0, codes[parity::2]
        assert torch.equal(found.together, (there.float().T @ fires.float()))
        assert torch.equal(found.features, there.sum(dim=0).float())
        assert torch.equal(found.components, fires.sum(dim=0).float())
        expected = [[f1_score(t, f, zero_division=0) for f in fires.T] for t in there.T]
        assert found.f1.numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_scores_are_those_of_scikit_learn_and_chosen_on_the_other_half():
    strengths = (torch.rand(600, 4, generator=rng()) < 0.4).float()
    stream = Labelled(strengths, torch.randn(4, 3, generator=rng("d")))
    keep = KeepLargest(Neurons("x").fit(stream), 1)
    found = detect(keep, stream)
    codes = keep.encode({"x": stream.x}).dense() > 0
    for f in range(4):
        even = [f1_score(strengths[::2, f] > 0, c[::2], zero_division=0) for c in codes.T]
        assert int(found.component[f]) == int(np.argmax(even))
        p, r, f1, _ = precision_recall_fscore_support(
            strengths[1::2, f] > 0, codes[1::2, found.component[f]], average="binary", zero_division=0
        )
        assert (found.precision[f], found.recall[f], found.f1[f]) == pytest.approx((p, r, f1))


def test_f1_by_hand():
    counts = Overlap(10, torch.tensor([[3.0, 1.0]]), torch.tensor([4.0]), torch.tensor([5.0, 1.0]))
    found = best(counts, counts)
    assert counts.f1.tolist() == [[pytest.approx(6 / 9), pytest.approx(2 / 5)]]
    assert (found.precision[0], found.recall[0], found.f1[0]) == pytest.approx((3 / 5, 3 / 4, 2 / 3))
    assert found.covered(0.6) == 1.0
    assert found.covered(0.7) == 0.0


def test_a_perfect_dictionary_scores_one_and_a_shuffled_one_does_not():
    strengths = (torch.rand(2000, 8, generator=rng()) < 0.1) * (1 + torch.rand(2000, 8, generator=rng("s")))
    basis = torch.linalg.qr(torch.randn(8, 8, generator=rng("b"))).Q
    stream = Labelled(strengths, basis)
    assert isinstance(stream, LabelledStream)
    perfect = written(basis, basis, threshold=0.5)
    found = line(perfect, stream, basis)
    assert found.f1 == found.precision == found.recall == found.covered == 1
    assert found.mcc == found.found == found.real == pytest.approx(1)
    assert found.uniqueness == 1
    assert found.fvu == pytest.approx(0, abs=1e-6)
    assert found.bias == pytest.approx(1, abs=1e-6)
    assert found.l0 == pytest.approx((strengths > 0).sum() / 2000)
    # every latent twice: what is found stays found, and half of the latents are superfluous
    twice = line(written(basis.repeat(2, 1), basis.repeat(2, 1) / 2, threshold=0.5), stream, basis)
    assert twice.f1 == 1
    assert twice.uniqueness == 0.5
    # right directions, wrong places
    mixed = line(written(basis.roll(1, dims=0), basis, threshold=0.5), stream, basis)
    assert mixed.mcc == pytest.approx(1)
    assert mixed.fvu > 0.5
    shown = text([found, mixed])
    assert shown.splitlines()[0].split() == 4 * ["direction"] + 4 * ["latent"]
    assert shown.splitlines()[1].split()[:3] == ["l0", "fvu", "bias"]
    assert len(shown.splitlines()) == 4


def test_shrinkage_is_seen():
    strengths = (torch.rand(500, 4, generator=rng()) < 0.3).float()
    stream = Labelled(strengths, torch.eye(4))
    small = line(written(torch.eye(4), 0.8 * torch.eye(4), threshold=0.5), stream, torch.eye(4))
    assert small.bias == pytest.approx(0.8)


def test_features_that_are_absent_say_nothing():
    strengths = torch.zeros(100, 3)
    strengths[:, 0] = 1.0
    stream = Labelled(strengths, torch.eye(3))
    found = detect(written(torch.eye(3), torch.eye(3), threshold=0.5), stream)
    assert found.seen.tolist() == [True, False, False]
    assert found.mean() == 1.0
    with pytest.raises(TooLittleData):
        detect(written(torch.eye(3), torch.eye(3)), Labelled(torch.zeros(10, 3), torch.eye(3)))
    with pytest.raises(Unsupported):
        detect(written(torch.eye(3), torch.eye(3)), stream, budget=10)


def test_keeping_the_largest_loses_nothing_when_all_are_kept():
    x = torch.randn(200, 5, generator=rng()) + 1
    stream = ArrayStream({"x": x})
    pca = Pca("x").fit(stream)
    whole, few = KeepLargest(pca, 5), KeepLargest(pca, 2)
    assert (whole.reconstruct({"x": x})["x"] - x).abs().max() < 1e-4
    codes = few.encode({"x": x})
    assert codes.values.shape == (200, 2)
    assert codes.values.min() >= 0
    signed = pca.encode({"x": x}).dense()
    expected = torch.where(signed.abs() >= signed.abs().topk(2, dim=1).values[:, 1:], signed, 0.0)
    dense = codes.dense()
    assert torch.allclose(dense[:, :5] - dense[:, 5:], expected)
    again = KeepLargest.from_state(*few.state())
    assert torch.equal(again.encode({"x": x}).dense(), dense)
    assert (few.directions[5:] + few.directions[:5]).abs().max() == 0
    check_decomposition(lambda: KeepLargest(Pca("x", 4), 3), stream)
    with pytest.raises(BadInput):
        KeepLargest(pca, 6).encode({"x": x})
    with pytest.raises(BadInput):
        KeepLargest(pca, 0)
    with pytest.raises(Unsupported):
        KeepLargest(KMeans("x", 2).fit(stream), 1)


def test_neurons_are_special_only_where_something_makes_them_so():
    strengths = (torch.rand(4000, 10, generator=rng()) < 0.15).float()

    def found(directions, decomposition):
        stream = Labelled(strengths, directions)
        return line(KeepLargest(decomposition.fit(stream), 2), stream, directions)

    drawn = torch.randn(10, 10, generator=rng("d"))
    drawn /= drawn.norm(dim=1, keepdim=True)
    turned = [found(drawn, Rotation("x", Seed(s))) for s in range(6)]
    plain = found(drawn, Neurons("x"))
    for column in ("mcc", "f1"):
        values = [getattr(one, column) for one in turned]
        assert min(values) - 0.05 < getattr(plain, column) < max(values) + 0.05
    assert found(torch.eye(10), Neurons("x")).mcc == 1
    assert found(torch.eye(10), Neurons("x")).f1 > found(torch.eye(10), Rotation("x", Seed(0))).f1 + 0.2


def test_a_rotation_keeps_lengths_and_loses_nothing():
    x = torch.randn(50, 7, generator=rng())
    made = Rotation("x", Seed(3)).fit(ArrayStream({"x": x}))
    check_decomposition(lambda: Rotation("x", Seed(3)), ArrayStream({"x": x}), exact=True)
    assert torch.allclose(made.axes_ @ made.axes_.T, torch.eye(7, dtype=torch.float64), atol=1e-12)


def test_a_trained_dictionary_beats_every_baseline_and_stays_below_the_ceiling():
    planted = plant(World(features=48, width=24, trees=0, rank=0, most=0.1, least=0.03), Seed(4))
    held_out = planted.stream(5000, "validate.0")
    recipe = Recipe(batch=512, rate=1e-2)
    trained = Dictionary(SITE, 48, TopK(2), recipe=recipe).fit(planted.stream(80_000))
    ours = line(trained, held_out, planted.directions)
    assert ours.mcc > 0.8
    assert ours.f1 > 0.6
    for name, other in baselines(planted.stream(4000), SITE, 2, 48, Seed(1)).items():
        beside = line(other, held_out, planted.directions)
        assert beside.mcc < ours.mcc - 0.1
        assert beside.found < ours.found
        if name != "ICA":  # which finds half of the features, and tells well where they are
            assert beside.f1 < ours.f1 - 0.2
    most = ceiling(held_out, SITE, range(0, 48, 8))
    assert float(most.f1.mean()) > 0.9
    assert float(most.f1.mean()) > ours.f1
    linear = ceiling(held_out, SITE, range(0, 48, 8), kind="least squares")
    assert 0.7 < float(linear.f1.mean()) <= float(most.f1.mean()) + 0.02


def test_a_probe_is_where_the_gradient_of_its_loss_vanishes():
    """The loss is convex, so that is its only minimum; the intercept is not penalised."""
    x = torch.randn(300, 6, generator=rng(), dtype=torch.float64)
    y = torch.rand(300, generator=rng("y")) < torch.sigmoid(x[:, 0] * 2 - x[:, 1] + 0.5)
    for ridge in (1.0, 0.05):
        weights, intercept = logistic(x, y, ridge)
        wrong = torch.sigmoid(x @ weights + intercept) - y.double()
        assert (x.T @ wrong + ridge * weights).abs().max() < 1e-4
        assert wrong.sum().abs() < 1e-4


def test_classes_that_are_apart_have_a_finite_solution():
    x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]], dtype=torch.float64)
    weights, _ = logistic(x, torch.tensor([False, False, True, True]), 1e-3)
    assert 0 < float(weights) < 100


def test_logistic_regression_refuses_what_it_cannot_fit():
    x = torch.randn(4, 2, dtype=torch.float64, generator=rng())
    for y in (torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)):
        with pytest.raises(BadInput):
            logistic(x, y)
    with pytest.raises(ShapeMismatch):
        logistic(x, torch.ones(3, dtype=torch.bool))
    with pytest.raises(BadInput):
        logistic(x, torch.tensor([True, False, True, False]), 0.0)


def test_the_threshold_is_the_best_of_all():
    scores = torch.randint(0, 12, (60,), generator=rng()).double()
    y = torch.rand(60, generator=rng("y")) < 0.3
    every = [f1_score(y, scores > t) for t in np.arange(-0.5, 12, 1)]
    assert marks(scores > best_threshold(scores, y), y)[2] == pytest.approx(max(every))
