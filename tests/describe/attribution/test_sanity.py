"""Weight and label randomisation: maps that ignore the model fail, the gradient passes, the model is left as it was."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from nets_of_attribution import last_logit, numbers, tokens
from prosect.core.seeds import Seed
from prosect.describe.attribution import Randomisation, Scores, attribute
from prosect.describe.attribution.randomise import grouped, layers, randomised
from prosect.model import load

SIDE = 12


class Picture(nn.Module):
    """A small convolutional classifier."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 6, 3, padding=1)
        self.out = nn.Linear(6 * SIDE * SIDE, 2)

    def forward(self, image):
        hidden = torch.relu(self.two(torch.relu(self.one(image))))
        return self.out(hidden.flatten(1))


def picture(seed=0, rows=16):
    net, rng = Picture(), Seed(seed).torch()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.3 if p.ndim > 1 else 0.1))
    x = torch.randn(rows, 1, SIDE, SIDE, generator=rng)
    return load(net, inputs=x), x


def first(output, batch):
    return output[:, 0]


@dataclass(frozen=True)
class EdgeDetector:
    """A map that looks at the input and at nothing else."""

    name: str = "edges"
    gradient: bool = False
    several: bool = False
    words: str = "how much a number differs from its neighbours"

    def __call__(self, explicand, reference, seed):
        x = explicand.x.double().numpy()
        edges = abs(x - np.roll(x, 1, axis=-1)) + abs(x - np.roll(x, 1, axis=-2))
        return Scores(edges.reshape(len(x), -1), replaces=False)


def test_a_map_that_looks_at_the_input_alone_fails_and_the_gradient_passes():
    model, x = picture()
    edges = attribute(model, x, first, EdgeDetector())
    assert edges.sanity.verdict == "failed"
    assert edges.sanity.cascade[-1].absolute.estimate == pytest.approx(1.0)
    assert edges.sanity.cascade[-1].structure.estimate == pytest.approx(1.0)
    assert "did not change at all" in attribute(model, x[:3], first, EdgeDetector()).sanity.words
    slope = attribute(model, x, first, "saliency")
    assert slope.sanity.verdict == "passed"
    assert slope.sanity.cascade[-1].structure.estimate < 0.5
    assert slope.sanity.repeat.absolute.estimate == pytest.approx(1.0)


def test_every_stage_says_what_was_random_and_carries_an_interval():
    model, x = picture()
    got = attribute(model, x, first, "saliency", sanity=Randomisation(stages=3, draws=3, rows=8)).sanity
    assert [s.randomised for s in got.cascade] == [("out",), ("out", "two"), ("out", "two", "one")]
    assert [s.randomised for s in got.independent] == [("out",), ("two",), ("one",)]
    for stage in (*got.cascade, *got.independent, got.repeat, got.other_row):
        for found in (stage.rank, stage.absolute, stage.structure):
            assert found.n == 8 and found.low <= found.estimate <= found.high
    assert {len(s.draws) for s in got.cascade} == {3}
    assert got.labels is None and "not run" in got.labels_words


def test_the_model_is_as_it_was_even_if_the_map_breaks_down():
    model, x = picture()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    held = [p.data_ptr() for p in model.module.parameters()]
    attribute(model, x, first, "input-x-gradient")

    @dataclass(frozen=True)
    class Broken(EdgeDetector):
        def __call__(self, explicand, reference, seed):
            if not torch.equal(explicand.model.module.out.weight, before["out.weight"]):
                raise RuntimeError("only on random weights")
            return super().__call__(explicand, reference, seed)

    with pytest.raises(RuntimeError, match="only on random weights"):
        attribute(model, x, first, Broken())
    assert [p.data_ptr() for p in model.module.parameters()] == held
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert all(not m._forward_pre_hooks for m in model.module.modules())


def test_random_weights_keep_their_size_and_nothing_else():
    layer = nn.Linear(60, 40)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    with randomised(list(layer.parameters()), Seed(0)):
        inside = layer.weight.detach().clone()
        assert inside.square().mean().sqrt() == pytest.approx(float(weight.square().mean().sqrt()), rel=0.05)
        assert abs(np.corrcoef(inside.flatten(), weight.flatten())[0, 1]) < 0.1
        assert torch.equal(layer.bias.sort().values, bias.sort().values) and not torch.equal(layer.bias, bias)
    with randomised(list(layer.parameters()), Seed(0)):
        assert torch.equal(layer.weight, inside)  # the same seed draws the same
    assert torch.equal(layer.weight, weight)


def test_layers_come_in_the_order_of_the_pass_and_tied_weights_at_the_top():
    model, ids = tokens()
    batch = model.batch(ids)
    names = [name for name, _ in layers(model, batch)]
    assert "embed" in names[0] and names.index("model.layers.0.mlp.up_proj") < names.index(
        "model.layers.1.mlp.up_proj"
    )
    every = {id(p) for _, ps in layers(model, batch) for p in ps}
    assert every == {id(p) for p in model.module.parameters()}
    groups = grouped(layers(model, batch), 4)
    assert len(groups) == 4 and sum(len(ps) for _, ps in groups) == len(every)

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.back = nn.Linear(4, 4), nn.Linear(4, 4)
            self.back.weight = self.into.weight

        def forward(self, x):
            return self.back(torch.tanh(self.into(x)))

    tied = load(Tied(), inputs=torch.zeros(2, 4))
    found = layers(tied, tied.example)
    assert found[-1][0] == "back" and len(found[-1][1]) == 2 and len(found[0][1]) == 1


def test_tokens_are_embedded_anew_by_random_weights():
    model, ids = tokens()
    got = attribute(model, ids, last_logit, sanity=Randomisation(stages=2, draws=2))
    assert got.sanity.repeat.rank.estimate == pytest.approx(1.0)
    assert abs(got.sanity.cascade[-1].rank.estimate) < 0.9
    assert got.sanity.cascade[-1].structure is None


def trained(x, y):
    net = nn.Linear(6, 1)
    solution = torch.linalg.lstsq(x, y[:, None]).solution
    with torch.no_grad():
        net.weight.copy_(solution.T)
        net.bias.zero_()
    return load(net, inputs=x[:2])


def test_labels_are_randomised_where_there_is_a_recipe():
    """A least-squares fit: its gradient is its weights, which permuted labels make small and unrelated."""
    x = numbers(400, 6, dtype=torch.float32)
    y = x @ torch.tensor([3.0, -2.0, 1.5, 1.0, 0.5, 0.1])
    seen = []

    def retrain(seed):
        seen.append(seed)
        return trained(x, y[torch.randperm(len(y), generator=seed.torch())])

    model = trained(x, y)
    got = attribute(model, x[:12], lambda o, b: o[:, 0], "saliency", retrain=retrain).sanity
    assert len(seen) == 1 and got.labels is not None
    with torch.no_grad():
        weights = [m.module.weight[0].abs().numpy() for m in (model, retrain(seen[0]))]
    from scipy.stats import spearmanr

    assert got.labels.absolute.estimate == pytest.approx(spearmanr(*weights).statistic)
    assert "permuted labels" in got.labels_words


def test_it_can_be_switched_off_and_says_so():
    model, x = picture()
    got = attribute(model, x, first, "saliency", sanity=None).sanity
    assert got.verdict == "not run" and "switched off" in got.words
