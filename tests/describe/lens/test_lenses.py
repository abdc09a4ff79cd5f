"""Lenses: the last layer is the model, figures match hand computation, and a tuned lens learns a known map."""

import math

import pytest
import torch

from decoders import FAMILIES, opened, text
from prosect.core.errors import (
    BadInput,
    Conflict,
    OutOfScope,
    ShapeMismatch,
    TooLittleData,
    UnknownName,
    Unsupported,
)
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.lens.lens import LogitLens, rotation
from prosect.describe.lens.reading import read
from prosect.describe.lens.training import Training, fit
from prosect.describe.lens.tuned import TunedLens, evaluate, load
from prosect.model.model import Model
from prosect.model.unembed import readout


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_layer_read_is_the_model_to_the_last_bit(name):
    model = opened(name)
    batch = text()
    last = f"resid_post.{model.n_layers - 1}"
    trace = model.run(batch, [last])
    reader = readout(model)
    with torch.no_grad():
        made = reader(trace[last])
    if reader.factor == 1.0:
        assert made.equal(trace.output)
    else:
        assert torch.allclose(made, trace.output, rtol=1e-5, atol=1e-6)
    found = read(model, [batch])[last]
    assert found.kl.estimate < 1e-9
    assert found.agreement.estimate == 1.0
    assert found.control.estimate > 1e-3
    assert found.beyond.low > 0


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "granite"])
def test_each_layer_uses_its_own_norm_statistics(name):
    """By hand, from the stream alone: the norm of this layer's stream, its gain and bias, head, factor and cap."""
    model, batch = opened(name), text(1)
    trace = model.run(batch, ["resid_post.0", "resid_post.1"])
    final = trace.output.double().log_softmax(-1)
    x = trace["resid_post.0"].double()
    norm, head = readout(model).norm, readout(model).head.weight.detach().double()
    gain = norm.weight.detach().double() + (1.0 if name == "gemma2" else 0.0)
    if name == "gpt2":
        x = x - x.mean(-1, keepdim=True)
    y = gain * x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    logits = (y + (norm.bias.detach().double() if name == "gpt2" else 0.0)) @ head.T
    if name == "gemma2":
        cap = model.module.config.final_logit_softcapping
        logits = cap * torch.tanh(logits / cap)
    if name == "granite":
        logits = logits / model.module.config.logits_scaling
    logp = logits.log_softmax(-1)
    kl = (final.exp() * (final - logp)).sum(-1)
    expected = float(batch.flat(kl).mean())
    found = read(model, [batch], sites=["resid_post.0"])
    assert found["resid_post.0"].kl.estimate == pytest.approx(expected, rel=1e-3)
    ids = batch.tensors["input_ids"]
    real = batch.scored[:, :-1] & batch.mask[:, 1:]
    chance = logp[:, :-1].gather(-1, ids[:, 1:, None])[..., 0][real]
    assert found["resid_post.0"].target.estimate == pytest.approx(float(chance.mean()), rel=1e-3)
    likeliest = (logits[:, :-1].argmax(-1) == ids[:, 1:])[real].double()
    assert found["resid_post.0"].first.estimate == pytest.approx(float(likeliest.mean()))
    assert found.n == 6
    assert found.positions == batch.count


def test_a_scale_of_the_stream_does_not_reach_a_lens_with_its_own_statistics():
    model, batch = opened("llama"), text(2)
    found = read(model, [batch], sites=["resid_post.0"])["resid_post.0"]
    louder = read(model, [batch], Louder(), sites=["resid_post.0"])["resid_post.0"]
    assert louder.kl.estimate == pytest.approx(found.kl.estimate, rel=1e-4)


class Louder:
    """A lens that multiplies the stream."""

    name, sites = "louder", None

    def translate(self, site, x):
        return 7.0 * x


def test_rows_are_shown_position_by_position():
    model, batch = opened("gpt2"), text(3)
    found = read(model, [batch], shown=2, top=3)
    view = found.shown[0]
    assert len(found.shown) == 2
    assert len(view.tokens) == 4  # padding is not shown
    assert view.top.shape == (3, 4, 3)
    trace = model.run(batch)
    probability = trace.output[0, :4].softmax(-1)
    assert view.top[-1, :, 0].tolist() == probability.argmax(-1).tolist()
    assert torch.allclose(
        torch.from_numpy(view.probability[-1]).float(), probability.topk(3).values, atol=1e-5
    )
    target = int(view.target[1])
    assert target == int(batch.tensors["input_ids"][0, 2])
    assert view.target_rank[-1, 1] == int((probability[1] > probability[1, target]).sum())
    assert math.isnan(view.target_probability[-1, 3])
    assert view.table()[-1]["target"] is None
    assert found.record()["shown"][0]["target_probability"][-1][3] is None
    assert {line["site"] for line in found.table()} == {"resid_pre.0", "resid_post.0", "resid_post.1"}


def test_targets():
    model, batch = opened("gpt2"), text(4)
    own = read(model, [batch], targets="final", sites=["resid_post.1"])["resid_post.1"]
    assert own.first.estimate == 1.0
    none = read(model, [batch], targets=lambda b: torch.full_like(b.tensors["input_ids"], -1))
    assert none["resid_post.1"].target.estimate is None
    with pytest.raises(ShapeMismatch, match="one for each position"):
        read(model, [batch], targets=lambda b: torch.zeros(3))
    with pytest.raises(UnknownName, match="final"):
        read(model, [batch], targets="last")
    with pytest.raises(BadInput, match="vocabulary"):
        read(model, [batch], targets=lambda b: b.tensors["input_ids"] + 50)


def test_bad_sites_and_models():
    model, batch = opened("gpt2"), text()
    with pytest.raises(Unsupported, match="residual stream"):
        read(model, [batch], sites=["z.0"])
    with pytest.raises(UnknownName, match=r"resid_post\.9"):
        read(model, [batch], sites=["resid_post.9"])
    with pytest.raises(BadInput, match="no site"):
        read(model, [batch], sites=[])
    with pytest.raises(TooLittleData):
        read(model, [])
    mlp = Model.of(torch.nn.Sequential(torch.nn.Linear(6, 3)), inputs=torch.randn(2, 6))
    with pytest.raises(Unsupported, match="unembedding"):
        read(mlp, [mlp.batch(torch.randn(2, 6))])


def test_rotations_are_rotations():
    q = rotation(9, Seed(0))
    assert torch.allclose(q @ q.T, torch.eye(9, dtype=torch.float64), atol=1e-12)
    assert not torch.allclose(q, rotation(9, Seed(1)))


class Turns(torch.nn.Module):
    """A block that adds (Q - 1) x: what comes out is Q x, so the lens before it is known exactly."""

    def __init__(self, q):
        super().__init__()
        self.q = torch.nn.Parameter(q.float())

    def forward(self, x):
        return x @ (self.q - torch.eye(len(self.q))).T


def turned():
    """A decoder whose MLP turns the stream by a known rotation; its attention writes nothing."""
    from prosect.organisms.decoder import Decoder, DecoderConfig

    module = Decoder(
        DecoderConfig(vocab_size=40, hidden_size=12, num_hidden_layers=1, head_dim=4, intermediate_size=8)
    )
    with torch.no_grad():
        generator = Seed(3).torch()
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        module.model.layers[0].self_attn.o_proj.weight.zero_()
    q = rotation(12, Seed(5))
    module.model.layers[0].mlp = Turns(q)
    return Model.of(module.eval(), name="turned"), q


def test_a_tuned_lens_learns_the_map_that_is_there():
    """Before a block that turns the stream by Q, the translator that reads the model's own output is Q."""
    model, q = turned()
    explore = [text(s, rows=8, vocabulary=40, name="explore") for s in range(10, 20)]
    fresh = [text(s, rows=8, vocabulary=40, name="fresh") for s in range(30, 33)]
    lens = fit(model, explore, ["resid_pre.0"], Training(steps=200, rate=0.05, decay=0.0))
    found = evaluate(model, lens, fresh)
    (gain,) = found.gains
    assert gain.other.estimate > 1.0
    assert gain.kl.estimate < 0.02 * gain.other.estimate
    assert gain.less.low > 0
    assert gain.less.n == 8  # rows with the same number are one unit
    learned = torch.eye(12) + lens.translators["resid_pre.0"].weight
    cosine = torch.cosine_similarity(learned.flatten(), q.float().flatten(), dim=0)
    assert cosine > 0.9


def test_an_untrained_tuned_lens_is_the_logit_lens():
    model, batch = opened("llama"), text(1)
    lens = fit(model, [text(9)], training=Training(steps=1, rate=1e-30))
    assert lens.sites == ("resid_pre.0", "resid_post.0")
    found = evaluate(model, lens, [batch])
    for gain in found.gains:
        assert gain.kl.estimate == pytest.approx(gain.other.estimate, rel=1e-6)
        assert gain.less.estimate == pytest.approx(0.0, abs=1e-9)


def test_training_lowers_what_it_minimises_and_changes_nothing_else():
    model = opened("gemma2")
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    lens = fit(model, [text(9, rows=12)], ["resid_post.0"], Training(steps=60, rate=0.01))
    start = fit(model, [text(9, rows=12)], ["resid_post.0"], Training(steps=1, rate=1e-30))
    assert lens.losses["resid_post.0"] < 0.5 * start.losses["resid_post.0"]
    assert all(p.equal(before[n]) and p.grad is None for n, p in model.module.named_parameters())


def test_what_was_trained_on_is_no_test():
    model = opened("llama")
    lens = fit(model, [text(9)], training=Training(steps=1))
    with pytest.raises(BadInput, match="trained on"):
        evaluate(model, lens, [text(1), text(9)])
    unnamed = [[5, 6, 7], [8, 9]]
    lens = fit(model, [model.batch(unnamed)], training=Training(steps=1))
    with pytest.raises(BadInput, match="trained on"):
        evaluate(model, lens, [model.batch([[1, 2], [8, 9]])])


def test_saved_and_loaded(tmp_path):
    model = opened("llama")
    lens = fit(model, [text(9)], training=Training(steps=3))
    lens.save(tmp_path / "lens.safetensors")
    again = load(tmp_path / "lens.safetensors", model)
    x = torch.randn(4, 32, generator=Seed(0).torch())
    assert again.translate("resid_post.0", x).equal(lens.translate("resid_post.0", x))
    assert again.documents == lens.documents
    assert again.about == lens.about
    with pytest.raises(OutOfScope, match="another model"):
        load(tmp_path / "lens.safetensors", opened("gemma2"))
    with pytest.raises(OutOfScope, match="another model"):
        evaluate(opened("gemma2"), lens, [text(1)])
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(BadInput, match="safetensors"):
        load(tmp_path / "x.safetensors", model)


def test_training_that_was_stopped_ends_the_same(tmp_path):
    model = opened("llama")
    how = Training(steps=6, every=2, positions=5)
    batches = [text(s) for s in (9, 10, 11, 12)]
    whole = fit(model, batches, training=how)
    place = tmp_path / "state.safetensors"

    class Stops(list):
        """Text that is cut off in the middle of training."""

        def __iter__(self):
            yield from batches[:3]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, Stops(), training=how, checkpoint=place)
    resumed = fit(model, batches, training=how, checkpoint=place)
    for site in whole.sites:
        assert resumed.translators[site].weight.equal(whole.translators[site].weight)
        assert resumed.translators[site].bias.equal(whole.translators[site].bias)
    assert resumed.losses == whole.losses
    with pytest.raises(Conflict, match="another training"):
        fit(model, batches, training=Training(steps=7), checkpoint=place)


def test_bad_training():
    model = opened("llama")
    with pytest.raises(BadInput, match="at least 1"):
        Training(steps=0)
    with pytest.raises(BadInput, match="rate"):
        Training(rate=0.0)
    with pytest.raises(BadInput, match="again"):
        fit(model, iter([text()]))
    with pytest.raises(TooLittleData):
        fit(model, [])


def test_a_lens_reads_only_what_it_was_made_for():
    model = opened("llama")
    lens = fit(model, [text(9)], ["resid_post.0"], Training(steps=1))
    with pytest.raises(Unsupported, match="made for"):
        read(model, [text(1)], lens, sites=["resid_pre.0"])
    with pytest.raises(BadInput, match="two or more"):
        lens.shuffled()
    both = fit(model, [text(9)], training=Training(steps=3))
    moved = both.shuffled()
    assert isinstance(moved, TunedLens)
    assert moved.translators["resid_pre.0"] is both.translators["resid_post.0"]
    assert LogitLens().translate("resid_post.0", torch.ones(2)).equal(torch.ones(2))


def test_on_real_text_early_layers_hold_more_than_the_logit_lens_reads():
    """A shipped model of Python source, on modules that the lens was not trained on."""
    import bisect
    import fnmatch
    import gettext
    import heapq
    import inspect
    import json.decoder
    import linecache
    import operator
    import queue
    import sched
    import shlex
    import textwrap

    import prosect

    model = prosect.load("organism:pylm")

    def windows(*modules):
        ids, rows = [], []
        for unit, module in enumerate(modules):
            tokens = model.tokenizer(inspect.getsource(module), verbose=False)["input_ids"]
            ids.append(tokens[60:120])
            rows.append(Row(unit, module.__name__, 60))
        made = torch.tensor(ids)
        return Batch({"input_ids": made}, torch.ones_like(made, dtype=torch.bool), tuple(rows))

    how = Training(steps=12, positions=160)
    lens = fit(model, [windows(json.decoder, textwrap, shlex, sched)], ["resid_post.0"], how)
    fresh = windows(bisect, fnmatch, gettext, heapq, linecache, operator, queue)
    found = evaluate(model, lens, [fresh], shown=0)
    (gain,) = found.gains
    assert gain.less.low > 0
    assert found["resid_post.0"].beyond.low > 0
    assert found.n == 7
