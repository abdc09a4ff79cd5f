"""Every way of training against its loss written out densely, and against the form it ends in."""

import math

import pytest
import torch

from prosect.core.errors import BadInput, NotFinite, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.objectives import (
    L1,
    OBJECTIVES,
    BatchTopK,
    EachTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    objective_of,
)
from prosect.decompose.penalties import SMOOTH
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import Threshold, TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

N, D, LATENTS = 96, 10, 24
ALPHA = 1 / 4
EVERY = [
    EachTopK(3),
    BatchTopK(3),
    Matryoshka(3, (4, 9, 24)),
    L1(0.3),
    L1(0.3, power=0.4, anneal_from=0.0, anneal_steps=1),
    Gated(0.3),
    JumpReLU(weight=0.02, bandwidth=0.4, start=0.3),
    JumpReLU(target_l0=2.0, bandwidth=0.4, start=0.3),
]


def named(objective):
    return f"{objective.name}-{EVERY.index(objective)}"


def rows(n=N, d=D, seed=0):
    generator = Seed(seed).child("test").torch()
    s = (torch.rand(n, 20, generator=generator) < 0.15) * torch.rand(n, 20, generator=generator)
    return s @ torch.randn(20, d, generator=generator) + 3


def trainer(objective, *, sites=("x",), dead=0, step=4, steps=10, **changes):
    """A started trainer in the midst of training, away from where gradients are alike."""
    recipe = Recipe(batch=N, aux=ALPHA, aux_latents=3, dead_after=1000, **changes.pop("recipe", {}))
    data = {site: rows(seed=i) for i, site in enumerate(sites)}
    made = Trainer(
        Dictionary(sites, LATENTS, objective, recipe=recipe, **changes), dict.fromkeys(data, D), steps
    )
    made.start(ArrayStream(data))
    generator = Seed(1).torch()
    with torch.no_grad():
        for p in made.parameters().values():
            p += 0.1 * torch.randn(p.shape, generator=generator)
        made.decoder /= made.decoder.norm(dim=1, keepdim=True)
    made.idle[:dead] = 10**6
    made.step = step
    return made, data


def gradients(made, data):
    """The gradients of a real step, before the optimiser, the decoder's projected onto the sphere."""
    found = {}

    def keep(*_args, **_kwargs):
        found.update({name: p.grad.clone() for name, p in made.parameters().items()})

    made.optimiser.step = keep
    made.advance(data)
    return found


def dense_loss(made, data, p, x, y):
    """The loss as the papers write it, on dense codes, in float64."""
    objective = made.objective
    pre = x @ p["encoder"].T + p["bias"]
    scale = math.sqrt(y.shape[1])

    def everything(codes):
        return codes @ p["decoder"] + p["offset"]

    def price(magnitudes):
        """Σ (z w)^p, by hand."""
        if len(made.spans) > 1:
            weight = sum(p["decoder"][:, span].norm(dim=1) for span in made.spans)
            magnitudes = magnitudes * weight
        power = objective.power_at(made.step / made.steps)
        sized = magnitudes / scale
        if power == 1:
            return objective.weight * sized.sum() / len(x)
        before = (sized.sum() / ((sized + SMOOTH) ** power - SMOOTH**power).sum()).detach()
        return objective.weight * before * ((sized + SMOOTH) ** power - SMOOTH**power).sum() / len(x)

    match objective:
        case EachTopK():
            codes = torch.relu(pre) * torch.zeros_like(pre).scatter(
                1, pre.topk(objective.k, dim=1).indices, 1.0
            )
            loss = (y - everything(codes)).square().mean()
        case BatchTopK():
            lowest = pre.detach().reshape(-1).sort(descending=True).values[objective.k * len(x) - 1]
            codes = torch.relu(pre) * (pre >= lowest)
            sizes = objective.sizes(LATENTS) if isinstance(objective, Matryoshka) else (LATENTS,)
            errors = [
                (y - everything(codes * (torch.arange(LATENTS) < size))).square().mean() for size in sizes
            ]
            loss = sum(errors) / len(sizes)
        case Gated():
            inner = x @ p["encoder"].T
            codes = (pre > 0) * torch.relu(p["log_scale"].exp() * inner + p["magnitude"])
            alone = torch.relu(pre) @ p["decoder"].detach() + p["offset"].detach()
            loss = (y - everything(codes)).square().mean() + (y - alone).square().mean()
            loss = loss + price(torch.relu(pre))
        case L1():
            codes = torch.relu(pre)
            loss = (y - everything(codes)).square().mean() + price(codes)
        case JumpReLU():
            theta, width = p["threshold"], objective.bandwidth
            here, fixed = theta.detach(), pre.detach()
            near = ((fixed - here).abs() < width / 2).double() / width
            # the straight-through gradients as first-order terms, which are 0 in value
            codes = pre * (fixed > here) - here * near * (theta - here)
            count = (fixed > here).double() - near * (theta - here)
            l0 = count.sum() / len(x)
            price_of = l0 if objective.target_l0 is None else (l0 / objective.target_l0 - 1).square()
            loss = (y - everything(codes)).square().mean() + objective.price * price_of
    return codes, loss


def reference(made, data):
    p = {name: t.detach().double().clone().requires_grad_() for name, t in made.parameters().items()}
    x = torch.cat([data[site] for site in made.reads], dim=1)
    x, y = (x - made.read.centre) / made.read.scale, (x - made.write.centre) / made.write.scale
    x, y = x.double(), y.double()
    codes, loss = dense_loss(made, data, p, x, y)
    dead = made.idle >= made.dead_after
    if dead.any() and made.objective.auxk:
        residual = (y - codes @ p["decoder"] - p["offset"]).detach()
        pre = x @ p["encoder"].T + p["bias"]
        best = pre.masked_fill(~dead, -math.inf).topk(made.aux_latents, dim=1).indices
        guess = (torch.relu(pre) * torch.zeros_like(pre).scatter(1, best, 1.0)) @ p["decoder"]
        loss = loss + ALPHA * (residual - guess).square().sum() / (residual - residual.mean(0)).square().sum()
    loss.backward()
    decoder = made.decoder.detach().double()
    out = {name: t.grad for name, t in p.items()}
    out["decoder"] -= (out["decoder"] * decoder).sum(dim=1, keepdim=True) * decoder
    return codes.detach(), out


def difference(found, expected):
    assert found.keys() == expected.keys()
    assert all(float(e.abs().max()) > 1e-6 for e in expected.values())  # nothing is compared with nothing
    return max(float((found[n] - expected[n]).abs().max() / expected[n].abs().max()) for n in found)


@pytest.mark.parametrize("dead", [0, 8])
@pytest.mark.parametrize("sites", [("x",), ("x", "y")], ids=["one", "two"])
@pytest.mark.parametrize("objective", EVERY, ids=named)
def test_a_steps_gradients_are_those_of_the_loss_as_the_paper_writes_it(objective, sites, dead):
    made, data = trainer(objective, sites=sites, dead=dead)
    _, expected = reference(made, data)
    assert difference(gradients(made, data), expected) < 1e-4


@pytest.mark.parametrize(
    "objective", [BatchTopK(3), Matryoshka(3, (4, 9, 24)), JumpReLU(weight=0.02)], ids=str
)
@pytest.mark.parametrize("bug", ["weight applied twice", "living latents take part", "left out"])
def test_no_known_mistake_in_the_auxiliary_loss_is_made(objective, bug):
    """The same comparison fails for each of them."""
    made, data = trainer(objective, dead=8)
    found = gradients(made, data)
    wrong, _ = trainer(objective, dead={"left out": 0, "living latents take part": 24}.get(bug, 8))
    if bug == "weight applied twice":
        wrong.recipe = Recipe(aux=ALPHA**2)
    made.optimiser = wrong.optimiser
    assert difference(gradients(wrong, data), found) > 1e-3


@pytest.mark.parametrize("objective", EVERY, ids=named)
def test_gradients_are_the_same_however_many_latents_fire(objective, monkeypatch):
    found = []
    for crowded in (0.0, 2.0):
        monkeypatch.setattr("prosect.decompose.kernels.CROWDED", crowded)
        found.append(gradients(*trainer(objective)))
    assert difference(*found) < 1e-4


@pytest.mark.parametrize("objective", EVERY, ids=named)
def test_the_form_used_after_training_gives_the_same_codes(objective):
    made, data = trainer(objective, recipe={"rate": 1e-2})
    made.step = 0
    for _ in range(8):
        made.advance(data)
    codes, _ = reference(made, data)
    weights = made.weights()
    if objective.calibrated:  # the batch's own threshold
        weights.threshold.fill_(float(codes[codes > 0].min() * made.write.scale[0]) * (1 - 1e-6))
    dictionary = made.dictionary.with_weights(weights, {"x": D})
    assert dictionary.sparsity == objective.after
    found = dictionary.encode(data).dense().double()
    assert torch.allclose(found, codes * made.write.scale[0], atol=1e-4)
    assert 0 < (found > 0).double().mean() < 0.8
    made_of = dictionary.reconstruct(data)["x"]
    expected = (codes.float() @ made.decoder + made.offset) * made.write.scale + made.write.centre
    assert torch.allclose(made_of, expected.detach(), atol=1e-3)


def test_a_gates_threshold_may_be_negative():
    made, data = trainer(Gated(0.1))
    with torch.no_grad():
        made.extra["magnitude"].fill_(-0.5)
        made.bias.fill_(0.3)
    weights = made.weights()
    assert (weights.threshold < 0).all()
    codes, _ = reference(made, data)
    found = made.dictionary.with_weights(weights, {"x": D}).encode(data).dense()
    assert torch.allclose(found.double(), codes * made.write.scale[0], atol=1e-4)
    gate = (data["x"] - made.read.centre) / made.read.scale @ made.encoder.detach().T + 0.3
    assert ((gate > 0) & (found == 0)).any()  # an open gate with nothing behind it


def test_annealing_changes_the_power_and_not_the_price():
    made, data = trainer(L1(0.3, power=0.2, anneal_from=0.5, anneal_steps=3, warmup=0.0), steps=60, step=0)
    powers, prices = [], []
    for _ in range(60):
        made.advance(data)
        powers.append(float(made.state["power"]))
        sized = torch.relu(made._last["codes"]).double() / math.sqrt(D)
        power, scale = powers[-1], float(made.state["scale"])
        raised = sized if power == 1 else (sized + SMOOTH) ** power - SMOOTH**power
        prices.append(float(scale * raised.sum()))
    assert sorted(set(powers), reverse=True) == pytest.approx([1, 1 - 0.8 / 3, 1 - 1.6 / 3, 0.2])
    assert powers[29] == 1
    assert powers[30] < 1
    for step in (30, 40, 50):
        assert powers[step] < powers[step - 1]
        assert prices[step] == pytest.approx(prices[step - 1], rel=0.05)  # one step of training apart
    codes = made._last["codes"].double() / math.sqrt(D)
    unscaled = ((codes + SMOOTH) ** 0.2 - SMOOTH**0.2).sum()
    assert unscaled > 1.5 * codes.sum()  # so that without scaling there would have been a jump


def test_penalties_rise_from_nothing():
    made, data = trainer(L1(0.3, warmup=0.5), step=0, steps=100)
    free, _ = trainer(L1(0.0), step=0, steps=100)
    assert difference(gradients(made, data), gradients(free, data)) < 1e-6
    half, _ = trainer(L1(0.3, warmup=0.5), step=25, steps=100)
    full, _ = trainer(L1(0.15, warmup=0.0), step=25, steps=100)
    assert difference(gradients(half, data), gradients(full, data)) < 1e-5


@pytest.mark.parametrize("objective", EVERY, ids=named)
def test_a_sites_weight_scales_its_error_alone(objective):
    """Against the gradients of offsets, which are those of the sites' errors."""
    data = None
    grads = {}
    for weight in (1.0, 4.0):
        made, data = trainer(objective, sites=("x", "y"), recipe={"site_weights": {"y": weight}})
        with torch.no_grad():  # nothing fires, so the residual is what is left of the mean
            made.bias.fill_(-100.0)
            made.offset.zero_()
            made.offset += 1.0 / made.write.scale  # the same offset in units of activations
        grads[weight] = gradients(made, data)["offset"] / made.write.scale
    ratio = grads[4.0] / grads[1.0]
    assert torch.allclose(ratio[:D], torch.ones(D), rtol=1e-3)
    assert torch.allclose(ratio[D:], torch.full((D,), 4.0), rtol=1e-3)


@pytest.mark.parametrize("objective", EVERY, ids=named)
def test_divergence_is_named(objective):
    made, data = trainer(objective, recipe={"rate": 1e30}, step=0, dead=8)
    for _ in range(8):
        made.advance(data)
    with pytest.raises(NotFinite, match="lower rate"):
        made.note()


def test_thresholds_never_fall_below_zero():
    made, data = trainer(JumpReLU(weight=0.0, bandwidth=2.0, start=0.01), recipe={"rate": 0.3}, step=0)
    for _ in range(5):
        made.advance(data)
    assert (made.extra["threshold"] >= 0).all()
    assert (made.extra["threshold"] == 0).any()


def test_matryoshka_without_prefixes_is_batchtopk():
    made, data = trainer(Matryoshka(3, (24,)))
    plain, _ = trainer(BatchTopK(3))
    assert difference(gradients(made, data), gradients(plain, data)) < 1e-5
    assert Matryoshka(3).sizes(3200) == (100, 300, 700, 1500, 3200)
    assert Matryoshka(1).sizes(2) == (1, 2)


@pytest.mark.parametrize("objective", EVERY, ids=named)
def test_objectives_are_stored_as_json(objective):
    made = Dictionary("x", LATENTS, objective)
    stored = made.asked()
    assert objective_of(stored["objective"]) == objective
    again = Dictionary(**Dictionary._given(stored))
    assert again.objective == objective
    assert again.sparsity == made.sparsity == objective.after
    assert again.name == f"{objective.name}@x"
    assert OBJECTIVES[objective.name] is type(objective)


def test_what_makes_no_sense_is_refused():
    for make in (
        lambda: L1(-1.0),
        lambda: L1(power=0.0),
        lambda: L1(power=1.5),
        lambda: L1(anneal_from=1.0),
        lambda: L1(anneal_steps=0),
        lambda: Gated(warmup=2.0),
        lambda: JumpReLU(target_l0=0.0),
        lambda: JumpReLU(weight=-1.0),
        lambda: JumpReLU(bandwidth=0.0),
        lambda: JumpReLU(start=-1.0),
        lambda: Dictionary("x", 4, BatchTopK(5)),
        lambda: Dictionary("x", 4, Matryoshka(1, (2, 2, 4))),
        lambda: Dictionary("x", 4, Matryoshka(1, (1, 2))),
        lambda: Dictionary("x", 4, TopK(2), objective=L1()),
        lambda: Dictionary("x", 4, L1(), recipe=Recipe(site_weights={"y": 2.0})),
        lambda: Recipe(site_weights={"x": 0.0}),
        lambda: Recipe(resample=(0.5, 1.0)),
    ):
        with pytest.raises(BadInput):
            make()
    with pytest.raises(UnknownName, match="objective"):
        objective_of({"name": "l2"})
    with pytest.raises(Unsupported, match="L1"):
        Dictionary("x", 4, Threshold()).fit(ArrayStream({"x": rows(4096)}))
