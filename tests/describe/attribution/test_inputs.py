"""What may be handed in: features, baselines and metrics, and the words with which the rest is refused."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from nets_of_attribution import itself, last_logit, numbers, opened, perceptron, tokens
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName, Unsupported
from prosect.describe.attribution import attribute
from prosect.model import load

X = numbers(3, 4, dtype=torch.float32)


def square():
    return opened(lambda p: p.square().sum(dim=1), 4)


def run(**given):
    return attribute(square(), X, itself, "occlusion", sanity=None, **given)


@pytest.mark.parametrize(
    ("baseline", "point"),
    [
        (None, torch.zeros(4)),
        ("zero", torch.zeros(4)),
        ("mean", X.mean(dim=0)),
        (0.5, torch.full((4,), 0.5)),
        (torch.arange(4.0), torch.arange(4.0)),
        (2 * X, 2 * X),
    ],
    ids=["none", "zero", "mean", "number", "point", "a point for each row"],
)
def test_a_baseline_is_what_replaces_a_feature(baseline, point):
    got = run(baseline=baseline)
    assert np.allclose(got.values, (X.square() - point.square()).numpy(), atol=1e-6)
    assert got.baseline and ("none was given" in " ".join(got.notes)) == (baseline is None)


def test_a_background_is_averaged_over_and_a_batch_will_do():
    background = numbers(6, 4, 9, torch.float32)
    expected = X.square() - background.square().mean(dim=0)
    for given in (background, square().batch(background)):
        assert np.allclose(run(background=given).values, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "shape", [(3,), (5, 4), (1, 4), (3, 4, 1), (4, 1)], ids=lambda s: "x".join(map(str, s))
)
def test_a_baseline_of_the_wrong_shape_is_refused_with_both_shapes(shape):
    with pytest.raises(ShapeMismatch) as caught:
        run(baseline=torch.zeros(shape))
    words = str(caught.value)
    assert str(tuple(shape)) in words and "(4,), as a row has" in words and "background=" in words


@pytest.mark.parametrize("shape", [(4,), (0, 4), (5, 3), (2, 2, 4)], ids=lambda s: "x".join(map(str, s)))
def test_a_background_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ShapeMismatch, match="each point as a row is"):
        run(background=torch.zeros(shape))


def test_baselines_of_tokens():
    model, ids = tokens()
    width = model.d_model
    for baseline in (torch.zeros(width), torch.zeros(5, width), torch.zeros(3, 5, width), "zero"):
        got = attribute(model, ids, last_logit, "occlusion", baseline=baseline, sanity=None)
        assert np.allclose(got.values, run_tokens(model, ids).values, atol=1e-5)
    with pytest.raises(ShapeMismatch, match="the same at every position"):
        attribute(model, ids, last_logit, baseline=torch.zeros(width + 1))
    with pytest.raises(BadInput, match="token 99999"):
        attribute(model, ids, last_logit, baseline=99_999)
    with pytest.raises(BadInput, match="the token's id"):
        attribute(model, ids, last_logit, baseline=0.5)
    mean = attribute(model, ids, last_logit, "occlusion", baseline="mean", sanity=None)
    batch = model.batch(ids)
    rows = model.run(batch, ["embeddings"])["embeddings"][batch.mask]  # padding is not averaged
    point = attribute(model, ids, last_logit, "occlusion", baseline=rows.mean(dim=0), sanity=None)
    assert np.allclose(mean.values, point.values, atol=1e-5)


def run_tokens(model, ids):
    return attribute(model, ids, last_logit, "occlusion", baseline="zero", sanity=None)


def test_other_baselines_are_refused_in_words():
    with pytest.raises(BadInput, match="a baseline and a background"):
        run(baseline="zero", background=X)
    with pytest.raises(BadInput, match="'black'"):
        run(baseline="black")
    with pytest.raises(NotFinite, match="baseline"):
        run(baseline=torch.tensor([0.0, 1.0, float("nan"), 0.0]))
    with pytest.raises(ShapeMismatch, match="int64"):
        run(baseline=torch.zeros(4, dtype=torch.long))


def test_a_metric_must_give_one_finite_number_for_each_row():
    for metric, got in [
        (lambda o, b: o.sum(), r"\(\)"),
        (lambda o, b: o[:, None], r"\(3, 1\)"),
        (lambda o, b: 1.0, "float"),
    ]:
        with pytest.raises(ShapeMismatch, match=f"{got} from the metric.*one number for each row"):
            attribute(square(), X, metric, "occlusion")
    with pytest.raises(NotFinite, match="from the metric"):
        attribute(square(), X, lambda o, b: o / 0.0, "occlusion")


def test_a_metric_without_a_gradient_is_refused_by_gradient_methods_alone():
    for metric in (lambda o, b: o.detach(), lambda o, b: (o > 1).double(), lambda o, b: torch.zeros(len(b))):
        with pytest.raises(BadInput, match="without gradient at x"):
            attribute(square(), X, metric, "saliency")
        attribute(square(), X, metric, "occlusion", sanity=None)


def test_gradients_through_a_quantised_model_are_refused_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to move this module elsewhere
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        quantised = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
        model = load(quantised, inputs=torch.zeros(2, 6))
        metric = lambda o, b: o[:, 0]  # noqa: E731
        for method in ("saliency", "input-x-gradient", "integrated-gradients", "expected-gradients"):
            with pytest.raises(Unsupported, match="gradients through the quantised model") as caught:
                attribute(model, numbers(3, 6, dtype=torch.float32), metric, method)
            assert "occlusion" in str(caught.value)
        got = attribute(model, numbers(3, 6, dtype=torch.float32), metric, "shapley")
        assert got.completeness.max() < 0.02  # it rounds by the range of the whole batch
        assert got.sanity.verdict == "not run" and "no floating-point parameters" in got.sanity.words

    marked = perceptron()
    marked.module.config = type("Config", (), {"quantization_config": {"bits": 4}})()
    with pytest.raises(Unsupported, match="its configuration says so"):
        attribute(marked, numbers(2, 6, dtype=torch.float32), lambda o, b: o[:, 0], "saliency")


def test_features_that_are_not_there_are_refused_in_words():
    model, ids = tokens()
    metric = last_logit
    with pytest.raises(UnknownName, match="kind of features"):
        attribute(model, ids, metric, features="words")
    with pytest.raises(BadInput, match="positions without a site"):
        attribute(model, ids, metric, features="positions")
    with pytest.raises(BadInput, match="tokens at resid_pre"):
        attribute(model, ids, metric, features="tokens", site="resid_pre.1")
    with pytest.raises(Unsupported, match=r"positions of probs"):
        attribute(model, ids, metric, features="positions", site="probs.0")
    with pytest.raises(Unsupported, match="inputs without floating-point"):
        attribute(model, ids, metric, features="inputs")
    with pytest.raises(BadInput, match="groups for tokens"):
        attribute(model, ids, metric, groups=torch.zeros(5, dtype=torch.long))
    with pytest.raises(Unsupported, match="names no site `embeddings`"):
        attribute(square(), X, itself, features="tokens")
    with pytest.raises(UnknownName, match="attribution method 'shap'"):
        attribute(square(), X, itself, "shap")
    with pytest.raises(UnknownName, match="input 'y'"):
        run(features="inputs", site="y")


def test_groups_of_the_wrong_kind_are_refused():
    with pytest.raises(ShapeMismatch, match="as a row has"):
        run(groups=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ShapeMismatch, match="whole numbers"):
        run(groups=torch.zeros(4))
    with pytest.raises(BadInput, match="without gaps"):
        run(groups=torch.tensor([0, 2, 2, 3]))


def test_only_what_can_be_computed_is_asked_for():
    with pytest.raises(BadInput, match="-1 pairs"):
        run(pairs=-1)
    with pytest.raises(BadInput, match="0 MB"):
        run(budget_mb=0)


def test_a_result_says_what_was_decided_and_what_it_cost():
    got = attribute(perceptron(), numbers(20, 6, dtype=torch.float32), lambda o, b: o[:, 0])
    summary = got.summary()
    assert summary["settings"] == {"steps": 32, "quadrature": "gauss-legendre"}
    notes = " ".join(got.notes)
    assert "features: inputs" in notes and "baseline: zero" in notes and "first 16 of 20 rows" in notes
    assert got.cost.backwards >= 20 * 32 and got.cost.forwards > got.cost.backwards
    assert "sanity" in got._repr_html_()
    again = attribute(perceptron(), numbers(20, 6, dtype=torch.float32), lambda o, b: o[:, 0])
    assert np.array_equal(got.values, again.values) and got.sanity == again.sanity


def test_importance_over_rows_has_an_interval_over_units_and_a_control():
    w = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    x = numbers(60, 3)
    got = attribute(opened(lambda p: p.double() @ w, 3), x, itself, "shapley", baseline="zero", sanity=None)
    first, second, none = got.importance()
    assert first.size.estimate == pytest.approx(float((3 * x[:, 0]).abs().mean()))
    assert first.size.low < first.size.estimate < first.size.high and first.size.n == 60
    assert first.difference.low > 0 > none.difference.high and none.size.estimate == 0
    assert first.others.estimate == pytest.approx(np.abs(got.values).mean())
    assert second.value.low < 0 < second.value.high
    assert got.importance([2])[0].feature == 2
    with pytest.raises(BadInput, match="feature 3"):
        got.importance([3])


def test_recurrent_and_masked_inputs_leave_padding_out():
    class Sum(nn.Module):
        def forward(self, x, attention_mask):
            return (x * attention_mask[..., None]).sum(dim=(1, 2))

    x = numbers(2, 12, dtype=torch.float32).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    model = load(Sum(), inputs={"x": x, "attention_mask": mask})
    got = attribute(model, {"x": x, "attention_mask": mask}, itself, "input-x-gradient", sanity=None)
    assert np.allclose(got.values.reshape(2, 4, 3), (x * mask[..., None]).numpy())
    assert got.present.sum(axis=1).tolist() == [12, 6]


def test_padding_stays_as_it_is_whatever_is_replaced():
    """A model that reads its padding: nothing of it may be replaced, or every coalition would be another."""
    square_of_sum = lambda x: x.reshape(len(x), -1).sum(dim=1).square()  # noqa: E731

    class Reads(nn.Module):
        def forward(self, x, attention_mask):
            return square_of_sum(x)

    x = numbers(2, 8, dtype=torch.float32).reshape(2, 4, 2)
    given = {"x": x, "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])}
    padding = x * (1 - given["attention_mask"])[..., None]
    difference = (square_of_sum(x) - square_of_sum(padding)).numpy()
    model = load(Reads(), inputs=given)
    shapley = attribute(model, given, itself, "shapley", baseline="zero", sanity=None)
    assert np.allclose(shapley.promised, difference, atol=1e-5) and shapley.completeness.max() < 1e-9
    assert np.allclose(attribute(model, given, itself, "occlusion", sanity=None).joint, difference, atol=1e-5)
