"""One training step against plain autograd, and each known way of getting the auxiliary loss wrong."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from prosect.core.errors import BadInput, NotFinite
from prosect.core.seeds import Seed
from prosect.decompose.auxiliary import auxiliary
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.quality import measure
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.start import geometric_median
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

ALPHA = 1 / 4


def rows(n=128, d=12, seed=0):
    generator = Seed(seed).child("test").torch()
    s = (torch.rand(n, 20, generator=generator) < 0.15) * torch.rand(n, 20, generator=generator)
    return s @ torch.randn(20, d, generator=generator) + 3


def trainer(steps=10, *, skip=False, dead=8, sparsity=4, **recipe):
    """A started trainer whose first ``dead`` latents have not fired for long."""
    x = rows()
    recipe = Recipe(**{"batch": 128, "aux": ALPHA, "aux_latents": 3, "dead_after": 1000, **recipe})
    made = Trainer(Dictionary("x", 24, TopK(sparsity), skip=skip, recipe=recipe), {"x": 12}, steps)
    made.start(ArrayStream({"x": x}))
    with torch.no_grad():  # away from where every gradient is alike, with a bias and an offset
        generator = Seed(1).torch()
        for p in made.parameters().values():
            p += 0.1 * torch.randn(p.shape, generator=generator)
        made.decoder /= made.decoder.norm(dim=1, keepdim=True)
    made.idle[:dead] = 10**6
    return made, {"x": x}


def reference(made, batch, bug=""):
    """Gradients of the training loss, written densely from the paper, with one mistake on request."""
    x = (batch["x"] - made.read.centre) / made.read.scale
    p = {name: t.detach().double().clone().requires_grad_() for name, t in made.parameters().items()}
    x = x.double()
    pre = x @ p["encoder"].T + p["bias"]
    mask = torch.zeros_like(pre).scatter(1, pre.topk(made.dictionary.sparsity.k, dim=1).indices, 1.0)
    made_of = (torch.relu(pre) * mask) @ p["decoder"] + p["offset"]
    if "skip" in p:
        made_of = made_of + x @ p["skip"]
    residual = x - made_of
    dead = made.idle >= made.dead_after
    aux_pre = pre.detach() if bug == "no gradient to the encoder" else pre
    hidden = aux_pre.masked_fill(~dead, -np.inf)
    chosen = torch.zeros_like(pre).scatter(1, hidden.topk(made.aux_latents, dim=1).indices, 1.0)
    guess = (torch.relu(aux_pre) * chosen) @ p["decoder"]
    if bug == "offset in the auxiliary reconstruction":
        guess = guess + p["offset"]
    target = residual if bug == "residual not detached" else residual.detach()
    constant = residual.detach()
    spread = (constant - constant.mean(0)).square().sum()
    if bug == "not divided by the variance":
        spread = torch.tensor(float(constant.numel()))
    if bug == "variance about zero":
        spread = constant.square().sum()
    weight = made.recipe.aux**2 if bug == "weight applied twice" else made.recipe.aux
    if bug == "living latents take part":
        guess = (torch.relu(pre) * torch.zeros_like(pre).scatter(1, pre.topk(3, dim=1).indices, 1.0)) @ p[
            "decoder"
        ]
    loss = residual.square().mean() + weight * (target - guess).square().sum() / spread
    loss.backward()
    return {name: t.grad for name, t in p.items()}


def gradients(made, batch):
    """The gradients of a real step, before projection and optimiser."""
    found = {}

    def keep(*_args, **_kwargs):
        found.update({name: p.grad.clone() for name, p in made.parameters().items()})

    made.optimiser.step = keep
    before = made.decoder.detach().clone()
    made.advance(batch)
    radial = (found["decoder"] * before).sum(dim=1)
    assert radial.abs().max() < 1e-6  # the decoder's gradient was projected onto the sphere
    return found


def off_the_sphere(gradient, decoder):
    return gradient - (gradient * decoder).sum(dim=1, keepdim=True) * decoder


def difference(made, found, expected):
    expected = dict(expected)
    expected["decoder"] = off_the_sphere(expected["decoder"], made.decoder.detach().double())
    return max(
        float((found[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in found
    )


@pytest.mark.parametrize("dead", [0, 2, 8])
@pytest.mark.parametrize("skip", [False, True])
def test_a_steps_gradients_are_those_of_the_loss_as_the_paper_writes_it(dead, skip):
    made, batch = trainer(dead=dead, skip=skip)
    if dead == 2:
        made.aux_latents = 2  # as many as there are
    expected = reference(made, batch) if dead else reference_without_aux(made, batch)
    assert difference(made, gradients(made, batch), expected) < 2e-5


def reference_without_aux(made, batch):
    recipe, made.recipe = made.recipe, Recipe(aux=0.0)
    made.idle[:3] = 10**6
    try:
        return reference(made, batch)
    finally:
        made.recipe = recipe
        made.idle.zero_()


@pytest.mark.parametrize(
    "bug",
    [
        "residual not detached",
        "offset in the auxiliary reconstruction",
        "no gradient to the encoder",
        "weight applied twice",
        "not divided by the variance",
        "variance about zero",
        "living latents take part",
    ],
)
def test_no_known_mistake_in_the_auxiliary_loss_is_made(bug):
    made, batch = trainer()
    wrong = reference(made, batch, bug)
    assert difference(made, gradients(made, batch), wrong) > 1e-3


def test_the_auxiliary_loss_reaches_dead_latents_alone():
    found = []
    for aux in (0.0, ALPHA):
        made, batch = trainer(aux=aux)
        found.append(gradients(made, batch))
    without, with_ = found
    assert torch.equal(with_["offset"], without["offset"])
    for name in ("encoder", "bias", "decoder"):
        assert torch.equal(with_[name][8:], without[name][8:])
        assert (with_[name][:8] != without[name][:8]).any()


def test_the_auxiliary_gradient_is_nearly_the_same_in_short_numbers(monkeypatch):
    made, batch = trainer()
    expected = gradients(made, batch)
    monkeypatch.setattr("prosect.decompose.auxiliary.LARGE", 1)
    monkeypatch.setattr("prosect.decompose.auxiliary.available", lambda: True)
    again, batch = trainer()
    found = gradients(again, batch)
    assert 1e-5 < difference(again, found, expected) < 1e-2
    assert all(torch.equal(found[name][8:], expected[name][8:]) for name in ("encoder", "bias", "decoder"))


def silent(made):
    """Rows of dead latents, none of which fires."""
    return made.encoder.detach()[:8], torch.full((8,), -100.0), made.decoder.detach()[:8]


def test_the_auxiliary_loss_does_not_change_with_the_size_of_the_residual():
    made, batch = trainer()
    x = (batch["x"] - made.read.centre) / made.read.scale
    residual = torch.randn(x.shape, generator=Seed(2).torch())
    loss = auxiliary(residual, x, *silent(made), 3).loss
    centred = residual - residual.mean(dim=0)
    assert float(loss) == pytest.approx(float(residual.square().sum() / centred.square().sum()))
    for scale in (1e-3, 1e3):
        scaled = auxiliary(residual * scale, x, *silent(made), 3).loss
        assert float(scaled) == pytest.approx(float(loss), rel=1e-5)


def test_the_auxiliary_loss_of_a_perfect_reconstruction_is_finite():
    made, batch = trainer()
    x = (batch["x"] - made.read.centre) / made.read.scale
    assert torch.isfinite(auxiliary(torch.zeros_like(x), x, *silent(made), 3).loss)


def test_latents_that_died_come_back():
    """Latents that seldom reach the largest few get next to no gradient from the main loss."""
    shares, x = {}, rows(4096)
    for aux in (0.0, 1 / 32):
        recipe = Recipe(batch=128, rate=3e-3, aux=aux, dead_after=1000, decay=0.0)
        made = Trainer(Dictionary("x", 64, TopK(3), recipe=recipe), {"x": 12}, 200)
        made.start(ArrayStream({"x": x}))
        with torch.no_grad():
            made.bias[:32] = -2.0  # two standard deviations below where they start
        for step in range(200):
            made.advance({"x": x[128 * (step % 32) :][:128]})
        shares[aux] = float((made.idle[:32] >= 1000).double().mean())
    assert shares[0.0] > 0.4
    assert shares[1 / 32] < shares[0.0] / 2


def test_counters_count_positions_since_a_latent_fired():
    made, batch = trainer(dead=0, sparsity=1)
    batch = {"x": batch["x"][:16]}  # few enough positions that some latents do not fire
    idle = torch.zeros(24, dtype=torch.long)
    for _ in range(5):
        x = (batch["x"] - made.read.centre) / made.read.scale
        pre = x @ made.encoder.detach().T + made.bias.detach()
        top = pre.topk(1, dim=1)
        fired = top.indices[top.values > 0].unique()
        made.advance(batch)
        idle += 16
        idle[fired] = 0
        assert torch.equal(made.idle, idle)
    assert (idle > 0).any()


def test_looking_does_not_touch_counters_or_weights():
    made, batch = trainer()
    made.advance(batch)
    before = {name: t.clone() for name, t in made.tensors().items()}
    dictionary = made.dictionary.with_weights(made.weights(), {"x": 12})
    measure(dictionary, ArrayStream(batch))
    dictionary.encode(batch)
    made.note()
    assert before.keys() == made.tensors().keys()
    assert all(torch.equal(t, before[name]) for name, t in made.tensors().items())


def test_decoder_rows_keep_norm_one_and_steps_move_along_the_sphere():
    made, batch = trainer(steps=50)
    for _ in range(20):
        made.advance(batch)
        assert torch.allclose(made.decoder.norm(dim=1), torch.ones(24), atol=1e-6)


def test_the_start_is_centred_scaled_and_tied():
    x = rows(500)
    made = Trainer(Dictionary("x", 24, TopK(4), recipe=Recipe(start="mean")), {"x": 12}, 10)
    made.start(ArrayStream({"x": x}))
    assert torch.equal(made.encoder, made.decoder)
    assert torch.allclose(made.read.centre, x.mean(dim=0), atol=1e-5)
    standard = (x - made.read.centre) / made.read.scale
    assert float(standard.square().mean()) == pytest.approx(1, rel=1e-5)
    assert not made.bias.any()
    assert not made.offset.any()
    other = Trainer(Dictionary("x", 24, TopK(4), "y"), {"x": 12, "y": 7}, 10)
    other.start(ArrayStream({"x": x, "y": x[:, :7]}))
    assert other.encoder.shape == (24, 12)
    assert other.decoder.shape == (24, 7)
    assert torch.allclose(other.encoder.norm(dim=1), torch.ones(24))


def test_activations_that_do_not_vary_are_refused():
    made = Trainer(Dictionary("x", 4, TopK(1)), {"x": 3}, 10)
    with pytest.raises(BadInput, match="equal activations at x"):
        made.start(ArrayStream({"x": torch.ones(50, 3)}))


def test_the_inference_form_is_the_same_function():
    made, batch = trainer(skip=True)
    for _ in range(5):
        made.advance(batch)
    x = (batch["x"] - made.read.centre) / made.read.scale
    pre = x @ made.encoder.T + made.bias
    top = pre.topk(4, dim=1)
    codes = torch.zeros_like(pre).scatter(1, top.indices, torch.relu(top.values))
    y = codes @ made.decoder + made.offset + x @ made.skip
    expected = (y * made.write.scale + made.write.centre).detach()
    dictionary = made.dictionary.with_weights(made.weights(), {"x": 12})
    assert torch.allclose(dictionary.reconstruct(batch)["x"], expected, atol=1e-4)
    found = dictionary.encode(batch).dense()
    assert torch.allclose(found, (codes * made.write.scale[0]).detach(), atol=1e-4)
    assert torch.allclose(dictionary.directions.norm(dim=1), torch.ones(24), atol=1e-6)


def test_divergence_is_named():
    made, batch = trainer(rate=1e30)
    for _ in range(3):
        made.advance(batch)
    with pytest.raises(NotFinite, match="lower rate"):
        made.note()


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_geometric_median_minimises_the_sum_of_distances(d):
    x = torch.randn(101, d, generator=Seed(d).torch(), dtype=torch.float64)
    x[:20] += 50
    found = geometric_median(x, iterations=2000, tolerance=1e-12).numpy()

    def total(at):
        return np.linalg.norm(x.numpy() - at, axis=1).sum()

    best = minimize(total, x.median(dim=0).values.numpy(), method="Nelder-Mead", options={"maxiter": 5000})
    assert total(found) <= best.fun * (1 + 1e-6)
    if d == 1:
        assert found[0] == pytest.approx(float(x.median()), abs=1e-3)


def test_the_geometric_median_of_equal_points_is_that_point():
    assert geometric_median(torch.full((5, 2), 3.0, dtype=torch.float64)).tolist() == [3.0, 3.0]


def test_the_geometric_median_resists_what_moves_the_mean():
    x = torch.randn(1000, 4, generator=Seed(0).torch(), dtype=torch.float64)
    x[:5] += 1e4
    assert geometric_median(x).norm() < 0.2
    assert x.mean(dim=0).norm() > 10


def test_the_rate_rises_stays_and_falls_to_nothing():
    recipe = Recipe(warmup=0.1, decay=0.2)
    shares = [recipe.schedule(step, 100) for step in range(100)]
    assert shares[:10] == pytest.approx(np.linspace(0.1, 1.0, 10))
    assert shares[10:80] == [1.0] * 70
    assert shares[80:] == pytest.approx(np.linspace(1.0, 0.05, 20))
    assert Recipe(warmup=0.0, decay=0.0).schedule(0, 10) == 1.0
    assert Recipe(rate=0.5).rate_for(7) == 0.5
    assert Recipe().rate_for(2**14) == pytest.approx(2e-4)
    assert Recipe().rate_for(2**12) == pytest.approx(4e-4)


@pytest.mark.parametrize(
    "bad",
    [
        {"batch": 0},
        {"rate": -1.0},
        {"aux": -0.1},
        {"warmup": 0.7, "decay": 0.7},
        {"dead_after": 0},
        {"aux_latents": 0},
        {"start_rows": 0},
    ],
)
def test_recipes_that_make_no_sense_are_refused(bad):
    with pytest.raises(BadInput):
        Recipe(**bad)
