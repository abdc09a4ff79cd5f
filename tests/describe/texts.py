"""Small texts with known structure, as batches."""

import numpy as np
import torch

from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.contexts import Contexts
from prosect.describe.vocabulary import Vocabulary


def batches(documents, names=None, width=None, size=16, units=None, special=0):
    """Each document one row; padded on the right with token 0; so many first tokens are special."""
    names = names or [f"doc{i:03d}" for i in range(len(documents))]
    width = width or max(len(d) for d in documents)
    out = []
    for start in range(0, len(documents), size):
        chunk = documents[start : start + size]
        ids = torch.zeros((len(chunk), width), dtype=torch.long)
        mask = torch.zeros((len(chunk), width), dtype=torch.bool)
        for i, d in enumerate(chunk):
            ids[i, : len(d)] = torch.tensor(d)
            mask[i, : len(d)] = True
        rows = tuple(
            Row(unit=units[start + i] if units else start + i, document=names[start + i])
            for i in range(len(chunk))
        )
        marked = torch.zeros_like(mask)
        marked[:, :special] = True
        tensors = {"input_ids": ids, "attention_mask": mask.long()}
        out.append(Batch(tensors, mask, rows, marked if special else None))
    return out


def documents(seed=0, count=60, vocabulary=50, low=40, high=90):
    """Zipf tokens, a few topics, documents of different lengths."""
    rng = np.random.default_rng(seed)
    base = 1.0 / (3 + np.arange(vocabulary))
    out = []
    for _ in range(count):
        topic = base * np.exp(0.5 * rng.standard_normal(vocabulary))
        out.append(rng.choice(vocabulary, rng.integers(low, high), p=topic / topic.sum()).tolist())
    return out


def names(count):
    return Vocabulary.of([f"t{i:03d}" for i in range(count)])


def contexts(docs, vocabulary, seed=0, **kwargs):
    return Contexts.of(vocabulary, batches(docs, **kwargs), seed=Seed(seed))


def flat(docs):
    """All tokens in order, and the token before each (-1 at the start of a document)."""
    current = np.array([t for d in docs for t in d])
    previous = np.array([t for d in docs for t in [-1, *d[:-1]]])
    return current, previous
