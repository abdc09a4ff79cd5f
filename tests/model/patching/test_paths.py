"""Path patching: the hand-wired network's own edges, closed forms, weights multiplied out, and both forms against each other."""

import numpy as np
import pytest
import torch

import prosect
from prosect.core.errors import BadInput, Unsupported
from prosect.model import edits as e
from prosect.model.patching import edge_effects, path_patching
from prosect.organisms import induction

FAMILIES = ["gpt2", "llama", "gemma2", "neox"]


@pytest.fixture(scope="module")
def repeating():
    """The induction network, its truth, repeated blocks and other ones, and the mean logit of what follows."""
    _, truth = induction.network(0)
    model = prosect.load("organism:induction")
    generator = torch.Generator().manual_seed(0)

    def block(count=3, length=8):
        draws = [1 + torch.randperm(model.vocab_size - 1, generator=generator)[:length] for _ in range(count)]
        return torch.stack([torch.cat([torch.zeros(1, dtype=torch.long), d, d]) for d in draws])

    def metric(output, batch):
        wanted = induction.targets(batch)
        logits = output.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        return (logits * (wanted >= 0)).sum(dim=1) / (wanted >= 0).sum(dim=1)

    return model, truth, block(), block(), metric


def test_only_the_true_edges_of_the_induction_network_have_an_effect(repeating):
    model, truth, clean, other, metric = repeating
    found = edge_effects(model, clean, other, metric, control=False)
    true = {f"{w} > {r}" for w, r in truth.edges["resample"]}
    effect = {name: np.abs(found.effects.values[i]).max() for i, name in enumerate(found.paths)}
    assert true <= set(effect) and len(effect) == 12 + 12 * 5 + 9
    assert min(effect[name] for name in true) > 1.0  # the logit of the repeated token is 10
    assert max(v for name, v in effect.items() if name not in true) < 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_all_edges_into_the_output_at_once_are_the_other_run(open_, rows, logit, name):
    model = open_(name)
    from prosect.model.patching.edges import writers_of

    every = {"all": [(w.name, "output") for w in writers_of(model)]}
    found = edge_effects(model, rows(0), rows(1), logit(), every)
    gap = found.other.values - found.base.values
    assert np.allclose(found.effects.values[0], gap, atol=1e-4 * np.abs(gap).max())
    assert not np.allclose(found.mismatched.values[0], gap, atol=0.01 * np.abs(gap).max())


def test_on_a_linear_network_an_edge_to_the_output_is_weights_times_difference(linear, rows, logit):
    model, w = linear
    clean, other = rows(2), rows(3)
    found = edge_effects(model, clean, other, logit(5), readers=["output"])
    for head in (0, 1):
        site = f"z.1.h{head}"
        change = (model.run(other, ["z.1"])[site] - model.run(clean, ["z.1"])[site]).double().numpy()
        weights = model.module.model.layers[1].self_attn.o_proj.weight.detach().double().numpy()
        direct = change[:, -1] @ weights[:, head * 5 : head * 5 + 5].T @ w.unembed[:, 5]
        assert np.allclose(
            found.effects.values[list(found.paths).index(f"{site} > output")], direct, atol=1e-4
        )
    assert np.allclose(found.effects.values.sum(axis=0), found.other.values - found.base.values, atol=1e-3)


def test_an_edge_into_values_is_what_the_weights_say(open_, rows, logit):
    """Head 0.1 to the values of head 1.0, multiplied out with the model's own modules."""
    model, metric, clean, other = open_("llama"), logit(), rows(0), rows(1)
    found = edge_effects(model, clean, other, metric, {"edge": [("z.0.h1", "v.1.h0")]})
    layer0, layer1 = model.module.model.layers
    with torch.no_grad():
        here, there = (model.run(x, ["z.0", "resid_pre.1", "v.1"]) for x in (clean, other))
        write = layer0.self_attn.o_proj.weight[:, 4:8]
        stream = here["resid_pre.1"] + (there["z.0"][:, :, 1] - here["z.0"][:, :, 1]) @ write.T
        value = layer1.self_attn.v_proj(layer1.input_layernorm(stream)).view(3, 6, 2, 4)
        after = metric(model.run(clean, edits=[e.patch("v.1", value, heads=0)]).output, model.batch(clean))
    effect = after.double().numpy() - found.base.values
    assert np.abs(effect).max() > 1e-3
    assert np.allclose(found.effects.values[0], effect, atol=1e-5)


@pytest.mark.parametrize("name", [*FAMILIES, "attention-only"])
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_with_mlps_frozen_the_frozen_form_is_the_edge_form(open_, rows, logit, name, direction):
    model, clean, other = open_(name), rows(0), rows(1)
    senders, receivers = ["resid_pre.0", "z.0.h0", "z.0.h1"], ["q.1.h0", "k.1.h1", "output"]
    frozen = path_patching(
        model, clean, other, logit(), senders, receivers, through_mlps=False, direction=direction
    )
    paths = {s: [(s, r) for r in receivers] for s in senders}
    exact = edge_effects(model, clean, other, logit(), paths, direction=direction)
    assert np.abs(exact.effects.values).max() > 1e-3
    assert np.allclose(frozen.effects.values, exact.effects.values, atol=2e-5)
    assert np.allclose(frozen.mismatched.values, exact.mismatched.values, atol=2e-5)
    assert (frozen.through_mlps, exact.through_mlps) == (False, None)


def test_whether_mlps_are_part_of_the_path_changes_the_answer(open_, rows, logit):
    def both(name):
        return [
            path_patching(
                open_(name), rows(0), rows(1), logit(), ["z.0.h0"], ["output"], through_mlps=t
            ).effects
            for t in (False, True)
        ]

    held, passed = both("gpt2")
    assert not np.allclose(held.values, passed.values, atol=1e-3)
    held, passed = both("attention-only")
    assert np.allclose(held.values, passed.values, atol=1e-6)


def test_frozen_others_on_a_linear_network_through_mlps(linear, rows, logit):
    """With MLPs linear, the way through them is the product of their matrices."""
    model, w = linear
    clean, other = rows(2), rows(3)
    found = path_patching(model, clean, other, logit(5), ["z.1.h0"], ["output"], through_mlps=True)
    change = (model.run(other, ["z.1"])["z.1.h0"] - model.run(clean, ["z.1"])["z.1.h0"]).double().numpy()
    passing = [np.eye(10) + w.up[i] @ w.down[i] for i in (1, 2)]
    expected = change[:, -1] @ w.out[1, 0] @ passing[0] @ passing[1] @ w.unembed[:, 5]
    assert np.allclose(found.effects.values[0], expected, atol=1e-3)
    assert np.abs(expected).max() > 0.05


def test_positions_confine_what_is_patched(open_, rows, logit):
    model = open_("gpt2")
    parts = [
        edge_effects(
            model, rows(0), rows(1), logit(), readers=["output"], positions={"here": p}
        ).effects.values
        for p in ([0, 1, 2, 3, 4], [5])
    ]
    whole = edge_effects(model, rows(0), rows(1), logit(), readers=["output"]).effects.values
    assert np.allclose(parts[0], 0.0, atol=1e-6)  # only the last position is unembedded
    assert np.allclose(parts[1], whole, atol=1e-5)


def test_bad_paths_are_named(open_, rows, logit, gate):
    model, clean, other, metric = open_("gpt2"), rows(0), rows(1), logit()
    with pytest.raises(BadInput, match="after its writer"):
        edge_effects(model, clean, other, metric, {"a": [("z.1.h0", "q.1.h0")]})
    with pytest.raises(BadInput, match="as a writer"):
        edge_effects(model, clean, other, metric, {"a": [("resid_pre.1", "output")]})
    with pytest.raises(BadInput, match="as a reader"):
        edge_effects(model, clean, other, metric, {"a": [("z.0.h0", "z.1.h0")]})
    with pytest.raises(BadInput, match="no edges"):
        edge_effects(model, clean, other, metric, {})
    with pytest.raises(BadInput, match="no receiver is behind"):
        path_patching(model, clean, other, metric, ["z.1.h0"], ["q.1.h0"], through_mlps=True)
    with pytest.raises(BadInput, match="no receivers"):
        path_patching(model, clean, other, metric, None, [], through_mlps=True)
    with pytest.raises(Unsupported, match="residual stream"):
        edge_effects(gate("or"), torch.ones(2, 1), torch.zeros(2, 1), lambda out, b: out[:, 0])
