"""Explore, validate and sealed: cut by near-duplicate cluster, once, by content.

Where a cluster goes depends on its content alone, never on a run's seed: another seed must not turn
sealed text into text to explore. Clusters that hold a file the model was trained on go to explore only.
Explore is cut once more into two disjoint sets of documents, so that a description can be made twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, TooLittleData
from prosect.data.corpus import Corpus
from prosect.data.duplicates import clusters, shingles

SKETCH_KEPT = 64
"""A training sketch holds one hash in this many (a multiple of what `shingles` keeps)."""
SKETCHED = 3


@dataclass(frozen=True)
class Splits:
    """Which documents are in which part.

    Attributes:
        parts: part → document numbers, in the corpus's order.
        unit: document number → number of its cluster.
        trained: document numbers whose cluster the model was trained on.
        digest: of the corpus and the cut.
    """

    parts: Mapping[str, tuple[int, ...]]
    unit: tuple[int, ...]
    trained: frozenset[int]
    digest: str

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for part, members in self.parts.items():
            if part.startswith("explore."):
                continue  # the halves of explore
            for document in members:
                other = seen.setdefault(self.unit[document], part)
                if other != part:
                    raise BadInput(
                        f"documents of cluster {self.unit[document]} in {other} and in {part}",
                        "parts that share nothing, or what was explored would be tested on",
                        "cut, which puts each cluster into one part",
                    )

    def units(self, part: str) -> int:
        """Clusters in a part."""
        return len({self.unit[i] for i in self.parts[part]})


def cut(
    corpus: Corpus,
    *,
    folds: int = 2,
    explore: float = 0.4,
    sealed: float = 0.15,
    trained: Collection[str] = (),
    sketch: UInt64[np.ndarray, " kept"] | None = None,
    units_min: int = 40,
) -> Splits:
    """Cut a corpus.

    Args:
        corpus: the documents.
        folds: folds of validate; each is opened once for each lineage.
        explore: share of the clusters to look at freely.
        sealed: share kept for the end.
        trained: names or digests (whole, or their first 16 digits) of documents the model was trained on.
        sketch: hashes of some of the shingles of the training text, by which it is found under another
            name: a document with at least `SKETCHED` of them, half of all it could have, counts as trained.
        units_min: clusters that each fold must have.

    Raises:
        BadInput: the shares leave nothing to validate, or there is no fold.
        TooLittleData: a fold would have fewer clusters than tests need.
    """
    if folds < 1 or explore <= 0 or sealed < 0 or explore + sealed >= 1:
        raise BadInput(
            f"folds={folds}, explore={explore}, sealed={sealed}",
            "at least one fold, and shares that leave something to validate",
        )
    sets = [shingles(d.text) for d in corpus.documents]
    labels = clusters(sets)
    marked = set(trained)

    def known(i: int) -> bool:
        document = corpus.documents[i]
        names = (document.name, document.digest, document.digest[:16])
        return bool(marked.intersection(names)) or (sketch is not None and _sketched(sets[i], sketch))

    members: dict[int, list[int]] = {}
    for i, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(i)
    keys = {c: digest(sorted(corpus.documents[i].digest for i in m)) for c, m in members.items()}
    seen = {c for c, m in members.items() if any(known(i) for i in m)}
    free = sorted((c for c in members if c not in seen), key=lambda c: keys[c])
    # trained text is explored anyway, so less of the rest needs to be
    own = max(0.1, explore - len(seen) / max(len(members), 1)) if seen else explore
    n_explore = round(own * len(free)) if len(free) > 1 else 0
    n_sealed = round(sealed * len(free))
    per_fold = (len(free) - n_explore - n_sealed) // folds
    if not n_explore and not seen:
        raise TooLittleData(
            f"explore={explore} of {len(free)} clusters of documents, which is none of them",
            "something to explore",
            "a larger share, or more documents",
        )
    if per_fold < units_min:
        raise TooLittleData(
            f"{len(free)} clusters of documents that the model was not trained on, {per_fold} for each of "
            f"{folds} folds",
            f"at least {units_min} in each fold",
            "more documents, fewer folds, or a lower validate.units_min (no lower than its floor)",
        )
    assigned = dict.fromkeys((*seen, *free[:n_explore]), "explore")
    rest = free[n_explore:]
    for i in range(folds):
        assigned.update(dict.fromkeys(rest[i * per_fold : (i + 1) * per_fold], f"validate.{i}"))
    assigned.update(dict.fromkeys(rest[folds * per_fold :], "sealed"))
    halves = {c: ("first", "second")[int(keys[c][-1], 16) % 2] for c, p in assigned.items() if p == "explore"}
    parts: dict[str, list[int]] = {"explore": [], "explore.first": [], "explore.second": []}
    parts |= {f"validate.{i}": [] for i in range(folds)} | {"sealed": []}
    for i, label in enumerate(labels.tolist()):
        parts[assigned[label]].append(i)
        if label in halves:
            parts[f"explore.{halves[label]}"].append(i)
    frozen = {p: tuple(m) for p, m in parts.items()}
    return Splits(
        parts=frozen,
        unit=tuple(labels.tolist()),
        trained=frozenset(i for i, label in enumerate(labels.tolist()) if label in seen),
        digest=digest({"corpus": corpus.digest, "parts": frozen}),
    )


def _sketched(own: UInt64[np.ndarray, " own"], sketch: UInt64[np.ndarray, " kept"]) -> bool:
    """Whether a text of those shingles is, by half or more, training text."""
    kept = own[own % np.uint64(SKETCH_KEPT) == 0]
    return int(np.isin(kept, sketch).sum()) >= max(SKETCHED, 0.5 * len(kept))


def disjoint(splits: Splits) -> bool:
    """Whether no cluster is in two of explore, the folds and sealed."""
    groups = [
        {splits.unit[i] for i in members}
        for part, members in splits.parts.items()
        if not part.startswith("explore.")
    ]
    return sum(map(len, groups)) == len(set().union(*groups))


def spread(count: int, most: int, rng: np.random.Generator) -> list[int]:
    """At most ``most`` of ``count`` things, drawn without replacement, in order."""
    return sorted(rng.permutation(count)[:most].tolist())
