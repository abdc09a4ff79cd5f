"""Synthetic documents: token frequencies follow Zipf's law, and every document has a topic of its own.

A document's tokens are independent draws from half the whole language and half its topic, so documents
differ as wholes, which is why the document and not the token is the independent unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prosect.core.seeds import Seed

BOS = 0
VOCAB = 97  # the beginning-of-sequence token and 96 others
TOPICS, UNSEEN = 6, 2
SHORTEST, LONGEST = 20, 120
OFFSET = 3.0  # of the Zipf law
VOCABULARY = ("<bos>", *(f"t{i:03d}" for i in range(1, VOCAB)))


@dataclass(frozen=True)
class Language:
    """What documents are drawn from.

    Attributes:
        seed: of the language and of every document.
        topics: distribution over tokens of documents on each topic; the last `UNSEEN` occur in ``shift`` only.
    """

    seed: Seed
    topics: Float[np.ndarray, "topics vocab"]

    @classmethod
    def of(cls, seed: int) -> Language:
        """The language of a seed: which tokens are frequent, in general and under each topic."""
        root = Seed(seed).child("documents")
        rng = root.child("language").numpy()
        zipf = 1.0 / (np.arange(VOCAB - 1) + OFFSET)
        zipf /= zipf.sum()
        laws = np.zeros((1 + TOPICS + UNSEEN, VOCAB))
        laws[:, 1:] = np.stack([zipf[rng.permutation(VOCAB - 1)] for _ in laws])
        return cls(root, (laws[:1] + laws[1:]) / 2)

    @property
    def frequency(self) -> Float[np.ndarray, " vocab"]:
        """How often each token occurs in documents of every part but ``shift``."""
        return np.asarray(self.topics[:TOPICS].mean(axis=0))

    def document(self, part: str, i: int) -> Int[np.ndarray, " length"]:
        """Document ``i`` of a part: the beginning-of-sequence token, then 20 to 120 others."""
        rng = self.seed.child(part, i).numpy()
        topic = TOPICS + rng.integers(UNSEEN) if part == "shift" else rng.integers(TOPICS)
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        drawn = np.searchsorted(np.cumsum(self.topics[topic]), rng.random(length), side="right")
        return np.concatenate([[BOS], np.minimum(drawn, VOCAB - 1)])
