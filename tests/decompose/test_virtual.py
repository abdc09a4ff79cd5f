"""Weights between latents: against two MLPs set by hand, and as an account that adds up in models of many families."""

import functools

import pytest
import torch

from decoders import opened, text
from prosect.core.errors import BadInput, ShapeMismatch, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.decompose.contract import Codes
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.quality import measure, recovery
from prosect.decompose.recipe import Recipe
from prosect.decompose.routes import Route, route
from prosect.decompose.sparsity import Threshold, TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.virtual import account, virtual_weights
from prosect.model.model import Model
from prosect.organisms.decoder import Decoder, DecoderConfig

D, UNITS, TOKENS = 24, 30, 6400


def rows(n, name, width=D):
    drawn = torch.randn(n, width, generator=Seed(3).child(name).torch())
    return drawn / drawn.norm(dim=1, keepdim=True)


@functools.cache
def two_mlps():
    """A decoder of two MLPs in sequence; what a unit of the first writes is mostly what two of the second read."""
    module = Decoder(
        DecoderConfig(
            vocab_size=TOKENS, hidden_size=D, num_hidden_layers=2, head_dim=4, intermediate_size=UNITS
        )
    ).eval()
    reads = [rows(UNITS, "in0"), rows(UNITS, "in1")]
    first = (
        reads[1]
        + 0.7 * reads[1].roll(7, dims=0)
        + 0.15 * torch.randn(UNITS, D, generator=Seed(3).child("mix").torch())
    )
    writes = [first / first.norm(dim=1, keepdim=True), rows(UNITS, "out1")]
    g = Seed(3).child("tokens").torch()
    on = (torch.rand(TOKENS, UNITS, generator=g) < 0.05) * (0.7 + torch.rand(TOKENS, UNITS, generator=g))
    other = (torch.rand(TOKENS, UNITS, generator=g) < 0.02) * (0.7 + torch.rand(TOKENS, UNITS, generator=g))
    with torch.no_grad():
        module.model.embed_tokens.weight.copy_(on @ reads[0] + other @ reads[1])
        module.model.embed_positions.weight.zero_()
        for block, read, write in zip(module.model.layers, reads, writes, strict=True):
            block.self_attn.o_proj.weight.zero_()
            block.mlp.up_proj.weight.copy_(read)
            block.mlp.up_proj.bias.fill_(-0.6)
            block.mlp.down_proj.weight.copy_(write.T)
    ids = torch.arange(TOKENS).view(-1, 64)
    units = tuple(Row(unit=i) for i in range(len(ids)))
    batch = Batch({"input_ids": ids}, torch.ones_like(ids).bool(), units)
    return Model.of(module, name="two MLPs"), batch, reads, writes


def by_hand(reads, writes, read, write, bias=-0.6):
    """The transcoder whose latents are the MLP's units."""
    n, zeros = len(reads), torch.zeros(D)
    weights = Weights(reads, torch.full((n,), bias), zeros, writes, zeros, threshold=torch.zeros(n))
    return Dictionary(read, n, Threshold(), write).with_weights(weights, {read: D, write: D})


def test_weights_between_units_are_those_of_the_network():
    model, batch, reads, writes = two_mlps()
    way = route(model, "mlp_out.0", "mlp_in.1")
    assert way.norm is None
    assert way.factor == 1
    assert way.ignored == ("attn_out_post.1",)
    dictionaries = [by_hand(reads[i], writes[i], f"mlp_in.{i}", f"mlp_out.{i}") for i in range(2)]
    found = virtual_weights(*dictionaries, [way])
    assert torch.allclose(found.weights.float(), writes[0] @ reads[1].T, atol=1e-6)
    assert torch.equal(
        found.weights, virtual_weights(*dictionaries, [Route("mlp_out.0", "mlp_in.1")]).weights
    )
    strong = found.strongest(3)
    assert [abs(w) for _, _, w in strong] == sorted(found.weights.abs().flatten().tolist())[-1:-4:-1]
    # the units themselves: what one adds to another is its activation times the weight
    trace = model.run(batch, capture=("mlp_act.0", "mlp_in.1", "embeddings"))
    act, read = trace["mlp_act.0"].flatten(0, 1).double(), trace["mlp_in.1"].flatten(0, 1).double()
    for unit in (0, 11):
        parts = account(model, batch, *dictionaries, found, unit)
        by_unit = Codes(parts.codes.indices, parts.latents, UNITS).dense()
        assert torch.allclose(by_unit, act * found.weights[:, unit], atol=1e-5)
        assert parts.error.abs().max() < 1e-5
        assert parts.offset.abs().max() == 0
        assert torch.allclose(parts.whole, read @ reads[1][unit].double() - 0.6, atol=1e-5)
        assert torch.allclose(parts.total, parts.whole, atol=1e-9)
        embedded = trace["embeddings"].flatten(0, 1).double() @ reads[1][unit].double()
        assert torch.allclose(parts.rest, embedded, atol=1e-5)


def test_trained_transcoders_have_the_units_and_the_weights_between_them():
    model, batch, reads, writes = two_mlps()
    sites = ("mlp_in.0", "mlp_out.0", "mlp_in.1", "mlp_out.1")
    trace = model.run(batch, capture=sites)
    stream = ArrayStream({site: trace[site].flatten(0, 1) for site in sites})
    trained, match = [], []
    for i in range(2):
        made = Dictionary(
            f"mlp_in.{i}", UNITS, TopK(4), f"mlp_out.{i}", recipe=Recipe(batch=128, rate=2e-2), seed=Seed(i)
        ).fit(stream.shuffled(Seed(i), epochs=12))
        found = recovery(made.directions, writes[i])
        assert found.features_to_latents > 0.85
        assert measure(made, stream).fvu[f"mlp_out.{i}"] < 0.15
        trained.append(made)
        match.append(found.match)
    weights = virtual_weights(*trained, [route(model, "mlp_out.0", "mlp_in.1")]).weights
    mine, true = weights[match[0]][:, match[1]], (writes[0] @ reads[1].T).double()
    alike = torch.corrcoef(torch.stack([mine.flatten(), true.flatten()]))[0, 1]
    mixed = torch.corrcoef(torch.stack([mine.roll(3, dims=1).flatten(), true.flatten()]))[0, 1]
    assert alike > 0.8
    assert abs(mixed) < 0.3


def random(read, write, width, seed, latents=9):
    """A dictionary of nothing, with every number that one can have."""
    g = Seed(seed).torch()
    reads = (read,) if isinstance(read, str) else read
    writes = (write,) if isinstance(write, str) else write
    wide, far = width * len(reads), width * len(writes)
    weights = Weights(
        *(
            torch.randn(s, generator=g)
            for s in ((latents, wide), (latents,), (wide,), (latents, far), (far,))
        ),
        skip=torch.randn(wide, far, generator=g),
        threshold=torch.rand(latents, generator=g),
    )
    made = Dictionary(reads, latents, Threshold(), writes, skip=True)
    return made.with_weights(weights, dict.fromkeys((*reads, *writes), width))


@pytest.mark.parametrize(
    ("family", "write", "read"),
    [
        ("gpt2", "mlp_out.0", "mlp_in.1"),
        ("gpt2", "attn_out.1", "mlp_in.1"),
        ("gpt2", "resid_post.0", "mlp_in.1"),
        ("gpt2", "mlp_out.0", "resid_mid.1"),
        ("llama", "mlp_out.0", "mlp_in.1"),
        ("llama", "attn_out.0", "attn_in.1"),
        ("neox", "mlp_out.0", "mlp_in.1"),
        ("granite", "mlp_out.0", "mlp_in.1"),
        ("gemma2", "mlp_out_post.0", "mlp_in.1"),
        ("decoder", "mlp_out.0", "mlp_in.1"),
    ],
)
def test_the_parts_of_a_pre_activation_add_up_to_it(family, write, read):
    model, batch = opened(family), text()
    width = model.d_model
    first, second = random("resid_pre.0", write, width, 1), random(read, "mlp_out.1", width, 2)
    way = route(model, write, read)
    virtual = virtual_weights(first, second, [way])
    writers = [n for n in model.sites.names() if n.partition(".")[0].endswith("_out_post")]
    sites = (*writers, "resid_pre.0", write, read, way.stream)
    trace = model.run(batch, capture=sites)
    held = {site: batch.flat(trace[site]).double() for site in sites}
    for latent in (0, 8):
        parts = account(model, batch, first, second, virtual, latent)
        size = float(parts.whole.abs().max())
        assert float((parts.total - parts.whole).abs().max()) < 2e-5 * size
        # the reader's own pre-activation
        encoder, centre = second.encoder(read)[latent].double(), second.centre_.double()
        own = (held[read] - centre) @ encoder + second.bias_[latent].double()
        assert torch.allclose(parts.whole, own, atol=1e-5 * size)
        # latents are what taking them out of the stream changes, the norm's scale held
        inverse = way.inverse(held[way.stream].float())
        written = way.factor * parts.codes.dense().double() @ first.decoder(write).double()
        assert torch.allclose(
            parts.latents.sum(dim=1), inverse * (way.through(written) @ encoder), atol=1e-6 * size
        )
        # the rest is what every other writer wrote
        if write.startswith("mlp_out") and way.stream:
            at = {
                "resid_mid.1": writers.index("attn_out_post.1") + 1,
                "resid_pre.1": writers.index("mlp_out_post.0") + 1,
            }
            others = [w for w in writers[: at[way.stream]] if not w.startswith("mlp_out_post.0")]
            rest = held["resid_pre.0"] + sum(held[w] for w in others)
            assert torch.allclose(parts.rest, inverse * (way.through(rest) @ encoder), atol=2e-5 * size)


def test_routes_say_what_is_folded_and_what_is_left_out():
    norm = route(opened("gpt2"), "mlp_out.0", "mlp_in.1")
    assert norm.norm.centred
    assert norm.scaled
    assert norm.ignored == ("attn_out_post.1",)
    assert norm.stream == "resid_mid.1"
    assert not route(opened("llama"), "mlp_out.0", "mlp_in.1").norm.centred
    assert (
        route(opened("neox"), "mlp_out.0", "mlp_in.1").stream == "resid_pre.1"
    )  # side by side with attention
    assert route(opened("granite"), "mlp_out.0", "mlp_in.1").factor == pytest.approx(0.5)
    assert route(opened("gpt2"), "resid_post.0", "resid_pre.1").ignored == ()


def test_what_is_no_way_through_the_stream_is_refused():
    gpt2 = opened("gpt2")
    with pytest.raises(BadInput, match="after the other is written"):
        route(gpt2, "mlp_out.1", "mlp_in.1")
    with pytest.raises(BadInput, match="what a sublayer adds"):
        route(gpt2, "mlp_act.0", "mlp_in.1")
    with pytest.raises(BadInput, match="what a sublayer reads"):
        route(gpt2, "mlp_out.0", "mlp_act.1")
    with pytest.raises(UnknownName):
        route(gpt2, "mlp_out.0", "mlp_in.7")
    with pytest.raises(Unsupported, match=r"mlp_out_post\.0"):  # a norm on what is added
        route(opened("gemma2"), "mlp_out.0", "mlp_in.1")
    with pytest.raises(Unsupported, match="does not add up"):  # a norm on the stream
        route(opened("bert"), "mlp_out.0", "mlp_in.1")


def test_a_cross_layer_transcoder_adds_what_it_writes_everywhere():
    gpt2, batch = opened("gpt2"), text()
    first = random(("resid_pre.0", "resid_mid.0"), ("attn_out.0", "mlp_out.0"), 32, 1)
    second = random("mlp_in.1", "mlp_out.1", 32, 2)
    ways = [route(gpt2, write, "mlp_in.1") for write in first.writes]
    both = virtual_weights(first, second, ways)
    each = [virtual_weights(first, second, [way]).weights for way in ways]
    assert torch.allclose(both.weights, each[0] + each[1])
    assert both.ignored == ("mlp_out_post.0", "attn_out_post.1")
    parts = account(gpt2, batch, first, second, both, 3)
    assert torch.allclose(parts.total, parts.whole, atol=1e-4 * float(parts.whole.abs().max()))


def test_what_does_not_fit_is_refused():
    first, second = random("a", "b", 4, 1), random("b", "c", 4, 2)
    plain = virtual_weights(first, second, [Route("b", "b")])
    codes = Codes.of_dense(torch.ones(3, 9))
    assert plain.contributions(codes, 2)[:, 4].tolist() == pytest.approx([float(plain.weights[4, 2])] * 3)
    with pytest.raises(BadInput, match="no site"):
        virtual_weights(first, second, [])
    with pytest.raises(UnknownName):
        virtual_weights(first, second, [Route("z", "b")])
    with pytest.raises(ShapeMismatch):
        virtual_weights(random("a", "b", 5, 1), second, [Route("b", "b")])
    with pytest.raises(ShapeMismatch):
        plain.contributions(Codes.of_dense(torch.ones(3, 8)), 2)
    with pytest.raises(BadInput, match="latent 9"):
        plain.contributions(codes, 9)
    way = route(opened("gpt2"), "mlp_out.0", "mlp_in.1")
    normed = virtual_weights(random("x", "mlp_out.0", 32, 1), random("mlp_in.1", "y", 32, 2), [way])
    with pytest.raises(BadInput, match="scales of the norm"):
        normed.contributions(codes, 2)
    with pytest.raises(ShapeMismatch):
        normed.contributions(codes, 2, torch.ones(2))
