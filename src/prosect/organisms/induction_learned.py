"""`induction-learned`: a two-layer attention-only transformer that learned to repeat, with its training.

Rows are a random block of tokens again and again; a tenth are random tokens without end. At first nothing can be
predicted; then, within a short stretch of training, the loss on repeated tokens falls as heads appear that look
for what followed the current token before (the phase change of Olsson et al. 2022, "In-context Learning and
Induction Heads"). The weights at fifteen points of training ship, since which step the change comes at is decided
by rounding; `scripts/train_induction.py` makes them again. Which heads do it is not known by construction:
`prosect.describe.induction_heads` measures it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.data.behaviours import Behaviour, repeated_block
from prosect.organisms.decoder import Decoder, DecoderConfig
from prosect.organisms.next_token import Schedule, initialised
from prosect.organisms.opened import called, opened
from prosect.organisms.sources import SequenceSource, parts

if TYPE_CHECKING:
    from prosect.model import Model

NAME = "induction-learned"
FOLDER = Path(__file__).parent / "weights" / NAME
BOS, VOCAB, WIDTH, HEADS, HEAD, CONTEXT = 0, 64, 64, 4, 16, 48
SHORTEST, LONGEST = 8, 20
RANDOM = 0.1  # share of rows without any block
SCALE = 0.1  # of the initial weights
SCHEDULE = Schedule(steps=2000, rows=32, rate=2e-3, decay=0.01)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The network as it was during training.

    Attributes:
        step: steps done; 0 before the first.
        module: the network.
    """

    step: int
    module: Decoder

    def model(self) -> Model:
        """The network opened for study."""
        return called(f"{NAME} at step {self.step}", self.module, source())


def blank() -> Decoder:
    """The network without weights."""
    config = DecoderConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT + 32,
        attention_scale=HEAD**-0.5,
    )
    with torch.device("meta"):
        module = Decoder(config)
    module.to_empty(device="cpu")
    module.eval()
    return module


def untrained(seed: int = 0) -> Decoder:
    """The network before its first step, from this seed: the null of what is learned."""
    module = blank()
    initialised(module, Seed(seed).child(NAME, "weights"), SCALE)
    return module


def network(seed: int = 0) -> tuple[Decoder, Truth]:
    """The network at the end of training, and what was measured of it.

    Args:
        seed: there is one network, whatever the seed.

    Raises:
        BadInput: the weights were not installed with the package.
    """
    record = _record()
    *_, last = checkpoints()
    truth = Truth(
        organism=NAME,
        unknown=True,
        quantities={**record["metrics"], "chance": 1.0 / (VOCAB - 1)},
        nulls={
            "other-sequence": "attention and z are taken from another sequence: where a head looks no longer "
            "depends on the tokens it is paired with",
            "untrained": "the same sizes with weights as they were before training: no head does more than chance",
        },
        size=f"2 layers of {HEADS} heads, {VOCAB} tokens, width {WIDTH}",
    )
    return last.module, truth


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Two attention layers that learned to repeat what followed a token before, with their training.

    Trained by next-token prediction on random blocks that repeat (AdamW, 2,000 steps of 32 rows). Its mechanism
    is not known by construction; what was measured of it, over training too, is in its quantities, and
    `checkpoints` has the weights through the phase change (Olsson et al. 2022).
    """
    return opened(network(seed), source())


def checkpoints() -> Iterator[Checkpoint]:
    """The network through its training, from before the first step to the end, as it ships.

    Raises:
        BadInput: the weights were not installed with the package.
    """
    steps = _record()["steps"]
    with safe_open(FOLDER / "checkpoints.safetensors", framework="pt") as file:
        for step in steps:
            module = blank()
            names = module.state_dict().keys()
            state = {name: file.get_tensor(f"{step}/{name}").float() for name in names}
            module.load_state_dict(state, assign=True)
            yield Checkpoint(int(step), module.eval().requires_grad_(True))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 200,
    validate: int = 64,
    sealed: int = 64,
    shift: int = 64,
) -> SequenceSource:
    """Sequences as the network was trained on; in ``shift`` blocks are 21 to 26 tokens long, which it never saw.

    Args:
        seed: of the sequences.
        folds: validation folds.
        explore: sequences in ``explore``.
        validate: sequences in each fold.
        sealed: sequences in ``sealed``.
        shift: sequences in ``shift``.
    """
    root = Seed(seed).child(NAME, "data")

    def make(part: str, i: int) -> Int[np.ndarray, " length"]:
        return row(root.child(part, i).numpy(), part == "shift")

    units = parts(explore, validate, folds, sealed, shift)
    words = ("<bos>", *(f"t{i:03d}" for i in range(1, VOCAB)))
    return SequenceSource.of(NAME, seed, make, units, words)


def row(rng: np.random.Generator, shifted: bool = False) -> Int[np.ndarray, " length"]:
    """The beginning token, then a block of different tokens over and over, or random tokens.

    Args:
        rng: to draw from.
        shifted: with a block longer than any in training.
    """
    low, high = (LONGEST + 1, LONGEST + 6) if shifted else (SHORTEST, LONGEST)
    length = int(rng.integers(low, high + 1))
    if rng.random() < RANDOM:
        body = rng.integers(1, VOCAB, size=CONTEXT)
    else:
        block = 1 + rng.permutation(VOCAB - 1)[:length]
        body = np.tile(block, -(-CONTEXT // length))[:CONTEXT]
    return np.concatenate([[BOS], body])


def batches(seed: int, rows: int) -> Any:
    """Step → rows of a training batch and how much each token counts (1), from the step's number alone."""
    root = Seed(seed).child(NAME, "training")

    def batch(step: int) -> tuple[Int[Tensor, "rows positions"], Float[Tensor, "rows positions"]]:
        rng = root.child(step).numpy()
        ids = torch.from_numpy(np.stack([row(rng) for _ in range(rows)]))
        return ids, torch.ones(ids.shape)

    return batch


def repetition(length: int = 14, seed: int = 0) -> Behaviour:
    """The behaviour: the second copy of a random block is predicted from the first.

    Args:
        length: of the block; from 21 on longer than any in training.
        seed: of the blocks.
    """
    return repeated_block(torch.arange(1, VOCAB), length=length, shifted=LONGEST + 4, bos=BOS, seed=seed)


@cache
def _record() -> dict[str, Any]:
    path = FOLDER / "record.json"
    if not path.exists() or not (FOLDER / "checkpoints.safetensors").exists():
        raise BadInput(
            f"a prosect without the weights of {NAME}", "its package data", "installing prosect again"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))
