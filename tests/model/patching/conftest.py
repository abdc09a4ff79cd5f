"""Networks whose effects are known in closed form, and pairs of rows for them."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from prosect.core.seeds import Seed
from prosect.model.model import Model
from prosect.organisms.decoder import Decoder, DecoderConfig
from prosect.organisms.wiring import Wiring


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_weights(module, seed=0, spread=0.3):
    generator = Seed(seed).child("weights").torch()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (spread if p.ndim > 1 else 0.5))
    return module.eval()


@functools.cache
def opened(name):
    """A small model of a family, every weight random."""
    import transformers as t

    common = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    common |= {"intermediate_size": 24, "max_position_embeddings": 16}
    match name:
        case "gpt2":
            ends = {"bos_token_id": 0, "eos_token_id": 0}
            made = t.GPT2LMHeadModel(
                t.GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=20, n_positions=16, **ends)
            )
        case "llama":
            made = t.LlamaForCausalLM(t.LlamaConfig(num_key_value_heads=2, **common))
        case "gemma2":
            made = t.Gemma2ForCausalLM(
                t.Gemma2Config(head_dim=4, num_key_value_heads=2, attn_logit_softcapping=2.0, **common)
            )
        case "neox":
            made = t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**common))
        case "gpt-oss":
            made = t.GptOssForCausalLM(
                t.GptOssConfig(
                    head_dim=4, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, **common
                )
            )
        case "attention-only":
            made = Decoder(
                DecoderConfig(vocab_size=20, num_hidden_layers=2, num_attention_heads=2, head_dim=8)
            )
        case "decoder":
            made = Decoder(
                DecoderConfig(
                    vocab_size=20,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    head_dim=8,
                    intermediate_size=12,
                )
            )
    return Model.of(random_weights(made), name=name)


@pytest.fixture(scope="session")
def open_():
    return opened


@pytest.fixture(scope="session")
def linear():
    """A decoder that is linear in its input stream: even attention (no queries), neurons far above zero."""
    rng = np.random.default_rng(0)
    w = Wiring.blank(12, 8, 10, layers=3, heads=2, head=5, neurons=6)
    w.tokens, w.positions = rng.standard_normal((12, 10)), rng.standard_normal((8, 10))
    for name, size in {"value": 0.4, "out": 0.4, "up": 0.1, "down": 0.1}.items():
        setattr(w, name, size * rng.standard_normal(getattr(w, name).shape))
    w.bias[:] = 20.0  # never negative, so that every ReLU passes its input on
    w.unembed = rng.standard_normal((10, 12))
    return Model.of(w.decoder(), name="linear"), w


@pytest.fixture
def rows():
    """seed, rows, positions → token ids."""

    def make(seed=0, count=3, positions=6, vocab=12):
        return torch.randint(vocab, (count, positions), generator=Seed(seed).child("tokens").torch())

    return make


def last(token=5):
    """The logit of a token at the last real position."""

    def metric(output, batch):
        return output[torch.arange(len(batch)), torch.as_tensor(batch.lengths) - 1, token]

    return metric


@pytest.fixture(scope="session")
def logit():
    return last


class Gate(nn.Module):
    """Two parts that read the same input, and an OR or AND of them."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.first, self.second = kind, nn.Identity(), nn.Identity()

    def forward(self, x):
        a, b = self.first(x[:, :1]), self.second(x[:, :1])
        return torch.maximum(a, b) if self.kind == "or" else torch.minimum(a, b)


@pytest.fixture(scope="session")
def gate():
    def make(kind):
        return Model.of(Gate(kind), name=kind, inputs=torch.tensor([[1.0], [0.0]]))

    return make
