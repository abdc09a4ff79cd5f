"""`template`: a small GPT-2 trained on a template language with planted facts and indirect-object sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.organisms import template_words as words
from prosect.organisms.next_token import Schedule, initialised
from prosect.organisms.template_sentences import Language, Sentence

LONGEST = 64
SCHEDULE = Schedule(steps=3000, rows=64, rate=2e-3)
ANSWER = 5.0  # how much an answer counts in training beside any other word
SCALE = 0.08  # of the initial weights
CHUNK = 8  # batches whose documents are drawn and sorted by length together
SIZES = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_inner": 256, "n_positions": LONGEST}


def config() -> Any:
    """Sizes of the network."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=len(words.vocabulary()),
        activation_function="relu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        use_cache=False,
        **SIZES,
    )


def untrained(seed: int = 0) -> nn.Module:
    """The network before training, from this seed."""
    from transformers import GPT2LMHeadModel

    with torch.device("meta"):
        module = GPT2LMHeadModel(config())
    module = module.to_empty(device="cpu")
    module.tie_weights()
    initialised(module, Seed(seed).child("template", "initial weights"), SCALE)
    return module.eval()


def token_rows(
    documents: list[tuple[Sentence, ...]],
) -> tuple[Int[Tensor, "rows positions"], Bool[Tensor, "rows positions"]]:
    """Token ids, the beginning token first, padded on the right; and which are real."""
    number = {w: i for i, w in enumerate(words.vocabulary())}
    rows = [[0, *(number[w] for s in d for w in s.words)] for d in documents]
    ids = np.full((len(rows), max(map(len, rows))), 1)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    real = np.arange(ids.shape[1]) < np.array([len(row) for row in rows])[:, None]
    return torch.from_numpy(ids), torch.from_numpy(real)


class Batches:
    """Step → rows of a training batch, from the step's number alone; rows of a batch are about as long."""

    def __init__(self, language: Language, rows: int) -> None:
        self.language, self.rows = language, rows
        self._held: tuple[int, list[list[tuple[Sentence, ...]]]] = (-1, [])

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        number = step // CHUNK
        if self._held[0] != number:
            rng = self.language.root.child("training", number).numpy()
            drawn = [self.language.document(rng) for _ in range(CHUNK * self.rows)]
            drawn.sort(key=lambda d: sum(len(s.words) for s in d))
            cut = [drawn[i * self.rows : (i + 1) * self.rows] for i in range(CHUNK)]
            self._held = number, [cut[i] for i in rng.permutation(CHUNK)]
        documents = self._held[1][step % CHUNK]
        ids, real = token_rows(documents)
        weights = real.float()
        for i, document in enumerate(documents):
            start = 1
            for sentence in document:
                if sentence.marks and "answer" in sentence.marks:
                    weights[i, start + sentence.marks["answer"]] = ANSWER
                start += len(sentence.words)
        return ids, weights
