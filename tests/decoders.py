"""Tiny open decoders of many families, every weight random, norms' gains and biases too; and random text for them."""

import functools

import torch

from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.model.model import Model

COMMON = {
    "vocab_size": 50,
    "max_position_embeddings": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
FAMILIES = (
    "gpt2",
    "llama",
    "neox",
    "gemma2",
    "qwen3",
    "olmo2",
    "granite",
    "cohere",
    "bloom",
    "gpt-oss",
    "decoder",
)
"""Pre-norm, post-norm, parallel blocks, grouped queries, caps, factors, sinks, embeddings with a norm, none at all."""


def _family(name):
    import transformers as t

    from prosect.organisms.decoder import Decoder, DecoderConfig

    grouped = {"num_key_value_heads": 2, **COMMON}
    match name:
        case "gpt2":
            ends = {"bos_token_id": 0, "eos_token_id": 0}
            sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
            return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, **sizes, **ends))
        case "llama":
            return t.LlamaForCausalLM(t.LlamaConfig(attention_bias=True, mlp_bias=True, **grouped))
        case "neox":
            return t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**COMMON))
        case "gemma2":
            caps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}
            return t.Gemma2ForCausalLM(t.Gemma2Config(head_dim=8, sliding_window=4, **caps, **grouped))
        case "qwen3":
            return t.Qwen3ForCausalLM(t.Qwen3Config(head_dim=8, **grouped))
        case "olmo2":
            return t.Olmo2ForCausalLM(t.Olmo2Config(**grouped))
        case "granite":
            factors = {"residual_multiplier": 0.5, "embedding_multiplier": 3.0, "logits_scaling": 4.0}
            return t.GraniteForCausalLM(t.GraniteConfig(**factors, **COMMON))
        case "cohere":
            return t.CohereForCausalLM(t.CohereConfig(logit_scale=0.25, **grouped))
        case "bloom":
            return t.BloomForCausalLM(t.BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4))
        case "gpt-oss":
            experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
            return t.GptOssForCausalLM(t.GptOssConfig(head_dim=8, **experts, **grouped))
        case "decoder":
            sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
            return Decoder(DecoderConfig(vocab_size=50, intermediate_size=12, **sizes))
        case "bert":
            return t.BertModel(t.BertConfig(**COMMON))
    raise KeyError(name)


@functools.cache
def opened(name, seed=0):
    """An open model of that family; one for all tests, so leave its weights as they are."""
    module = _family(name)
    generator = Seed(seed).child("weights").torch()
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.3 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return Model.of(module.eval(), name=name)


def text(seed=0, rows=6, positions=7, vocabulary=50, name="d"):
    """Random tokens with a beginning-of-text position and a padded row."""
    ids = torch.randint(vocabulary, (rows, positions), generator=Seed(seed).child("text").torch())
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, 4:] = False
    special = torch.zeros_like(mask)
    special[:, 0] = True
    units = tuple(Row(unit=i, document=f"{name}{seed}.{i}") for i in range(rows))
    return Batch({"input_ids": ids * mask}, mask, units, special)
