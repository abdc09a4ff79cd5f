"""Cross-layer transcoders: zeros stay zeros, the rest learns as if they were not there."""

import pytest
import torch

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.layers import cross_layer_masks
from prosect.decompose.objectives import L1, BatchTopK, Gated, JumpReLU, Matryoshka
from prosect.decompose.quality import recovery
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

READS, WRITES = {"in.0": 3, "in.1": 4, "in.2": 2}, {"out.0": 2, "out.1": 3, "out.2": 5}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).torch())


def test_masks_are_the_rule_spelled_out():
    encoder, decoder, skip = cross_layer_masks(6, READS, WRITES)
    reading = [i for i, w in enumerate(READS.values()) for _ in range(w)]
    writing = [i for i, w in enumerate(WRITES.values()) for _ in range(w)]
    for latent in range(6):
        layer = latent // 2
        assert encoder[latent].tolist() == [layer == at for at in reading]
        assert decoder[latent].tolist() == [at >= layer for at in writing]
    assert skip.tolist() == [[to >= at for to in writing] for at in reading]


@pytest.mark.parametrize(
    "objective", [TopK(4), BatchTopK(4), Matryoshka(4), L1(0.1), Gated(0.1), JumpReLU()], ids=lambda o: o.name
)
@pytest.mark.parametrize("skip", [False, True])
def test_what_is_zero_stays_zero(objective, skip):
    data = {site: normal(64, w, seed=i) for i, (site, w) in enumerate({**READS, **WRITES}.items())}
    recipe = Recipe(batch=64, rate=1e-2, dead_after=200, resample=(0.4, 0.6))
    dictionary = Dictionary(
        tuple(READS), 24, objective, tuple(WRITES), skip=skip, recipe=recipe, cross_layer=True
    )
    made = Trainer(dictionary, {**READS, **WRITES}, 10)
    made.start(ArrayStream(data))
    made.idle[::4] = 10**6
    before = {name: p.detach().clone() for name, p in made.parameters().items()}
    assert torch.allclose(made.encoder.norm(dim=1), torch.ones(24))
    for _ in range(10):
        made.advance(data)
    masks = cross_layer_masks(24, READS, WRITES)._asdict()
    for name in ("encoder", "decoder", "skip") if skip else ("encoder", "decoder"):
        p = made.parameters()[name]
        assert (p[~masks[name]] == 0).all()
        assert ((p != before[name])[masks[name]]).double().mean() > 0.9
    assert torch.allclose(made.decoder.norm(dim=1), torch.ones(24), atol=1e-6)
    fitted = dictionary.with_weights(made.weights(), {**READS, **WRITES})
    late = dict(data) | {"in.2": data["in.2"] + 1}
    one, other = fitted.reconstruct(data), fitted.reconstruct(late)
    if not isinstance(objective, TopK):  # there latents of all layers compete for their places
        assert torch.allclose(one["out.0"], other["out.0"], atol=1e-5)
        assert torch.allclose(one["out.1"], other["out.1"], atol=1e-5)
    assert not torch.allclose(one["out.2"], other["out.2"])


def test_gradients_are_those_of_a_sum_over_layers():
    """ŷ_m = Σ_{l ≤ m} D_{l→m} z_l + b_m, with a matrix for each pair of layers."""
    reads, writes = {"a": 3, "b": 3}, {"c": 4, "d": 4}
    data = {site: normal(64, w, seed=i) for i, (site, w) in enumerate({**reads, **writes}.items())}
    made = Trainer(
        Dictionary(("a", "b"), 12, L1(0.0), ("c", "d"), recipe=Recipe(batch=64), cross_layer=True),
        {**reads, **writes},
        10,
    )
    made.start(ArrayStream(data))
    found = {}
    made.optimiser.step = lambda: found.update({n: p.grad.clone() for n, p in made.parameters().items()})
    x = (torch.cat([data["a"], data["b"]], dim=1) - made.read.centre) / made.read.scale
    y = (torch.cat([data["c"], data["d"]], dim=1) - made.write.centre) / made.write.scale
    encoder, decoder = made.encoder.detach().clone(), made.decoder.detach().clone()
    blocks = {
        "first": encoder[:6, :3], "second": encoder[6:, 3:],
        "cc": decoder[:6, :4], "cd": decoder[:6, 4:], "dd": decoder[6:, 4:],
    }  # fmt: skip
    p = {name: block.clone().requires_grad_() for name, block in blocks.items()}
    z0, z1 = torch.relu(x[:, :3] @ p["first"].T), torch.relu(x[:, 3:] @ p["second"].T)
    left = torch.cat([y[:, :4] - z0 @ p["cc"], y[:, 4:] - z0 @ p["cd"] - z1 @ p["dd"]], dim=1)
    left.square().mean().backward()
    made.advance(data)
    assert torch.allclose(found["encoder"][:6, :3], p["first"].grad, atol=1e-6)
    assert torch.allclose(found["encoder"][6:, 3:], p["second"].grad, atol=1e-6)
    expected = torch.zeros(12, 8)
    expected[:6, :4], expected[:6, 4:], expected[6:, 4:] = p["cc"].grad, p["cd"].grad, p["dd"].grad
    expected -= (expected * decoder).sum(dim=1, keepdim=True) * decoder
    assert torch.allclose(found["decoder"], expected, atol=1e-6)


def unit(*shape, seed):
    drawn = normal(*shape, seed=seed)
    return drawn / drawn.norm(dim=1, keepdim=True)


def test_it_finds_which_layer_writes_where():
    """Two layers of sparse units; those of the first write both outputs."""
    d, units, n = 12, 12, 16_000
    generator = Seed(7).torch()

    def sparse():
        on = torch.rand(n, units, generator=generator) < 0.08
        return on * (0.5 + torch.rand(n, units, generator=generator))

    inward = [unit(units, d, seed=1), unit(units, d, seed=2)]
    c, early, late = unit(units, d, seed=3), unit(units, d, seed=4), unit(units, d, seed=5)
    z = [sparse(), sparse()]
    data = {"a": z[0] @ inward[0], "b": z[1] @ inward[1], "c": z[0] @ c, "d": z[0] @ early + z[1] @ late}
    recipe = Recipe(batch=100, rate=2e-2)
    made = Dictionary(("a", "b"), 24, JumpReLU(target_l0=2.0), ("c", "d"), recipe=recipe, cross_layer=True)
    made.fit(ArrayStream(data).shuffled(Seed(0), epochs=4))
    first = recovery(made.decoder_[:12], torch.cat([c, early], dim=1))
    second = recovery(made.decoder("d")[12:], late)
    chance = recovery(unit(12, d, seed=9), late)
    assert first.matched > 0.8
    assert second.matched > 0.8
    assert chance.matched < 0.6
    assert made.name == "jumprelu@a+b~c+d"


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(BadInput, match="2 sites read and 1 written"):
        Dictionary(("a", "b"), 12, TopK(1), ("c",), cross_layer=True)
    with pytest.raises(BadInput, match="multiple of the layers"):
        Dictionary(("a", "b"), 13, TopK(1), ("c", "d"), cross_layer=True)


@pytest.mark.parametrize("field", ["encoder", "decoder", "skip"])
def test_weights_that_lead_backwards_are_refused(field):
    made = Dictionary(("a", "b"), 4, TopK(1), ("c", "d"), skip=True, cross_layer=True)
    widths = dict.fromkeys("abcd", 2)
    masks = cross_layer_masks(4, {"a": 2, "b": 2}, {"c": 2, "d": 2})._asdict()
    parts = {name: normal(4, 4) * mask for name, mask in masks.items()}
    made.with_weights(Weights(bias=normal(4), centre=normal(4), offset=normal(4), **parts), widths)
    parts[field][~masks[field]] = 1e-3
    with pytest.raises(BadInput, match=field):
        made.with_weights(Weights(bias=normal(4), centre=normal(4), offset=normal(4), **parts), widths)
