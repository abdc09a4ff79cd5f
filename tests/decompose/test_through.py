"""Training through a model: its gradients, what it spends latents on, and that the model stays as it was."""

import copy
from types import MappingProxyType

import pytest
import torch
from torch import nn

from decoders import opened, text
from killed import Killed
from prosect.core.canonical import digest
from prosect.core.errors import BadInput, Conflict, Unsupported
from prosect.core.seeds import Seed
from prosect.data.source import TableSource
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.fitting import Harvesting, fit_dictionaries
from prosect.decompose.keep import load_decomposition
from prosect.decompose.live import LiveStream
from prosect.decompose.objectives import L1, BatchTopK, EachTopK, Gated, JumpReLU, Matryoshka
from prosect.decompose.ranks.dealt import ALONE, Positions
from prosect.decompose.ranks.world import World
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.through import Through, ThroughTrainer, by_step, later_sites
from prosect.decompose.together import rounds, train_together
from prosect.decompose.trainer import Trainer
from prosect.model import Model

D, USED = 8, 4


class Net(nn.Module):
    """What it predicts depends on the first four of eight activations; the others are four times as large."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Identity(), nn.Linear(D, 6, bias=False)
        with torch.no_grad():
            self.out.weight.copy_(2 * torch.randn(6, D, generator=Seed(1).torch()))
            self.out.weight[:, USED:] = 0

    def forward(self, x):
        return self.out(self.hidden(x))


def inputs(part, n=3000):
    generator = Seed(0).child(part).torch()
    s = (torch.rand(n, D, generator=generator) < 0.25) * torch.rand(n, D, generator=generator)
    return {"x": s * torch.tensor([1.0] * USED + [4.0] * (D - USED))}


SOURCE = TableSource(inputs, {"explore": 3000, "validate": 3000}, digest("inputs"))


@pytest.fixture(scope="module")
def net():
    return Model.of(Net(), inputs={"x": inputs("explore")["x"][:4]})


def live(model, steps, batch=128, source=SOURCE, sites=("hidden",)):
    return LiveStream(model, source, "explore", sites, batch * steps, Seed(4), rows=batch, buffer=2 * batch)


def recipe(**changes):
    given = {"batch": 128, "rate": 1e-2, "start_rows": 1000, "calibration_rows": 1000, "end_to_end": True}
    return Recipe(**{**given, **changes})


class Texts:
    """Random tokens with special positions and padding."""

    units = MappingProxyType({"explore": 24})
    unit, digest = "row", "texts"

    def batches(self, part, rows=32):
        whole = text(rows=24)
        for start in range(0, 24, rows):
            yield whole.select(list(range(start, min(start + rows, 24))))


def test_no_latents_are_spent_on_what_the_model_does_not_use(net):
    found = {}
    for through in (False, True):
        how = recipe(end_to_end=through, batch=1000, rate=5e-2)
        made = Dictionary("hidden", 12, L1(0.2), recipe=how).fit(live(net, 80, 1000))
        codes = made.encode({"hidden": inputs("validate")["x"]}).dense()
        energy, writes = codes.square().mean(dim=0), made.decoder_.square()
        unused = writes[:, USED:].sum(dim=1) / writes.sum(dim=1)
        x = net.run(inputs("validate"), capture=("hidden",))
        kept = made.reconstruct({"hidden": x["hidden"]})["hidden"]
        lost = Through(net, {"hidden": slice(0, D)}).divergence(x, kept)[0].detach()
        found[through] = (
            int(((energy > 1e-4) & (unused > 0.5)).sum()),
            float((energy * unused).sum() / energy.sum()),
            float(lost),
            float((codes > 0).sum(dim=1).double().mean()),
        )
    spent, share, kl, l0 = found[True]
    assert spent <= 1 and share < 0.3
    assert found[False][0] >= 5 and found[False][1] > 0.9  # the larger ones, a latent for each and more
    assert kl < found[False][2] and l0 < found[False][3]  # and yet the model does better with fewer


def through_and_clean(family="gpt2", downstream=1.0):
    module = copy.deepcopy(opened(family).module).double()
    model = Model.of(module, name=family)
    through = Through(model, {"resid_post.0": slice(0, 32)}, ("resid_post.1",), downstream)
    with torch.no_grad():
        clean = model.run(text(), capture=("resid_post.0", "resid_post.1"))
    return through, clean, clean.batch.flat(clean["resid_post.0"])


def test_the_gradient_is_that_of_finite_differences():
    through, clean, x = through_and_clean()
    scales = {"resid_post.1": torch.full((32,), 1.7, dtype=torch.float64)}
    generator = Seed(3).torch()
    made = (x + 0.3 * torch.randn(x.shape, generator=generator).double()).requires_grad_()
    both = through.divergence(clean, made, scales)
    for which, value in enumerate(both):
        (gradient,) = torch.autograd.grad(value, made, retain_graph=True)
        for _ in range(3):
            along = torch.randn(x.shape, generator=generator).double()
            step = 1e-5
            up, down = (
                through.divergence(clean, made.detach() + sign * step * along, scales)[which].detach()
                for sign in (1, -1)
            )
            assert float((up - down) / (2 * step)) == pytest.approx(float((gradient * along).sum()), rel=1e-6)


def test_kl_and_the_error_of_later_layers_are_what_they_are_by_hand():
    from prosect.model.edits import patch

    through, clean, x = through_and_clean()
    made = 0.5 * x
    value = clean["resid_post.0"].clone()
    value[clean.batch.scored] = made
    with torch.no_grad():
        spliced = through.model.run(
            clean.batch, capture=("resid_post.1",), edits=[patch("resid_post.0", value)]
        )
        nats, far = (t.detach() for t in through.divergence(clean, made))
    p, q = (clean.batch.flat(t.output).softmax(dim=-1) for t in (clean, spliced))
    assert float(nats) == pytest.approx(float((p * (p / q).log()).sum(dim=1).mean()), rel=1e-9)
    difference = clean.batch.flat(spliced["resid_post.1"]) - clean.batch.flat(clean["resid_post.1"])
    assert float(far) == pytest.approx(float(difference.square().mean()), rel=1e-9)


def test_a_dictionary_that_changes_nothing_loses_nothing():
    through, clean, x = through_and_clean()
    eye, none = torch.eye(32), torch.zeros(32)
    both = torch.cat([eye, -eye])
    made = Dictionary("resid_post.0", 64, TopK(32)).with_weights(
        Weights(both, torch.zeros(64), none, both, none), {"resid_post.0": 32}
    )
    y = made.reconstruct({"resid_post.0": x.float()})["resid_post.0"].double().requires_grad_()
    nats, far = through.divergence(clean, y)
    (gradient,) = torch.autograd.grad(nats + far, y)
    assert 0 <= float(nats.detach()) < 1e-12 and float(far.detach()) < 1e-12
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("objective", [EachTopK(3), L1(0.2), JumpReLU(weight=0.02)], ids=lambda o: o.name)
def test_the_dictionarys_gradients_are_those_of_the_whole_loss(objective):
    """Written out densely with the model inside and one backward through all of it."""
    model = opened("gpt2")
    how = recipe(batch=7 * 6, downstream=0.7, aux=0.0, resample=())
    made = Dictionary("resid_post.0", 40, objective, recipe=how)
    trainer = ThroughTrainer(made, live(model, 2, 42, Texts(), ("resid_post.0",)))
    trainer.start(trainer.inputs)
    trainer.step = trainer.steps // 2  # past the warm-up of penalties
    found = {}
    trainer.optimiser.step = lambda *_: found.update(
        {name: p.grad.clone() for name, p in trainer.parameters().items()}
    )
    batch = text()
    p = {name: t.detach().clone().requires_grad_() for name, t in trainer.parameters().items()}
    trainer.through_model(batch)

    with torch.no_grad():
        clean = model.run(batch, capture=("resid_post.0", "resid_post.1"))
    x = (clean.batch.flat(clean["resid_post.0"]) - trainer.read.centre) / trainer.read.scale
    pre = x @ p["encoder"].T + p["bias"]
    if objective.name == "topk":
        codes = torch.relu(pre) * torch.zeros_like(pre).scatter(1, pre.topk(3, dim=1).indices, 1.0)
    elif objective.name == "l1":
        codes = torch.relu(pre)
    else:
        codes = pre * (pre > p["threshold"])
    y = (codes @ p["decoder"] + p["offset"]) * trainer.write.scale + trainer.write.centre
    nats, far = trainer.through.divergence(clean, y, trainer.later)
    price = objective.weight * codes.sum() / 32**0.5 / len(x) if objective.name == "l1" else 0.0
    (nats + 0.7 * far + price).backward()
    rows = p["decoder"].detach()
    p["decoder"].grad -= (p["decoder"].grad * rows).sum(dim=1, keepdim=True) * rows
    for name in ("encoder", "bias", "decoder", "offset"):
        assert found[name].abs().max() > 1e-6
        assert torch.allclose(
            found[name], p[name].grad, rtol=1e-3, atol=1e-3 * float(p[name].grad.abs().max())
        )


def test_the_model_stays_as_it_was_and_its_parameters_receive_no_gradient():
    model = Model.of(copy.deepcopy(opened("llama").module), name="llama")
    before = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    wanted = [p.requires_grad for p in model.module.parameters()]
    assert all(wanted)
    made = Dictionary("resid_post.0", 40, TopK(4), recipe=recipe(batch=28, downstream=1.0))
    made.fit(live(model, 6, 28, Texts(), ("resid_post.0",)))
    assert all(p.grad is None for p in model.module.parameters())
    assert [p.requires_grad for p in model.module.parameters()] == wanted
    assert all(torch.equal(p, before[name]) for name, p in model.module.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_training_lowers_what_it_is_for():
    model = opened("gpt2")
    made = Dictionary("resid_post.0", 64, BatchTopK(6), recipe=recipe(batch=56, downstream=1.0))
    made.fit(live(model, 40, 56, Texts(), ("resid_post.0",)))
    first, last = made.history_[0], made.history_[-1]
    assert last["kl"] < 0.5 * first["kl"] and last["downstream"] < 0.7 * first["downstream"]
    assert made.facts_["l0"] == pytest.approx(6, rel=0.2)


@pytest.mark.parametrize(("at", "local"), [(2, 0.0), (5, 0.0), (8, 0.0), (8, 0.5)])
def test_killed_at_any_step_it_ends_with_the_same_bits(tmp_path, monkeypatch, at, local):
    def fit(workspace=None):
        how = recipe(batch=42, downstream=0.5, dead_after=60, aux=0.1, local=local)
        made = Dictionary("resid_post.0", 40, JumpReLU(target_l0=4.0), recipe=how)
        made.fit(live(opened("gpt2"), 9, 42, Texts(), ("resid_post.0",)), workspace, 3)
        return made.state()

    whole, about = fit()
    calls = []
    original = ThroughTrainer.through_model

    def dying(self, batch):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        original(self, batch)

    monkeypatch.setattr(ThroughTrainer, "through_model", dying)
    with pytest.raises(Killed):
        fit(tmp_path)
    calls.extend([1] * 100)
    done = len(calls)
    resumed, said = fit(tmp_path)
    steps = about["fitted"]["history"][-1]["step"]
    assert len(calls) - done == steps - (at - 1) // 3 * 3  # what a checkpoint held is not done again
    assert said == about and all(torch.equal(resumed[name], whole[name]) for name in whole)
    with pytest.raises(Conflict, match="downstream"):
        other = recipe(batch=42, downstream=0.6, dead_after=60, aux=0.1)
        kept = Dictionary("resid_post.0", 40, JumpReLU(target_l0=4.0), recipe=other)
        kept.fit(live(opened("gpt2"), 9, 42, Texts(), ("resid_post.0",)), tmp_path, 3)


def test_a_first_share_goes_by_the_activations_own_error(net):
    """To the bits of training on them alone, while it lasts; and the end is then for the model."""
    stream = live(net, 40)
    trainer = ThroughTrainer(Dictionary("hidden", 12, TopK(2), recipe=recipe(local=0.7)), stream)
    alone = Trainer(
        Dictionary("hidden", 12, TopK(2), recipe=recipe(end_to_end=False)), {"hidden": D}, trainer.steps
    )
    trainer.start(trainer.inputs)
    alone.start(trainer.inputs)
    assert trainer.turn == round(0.7 * trainer.steps)
    kl = {}
    for batch in trainer.inputs.batches():
        if trainer.step < trainer.turn:
            alone.advance({"hidden": batch.tensors["x"]})
        if trainer.step == trainer.turn:
            for name, value in alone.tensors().items():
                assert torch.equal(trainer.tensors()[name], value), name
        trainer.through_model(batch)
        trainer.note()
        kl[trainer.step] = trainer.history[-1].get("kl")
    assert all((kl[step] is None) == (step <= trainer.turn) for step in kl)
    clean = net.run(inputs("validate"), capture=("hidden",))
    lost = []
    for weights in (alone.weights(), trainer.weights()):
        made = Dictionary("hidden", 12, TopK(2)).with_weights(weights, {"hidden": D})
        y = made.reconstruct({"hidden": clean["hidden"]})["hidden"]
        lost.append(float(Through(net, {"hidden": slice(0, D)}).divergence(clean, y)[0].detach()))
    assert lost[1] < 0.8 * lost[0]


def test_dead_latents_learn_what_would_lower_the_error(net):
    trainer = ThroughTrainer(Dictionary("hidden", 12, TopK(2), recipe=recipe()), live(net, 4))
    trainer.start(trainer.inputs)
    trainer.through_model(next(trainer.inputs.batches()))
    residual = torch.randn(128, D, generator=Seed(0).torch())
    missing = trainer._missing(residual)
    assert float(missing.norm()) == pytest.approx(float(residual.norm()))
    assert missing[:, :USED].norm() > 0 and missing[:, USED:].abs().max() == 0  # the rest does not matter
    assert torch.allclose(missing, trainer._pull * (missing.norm() / trainer._pull.norm()), atol=1e-5)


def test_a_step_has_no_more_positions_than_a_batch():
    stream = live(opened("gpt2"), 4, 50, Texts(), ("resid_post.0",))
    for positions, rows in ((50, 7), (7, 1), (3, 1), (1000, 142)):
        assert by_step(stream, positions).rows == rows
    assert by_step(live(Model.of(Net(), inputs={"x": torch.zeros(2, D)}), 2), 128).rows == 128
    counts = [batch.count for batch in by_step(stream, 50).batches()]
    assert sum(counts) >= 200 > sum(counts[:-1]) and max(counts) <= 50


def test_what_cannot_be_is_refused_by_name(net, tmp_path):
    how = recipe()
    for objective in (Gated(0.1), Matryoshka(2)):
        with pytest.raises(Unsupported, match=f"{objective.name} end to end"):
            Dictionary("hidden", 12, objective, recipe=how).fit(live(net, 2))
    made = Dictionary("hidden", 12, TopK(2), recipe=how)
    with pytest.raises(Unsupported, match="LiveStream"):
        made.fit(ArrayStream({"hidden": inputs("explore")["x"]}))
    with pytest.raises(Unsupported, match="by 2 ranks"):
        ThroughTrainer(made, live(net, 2), Positions(World(0, 2)))
    with pytest.raises(Unsupported, match="one by one"):
        train_together({"a": made}, live(net, 2))
    with pytest.raises(Unsupported, match="without numbered layers"):
        Dictionary("hidden", 12, TopK(2), recipe=recipe(downstream=1.0)).fit(live(net, 2))
    with pytest.raises(Unsupported, match=r"layers later than resid_post\.1"):
        later_sites(opened("gpt2"), ("resid_post.1",))
    assert later_sites(opened("gpt2"), ("mlp_out.0",)) == ("resid_post.0", "resid_post.1")
    with pytest.raises(BadInput, match="end_to_end=true"):
        Recipe(downstream=1.0)
    with pytest.raises(BadInput, match=r"local = 0\.5 where training is not end to end"):
        Recipe(local=0.5)
    with pytest.raises(BadInput, match="share from 0 to below 1"):
        Recipe(end_to_end=True, local=1.0)
    with pytest.raises(BadInput, match="downstream = -1"):
        Recipe(end_to_end=True, downstream=-1.0)
    for ranks, live_too in ((ALONE, False), (Positions(World(0, 2)), True)):
        with pytest.raises(Unsupported, match="hidden-e2e end to end"):
            from prosect.decompose.fitting import _Fit

            how = Harvesting(live=live_too, rows=128)
            _Fit(net, SOURCE, {"hidden-e2e": made}, tmp_path, 512, "explore", how, Seed(0), None, ranks)


def test_a_folder_holds_those_trained_end_to_end_beside_others(net, tmp_path):
    def folder(out):
        made = {
            "local": Dictionary("hidden", 12, TopK(2), recipe=recipe(end_to_end=False)),
            "through": Dictionary("hidden", 12, TopK(2), recipe=recipe()),
            "other": Dictionary("hidden", 8, TopK(2), recipe=recipe(end_to_end=False)),
        }
        assert [list(r) for r in rounds(made, {"hidden": D}, 10**9)] == [["local", "other"], ["through"]]
        how = Harvesting(live=True, rows=128, buffer=500)
        return fit_dictionaries(net, SOURCE, made, out, 1280, harvesting=how, seed=Seed(4), every=3)

    done = folder(tmp_path / "fit")
    alone = Dictionary("hidden", 12, TopK(2), recipe=recipe())
    stream = LiveStream(net, SOURCE, "explore", ("hidden",), 1280, Seed(4), rows=128, buffer=500)
    alone.fit(stream)
    found = load_decomposition(tmp_path / "fit" / "through.safetensors")
    assert torch.equal(found.decoder_, alone.decoder_) and found.recipe.end_to_end
    assert "kl" in found.history_[-1] and "kl" not in done.dictionaries["local"].history_[-1]
    assert not folder(tmp_path / "fit").fresh
