"""Made-up documents for tests of data."""

import random
import string

from prosect.data.corpus import Corpus, Document


def prose(seed, words=200):
    """Words nobody wrote."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8))) for _ in range(words))


def corpus(n=200, copies=0, words=200):
    """``n`` unlike documents, and near-copies of the first ``copies``."""
    texts = [prose(i, words) for i in range(n)]
    texts += [texts[i] + " and one more line" for i in range(copies)]
    return Corpus("made", tuple(Document(f"{i:04d}.txt", t) for i, t in enumerate(texts)))
