"""Tiny networks of many families, every weight random: default norms (gain 1, bias 0) would hide errors."""

import pytest
import torch
from torch import nn

from prosect.core.seeds import Seed
from prosect.model.model import Model

COMMON = {
    "vocab_size": 50,
    "max_position_embeddings": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def _family(name):
    import transformers as t

    from prosect.organisms.decoder import Decoder, DecoderConfig

    grouped = {"num_key_value_heads": 2, **COMMON}
    match name:
        case "gpt2":
            ends = {"bos_token_id": 0, "eos_token_id": 0}
            return t.GPT2LMHeadModel(
                t.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=32, **ends)
            )
        case "llama":
            return t.LlamaForCausalLM(t.LlamaConfig(**grouped))
        case "neox":
            return t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**COMMON))
        case "gemma2":
            return t.Gemma2ForCausalLM(
                t.Gemma2Config(head_dim=8, attn_logit_softcapping=2.0, sliding_window=4, **grouped)
            )
        case "qwen3":
            return t.Qwen3ForCausalLM(t.Qwen3Config(head_dim=8, **grouped))
        case "gpt-oss":
            return t.GptOssForCausalLM(
                t.GptOssConfig(head_dim=8, num_local_experts=4, num_experts_per_tok=2, **grouped)
            )
        case "bloom":
            return t.BloomForCausalLM(t.BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4))
        case "mamba":
            return t.MambaForCausalLM(
                t.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4)
            )
        case "granite":
            return t.GraniteForCausalLM(
                t.GraniteConfig(residual_multiplier=0.5, embedding_multiplier=3.0, **COMMON)
            )
        case "bert":
            return t.BertModel(t.BertConfig(**COMMON))
        case "t5":
            return t.T5ForConditionalGeneration(
                t.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
            )
        case "decoder":
            return Decoder(
                DecoderConfig(num_hidden_layers=2, num_attention_heads=2, head_dim=8, intermediate_size=12)
            )
        case "attention-only":
            return Decoder(DecoderConfig(num_hidden_layers=2, num_attention_heads=2, head_dim=8))
    raise KeyError(name)


def randomised(module, seed=0):
    """Every parameter random, none at its default; in evaluation mode."""
    generator = Seed(seed).child("weights").torch()
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.3 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return module.eval()


class Recurrent(nn.Module):
    """An LSTM over vectors with a linear readout."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


class Convolutional(nn.Module):
    """A small CNN whose activation works in place, as most do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        return self.head(self.drop(self.norm(self.act(self.conv(image)))).mean(dim=(2, 3)))


class Shared(nn.Module):
    """One layer called three times, and one that runs only for large inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.rare = nn.Linear(4, 4)

    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return self.rare(x) if x.sum() > 1e6 else x


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Networks this small only lose by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def network():
    """name, seed → a fresh module of that family."""
    return lambda name, seed=0: randomised(_family(name), seed)


def _state(module):
    """What a test may leave behind in a network that others share: hooks, changed methods, written weights."""
    hooks = [
        h for m in module.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    ]
    hung = len(
        [h for h in hooks if not h.__module__.startswith("transformers")]
    )  # whose own stay once asked for
    changed = ["forward" in vars(m) for m in module.modules()]
    return hung, changed, [p._version for p in module.parameters()]


@pytest.fixture(scope="session")
def _shared():
    """Every model that tests share so far, by name, with its state when it was opened."""
    return {}


@pytest.fixture(scope="session")
def opened(_shared):
    """name → an open model of that family, checked once for all tests."""

    def open_(name):
        if name not in _shared:
            model = Model.of(randomised(_family(name)), name=name)
            _shared[name] = model, _state(model.module)
        return _shared[name][0]

    return open_


@pytest.fixture(autouse=True)
def _left_as_it_was(_shared):
    """A test that changes a shared network fails itself, not those that happen to come after it."""
    yield
    for name, (model, before) in list(_shared.items()):
        after = _state(model.module)
        if after != before:
            del _shared[name]  # the next test gets a new one
        assert after == before, f"{name} was left changed; take one of the test's own from `network`"


@pytest.fixture(scope="session")
def small():
    """name → an open model that is no transformer."""

    def make(name):
        generator = Seed(1).child(name).torch()
        x = {
            "mlp": torch.randn(4, 6, generator=generator),
            "lstm": torch.randn(3, 4, 5, generator=generator),
            "cnn": torch.randn(3, 1, 6, 6, generator=generator),
            "shared": torch.randn(3, 4, generator=generator),
        }[name]
        module = {
            "mlp": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
            "lstm": Recurrent,
            "cnn": Convolutional,
            "shared": Shared,
        }[name]()
        return Model.of(randomised(module), name=name, inputs=x), x

    return make


@pytest.fixture
def tokens():
    """seed, rows, positions → token ids below 16, which every family here has."""

    def make(seed=0, rows=3, positions=7):
        return torch.randint(16, (rows, positions), generator=Seed(seed).child("tokens").torch())

    return make
