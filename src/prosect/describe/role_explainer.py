"""Proposes roles for the heads of one layer, from attention seen on explore, in one pass and little memory.

For each head and role: the attention on the keys the role names, over the queries where it names any, beside
what uniform attention and the head's own offset table would put on the same keys. An offset table can hold
the roles that are about position alone, so those are ranked by what they exceed uniform attention, and the
roles about tokens by what they exceed the offset table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.records import Description
from prosect.data.batch import Batch
from prosect.describe.contexts import token_ids
from prosect.describe.explained import Explained
from prosect.describe.roles import HeadRole, OffsetTable, scored_positions
from prosect.describe.wording import significant

METHOD = "roles@1"
FLOOR = 0.1
"""A role is proposed as found only if attention on its keys exceeds the baseline by this much."""

FEWEST_QUERIES = 20
"""A role that applies to fewer queries is not proposed."""

STEPS = 100
"""Of the fit of an offset table; each costs one pass over distances."""

POSITIONAL = ("previous", "first", "offset")
"""Roles that know positions only."""

CONTENT = (
    HeadRole("first"),
    HeadRole("duplicate", keys="all"),
    HeadRole("duplicate", keys="last"),
    HeadRole("induction", keys="all"),
    HeadRole("induction", keys="last"),
)
"""Roles whose keys are not at one distance; those at one distance come out of the sums by distance."""


@dataclass(frozen=True)
class RoleScore:
    """How well a role tells where a head looked on explore.

    Attributes:
        role: which.
        queries: where it applies; 0 if the explored text never calls for it.
        share: of all queries beyond position 0.
        mass: mean attention on the keys it names.
        overlap: mean over queries of the sum over keys of the smaller of attention and prediction.
        offset: what the head's own offset table puts on those keys.
        uniform: what uniform attention puts there.
    """

    role: HeadRole
    queries: int
    share: float = 0.0
    mass: float = 0.0
    overlap: float = 0.0
    offset: float = 0.0
    uniform: float = 0.0

    @property
    def excess(self) -> float:
        """Attention beyond the baseline, by which roles are ranked.

        A role about distance is claimed of every query, so it counts as nothing where it does not apply.
        """
        if self.role.role in POSITIONAL:
            return (self.mass - self.uniform) * self.share
        return self.mass - self.offset

    @property
    def json(self) -> Json:
        """For `Description.about`; figures only where the role applies."""
        out: dict[str, Json] = {**self.role.json, "queries": self.queries}
        if self.queries:
            out |= {
                "mass": significant(self.mass, 4),
                "offset table": significant(self.offset, 4),
                "uniform": significant(self.uniform, 4),
            }
        else:
            out["note"] = "applies nowhere in the explored text"
        return out


@dataclass
class _Sums:
    """What one document set adds up to; arrays grow with the longest row seen."""

    heads: int
    length: int = 0
    by_distance: np.ndarray = field(init=False)
    uniform: np.ndarray = field(init=False)
    queries: np.ndarray = field(init=False)
    at: np.ndarray = field(init=False)
    mass: np.ndarray = field(init=False)
    overlap: np.ndarray = field(init=False)
    even: np.ndarray = field(init=False)
    keys: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.by_distance = np.zeros((self.heads, 0))
        self.queries = np.zeros(0)  # queries, beyond position 0, that have a key at each distance
        self.uniform = np.zeros(0)  # what uniform attention puts at each distance
        self.at = np.zeros(len(CONTENT))
        self.mass, self.overlap = np.zeros((len(CONTENT), self.heads)), np.zeros((len(CONTENT), self.heads))
        self.even = np.zeros(len(CONTENT))
        self.keys = np.zeros((len(CONTENT), 0, 0))  # keys named, by query position and distance, per query

    @property
    def positions(self) -> Float[np.ndarray, " length"]:
        """Queries at each position; none at position 0."""
        return -np.diff(np.append(self.queries, 0.0))

    def grow(self, length: int) -> None:
        more = length - self.length
        if more <= 0:
            return
        self.by_distance = np.pad(self.by_distance, ((0, 0), (0, more)))
        self.queries, self.uniform = np.pad(self.queries, (0, more)), np.pad(self.uniform, (0, more))
        self.keys = np.pad(self.keys, ((0, 0), (0, more), (0, more)))
        self.length = length

    def plus(self, other: _Sums) -> _Sums:
        out = _Sums(self.heads)
        out.grow(max(self.length, other.length))
        for part in (self, other):
            n = part.length
            out.by_distance[:, :n] += part.by_distance
            out.queries[:n] += part.queries
            out.uniform[:n] += part.uniform
            out.keys[:, :n, :n] += part.keys
            for name in ("at", "mass", "overlap", "even"):
                setattr(out, name, getattr(out, name) + getattr(part, name))
        return out


class RoleExplainer:
    """Roles for the heads of one layer.

    Args:
        heads: how many.
    """

    method = METHOD

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self._sums = (_Sums(heads), _Sums(heads))
        self._merged: _Sums | None = None

    def update(
        self, batch: Batch, probs: Float[Tensor, "rows heads queries keys"], second: bool = False
    ) -> None:
        """Add the attention of one explored batch.

        Args:
            batch: the tokens; special ones, such as the beginning-of-text token, are keys and no queries.
            probs: weights of every head; what stands at padding is not looked at.
            second: whether it belongs to the second of two disjoint document sets.

        Raises:
            ShapeMismatch: the weights do not fit the batch or the number of heads.
            NotFinite: a weight at a real position is NaN or infinite.
            BadInput: weights are negative, or a query's sum to more than 1.
        """
        ids, mask = token_ids(batch)
        expected = (len(ids), self.heads, ids.shape[1], ids.shape[1])
        if tuple(probs.shape) != expected:
            raise ShapeMismatch(f"attention of shape {tuple(probs.shape)}", f"{expected}")
        # (rows, queries, keys, heads): one head's weights are then a column
        weights = probs.detach().cpu().double().permute(0, 2, 3, 1).numpy()
        weights = np.where((mask[:, :, None] & mask[:, None, :])[..., None], weights, 0.0)
        _check(weights, mask)
        self._merged = None
        asked = scored_positions(batch)
        asked[:, 0] = False  # a query with one key says nothing
        weights[~asked] = 0.0
        into, length = self._sums[second], ids.shape[1]
        into.grow(length)
        positions = asked.sum(axis=0).astype(float)  # queries at each
        for d in range(length):
            into.by_distance[:, d] += weights[:, np.arange(d, length), np.arange(length - d)].sum(axis=(0, 1))
            into.queries[d] += positions[d:].sum()
            into.uniform[d] += (positions[d:] / (np.arange(d, length) + 1)).sum()
        for i, role in enumerate(CONTENT):
            keys = role.eligible(batch) & asked[:, :, None]
            rows, queries, at = np.nonzero(keys)
            named = keys.sum(axis=2)
            into.at[i] += np.count_nonzero(named)
            there = weights[rows, queries, at]
            into.mass[i] += there.sum(axis=0)
            into.overlap[i] += np.minimum(there, 1.0 / named[rows, queries, None]).sum(axis=0)
            into.even[i] += (1.0 / (queries + 1)).sum()
            np.add.at(into.keys[i], (queries, queries - at), 1.0)

    def offset_table(self, head: int) -> OffsetTable:
        """The attention by distance that fits the head best, from both document sets.

        Raises:
            TooLittleData: no attention was added.
            BadInput: there is no such head.
        """
        self._check_head(head)
        return _table(self._both(), head)

    def scores(self, head: int, second: bool | None = None) -> list[RoleScore]:
        """Every role for one head, the best first; of ``all`` and ``last``, the one that overlaps more.

        Args:
            head: which.
            second: one document set alone; None for both.

        Raises:
            TooLittleData: no attention was added.
            BadInput: there is no such head.
        """
        self._check_head(head)
        sums = self._both() if second is None else self._sums[second]
        table = _table(sums, head).grid(sums.length) if sums.queries.any() else np.zeros((0, 0))
        back = _by_distance(table)
        found = [_content(sums, i, head, back) for i in range(len(CONTENT))]
        best: dict[str, RoleScore] = {}
        for score in found:
            old = best.get(score.role.role)
            if old is None or score.overlap > old.overlap:
                best[score.role.role] = score
        at_distance = [_distance(sums, d, head, back) for d in range(sums.length)]
        enough = [s for s in at_distance if s.queries >= FEWEST_QUERIES and s.role.role == "offset"]
        previous = [s for s in at_distance if s.role.role == "previous"]
        others = sorted(enough, key=lambda s: (-s.excess, s.role.offset))[:1]
        ranked = [*best.values(), *(previous or [RoleScore(HeadRole("previous"), 0)]), *others]
        return sorted(ranked, key=lambda s: (s.queries < FEWEST_QUERIES, -s.excess, s.role.role))

    def explain(self, head: int, most: int = 3) -> list[Explained]:
        """Proposals for one head, the best first; the first is marked as found only above `FLOOR`.

        Raises:
            TooLittleData: no attention was added, or no role applies to `FEWEST_QUERIES` queries.
            BadInput: there is no such head.
        """
        ranked = self.scores(head)
        agreement = self._agreement(head)
        usable = [s for s in ranked if s.queries >= FEWEST_QUERIES]
        if not usable:
            raise TooLittleData(
                "text in which no role applies often enough",
                f"a role that applies to {FEWEST_QUERIES} queries",
                "longer windows, or text with repetitions",
            )
        again = [s for s in self.scores(head, True) if s.queries >= FEWEST_QUERIES]
        out = []
        for score in usable[:most]:
            found = score.excess >= FLOOR
            words = f"looks at {score.role.words}"
            explored: dict[str, Json] = {
                "share": significant(score.mass),
                "offset table": significant(score.offset),
                "uniform": significant(score.uniform),
            }
            about: dict[str, Json] = {
                "role": score.role.role,
                "excess": significant(score.excess),
                "queries": score.queries,
                "agreement": agreement,
                "roles": [s.json for s in ranked],
            }
            out.append(
                Explained(
                    Description(
                        words=words if found else f"no role found; nearest: {words}",
                        cause=score.role.executable(),
                        about=about,
                    ),
                    "cause",
                    METHOD,
                    found,
                    explored,
                    again[0].role.executable() if again else None,
                )
            )
        return out

    def _both(self) -> _Sums:
        if self._merged is None:
            self._merged = self._sums[0].plus(self._sums[1])
        if not self._merged.queries.any():
            raise TooLittleData("no attention beyond first positions", "explored batches", "update() first")
        return self._merged

    def _check_head(self, head: int) -> None:
        if not 0 <= head < self.heads:
            raise BadInput(f"head {head}", f"0 to {self.heads - 1}")

    def _agreement(self, head: int) -> float | None:
        """Correlation over roles of what the two document sets say; None without two sets."""
        if not all(s.queries.any() for s in self._sums):
            return None
        each = [
            {s.role.role: s.excess for s in self.scores(head, second) if s.queries >= FEWEST_QUERIES}
            for second in (False, True)
        ]
        shared = [r for r in each[0] if r in each[1]]
        x, y = (np.array([e[r] for r in shared]) for e in each)
        if len(shared) < 3 or x.std() == 0 or y.std() == 0:
            return None
        return significant(float(np.corrcoef(x, y)[0, 1]))


def _check(weights: np.ndarray, mask: np.ndarray) -> None:
    if not np.isfinite(weights).all():
        raise NotFinite("NaN or infinity in attention", "finite weights", "looking at the layer's scores")
    totals = weights.sum(axis=2)[mask]
    if (weights < 0).any() or totals.max(initial=0.0) > 1 + 1e-2:  # less than 1 where a sink takes the rest
        raise BadInput(
            f"attention from {weights.min():.3g} on, with rows that sum to {totals.max():.3g}",
            "weights of 0 or more that sum to at most 1 over the keys of each query",
            "the site probs, after softmax",
        )


def _table(sums: _Sums, head: int) -> OffsetTable:
    """Maximum likelihood of weights by distance, where each query chooses among the keys it can see.

    Minorise-maximise as for Plackett-Luce models (Hunter 2004, section 5): each step divides the attention at
    a distance by what the current weights would make of one unit of weight there.
    """
    positions = sums.positions
    weights = np.ones(sums.length)
    for _ in range(STEPS):
        total = np.cumsum(weights)  # over the keys that the query at each position can see
        each = np.cumsum(np.divide(positions, total, out=np.zeros_like(total), where=total > 0)[::-1])[::-1]
        weights = np.divide(sums.by_distance[head], each, out=np.zeros_like(each), where=each > 0)
        if not weights.any():
            return OffsetTable(
                np.ones(sums.length)
            )  # a head that looks nowhere, at no distance in particular
        weights /= weights.max()
    return OffsetTable(weights)


def _by_distance(table: np.ndarray) -> np.ndarray:
    """Weights by query position and distance instead of key."""
    n = len(table)
    back = np.arange(n)[:, None] - np.arange(n)[None, :]
    return np.where(back >= 0, table[np.arange(n)[:, None], np.maximum(back, 0)] if n else table, 0.0)


def _content(sums: _Sums, index: int, head: int, table: np.ndarray) -> RoleScore:
    queries = int(sums.at[index])
    if not queries:
        return RoleScore(CONTENT[index], 0)
    return RoleScore(
        CONTENT[index],
        queries,
        queries / float(sums.positions.sum()),
        float(sums.mass[index, head] / queries),
        float(sums.overlap[index, head] / queries),
        float((sums.keys[index] * table).sum() / queries),
        float(sums.even[index] / queries),
    )


def _distance(sums: _Sums, distance: int, head: int, table: np.ndarray) -> RoleScore:
    role = HeadRole("previous") if distance == 1 else HeadRole("offset", offset=distance)
    queries = int(sums.queries[distance])
    if not queries:
        return RoleScore(role, 0)
    mass = float(sums.by_distance[head, distance] / queries)
    offset = float((sums.positions * table[:, distance])[distance:].sum() / queries)
    share = queries / float(sums.positions.sum())
    return RoleScore(role, queries, share, mass, mass, offset, float(sums.uniform[distance] / queries))
