"""Encoders, encoder-decoders, state-space and recurrent models, vision models and CNNs open, each with what it has."""

import pytest
import torch
from torch import nn

from prosect.model import edits as e
from prosect.model.coverage import additive_errors
from prosect.model.families import randomised
from prosect.model.model import Model

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
TOKENS = {"vocab_size": 50, "max_position_embeddings": 40, "pad_token_id": 1, **SMALL}


def _module(name):
    import transformers as t

    match name:
        case "bert":
            return t.BertForMaskedLM(t.BertConfig(**TOKENS))
        case "roberta":
            return t.RobertaModel(t.RobertaConfig(**TOKENS))
        case "modernbert":
            ends = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 2)
            return t.ModernBertModel(t.ModernBertConfig(local_attention=4, **TOKENS, **ends))
        case "vit":
            return t.ViTModel(t.ViTConfig(image_size=8, patch_size=4, **SMALL))
        case "t5":
            return t.T5ForConditionalGeneration(
                t.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
            )
        case "bart":
            heads = {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
            sizes = {
                f"{side}_{what}": n
                for side in ("encoder", "decoder")
                for what, n in (("layers", 2), ("ffn_dim", 48))
            }
            return t.BartForConditionalGeneration(
                t.BartConfig(vocab_size=50, d_model=32, max_position_embeddings=40, **heads, **sizes)
            )
        case "mamba":
            return t.MambaForCausalLM(
                t.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4)
            )
        case "rwkv":
            return t.RwkvForCausalLM(
                t.RwkvConfig(
                    vocab_size=50,
                    context_length=32,
                    hidden_size=32,
                    num_hidden_layers=2,
                    attention_hidden_size=32,
                )
            )
        case "mixtral":
            return t.MixtralForCausalLM(
                t.MixtralConfig(num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, **TOKENS)
            )
        case "resnet":
            return t.ResNetForImageClassification(
                t.ResNetConfig(
                    embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=3
                )
            )
    raise KeyError(name)


@pytest.fixture(scope="module")
def opened_kind():
    made = {}

    def get(name, **options):
        if name not in made:
            made[name] = Model.of(randomised(_module(name)), name=name, **options)
        return made[name]

    return get


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "modernbert", "vit", "t5", "bart", "mamba", "rwkv", "mixtral"]
)
def test_blocks_are_named_and_add_up(opened_kind, name):
    model = opened_kind(name)
    errors = additive_errors(model)
    assert len(errors) == (4 if name in ("t5", "bart") else 2)
    assert max(errors) < 1e-4
    assert not [
        n
        for n in model.sites.refused
        if n.startswith("resid_p") or ("_out_post" in n and "off by" in model.sites.refused[n])
    ]


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "vit"])
def test_encoders_have_everything_inside_attention(opened_kind, name):
    model = opened_kind(name)
    trace = model.run(model.example, ["q.1", "k.1", "v.1", "probs.1", "z.1"])
    mixed = torch.einsum("rhqk,rkhd->rqhd", trace["probs.1"], trace["v.1"])
    assert torch.allclose(trace["z.1"], mixed, atol=1e-5)
    plain = model.run(model.example).output
    moved = model.run(model.example, [], [e.zero("z.1.h2")]).output
    assert (moved - plain).abs().max() > 1e-4


def test_an_encoder_with_a_head_is_no_language_model(opened_kind):
    assert not opened_kind("bert").is_language_model and not opened_kind("t5").is_language_model
    assert opened_kind("mamba").is_language_model and opened_kind("mixtral").is_language_model


def test_the_norm_on_berts_stream_reads_the_sum(opened_kind):
    model = opened_kind("bert")
    trace = model.run(model.example, ["resid_pre.0", "attn_out_post.0", "attn_sum.0", "resid_mid.0"])
    norm = model.module.bert.encoder.layer[0].attention.output.LayerNorm
    assert torch.allclose(trace["resid_pre.0"] + trace["attn_out_post.0"], trace["attn_sum.0"], atol=1e-6)
    assert torch.allclose(norm(trace["attn_sum.0"]), trace["resid_mid.0"], atol=1e-6)
    gone = model.run(model.example, ["resid_mid.0"], [e.zero("attn_out_post.0")])["resid_mid.0"]
    assert torch.allclose(gone, norm(trace["resid_pre.0"]), atol=1e-5)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_decoder_reads_the_encoder_through_its_cross_attention(opened_kind, name):
    model = opened_kind(name)
    assert model.sites.starts == (0, 2)
    cross = [e.zero(f"cross_attn_out_post.{i}") for i in (2, 3)]
    one = {"input_ids": torch.randint(50, (2, 6)), "decoder_input_ids": torch.randint(50, (2, 6))}
    other = {**one, "input_ids": torch.randint(50, (2, 6))}
    assert (model.run(one).output - model.run(other).output).abs().max() > 1e-4
    assert torch.equal(model.run(one, [], cross).output, model.run(other, [], cross).output)


def test_a_resnet_opens_with_its_modules(opened_kind):
    images = torch.randn(3, 3, 16, 16)
    model = opened_kind("resnet", inputs={"pixel_values": images})
    assert model.report.identical
    block = "resnet.encoder.stages.1.layers.1"
    trace = model.run({"pixel_values": images}, [block, f"{block}:in"])
    assert trace[block].shape[0] == 3 and trace[block].ndim == 4
    still = model.run({"pixel_values": images}, [], [e.patch(block, trace[block])]).output
    assert torch.equal(still, trace.output)
    assert not torch.equal(model.run({"pixel_values": images}, [], [e.zero(block)]).output, trace.output)


def test_a_recurrent_net_opens_with_its_modules():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 3)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    x = torch.randn(3, 4, 5)
    model = Model.of(randomised(Recurrent()), inputs=x)
    trace = model.run(x, ["lstm"])
    assert torch.equal(trace["lstm"], model.module.lstm(x)[0])
    zero = model.run(x, [], [e.zero("lstm")]).output
    assert torch.allclose(zero, model.module.head.bias.expand(3, 4, 3))
