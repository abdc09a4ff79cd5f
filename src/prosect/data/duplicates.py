"""Near-duplicate documents, found before splitting, so that no text is on both sides of a split.

Each document is the set of its runs of five words (Broder 1997's shingles), of which a fixed quarter is
kept by hash. Two documents are near-duplicates if the smaller shares at least half of its shingles with
the larger; where that is only a handful, which one common phrase could supply, they must share nearly all
of both. Clusters are the connected components. `encodings/cp*.py` of the standard library, which agree on
nearly all of their lines, come out as one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt64

RUN = 5
KEPT = 4
"""One shingle in this many is kept."""
OVERLAP = 0.5
HANDFUL = 8
"""Fewer shared shingles than this prove nothing unless the documents share `NEARLY_ALL` of both."""
NEARLY_ALL = 0.8
WORD = re.compile(r"\w+|[^\w\s]")


def shingles(text: str) -> UInt64[np.ndarray, " kept"]:
    """The kept hashes of a text's runs of five words, sorted, each once; short texts are one run."""
    words = WORD.findall(text)
    known = {w: zlib.crc32(w.encode()) + 1 for w in set(words)}
    ids = np.fromiter(map(known.__getitem__, words), dtype=np.uint64, count=len(words))
    if len(ids) < RUN:
        return np.array([zlib.crc32(" ".join(words).encode())], dtype=np.uint64)
    mixed = np.zeros(len(ids) - RUN + 1, dtype=np.uint64)
    for offset in range(RUN):  # a polynomial in the words, modulo 2**64, then scrambled
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + ids[offset : offset + len(mixed)]
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    kept = mixed[mixed % np.uint64(KEPT) == 0]
    return np.unique(kept if len(kept) else mixed[:1])


def clusters(sets: Sequence[UInt64[np.ndarray, " _"]]) -> Int[np.ndarray, " documents"]:
    """The number of the near-duplicate cluster of each text; clusters are numbered by first occurrence.

    Args:
        sets: the `shingles` of each text.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    if not sets:
        return np.zeros(0, dtype=np.int64)
    sizes = np.array([len(s) for s in sets])
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    rows = np.repeat(np.arange(len(sets)), sizes)
    member = csr_matrix((np.ones(len(columns), dtype=np.int32), (rows, columns)))
    shared = (member @ member.T).tocoo()
    smaller = np.minimum(sizes[shared.row], sizes[shared.col])
    union = sizes[shared.row] + sizes[shared.col] - shared.data
    alike = (shared.data >= OVERLAP * smaller) & (shared.data >= HANDFUL)
    alike |= shared.data >= NEARLY_ALL * union
    graph = csr_matrix(
        (np.ones(int(alike.sum()), dtype=np.int8), (shared.row[alike], shared.col[alike])),
        shape=(len(sets), len(sets)),
    )
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    renumbered = np.empty(len(first), dtype=np.int64)
    renumbered[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(renumbered[labels])
