"""Functions and small networks whose attributions are known, opened as models."""

import torch
from torch import nn

from prosect.core.seeds import Seed
from prosect.model import load
from prosect.organisms.decoder import Decoder, DecoderConfig


class Plain(nn.Module):
    """A function of x (n, d) as a module, with one number for each row."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def opened(function, width):
    """``function`` as a model that reads ``width`` numbers."""
    return load(Plain(function), inputs=torch.zeros(2, width) + 0.1)


def numbers(rows, width, seed=0, dtype=torch.float64):
    """Standard normal inputs."""
    return torch.randn(rows, width, generator=Seed(seed).torch(), dtype=dtype)


def itself(output, batch):
    """The output is the metric."""
    return output


def perceptron(width=6, hidden=16, outputs=3, seed=0):
    """Two layers of tanh with random weights."""
    net = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
    rng = Seed(seed).torch()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.7 if p.ndim > 1 else 0.2))
    return load(net, inputs=torch.zeros(2, width))


def tokens(seed=0):
    """A two-layer decoder of random weights and a batch of three lengths."""
    module = Decoder(
        DecoderConfig(
            num_hidden_layers=2, num_attention_heads=2, head_dim=8, intermediate_size=12, hidden_size=16
        )
    )
    rng = Seed(seed).torch()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.4 if p.ndim > 1 else 0.2))
    return load(module), [[1, 2, 3, 4, 5], [6, 7, 8], [9, 1, 2, 2]]


def last_logit(output, batch):
    """The logit of token 3 at the last real position."""
    return output[torch.arange(len(batch)), torch.as_tensor(batch.lengths) - 1, 3]
