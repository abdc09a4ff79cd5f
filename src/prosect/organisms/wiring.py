"""Weights of a `Decoder` set by hand: written in a basis a person can read, then turned so that none shows.

A construction is easiest to write with one residual dimension for each thing. Left like that, a method
could read the answer off the coordinates. `Wiring.turned` rotates the residual stream and the inside of every
head at random, which changes no function: scores, attention and logits are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.fft import dct

from prosect.organisms.decoder import Decoder, DecoderConfig
from prosect.organisms.filled import filled


@dataclass
class Wiring:
    """Every weight of a decoder in float64, to be filled in; everything acts on row vectors from the right.

    Attributes:
        tokens: what each token writes to the residual stream.
        positions: what each position writes.
        query: residual stream → a head's query, for each layer and head; ``key`` and ``value`` likewise.
        out: a head's z → residual stream.
        up: residual stream → neurons, for each layer; no neurons for attention only.
        bias: of the neurons.
        down: neurons → residual stream.
        unembed: residual stream → logits.
        query_bias: added to a head's query; None for none.
        causal: whether no position sees a later one.
    """

    tokens: Float[np.ndarray, "vocab d"]
    positions: Float[np.ndarray, "positions d"]
    query: Float[np.ndarray, "layers heads d head"]
    key: Float[np.ndarray, "layers heads d head"]
    value: Float[np.ndarray, "layers heads d head"]
    out: Float[np.ndarray, "layers heads head d"]
    up: Float[np.ndarray, "layers d neurons"]
    bias: Float[np.ndarray, "layers neurons"]
    down: Float[np.ndarray, "layers neurons d"]
    unembed: Float[np.ndarray, "d vocab"]
    query_bias: Float[np.ndarray, "layers heads head"] | None = None
    causal: bool = True

    @classmethod
    def blank(
        cls, vocab: int, positions: int, d: int, layers: int, heads: int, head: int, neurons: int = 0
    ) -> Wiring:
        """All zero, of these sizes."""
        read = (layers, heads, d, head)
        return cls(
            tokens=np.zeros((vocab, d)),
            positions=np.zeros((positions, d)),
            query=np.zeros(read),
            key=np.zeros(read),
            value=np.zeros(read),
            out=np.zeros((layers, heads, head, d)),
            up=np.zeros((layers, d, neurons)),
            bias=np.zeros((layers, neurons)),
            down=np.zeros((layers, neurons, d)),
            unembed=np.zeros((d, vocab)),
        )

    def turned(self, rng: np.random.Generator) -> Wiring:
        """The same function in random orthonormal bases of the residual stream and of every head."""
        layers, heads, d, head = self.query.shape
        stream = Turn.draw(rng, d)
        new = Wiring(
            tokens=stream(self.tokens, -1),
            positions=stream(self.positions, -1),
            query=stream(self.query, -2),
            key=stream(self.key, -2),
            value=stream(self.value, -2),
            out=stream(self.out, -1),
            up=stream(self.up, -2),
            bias=self.bias.copy(),
            down=stream(self.down, -1),
            unembed=stream(self.unembed, -2),
            query_bias=None if self.query_bias is None else self.query_bias.copy(),
            causal=self.causal,
        )
        for at in np.ndindex(layers, heads):
            scores, values = Turn.draw(rng, head), Turn.draw(rng, head)
            new.query[at], new.key[at] = scores(new.query[at], -1), scores(new.key[at], -1)
            if new.query_bias is not None:
                new.query_bias[at] = scores(new.query_bias[at], -1)
            new.value[at], new.out[at] = values(new.value[at], -1), values(new.out[at], -2)
        return new

    def decoder(self) -> Decoder:
        """A float32 decoder with these weights, in eval mode; no random number is drawn."""
        layers, heads, d, head = self.query.shape
        neurons = self.up.shape[-1]
        config = DecoderConfig(
            vocab_size=len(self.tokens),
            hidden_size=d,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            head_dim=head,
            intermediate_size=neurons,
            max_position_embeddings=len(self.positions),
            causal=self.causal,
            query_bias=self.query_bias is not None,
        )
        state = {
            "model.embed_tokens.weight": self.tokens,
            "model.embed_positions.weight": self.positions,
            "lm_head.weight": self.unembed.T,
        }
        for i in range(layers):
            block = f"model.layers.{i}"
            for name, weight in (("q", self.query), ("k", self.key), ("v", self.value)):
                state[f"{block}.self_attn.{name}_proj.weight"] = weight[i].swapaxes(1, 2).reshape(-1, d)
            if self.query_bias is not None:
                state[f"{block}.self_attn.q_proj.bias"] = self.query_bias[i].reshape(-1)
            state[f"{block}.self_attn.o_proj.weight"] = self.out[i].reshape(-1, d).T
            if neurons:
                state[f"{block}.mlp.up_proj.weight"] = self.up[i].T
                state[f"{block}.mlp.up_proj.bias"] = self.bias[i]
                state[f"{block}.mlp.down_proj.weight"] = self.down[i].T
        with torch.device("meta"):
            module = Decoder(config)
        return filled(module, state)


@dataclass(frozen=True)
class Turn:
    """A random orthogonal matrix as rounds of shuffle, random signs and cosine transform.

    Three rounds spread every coordinate over all others, as a uniformly drawn rotation does (Andoni et al.
    2015, "Practical and Optimal LSH for Angular Distance", section 5), without factorising a matrix.
    """

    order: Int[np.ndarray, "rounds n"]
    sign: Float[np.ndarray, "rounds n"]

    @classmethod
    def draw(cls, rng: np.random.Generator, n: int, rounds: int = 3) -> Turn:
        """A turn of ``n`` dimensions."""
        return cls(
            np.stack([rng.permutation(n) for _ in range(rounds)]), rng.choice([-1.0, 1.0], (rounds, n))
        )

    def __call__(self, x: Float[np.ndarray, ...], axis: int) -> Float[np.ndarray, ...]:
        """``x`` with the vectors along ``axis`` turned."""
        last = np.moveaxis(x, axis, -1)
        for order, sign in zip(self.order, self.sign, strict=True):
            last = dct(last[..., order] * sign, norm="ortho")
        return np.moveaxis(last, -1, axis)
