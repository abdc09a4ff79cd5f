"""Made inputs are the ones that a closed form says are best, and stand beside data and chance."""

import math

import pytest
import torch
from torch import nn

from decoders import opened
from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.synthesis.continuous import Climb, synthesise
from prosect.describe.synthesis.fourier import Waves
from prosect.describe.synthesis.unit import Unit
from prosect.model.model import Model


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).torch())


def linear(template):
    """One unit that is a template's product with the input, behind a relu, beside a unit that is off."""
    layer = nn.Linear(template.numel(), 2)
    with torch.no_grad():
        layer.weight[0], layer.bias[0] = template.flatten(), 0.5
        layer.weight[1], layer.bias[1] = 0.0, -1.0
    module = nn.Sequential(nn.Flatten(), layer, nn.ReLU())
    return Model.of(module, inputs=drawn(2, *template.shape))


def data(model, n=20, scale=1.0):
    (shape,) = [t.shape[1:] for t in model.example.tensors.values()]
    (name,) = model.example.tensors
    rows = tuple(Row(i, f"row {i}") for i in range(n))
    return Batch({name: scale * drawn(n, *shape, seed=4)}, None, rows)


@pytest.mark.parametrize("waves", [False, True])
def test_a_template_neuron_s_input_is_its_template(waves):
    template = drawn(30)
    model = linear(template)
    found = synthesise(
        model, Unit("2", 0), Climb(steps=150, waves=waves, decay=0.0 if waves else 1.0, norm=2.0)
    )
    for x, activation in zip(found.inputs, found.activations, strict=True):
        assert torch.cosine_similarity(x, template, dim=0) > 0.95
        assert float(x.norm()) == pytest.approx(2.0, rel=1e-4)
        assert activation <= 2.0 * float(template.norm()) + 0.5 + 1e-4
    assert found.activations[0] == pytest.approx(2.0 * float(template.norm()) + 0.5, rel=0.02)
    assert found.agreement.estimate > 0.9
    assert abs(found.agreement_control.estimate) < 0.3
    assert found.beyond.low > 0
    assert found.activations[0] > found.luckiest


def test_an_image_template_under_small_shifts():
    y, x = torch.meshgrid(torch.linspace(-2, 2, 12), torch.linspace(-2, 2, 12), indexing="ij")
    template = (torch.exp(-((x - 0.4) ** 2 + y**2)) - 0.5 * torch.exp(-((x + 1) ** 2 + (y - 1) ** 2)))[None]
    found = synthesise(linear(template), Unit("2", 0), Climb(seeds=2, steps=200, jitter=1))
    assert found.norm == 12.0
    assert any("√" in said for said in found.decided)
    for made in found.inputs:
        assert torch.cosine_similarity(made.flatten(), template.flatten(), dim=0) > 0.95


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_diversity_sets_seeds_apart_as_far_as_it_weighs(weight):
    """Two inputs at angle θ on either side of a template gain 2 cos θ and pay 2 · weight · cos θ · cos 2θ, where the
    middle factor is held: neither moves where 4 · weight · cos² θ = 1, so their cosine is 1 / (2 weight) - 1."""
    template = drawn(20)
    layer = nn.Linear(20, 1, bias=False)
    with torch.no_grad():
        layer.weight[0] = template
    model = Model.of(nn.Sequential(layer, nn.ReLU()), inputs=drawn(2, 20))
    how = Climb(seeds=2, steps=250, diversity=weight, norm=1.0)
    found = synthesise(model, Unit("1", 0), how)
    assert found.agreement.estimate == pytest.approx(1 / (2 * weight) - 1, abs=0.05)
    expected = float(template.norm()) * math.sqrt(1 / (4 * weight))
    assert found.activations == pytest.approx((expected, expected), rel=0.05)


def test_beside_the_best_example():
    model = linear(drawn(30))
    examples = data(model, scale=0.5)
    found = synthesise(model, Unit("2", 0), Climb(seeds=2, steps=100), [examples])
    real = model.run(examples).output[:, 0]
    assert found.example.activation == pytest.approx(float(real.detach().max()))
    assert found.example.document == f"row {int(real.argmax())}"
    assert found.example.looked == 20
    (x,) = examples.tensors.values()
    assert found.norm == pytest.approx(float(x.norm(dim=1).mean()), rel=1e-4)
    assert "examples" in found.decided[0]
    assert found.activations[0] > found.example.activation
    names = [line["input"] for line in found.table()]
    assert names == ["seed 0", "seed 1", "best example", "random, mean", "random, most"]
    assert len(found.record()["inputs"]) == 2


def test_a_channel_is_its_mean_over_space():
    conv = nn.Conv2d(1, 3, 3)
    model = Model.of(nn.Sequential(conv, nn.ReLU(), nn.Flatten()), inputs=drawn(2, 1, 8, 8))
    batch = model.batch(drawn(4, 1, 8, 8, seed=2))
    got = Unit("0", 2).measure(model, batch)
    expected = conv(next(iter(batch.tensors.values())))[:, 2].mean(dim=(1, 2))
    assert torch.allclose(got, expected.detach().double(), atol=1e-6)


def test_nothing_to_climb_is_seen_in_the_figures():
    found = synthesise(linear(drawn(10)), Unit("2", 1), Climb(seeds=2, steps=5))
    assert set(found.activations) == {0.0}
    assert found.beyond.estimate == 0.0


def test_the_same_seed_makes_the_same_inputs():
    model, how = linear(drawn(10)), Climb(seeds=2, steps=10)
    one, two = (synthesise(model, Unit("2", 0), how) for _ in range(2))
    assert one.inputs.equal(two.inputs)
    assert one.activation == two.activation


@pytest.mark.parametrize(("shape", "axes"), [((9,), 1), ((8,), 1), ((2, 6, 5), 2), ((4, 4), 2)])
def test_waves_can_make_every_input(shape, axes):
    """Coefficients of a given input give it back: nothing is out of reach."""
    waves = Waves(shape, axes)
    x = drawn(3, *shape).double()
    dims = tuple(range(-axes, 0))
    spectrum = torch.fft.rfftn(x, dim=dims) / waves.amplitude / math.sqrt(math.prod(shape[-axes:]))
    assert torch.allclose(waves(torch.view_as_real(spectrum)), x, atol=1e-10)
    assert torch.view_as_real(spectrum).shape[1:] == waves.coefficients


def test_bad_input():
    model = linear(drawn(10))
    with pytest.raises(Unsupported, match="one tensor of numbers"):
        synthesise(opened("llama"), Unit("mlp_out.0", 0))
    with pytest.raises(BadInput, match="unit 2 of"):
        synthesise(model, Unit("2", 2))
    with pytest.raises(ShapeMismatch, match="width 3"):
        synthesise(model, Unit("2", direction=torch.ones(3)))
    with pytest.raises(BadInput, match="either"):
        Unit("2")
    with pytest.raises(BadInput, match="at least 1"):
        Climb(steps=0)
    with pytest.raises(BadInput, match="norm"):
        Climb(norm=0.0)
    with pytest.raises(BadInput, match="axes"):
        Waves((3,), 2)
    with pytest.raises(TooLittleData):
        synthesise(model, Unit("2", 0), examples=[])
