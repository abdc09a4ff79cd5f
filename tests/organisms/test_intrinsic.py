"""Networks trained to be interpretable: layers against closed forms, truths against enumeration, what each cost."""

import inspect
import itertools
import sys

import numpy as np
import pytest
import torch

import prosect
from prosect.core.canonical import digest_tensors
from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.registries import _INTRINSIC
from prosect.core.seeds import Seed
from prosect.organisms.intrinsic import activations, experts, leak, placed, pruned, pruning, readable
from prosect.organisms.intrinsic import sparse_features as task
from prosect.organisms.intrinsic.layers import SoLU, TopK, solu

# --- layers ---


def test_solu_has_the_values_that_its_paper_gives():
    one, four = SoLU()(torch.tensor([[4.0, 0, 0, 0], [4.0, 4, 4, 4]]).double())
    assert one[0] == pytest.approx(4 * np.exp(4) / (np.exp(4) + 3)) and not one[1:].any()
    assert four.tolist() == pytest.approx([1, 1, 1, 1])


def test_the_layer_norm_gives_both_the_same_length():
    layer = solu(8)
    out = layer(torch.tensor([[9.0] + [0.0] * 7, [9.0] * 4 + [0.0] * 4]))
    assert out.norm(dim=1).tolist() == pytest.approx([8**0.5] * 2, rel=1e-4)
    assert torch.equal(solu(8, norm=False)(out), SoLU()(out))


def test_topk_keeps_the_largest_and_its_gradient_goes_through_them_alone():
    x = torch.randn(5, 3, 9, generator=Seed(0).torch()).double().requires_grad_(True)
    out = TopK(3)(x)
    ranked = x.sort(dim=-1, descending=True).values[..., 2:3]
    expected = torch.where(x >= ranked, x.relu(), 0.0)
    assert torch.equal(out, expected)
    out.sum().backward()
    assert torch.equal(x.grad, (out > 0).double())


def test_impossible_k_is_refused():
    with pytest.raises(BadInput, match="k=0"):
        TopK(0)
    with pytest.raises(ShapeMismatch, match="4 units"):
        TopK(5)(torch.zeros(2, 4))


# --- sparse activations ---


def test_knowing_nothing_costs_the_entropy_of_presence():
    n = 200_000 // task.FEATURES
    x = task.draw(n, Seed(1).torch())
    logit = np.log(task.CHANCE / (1 - task.CHANCE))
    found = task.losses(torch.full_like(x, logit), x).mean()
    assert found.item() == pytest.approx(task.ignorance(), rel=0.03)


def test_what_sparse_activations_cost_and_what_they_bought():
    known = {k: activations.known(k, k, 0)[1].quantities for k in readable.KINDS}
    assert known["relu"]["cost"] == known["gelu"]["cost"] == 0
    assert known["topk"]["cost"] > 0.3 and known["bare"]["cost"] > 0.3 and known["single"]["cost"] > 0.3
    assert known["solu"]["cost"] < 0.1  # the LayerNorm gave the loss back
    for q in known.values():
        assert q["loss"] < 0.5 * q["loss knowing nothing"]
    # and how: taking all but the loudest away loses half of it
    assert known["solu"]["share lost"] > 0.4 > 0.1 > known["single"]["share lost"]
    assert max(known[k]["share lost"] for k in ("topk", "bare")) < known["solu"]["share lost"]


def test_twins_start_from_the_same_weights_and_see_the_same_features():
    a, b = readable.fresh("topk", 3), readable.fresh("relu", 3)
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert torch.equal(a.embed.weight, readable.trained("topk", 0).embed.weight) is False
    assert torch.equal(readable.trained("topk", 0).embed.weight, readable.trained("gelu", 0).embed.weight)


def test_in_the_control_each_logit_depends_on_its_own_neuron_alone():
    module, truth = activations.network_single(0)
    assert [v.parameters["feature"] for v in truth.variables] == list(range(task.FEATURES))
    x = torch.randn(1, task.FEATURES, generator=Seed(0).torch())
    jacobian = torch.autograd.functional.jacobian(module.readout, x)[0, :, 0]
    assert torch.equal(jacobian != 0, torch.eye(task.FEATURES, dtype=torch.bool))


# --- the leak ---


@pytest.mark.parametrize(("make", "neurons"), [(leak.network, 32), (leak.network_clean, 64)])
def test_every_feature_is_read_without_a_mistake(make, neurons):
    module, truth = make(2)
    for strength in (0.5, 1.0, 1.5, 2.0):
        x = strength * torch.eye(leak.FEATURES)
        with torch.no_grad():
            assert torch.equal(module(x) > 0, x > 0)
            act = module.act(module.inner(module.embed(x)))
            ratio = module.norm(act).norm(dim=1) / act.norm(dim=1)
        written = leak.codes(2, leaks=neurons == 32)
        assert torch.equal(act != 0, torch.from_numpy(written))  # the others are exactly 0
        expected = [leak.amplification(strength, int(m), neurons) for m in written.sum(axis=1)]
        assert ratio.numpy() == pytest.approx(np.array(expected), rel=1e-4)
    assert truth.quantities["share of features leaked"] == (0.5 if neurons == 32 else 0)


def test_what_activates_a_neuron_most_is_its_shown_feature():
    module, truth = leak.network(1)
    inputs = next(leak.source(1).batches("explore", rows=4096)).tensors["features"]
    with torch.no_grad():
        act = module.act(module.inner(module.embed(inputs)))
    top = inputs[act.argmax(dim=0)].argmax(dim=1)
    assert top.tolist() == [v.parameters["shown"] for v in truth.variables] == list(range(32))
    assert all(v.parameters["leaked"] for v in truth.variables)


def test_without_the_norm_what_leaked_is_gone():
    module, truth = leak.network(0)
    shown = leak.amplification(1.0, 1, 32)
    with torch.no_grad():
        x = torch.eye(leak.FEATURES)
        act = module.act(module.inner(module.embed(x)))
        flat = module.readout((act - act.mean(dim=1, keepdim=True)) * shown)
    assert ((flat > 0) == (x > 0)).all(dim=1).tolist() == (~truth.labels["leaked"]).tolist()


# --- experts ---


def test_a_mixture_costs_nothing_and_runs_a_quarter_of_the_neurons():
    _, truth = experts.network(0)
    assert truth.quantities["cost"] < 0.01
    assert truth.quantities["neurons run"] == experts.NEURONS
    assert truth.quantities["loss"] < 0.1


def test_each_expert_answers_what_it_is_sent_and_the_labels_are_the_clusters():
    module, truth = experts.network(0)
    (batch,) = experts.source(0).batches("sealed", rows=2048)
    x = batch.tensors["x"]
    with torch.no_grad():
        shares = module.shares(x)
        chosen = module.router(x).argmax(dim=1)
        for e, expert in enumerate(module.experts):
            assert torch.allclose(shares[chosen == e, e], expert(x[chosen == e]), atol=1e-6)
            assert not shares[chosen != e, e].any()
    labels = np.stack([truth.labels[f"cluster {c}@sealed"] for c in range(4)])
    assert (labels.sum(axis=0) == 1).all()
    nearest = torch.cdist(x, torch.from_numpy(experts.clusters(0)[0]).float()).argmin(dim=1).numpy()
    assert (labels.argmax(axis=0) == nearest).mean() > 0.99


def test_an_expert_without_inputs_does_not_run_and_the_opened_mixture_agrees():
    model, _ = experts.build(0)
    batch = next(experts.source(0).batches("validate.0", rows=64))
    ran = []
    hooks = [m.register_forward_hook(lambda m, *_: ran.append(m)) for m in model.module.experts]
    with torch.no_grad():
        few = model.module(batch.tensors["x"][:1])
    assert len(ran) == 1
    for hook in hooks:
        hook.remove()
    assert torch.allclose(model.run(batch).output[:1], few)
    assert model.run(batch, capture=("router",))["router"].shape == (64, 4)


# --- pruning ---


def test_gates_open_as_often_as_the_penalty_says():
    log_alpha = torch.tensor([-2.0, 0.0, 1.0, 3.0]).double().expand(100_000, 4)
    z = pruning.sampled(log_alpha, Seed(0).torch())
    assert (z > 0).double().mean(dim=0).numpy() == pytest.approx(
        pruning.opens(log_alpha[0]).numpy(), abs=0.006
    )
    assert z.min() == 0 and z.max() == 1
    assert pruning.settled(torch.tensor([-9.0, 9.0])).tolist() == [0, 1]


def test_the_largest_weights_stay_whichever_matrix_they_are_in():
    a, b = torch.tensor([[1.0, -5.0]]), torch.tensor([[3.0], [0.5]])
    one, two = pruning.largest([a, b], 2)
    assert one.tolist() == [[False, True]] and two.tolist() == [[True], [False]]
    with pytest.raises(BadInput, match="0 to 4"):
        pruning.largest([a, b], 5)


def test_a_teacher_is_recovered_by_pruning_and_not_by_chance():
    assert pruned.recovered(pruned.teacher(0), pruned.teacher(0)) == (1.0, 1.0)
    for make in (pruned.network, pruned.network_l0):
        q = make(0)[1].quantities
        assert q["recall"] > 0.9 and q["precision"] > 0.75
        assert q["precision of random pruning"] < 0.6
        assert q["cost"] < 0.05
    assert pruned.network(0)[1].quantities["edges"] == q["edges of the teacher"]


def test_matching_neurons_is_as_good_as_trying_every_order():
    taught = pruned.teacher(1)
    student = pruned.at_random(0, 30)
    mine, theirs = (
        np.hstack([m.inner.weight.detach().numpy(), m.readout.weight.detach().numpy().T]) != 0
        for m in (student, taught)
    )
    shared = (theirs[:, None] & mine[:6]).sum(axis=2)
    with torch.no_grad():  # six neurons, so that every order can be tried
        student.inner.weight[6:], student.readout.weight[:, 6:] = 0.0, 0.0
    best = max(sum(shared[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(6)))
    assert pruned.recovered(student, taught)[1] == best / theirs.sum()


def test_fewer_weights_than_the_teacher_has_cost_and_random_ones_cost_more():
    (less, high), (enough, low) = pruned.frontier(0, (9, 18))
    ((same, random),) = pruned.frontier(0, (18,), "random")
    assert (less, enough, same) == (9, 18, 18)
    assert low < 0.1 < high and random > low + 0.2


def test_a_neuron_depends_on_the_inputs_that_its_truth_names():
    module, truth = pruned.network(0)
    x = torch.randn(4, pruned.INPUTS, generator=Seed(5).torch())
    for v in truth.variables:
        grown = x[:, None] + 100 * torch.tensor([1.0, -1.0])[:, None, None, None] * torch.eye(pruned.INPUTS)
        with torch.no_grad():
            moved = (module.inner(grown) != module.inner(x)[:, None])[..., v.index].any(dim=0).any(dim=0)
        assert torch.nonzero(moved)[:, 0].tolist() == v.parameters["inputs"]


# --- two tasks ---


def test_each_output_depends_on_its_own_three_inputs():
    x = placed.everything()
    assert len({tuple(row) for row in x.tolist()}) == 64
    y = placed.target(x, 4)
    for i in range(6):
        flipped = x.clone()
        flipped[:, i] *= -1
        moved = (placed.target(flipped, 4) != y).any(dim=0).tolist()
        assert moved == [i in own for own in placed.tasks(4)]


def test_rearranging_is_as_good_as_trying_every_order():
    rng = Seed(0).numpy()
    w = [rng.standard_normal((2, 5))]
    places = placed.Places((5, 2))
    places.rearrange(w)

    def cost(at):
        return (np.abs(w[0]) * np.abs(places.at[1][:, None] - at)).sum()

    spots = (np.arange(5) + 0.5) / 5
    best = min(cost(spots[list(order)]) for order in itertools.permutations(range(5)))
    assert cost(places.at[0]) == pytest.approx(best)
    assert sorted(places.at[0]) == pytest.approx(spots)


def test_short_connections_separate_the_tasks_at_no_cost():
    near, far = placed.network(0)[1], placed.network_dense(0)[1]
    assert near.quantities["shared neurons"] == 0 < far.quantities["shared neurons"]
    assert abs(near.quantities["cost"]) < 0.01
    assert near.quantities["edges"] < far.quantities["edges"] / 2
    one, two = (near.labels[f"act_1 needed by task {t}"] for t in (0, 1))
    assert one.any() and two.any() and not (one & two).any()


# --- all of them ---


@pytest.mark.parametrize("name", _INTRINSIC)
def test_it_opens_by_name_and_has_what_an_organism_has(name):
    model = prosect.load(f"organism:{name}", seed=0)
    assert model.report is not None and not model.report.failed
    where, about = _INTRINSIC[name]
    file, _, build = where.partition(":")
    module = sys.modules[f"prosect.organisms.intrinsic.{file}"]
    suffix = build.removeprefix("build")
    made, truth = getattr(module, f"network{suffix}")(0)
    assert truth.organism == name and truth.nulls and truth.size and about
    assert "cost" in truth.quantities
    assert digest_tensors(made.state_dict()) == digest_tensors(model.module.state_dict())
    batch = next(getattr(module, f"source{suffix}")(0).batches("validate.0", rows=4))
    with torch.no_grad():
        assert torch.equal(model.run(batch).output, made(**batch.tensors))
    other = getattr(module, f"untrained{suffix}")(0)
    shapes = {k: v.shape for k, v in made.state_dict().items()}
    assert {k: v.shape for k, v in other.state_dict().items()} == shapes
    assert digest_tensors(other.state_dict()) != digest_tensors(made.state_dict())
    assert len(inspect.getdoc(getattr(module, build)).splitlines()[0]) > 20
    for features in truth.features:
        assert (
            model.run(batch, capture=(features.site,))[features.site].shape[-1]
            == features.directions.shape[1]
        )
    at = [v.index for v in truth.variables]
    if at:
        assert at == list(range(model.run(batch, capture=("act",))["act"].shape[-1]))


def test_training_again_gives_the_same_weights_and_leaves_random_state_alone(monkeypatch):
    for module, steps in ((readable, "STEPS"), (experts, "STEPS"), (placed, "STEPS")):
        monkeypatch.setattr(module, steps, 20)
    state = torch.get_rng_state()
    for make in (
        lambda: readable.weights.__wrapped__("topk", 7, 20),
        lambda: experts.weights.__wrapped__(True, 7),
        lambda: placed.weights.__wrapped__(True, 7),
    ):
        a, b = make(), make()
        assert all(np.array_equal(a[k], b[k]) for k in a)
    assert torch.equal(state, torch.get_rng_state())
