"""Splicing against passes made by hand, and against reconstructions whose worth is known."""

import numpy as np
import pytest
import torch

from decoders import opened, text
from known import written
from prosect.core.errors import TooLittleData, UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.decompose.activations import harvest
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.evaluation.spliced import Recovered, next_token, site_means, splice
from prosect.decompose.linear import Neurons, Pca
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.model.edits import replace
from prosect.organisms import induction


@pytest.fixture(scope="module")
def subject():
    model, _ = induction.build(0)
    return model, induction.source(0, validate=20, explore=24)


@pytest.fixture(scope="module")
def harvested(subject, tmp_path_factory):
    model, source = subject
    folder = tmp_path_factory.mktemp("activations") / "explore"
    return harvest(model, source, "explore", ("resid_post.0", "z.1"), folder)


@pytest.mark.parametrize("site", ["resid_post.0", "z.1"])
def test_the_identity_recovers_everything(subject, harvested, site):
    model, source = subject
    found = splice(model, source, "validate.0", Neurons(site).fit(harvested), site_means(harvested), Seed(0))
    for ablation in ("zero", "mean"):
        assert found.recovered[ablation].estimate == 1
        assert found.losses[ablation].estimate > found.losses["clean"].estimate + 0.05
        assert found.kl[ablation].low > 0
    assert found.kl["spliced"].estimate == pytest.approx(0, abs=1e-12)
    assert found.added.estimate == 0
    assert found.added.n == 20


def constant(site, value):
    width = len(value)
    zero = torch.zeros(1, width)
    return written(zero, zero, offset=value, site=site)


def test_what_always_writes_the_ablation_recovers_nothing(subject, harvested):
    model, source = subject
    means = site_means(harvested)
    for name, value in (("mean", means["resid_post.0"]), ("zero", torch.zeros(len(means["resid_post.0"])))):
        made = constant("resid_post.0", value)
        found = splice(model, source, "validate.0", made, means, Seed(0))
        assert found.recovered[name].estimate == pytest.approx(0, abs=1e-5)
        assert found.kl["spliced"].estimate == pytest.approx(found.kl[name].estimate, abs=1e-5)


def shrunk(site, mean, share):
    """What keeps this share of the distance from the mean."""
    width = len(mean)
    zero = torch.zeros(1, width)
    weights = Weights(zero, torch.zeros(1), mean, zero, mean, skip=share * torch.eye(width))
    return Dictionary(site, 1, TopK(1), skip=True).with_weights(weights, {site: width})


def repeated(output, batch):
    """The loss where the circuit has an answer: it is overconfident anywhere else, so that less of it helps."""
    wanted = induction.targets(batch)
    there = wanted >= 0
    nats = -output.double().log_softmax(-1).gather(2, wanted.clamp(min=0)[:, :, None])[:, :, 0]
    return torch.stack([there.double().sum(dim=1), (nats * there).sum(dim=1)], dim=1)


def test_what_lies_in_between_recovers_a_part_with_an_interval(subject, harvested):
    model, source = subject
    means = site_means(harvested)
    half, most = (
        splice(
            model, source, "validate.0", shrunk("z.1", means["z.1"].float(), s), means, Seed(0), loss=repeated
        )
        for s in (0.5, 0.9)
    )
    assert 0 < half.recovered["mean"].estimate < most.recovered["mean"].estimate < 1
    inside = half.recovered["mean"]
    assert inside.low < inside.estimate < inside.high
    assert half.kl["mean"].estimate > half.kl["spliced"].estimate > most.kl["spliced"].estimate > 0


class One:
    """A source of a single batch."""

    digest, unit, units = "one", "document", {"validate.0": 6}

    def __init__(self, *batches):
        self.every = batches

    def batches(self, part, rows=32):
        yield from self.every


def test_losses_and_divergence_are_those_of_a_pass_made_by_hand():
    model, batch = opened("gpt2"), text()
    site = "resid_post.0"
    clean = model.run(batch, capture=(site,))
    stream = ArrayStream({site: batch.flat(clean[site])})
    made = Pca(site, 5).fit(stream)
    found = splice(model, One(batch), "validate.0", made, site_means(stream), Seed(0))

    scored = batch.scored

    def put(x):
        out = x.clone()
        out[scored] = made.reconstruct({site: x[scored]})[site].to(x)
        return out

    output = model.run(batch, edits=[replace(site, put)]).output
    losses, nats, count, real = 0.0, 0.0, 0, 0
    for row in range(6):
        length = int(batch.mask[row].sum())
        p, q = (o[row, :length].double().log_softmax(-1) for o in (clean.output, output))
        ids = batch.tensors["input_ids"][row, :length]
        losses += sum(-float(q[i, ids[i + 1]]) for i in range(length - 1))
        nats += float((p.exp() * (p - q)).sum())
        count, real = count + length - 1, real + length
    assert found.losses["spliced"].estimate == pytest.approx(losses / count, rel=1e-6)
    assert found.kl["spliced"].estimate == pytest.approx(nats / real, rel=1e-6)


class Astray(Neurons):
    """Reconstructs everything but an error of length 1: towards what the logits read, or in a random direction."""

    def __init__(self, site, error):
        super().__init__(site)
        self.error = error

    def _decode(self, codes):
        made = codes.dense()
        return {self.site: made + self.error(made)}


def test_errors_that_matter_more_than_their_size_are_pathological():
    model, batch = opened("gpt2"), text(rows=24, positions=9)
    site = "resid_post.1"
    clean = model.run(batch, capture=(site,))
    stream = ArrayStream({site: batch.flat(clean[site])})
    unembed = model.module.lm_head.weight.detach()
    strongest = torch.linalg.svd(unembed * model.module.transformer.ln_f.weight.detach()).Vh[0]
    strongest = strongest - strongest.mean()
    generator = Seed(5).torch()

    def random(made):
        drawn = torch.randn(made.shape, generator=generator)
        return drawn / drawn.norm(dim=1, keepdim=True)

    def found(error):
        made = Astray(site, error).fit(stream)
        return splice(model, One(batch), "validate.0", made, site_means(stream), Seed(0)).pathology

    bad = found(lambda made: (strongest / strongest.norm()).expand_as(made))
    fair = found(random)
    assert bad.low > 1.2
    assert fair.low < 1 < fair.high
    assert found(torch.zeros_like) is None


def test_a_transcoder_reads_one_site_and_is_put_at_another():
    model, batch = opened("gpt2"), text()
    sites = ("mlp_in.0", "mlp_out.0")
    clean = model.run(batch, capture=sites)
    flat = {site: batch.flat(clean[site]) for site in sites}
    stream = ArrayStream(flat)
    # a linear path that is the least squares fit of what the block does
    ones = torch.cat([flat["mlp_in.0"], torch.ones(len(flat["mlp_in.0"]), 1)], dim=1)
    fit = torch.linalg.lstsq(ones, flat["mlp_out.0"]).solution
    zero = torch.zeros(1, 32)
    weights = Weights(zero, torch.zeros(1), torch.zeros(32), zero, fit[-1], skip=fit[:-1])
    made = Dictionary("mlp_in.0", 1, TopK(1), targets="mlp_out.0", skip=True).with_weights(
        weights, {"mlp_in.0": 32, "mlp_out.0": 32}
    )
    assert torch.allclose(made.reconstruct(flat)["mlp_out.0"], ones @ fit, atol=1e-4)
    found = splice(model, One(batch), "validate.0", made, site_means(stream), Seed(0))
    assert 0 < found.kl["spliced"].estimate < found.kl["zero"].estimate


def test_inputs_without_positions_take_a_loss_of_their_own():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    from prosect.model.model import Model

    x = torch.randn(8, 3, generator=Seed(0).child("x").torch())
    model = Model.of(module, inputs={"input": x[:2]})
    batch = Batch({"input": x}, None, tuple(Row(unit=i) for i in range(8)))
    hidden = ArrayStream({"1": model.run(batch, capture=("1",))["1"]})

    def square(output, rows):
        return torch.stack([torch.ones(len(output)), output.square().sum(dim=1)], dim=1)

    exact = Neurons("1").fit(hidden)
    found = splice(
        model, One(batch), "validate.0", exact, site_means(hidden), Seed(0), loss=square, predicts=False
    )
    assert found.added.estimate == 0
    assert not found.kl
    expected = float(module(x).detach().square().sum(dim=1).mean())
    assert found.losses["clean"].estimate == pytest.approx(expected, rel=1e-5)


def test_an_ablation_that_costs_nothing_leaves_nothing_to_recover(subject, harvested):
    model, source = subject

    def none(output, batch):
        return torch.ones(len(output), 2)

    found = splice(
        model, source, "validate.0", Neurons("z.1").fit(harvested), site_means(harvested), Seed(0), loss=none
    )
    assert found.recovered["mean"].estimate is None
    assert "nothing to recover" in found.recovered["mean"].note


def test_the_ratio_has_the_gradient_that_finite_differences_have():
    statistic, at = Recovered(), np.array([1.0, 1.3, 2.5])
    assert statistic.value(at) == pytest.approx(0.8)
    for i, slope in enumerate(statistic.gradient(at)):
        step = 1e-6 * np.eye(3)[i]
        assert slope == pytest.approx(
            (statistic.value(at + step) - statistic.value(at - step)) / 2e-6, rel=1e-5
        )


def test_next_tokens_are_counted_at_real_positions():
    batch = text()
    logits = torch.zeros(6, 7, 50)
    counts, sums = next_token(logits, batch).T
    assert counts.tolist() == [3, 6, 6, 6, 6, 6]
    assert torch.allclose(sums / counts, torch.full((6,), float(np.log(50)), dtype=torch.float64))


def test_means_and_rows_are_needed(subject, harvested):
    model, source = subject
    exact = Neurons("z.1").fit(harvested)
    with pytest.raises(UnknownName, match="mean of site"):
        splice(model, source, "validate.0", exact, {}, Seed(0))
    with pytest.raises(TooLittleData):
        splice(model, One(), "validate.0", exact, site_means(harvested), Seed(0))
    expected = torch.cat([block["z.1"] for block in harvested.blocks()]).double().mean(dim=0)
    assert torch.allclose(site_means(harvested)["z.1"], expected)
