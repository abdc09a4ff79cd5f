"""First-order error, disagreement with patching, Grad-CAM, and likeness of maps."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from nets_of_attribution import itself, numbers, opened, perceptron
from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.describe.attribution import against_patching, attribute, enlarged, pointing
from prosect.describe.attribution.ranks import over_rows, spearman, structure
from prosect.model import load
from prosect.organisms import deceptive


def test_a_saturated_sigmoid_is_flagged_and_a_linear_function_is_not():
    saturated = opened(lambda p: torch.sigmoid(20 * p[:, 0]) + 0.1 * p[:, 1], 3)
    x = torch.ones(6, 3, dtype=torch.float64) + 0.1 * numbers(6, 3)
    got = attribute(saturated, x, itself, "input-x-gradient", baseline=-1.0, sanity=None).first_order
    assert got.saturated and got.blind > 0.9
    large = got.exact > 0.5  # the sigmoid flips from 1 to 0, and the gradient does not see it
    assert large.any() and np.abs(got.estimates[large]).max() < 1e-4
    straight = opened(lambda p: p.double() @ torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64), 3)
    fine = attribute(straight, x, itself, "input-x-gradient", baseline=-1.0, sanity=None).first_order
    assert not fine.saturated and fine.error.estimate < 1e-12
    assert fine.correlation.estimate == pytest.approx(1.0) and fine.shuffled.estimate < 0.9
    assert fine.scale.estimate == pytest.approx(np.abs(fine.exact).mean()) and fine.scale.n == 6


def test_its_exact_effects_are_those_of_single_replacements():
    model, x = perceptron(), numbers(5, 6, dtype=torch.float32)
    metric = lambda output, batch: output[:, 0]  # noqa: E731
    got = attribute(model, x, metric, "saliency", sanity=None, pairs=1000)
    alone = attribute(model, x, metric, "occlusion", sanity=None)
    assert got.first_order.pairs == 30  # all there are
    assert np.allclose(got.first_order.exact, alone.values.reshape(-1), atol=1e-6)
    few = attribute(model, x, metric, "saliency", sanity=None, pairs=7).first_order
    assert few.pairs == 7 and few.correlation.n <= 5


@pytest.fixture(scope="module")
def trained():
    honest, module, truth = deceptive.networks(seed=3)
    return (
        {"honest": load(honest, inputs=deceptive.corners()[:2])},
        load(module, inputs=deceptive.corners()[:2]),
        truth,
    )


def logit(output, batch):
    return output[:, 0]


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient"])
def test_a_map_made_to_deceive_is_caught_by_patching(trained, method):
    others, model, truth = trained
    x = deceptive.corners()[torch.randperm(256, generator=Seed(0).torch())[:60]]
    shown, relevant = truth.labels["shown"], truth.labels["relevant"]
    lied = attribute(model, x, logit, method, sanity=None)
    size = np.abs(lied.values).mean(axis=0)
    assert size[shown].min() > size[relevant].max()  # the map says what it was trained to say
    caught = against_patching(lied, model, x, logit)
    assert caught.disagreement and caught.rank.high < 0.5
    effect = np.nanmean(caught.effects, axis=0)
    assert effect[relevant].min() > effect[~relevant].max()
    told = attribute(others["honest"], x, logit, method, sanity=None)
    honest = against_patching(told, others["honest"], x, logit)
    assert honest.verdict == "agrees" and honest.rank.low > caught.rank.high
    assert caught.shuffled.low < 0 < caught.shuffled.high and honest.top.low > caught.top.high


def test_a_map_of_random_numbers_is_not_said_to_agree():
    """Of 40 random maps, those said to agree must stay near the 2.5 % that the interval allows."""
    model, x = perceptron(width=8), numbers(30, 8, dtype=torch.float32)
    metric = lambda output, batch: output[:, 0]  # noqa: E731
    got = attribute(model, x, metric, "occlusion", baseline="mean", sanity=None)
    verdicts = []
    for i in range(40):
        random = Seed(i).numpy().standard_normal(got.values.shape)
        object.__setattr__(got, "values", random)
        verdicts.append(against_patching(got, model, x, metric, each=2, seed=i).verdict)
    assert verdicts.count("agrees") <= 4 and verdicts.count("disagrees") >= 32


def test_patches_are_other_rows_values_on_the_rows_and_features_sampled():
    w = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    model = opened(lambda p: p.double() @ w, 4)
    x = torch.tensor([[0.0] * 4, [1.0] * 4, [2.0] * 4], dtype=torch.float64)
    donors = model.batch(torch.tensor([[5.0] * 4, [5.0] * 4], dtype=torch.float64))
    got = attribute(model, x, itself, "saliency", sanity=None)
    found = against_patching(got, model, x, itself, donors=donors)
    assert np.allclose(found.effects, w.numpy() * np.array([[5.0], [4.0], [3.0]]))
    assert found.rank.estimate == pytest.approx(1.0) and found.chance == pytest.approx(0.25)
    few = against_patching(got, model, x, itself, features=3, rows=2, each=1)
    assert (~np.isnan(few.effects)).sum(axis=1).tolist().count(3) == 2
    for seed in range(5):  # one patch each, and never a row's own value
        one = against_patching(got, model, x, itself, each=1, seed=seed)
        assert (one.effects > 0).all()
    with pytest.raises(TooLittleData, match="at least 2"):
        against_patching(got, model, x, itself, donors=[0])
    with pytest.raises(ShapeMismatch, match="as the map has"):
        against_patching(got, model, x[:2], itself)


class Cam(nn.Module):
    """Convolutions, a mean over the picture, a linear layer: the network that CAM was made for."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.act = nn.ReLU()
        self.out = nn.Linear(2, 2, bias=False)

    def forward(self, image):
        return self.out(self.act(self.conv(image)).mean(dim=(2, 3)))


def planted(rows=24, side=16):
    """Pictures with a bright bar, upright or lying, somewhere on noise; where it is; and a network that reads it."""
    rng = Seed(1).numpy()
    image = 0.1 * rng.random((rows, 1, side, side))
    where = np.zeros((rows, side, side), dtype=bool)
    for row in range(rows):
        top, left = rng.integers(1, side - 4, size=2)
        at = (slice(top, top + 3), left + 1) if row % 2 else (top + 1, slice(left, left + 3))
        image[row, 0][at] = 1.0
        where[row, top : top + 3, left : left + 3] = True
    net = Cam()
    upright = torch.tensor([[-1.0, 2.0, -1.0]] * 3) / 3
    with torch.no_grad():
        net.conv.weight.copy_(torch.stack([upright, upright.T])[:, None])
        net.out.weight.copy_(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
    return load(net, inputs=torch.zeros(2, 1, side, side)), torch.from_numpy(image).float(), where


def test_gradcam_of_a_network_that_averages_is_cam():
    model, image, _ = planted()
    got = attribute(model, image, lambda o, b: o[:, 0], "gradcam", site="act", sanity=None)
    maps = model.run(image, ["act"])["act"]
    cam = torch.einsum("nkhw,k->nhw", maps, model.module.out.weight[0]).clamp(min=0) / maps[0, 0].numel()
    assert np.allclose(got.values, cam.detach().flatten(1).numpy(), atol=1e-7)
    assert got.values.max() > 0 and got.features.grid == (16, 16)
    assert enlarged(got.values, (16, 16), (16, 16)).shape == (24, 16, 16)


def test_gradcam_points_at_the_planted_object_more_often_than_chance():
    model, image, where = planted()
    metric = lambda o, b: o.max(dim=1).values  # noqa: E731
    got = attribute(model, image, metric, "gradcam", site="act", sanity=None)
    maps = enlarged(got.values, got.features.grid, (16, 16))
    found = pointing(maps, where, got.units, Seed(0))
    assert found.hits.estimate > 0.9 and found.difference.low > 0.5
    assert found.chance.estimate == pytest.approx(9 / 256)
    blind = pointing(np.zeros_like(maps), where, got.units, Seed(0))  # all ties: exactly chance
    assert blind.hits.estimate == pytest.approx(9 / 256)
    with pytest.raises(BadInput, match="row 0 without an object"):
        pointing(maps, np.zeros_like(where), got.units, Seed(0))


def test_gradcam_wants_a_layer_of_pictures():
    model, image, _ = planted()
    with pytest.raises(BadInput, match="cells without a site"):
        attribute(model, image, itself, "gradcam")
    with pytest.raises(Unsupported, match="cells of out"):
        attribute(model, image, lambda o, b: o[:, 0], "gradcam", site="out")
    with pytest.raises(Unsupported, match="Grad-CAM over"):
        attribute(model, image, lambda o, b: o[:, 0], "gradcam", features="inputs")
    with pytest.raises(UnknownName, match="nothing"):
        attribute(model, image, lambda o, b: o[:, 0], "gradcam", site="nothing")


def test_rank_correlation_is_a_librarys_and_ignores_what_is_not_there():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (6, 9)).astype(float), rng.integers(0, 5, (6, 9)).astype(float)
    present = np.ones((6, 9), dtype=bool)
    present[2, 5:] = False
    expected = [spearmanr(a[r][present[r]], b[r][present[r]]).statistic for r in range(6)]
    assert np.allclose(spearman(a, b, present), expected)
    a[0] = 1.0
    assert spearman(a, b, present)[0] == 0.0


def test_structural_similarity_is_one_for_the_same_picture_and_falls_with_noise():
    rng = np.random.default_rng(0)
    a = rng.random((4, 12, 12))
    found = [structure(a, a + s * rng.standard_normal(a.shape)).mean() for s in (0.0, 0.2, 1.0, 50.0)]
    assert found[0] == pytest.approx(1.0) and found == sorted(found, reverse=True) and abs(found[-1]) < 0.2
    assert np.allclose(structure(a, 3 * a - 7), 1.0)  # scale and shift do not matter


def test_intervals_resample_units_not_rows():
    values = np.random.default_rng(0).standard_normal(12)
    alone = over_rows(values, np.arange(12), Seed(0))
    doubled = over_rows(np.repeat(values, 4), np.repeat(np.arange(12), 4), Seed(0))
    assert doubled.n == alone.n == 12
    assert (doubled.low, doubled.high) == pytest.approx((alone.low, alone.high))
