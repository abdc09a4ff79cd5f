"""Frozen norms and patterns: values stay, gradients are those of the model with them held still, nothing is missed."""

import pytest
import torch
from torch import nn

from prosect.core.errors import BadInput, Unsupported
from prosect.model import edits as e
from prosect.model.families import build, randomised
from prosect.model.frozen import frozen_norms, frozen_patterns
from prosect.model.model import Model

FAMILIES = ["llama", "gemma2", "gpt2", "qwen3", "olmo2", "gpt_neox", "cohere"]


@pytest.fixture(scope="module")
def models():
    made = {}

    def get(name):
        if name not in made:
            made[name] = Model.of(build(name), name=name)
        return made[name]

    return get


@pytest.mark.parametrize("name", FAMILIES)
def test_values_stay_to_the_last_bit(models, name):
    model = models(name)
    plain = model.run(model.example).output
    with frozen_norms(model) as frozen:
        assert torch.equal(model.run(model.example).output, plain)
    norms = [m for m in model.module.modules() if "norm" in type(m).__name__.lower()]
    assert frozen.met == len(frozen.paths) == len(norms) > 0
    assert frozen.passes == 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


@pytest.mark.parametrize("name", ["llama", "qwen3", "olmo2"])
def test_with_all_held_the_logits_are_linear_in_the_stream(models, name):
    """Euler: a linear map is its gradient times its input, and nothing less than all of it held is linear."""
    model = models(name)
    ids = model.example
    silent = [e.zero(f"mlp_out_post.{i}") for i in range(model.n_layers)]
    held = [*silent, *frozen_patterns(model)]

    def along(edits):
        trace = model.run(ids, ["resid_pre.0"], edits, grad=True)
        logit = trace.output[:, -1, 7].sum()
        (gradient,) = torch.autograd.grad(logit, trace["resid_pre.0"])
        return float((gradient * trace["resid_pre.0"].detach()).sum()), float(logit.detach())

    with frozen_norms(model):
        got, logit = along(held)
        assert got == pytest.approx(logit, rel=1e-3)
        partly, _ = along(silent)
    unfrozen, _ = along(held)
    assert unfrozen != pytest.approx(logit, rel=1e-2)
    assert partly != pytest.approx(logit, rel=1e-2)


def test_the_gradient_is_that_of_a_fixed_scale():
    """By hand, for a norm of the model's own class."""

    class Own(nn.Module):
        """An RMSNorm of no library's class."""

        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]))

        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3) * self.gain

    model = Model.of(nn.Sequential(nn.Linear(3, 4), Own()), inputs=torch.randn(2, 5, 3))
    x = torch.randn(2, 5, 3)
    with frozen_norms(model) as frozen:
        trace = model.run(x, ["0"], grad=True)
        (gradient,) = torch.autograd.grad(trace.output.sum(), trace["0"])
    assert frozen.paths == ("1",)
    given = trace["0"].detach()
    scale = (given.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt()
    assert torch.allclose(gradient, model.module[1].gain / scale, rtol=1e-4)


def test_centring_stays_in_the_gradient():
    model = Model.of(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), inputs=torch.randn(2, 5, 3))
    randomised(model.module)
    with frozen_norms(model):
        trace = model.run(torch.randn(2, 5, 3), ["0"], grad=True)
        (gradient,) = torch.autograd.grad(trace.output[..., 0].sum(), trace["0"])
    assert gradient.sum(-1).abs().max() < 1e-5  # a shift of the whole input changes nothing
    gain = model.module[1].weight
    scale = trace["0"].detach().var(-1, unbiased=False, keepdim=True).add(1e-5).sqrt()
    expected = gain[0] / scale * (torch.eye(4)[0] - 0.25)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-6)


class Hidden(nn.Module):
    """Normalises within itself, as mixers do."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.mix(self.norm(x))
        return y * torch.rsqrt(y.pow(2).sum(-1, keepdim=True) + 1e-6)


def test_a_norm_that_is_no_module_is_named():
    model = Model.of(nn.Sequential(Hidden()), inputs=torch.randn(2, 5, 4))
    with (
        pytest.raises(Unsupported, match=r"normalisation inside 0, a Hidden.*left=\['0'\]"),
        frozen_norms(model),
    ):
        pass
    with frozen_norms(model, left=["0"]) as frozen:
        model.run(model.example)
    assert frozen.paths == ("0.norm",) and frozen.left == ("0",)


def test_a_norm_that_only_some_passes_meet_is_named():
    class Rare(nn.Module):
        """A second norm for large inputs alone."""

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LayerNorm(4), nn.RMSNorm(4)

        def forward(self, x):
            y = self.first(x)
            return self.second(y) if x.abs().max() > 100 else y

    model = Model.of(Rare(), inputs=torch.randn(2, 5, 4))
    with frozen_norms(model) as frozen:
        model.run(torch.randn(2, 5, 4))
        assert frozen.met == 1
        with pytest.raises(Unsupported, match="in second, a normalisation that was not frozen"):
            model.run(1000 * torch.ones(2, 5, 4))
    assert not any(m._forward_hooks for m in model.module.modules())


def test_what_is_left_must_be_there():
    model = Model.of(nn.Sequential(nn.LayerNorm(4)), inputs=torch.randn(2, 5, 4))
    with pytest.raises(BadInput, match="paths of modules"), frozen_norms(model, left=["nowhere"]):
        pass
    plain = Model.of(nn.Sequential(nn.Linear(4, 4)), inputs=torch.randn(2, 5, 4))
    with pytest.raises(BadInput, match="no norm ran"), frozen_norms(plain):
        pass


def test_patterns_of_another_run_are_held(models):
    model = models("llama")
    names = [f"probs.{i}" for i in range(model.n_layers)]
    one, two = torch.randint(90, (2, 6)), torch.randint(90, (2, 6))
    other = model.run(two, names)
    held = frozen_patterns(model, other)
    trace = model.run(one, [*names, "resid_pre.0"], held, grad=True)
    for name in names:
        assert torch.equal(trace[name], other[name])
    again = model.run(one, names)
    assert (again[names[0]] - other[names[0]]).abs().max() > 1e-3
    with pytest.raises(BadInput, match=r"without probs\.1"):
        frozen_patterns(model, model.run(two, ["probs.0"]))


def test_no_gradient_reaches_queries_through_a_held_pattern(models):
    model = models("llama")
    trace = model.run(model.example, ["q.1", "v.1"], frozen_patterns(model), grad=True)
    q, v = torch.autograd.grad(trace.output.sum(), [trace["q.1"], trace["v.1"]], allow_unused=True)
    assert q is None or not q.any()
    assert v.abs().max() > 0


def test_attention_that_is_not_routed_cannot_be_held(models):
    with pytest.raises(
        Unsupported, match=r"attention in transformer\.h\.0\.self_attention.*AttentionInterface"
    ):
        frozen_patterns(models("bloom"))
