"""A two-layer attention-only transformer, wired by hand, that repeats what followed a token before.

One head of the first layer (*previous*) copies each token's predecessor; one head of the second (*induction*)
looks for the place whose predecessor is the current token, which is the token that followed it before, and
writes that token to the logits (the circuit of Olsson et al. 2022, "In-context Learning and Induction
Heads"). Six more heads are decoys that have no effect at all:

- *right place, no output* (layer 1): attends as the induction head does; its output matrix is zero;
- *previous, unread* (layer 0): attends and copies as the previous head does, to where nothing reads;
- *first*, *offset*, *uniform* and *random*, two in each layer: attend to the first token, to a fixed distance,
  everywhere alike, and at random, and write to where nothing that reaches the logits reads.

Order of heads, vocabulary, block lengths, offset and every basis differ from seed to seed; the function
is exact up to float32.

Edges are named (writer, reader): ``resid_pre.0`` (tokens plus positions) and ``z.L.hN`` write; ``q.L.hN``,
``k.L.hN``, ``v.L.hN`` and ``output`` read. An edge matters under an ablation if replacing what that writer
adds to that reader's input, and nothing else, changes the logits: by nothing (``zero``), by its mean over all
positions (``mean``), by its mean over rows at the same position (``mean-positional``), or by what it writes at
the same position of another sequence (``resample``). Queries and keys of the previous head read positions
alone, so the last two leave them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.data.batch import Batch
from prosect.organisms.decoder import Decoder
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import SequenceSource, parts
from prosect.organisms.wiring import Wiring

if TYPE_CHECKING:
    from prosect.model import Model

BOS = 0
POSITIONS = 160
SHARPNESS = 60.0  # score of the right key; others of the construction stay below half of it
GAIN = 10.0  # logit of the token that is repeated
HEAD = 64
NOTHING = -1  # as a target: says nothing
FREE = ("first", "offset", "uniform", "random")  # decoys that may live in either layer


@dataclass(frozen=True)
class Plan:
    """What differs from seed to seed.

    Attributes:
        vocab: tokens, the beginning-of-sequence token among them.
        shortest: block length from, in every part but ``shift``.
        longest: block length to, inclusive.
        offset: distance that the offset head looks back.
        heads: for each layer, what each head is, in order.
    """

    vocab: int
    shortest: int
    longest: int
    offset: int
    heads: tuple[tuple[str, ...], tuple[str, ...]]

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = Seed(seed).child("induction", "plan").numpy()
        free = [FREE[i] for i in rng.permutation(len(FREE))]
        layers = (["previous", "previous-unread", *free[:2]], ["induction", "induction-silent", *free[2:]])
        shuffled = [tuple(layer[i] for i in rng.permutation(len(layer))) for layer in layers]
        return cls(
            vocab=int(rng.integers(40, 65)),
            shortest=int(rng.integers(8, 13)),
            longest=int(rng.integers(14, 21)),
            offset=int(rng.integers(2, 7)),
            heads=(shuffled[0], shuffled[1]),
        )

    def where(self, what: str) -> tuple[int, int]:
        """Layer and number of the head that is ``what``."""
        return next((i, layer.index(what)) for i, layer in enumerate(self.heads) if what in layer)


def network(seed: int = 0) -> tuple[Decoder, Truth]:
    """The transformer and its truth.

    Args:
        seed: chooses the plan and every basis.
    """
    plan = Plan.of(seed)
    wired = _wire(plan, seed)
    return wired.turned(Seed(seed).child("induction", "turn").numpy()).decoder(), _truth(plan)


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Two-layer attention-only transformer that repeats what followed a token before.

    Wired by hand after Olsson et al. 2022 ("In-context Learning and Induction Heads") and turned into a random
    basis; every seed has its own heads' order, vocabulary and block lengths. Known: what each of its eight heads
    is, six decoys among them, and which edges matter under each kind of ablation.
    """
    return opened(network(seed), source(seed))


def untrained(seed: int = 0) -> Decoder:
    """The model null: the sizes of the network of the same seed, weights as large and random."""
    return redrawn(network(seed)[0], Seed(seed).child("induction", "untrained"))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 200,
    validate: int = 64,
    sealed: int = 64,
    shift: int = 64,
) -> SequenceSource:
    """Sequences for the network of the same seed.

    Four in five are a random block of different tokens repeated two or three times, the rest as many
    independent tokens. In ``shift`` blocks are 21 to 32 tokens long and repeated three or four times.

    Args:
        seed: that of the network.
        folds: validation folds.
        explore: sequences in ``explore``.
        validate: sequences in each fold.
        sealed: sequences in ``sealed``.
        shift: sequences in ``shift``.
    """
    plan = Plan.of(seed)
    root = Seed(seed).child("induction", "data")

    def make(part: str, i: int) -> Int[np.ndarray, " length"]:
        rng = root.child(part, i).numpy()
        shifted = part == "shift"
        length = int(rng.integers(21, 33) if shifted else rng.integers(plan.shortest, plan.longest + 1))
        copies = int(rng.integers(3, 5) if shifted else rng.integers(2, 4))
        if rng.random() < 0.8:
            body = np.tile(1 + rng.choice(plan.vocab - 1, size=length, replace=False), copies)
        else:
            body = rng.integers(1, plan.vocab, size=length * copies)
        return np.concatenate([[BOS], body])

    units = parts(explore, validate, folds, sealed, shift)
    words = ("<bos>", *(f"t{i:03d}" for i in range(1, plan.vocab)))
    return SequenceSource.of("induction", seed, make, units, words)


def targets(batch: Batch) -> Int[Tensor, "rows positions"]:
    """The token that followed the current one before, at every position; -1 where there is none.

    There is none where the token is new or padding, and where different tokens followed it. This is what the
    circuit predicts; in a repeated block it is the next token.
    """
    ids = batch.tensors["input_ids"]
    mask = torch.ones_like(ids, dtype=torch.bool) if batch.mask is None else batch.mask
    earlier = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril(-1)
    match = (ids[:, :, None] == ids[:, None, :]) & earlier & mask[:, :, None]
    after = ids.roll(-1, dims=1)[:, None, :].expand_as(match)
    low = after.masked_fill(~match, torch.iinfo(torch.long).max).amin(-1)
    high = after.masked_fill(~match, -1).amax(-1)
    return torch.where(low == high, low, NOTHING)


def _wire(plan: Plan, seed: int) -> Wiring:
    """The weights in a basis with one dimension for each thing.

    Subspaces of the residual stream: the current token, the position (`_position_codes`), the previous
    token, what the logits read, and what nothing reads.
    """
    v = plan.vocab
    token, position, before = slice(0, v), slice(v, v + HEAD), slice(v + HEAD, 2 * v + HEAD)
    logits, unread = slice(2 * v + HEAD, 3 * v + HEAD), slice(3 * v + HEAD, 4 * v + HEAD)
    w = Wiring.blank(v, POSITIONS, 4 * v + HEAD, layers=2, heads=4, head=HEAD)
    rng = Seed(seed).child("induction", "weights").numpy()
    codes, step = _position_codes(rng)
    words = np.eye(v)[:, 1:]  # a token as a one-hot vector; the beginning-of-sequence token as nothing
    w.tokens[:, token], w.positions[:, position] = np.eye(v), codes
    w.unembed[logits] = GAIN * np.eye(v)

    def looks_back(layer: int, head: int, distance: int) -> None:
        w.query[layer, head, position] = SHARPNESS * np.linalg.matrix_power(step, distance)
        w.key[layer, head, position] = np.eye(HEAD)

    def copies(layer: int, head: int, to: slice) -> None:
        w.value[layer, head, token, : v - 1] = words
        w.out[layer, head, : v - 1, to] = words.T

    for what in (*plan.heads[0], *plan.heads[1]):
        layer, head = plan.where(what)
        match what:
            case "previous" | "previous-unread":
                looks_back(layer, head, 1)
                copies(layer, head, before if what == "previous" else unread)
            case "induction" | "induction-silent":
                w.query[layer, head, token, : v - 1] = SHARPNESS * words
                w.key[layer, head, before, : v - 1] = words
                copies(layer, head, logits)
                if what == "induction-silent":
                    w.out[layer, head] = 0.0
            case "first":
                w.query[layer, head, token, 0] = SHARPNESS  # whatever the token is
                w.key[layer, head, BOS, 0] = 1.0
                w.value[layer, head, token] = rng.standard_normal((v, HEAD)) / np.sqrt(HEAD)
                w.out[layer, head, :, unread] = rng.standard_normal((HEAD, v)) / np.sqrt(v)
            case "offset":
                looks_back(layer, head, plan.offset)
                copies(layer, head, unread)
            case "uniform":
                copies(layer, head, unread)
            case "random":
                w.query[layer, head] = rng.standard_normal(w.query.shape[2:]) / np.sqrt(HEAD)
                w.key[layer, head] = 2.0 * rng.standard_normal(w.key.shape[2:])
                w.value[layer, head] = rng.standard_normal(w.value.shape[2:]) / np.sqrt(HEAD)
                w.out[layer, head, :, unread] = rng.standard_normal((HEAD, v)) / np.sqrt(v)
    return w


def _position_codes(
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "positions head"], Float[np.ndarray, "head head"]]:
    """Unit codes of the positions, and the matrix that takes each to the one before it.

    Half as many sines and cosines as the code is wide, of different frequencies over a period longer than
    any sequence, so that a step is a rotation. Of some random sets of frequencies the one whose codes
    are least alike is taken.
    """
    period, half = 2 * POSITIONS, HEAD // 2
    lags = np.arange(1, POSITIONS)[:, None]
    best, alike = np.empty(0), np.inf
    for _ in range(16):
        frequencies = 2 * np.pi * (1 + rng.choice(period // 2 - 1, half, replace=False)) / period
        found = float(np.cos(lags * frequencies).mean(axis=1).max())
        if found < alike:
            best, alike = frequencies, found
    angles = np.arange(POSITIONS)[:, None] * best
    codes = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(half)
    cos, sin = np.diag(np.cos(best)), np.diag(np.sin(best))
    return codes, np.block([[cos, -sin], [sin, cos]])


def _truth(plan: Plan) -> Truth:
    roles = {
        "previous": ("previous", 1),
        "previous-unread": ("previous", 1),
        "induction": ("induction", None),
        "induction-silent": ("induction", None),
        "first": ("first", None),
        "offset": ("offset", plan.offset),
        "uniform": ("none", None),
        "random": ("none", None),
    }
    variables = tuple(
        Variable(
            site=f"z.{layer}.h{head}",
            index=0,
            kind="head-role",
            parameters={"role": roles[what][0], "offset": roles[what][1]},
            effect={"matters": what in ("previous", "induction")},
        )
        for layer in (0, 1)
        for head, what in enumerate(plan.heads[layer])
    )
    p, i = (f"{layer}.h{head}" for layer, head in map(plan.where, ("previous", "induction")))
    content = (
        ("resid_pre.0", f"v.{p}"),
        (f"z.{p}", f"k.{i}"),
        ("resid_pre.0", f"q.{i}"),
        ("resid_pre.0", f"v.{i}"),
        (f"z.{i}", "output"),
    )
    places = (("resid_pre.0", f"q.{p}"), ("resid_pre.0", f"k.{p}"))
    return Truth(
        organism="induction",
        variables=variables,
        edges={
            "zero": (*places, *content),
            "mean": (*places, *content),
            "mean-positional": content,
            "resample": content,
        },
        quantities={"accuracy": 1.0, "chance": 1.0 / (plan.vocab - 1)},
        nulls={
            "other-sequence": "attention and z are taken from another sequence: where a head looks no longer "
            "depends on the tokens it is paired with",
            "shuffled-tokens": "the tokens after the first are put in random order before roles are read off, "
            "while attention stays: no role that depends on tokens is true",
        },
        size=f"2 layers of 4 heads, {plan.vocab} tokens, width {4 * plan.vocab + HEAD}",
    )
