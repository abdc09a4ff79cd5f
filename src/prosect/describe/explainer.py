"""Finds a short token rule for a component, offline, from explored activations alone.

A tree is grown greedily, the leaf with the most to gain first. How many questions it may ask is decided
by cross-fitting on two disjoint document sets: each set's tree is judged on the other, and the smallest
size that comes within `WORTH` of the best is taken. The figures shown are those cross-fitted ones. The
rule itself is then grown on both sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.core.canonical import Json
from prosect.core.errors import UnknownName
from prosect.core.intervals import Correlation
from prosect.core.records import Description
from prosect.describe.contexts import CATEGORICAL, FLAGS, Contexts
from prosect.describe.explained import Explained
from prosect.describe.rules import Branch, Leaf, Predicate, TokenRule, Tree, predicates
from prosect.describe.sentences import Strength, sentence
from prosect.describe.splits import Part, Split, Sums, best, merged, predicate, shrunk_means
from prosect.describe.wording import significant
from prosect.store.shelf import Shelf

METHOD = "rules@1"
MOST_LEAVES = 5
WORTH = 0.005
"""Share of the variance that makes a further question worth asking."""

LEAST = WORTH / 10
"""Share of the variance that a question must gain for a tree to grow at all: less is chance."""

RICHNESS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "token": ((0,), tuple(i for i, f in enumerate(FLAGS) if f[0] == "class" and f[2] == 0)),
    "context": (tuple(range(len(CATEGORICAL))), tuple(range(len(FLAGS)))),
}
"""What a rule may ask about: the current token only, or everything in `Contexts`."""


Basic = Float[np.ndarray, "3 leaves"]
"""For each leaf: positions, sum of activations, sum of their squares."""


@dataclass(frozen=True)
class Grown:
    """A tree as the order in which it grew, so that its first questions are the smaller trees.

    Attributes:
        splits: (leaf that was split, question); where the question holds is the new leaf, numbered by turn
            from 1, and where it does not keeps the old number.
        leaves: for each part it was grown on, the leaf of every position.
        sums: of each leaf, over all those parts.
    """

    splits: tuple[tuple[int, Split], ...]
    leaves: tuple[Int[np.ndarray, " _"], ...]
    sums: Basic

    def smaller(self, size: int) -> Int[np.ndarray, " leaves"]:
        """For each leaf of the whole tree, the leaf of the tree with only so many leaves."""
        out = np.arange(len(self.splits) + 1)
        for turn in range(len(self.splits), size - 1, -1):
            out[out == turn] = self.splits[turn - 1][0]
        return out


def grow(data: Sequence[Fitted], eligible: tuple[Bool[np.ndarray, " categories"], ...], most: int) -> Grown:
    """Grow a tree with at most ``most`` leaves on one or more parts together."""
    columns, flags = data[0].part.columns, data[0].part.flags
    leaves = [np.zeros(len(d.part), dtype=np.int64) for d in data]
    places = {0: [np.arange(len(d.part)) for d in data]}
    root = reduce(add, (d.root for d in data))
    sums, basic = {0: root}, np.zeros((3, most))
    basic[:, 0] = root.n, root.y, root.yy

    def ask(leaf: int) -> Split | None:
        if sums[leaf].spread <= WORTH * root.spread:
            return None  # even a perfect question here would not be worth asking
        split = best(sums[leaf], columns, flags, eligible)
        return split if split is not None and split.gain > LEAST * root.spread else None

    asked = {0: ask(0)}
    splits: list[tuple[int, Split]] = []
    while len(splits) < most - 1:
        ready = [(leaf, split) for leaf, split in asked.items() if split is not None]
        if not ready:
            break
        leaf, split = max(ready, key=lambda found: (found[1].gain, -found[0]))
        splits.append((leaf, split))
        new = len(splits)
        inside = [d.part.inside(split, at) for d, at in zip(data, places[leaf], strict=True)]
        yes = [at[holds] for at, holds in zip(places[leaf], inside, strict=True)]
        no = [at[~holds] for at, holds in zip(places[leaf], inside, strict=True)]
        for ids, at in zip(leaves, yes, strict=True):
            ids[at] = new
        places[leaf], places[new] = no, yes
        small, large = (new, leaf) if sum(map(len, yes)) <= sum(map(len, no)) else (leaf, new)
        whole = basic[:, leaf].copy()
        basic[:, small] = sum(_basic(d.y[at]) for d, at in zip(data, places[small], strict=True))
        basic[:, large] = whole - basic[:, small]
        if new == most - 1:
            break
        fewer = reduce(add, (d.part.sums(at, d.y) for d, at in zip(data, places[small], strict=True)))
        sums[small], sums[large] = fewer, sums[leaf] - fewer
        asked[leaf], asked[new] = ask(leaf), ask(new)
    return Grown(tuple(splits), tuple(leaves), basic[:, : len(splits) + 1])


@dataclass(frozen=True)
class Fitted:
    """One document set with one activation."""

    part: Part
    y: Float[np.ndarray, " m"]
    root: Sums

    def apply(self, grown: Grown) -> tuple[Int[np.ndarray, " m"], Basic]:
        """The leaf of every position in a tree grown elsewhere, and the sums of each leaf here."""
        leaves = np.zeros(len(self.part), dtype=np.int64)
        sums = np.zeros((3, len(grown.splits) + 1))
        sums[:, 0] = self.root.n, self.root.y, self.root.yy
        for turn, (leaf, split) in enumerate(grown.splits, 1):
            at = np.flatnonzero(leaves == leaf)
            inside = self.part.inside(split, at)
            leaves[at[inside]] = turn
            sums[:, turn] = _basic(self.y[at[inside]])
            sums[:, leaf] -= sums[:, turn]
        return leaves, sums


def _basic(y: Float[np.ndarray, " k"]) -> Float[np.ndarray, " 3"]:
    return np.array([len(y), y.sum(), (y * y).sum()])


@dataclass(frozen=True)
class _Half:
    """A tree grown on one document set and applied to the other: sums over its leaves there and here."""

    grown: Grown
    elsewhere: Int[np.ndarray, " m"]
    test: Basic

    def at(self, size: int) -> tuple[Float[np.ndarray, " size"], Basic]:
        """With at most ``size`` leaves: what each predicts, and the sums of the other set over each."""
        size = min(size, len(self.grown.splits) + 1)
        place = self.grown.smaller(size)
        gathered = np.arange(size)[:, None] == place
        train, test = self.grown.sums @ gathered.T, self.test @ gathered.T
        return train[1] / np.maximum(train[0], 1.0), test


class RuleExplainer:
    """Explains components by short token rules; the work shared by all components is done once.

    Args:
        contexts: every column of the explored documents.
        shelf: where the vocabulary is kept for rules that need it.
        most_leaves: how many different activations a rule may predict.
    """

    method = METHOD

    def __init__(self, contexts: Contexts, shelf: Shelf, most_leaves: int = MOST_LEAVES) -> None:
        self.contexts, self.shelf, self.most_leaves = contexts, shelf, most_leaves
        self._parts: dict[str, tuple[Part, Part]] = {}

    def explain(self, activation: Float[np.ndarray, " _"], richness: str = "context") -> Explained:
        """The rule for one component, or for a control in its place.

        Args:
            activation: at every explored position, in the order of the contexts.
            richness: ``token``: the rule may look at the current token only; ``context``: at everything.

        Raises:
            UnknownName: there is no such richness.
            ShapeMismatch: there is not one activation for each position.
            NotFinite: one is NaN or infinite.
        """
        if richness not in RICHNESS:
            raise UnknownName("richness", richness, RICHNESS)
        values = self.contexts.checked(activation)
        data = [Fitted(p, y, p.root(y)) for p in self._halves(richness) for y in [values[p.rows]]]
        both = _cross(data, self.most_leaves)
        size = _size(both)
        grown = grow(data, merged(*(d.part for d in data)), size)
        tree, again = self._tree(grown), self._tree(both[1].grown, size)
        base = float(values.mean())
        correlation, unigram = _crossed(both, size), _unigram([d.root for d in data])
        about = {**_about(tree, grown, data, base), "richness": richness, **_agreement(both, size)}
        about |= {"beats_unigram": correlation > unigram, "units": list(self.contexts.units)}
        description = Description(
            words=sentence(tree, base, self.contexts.vocabulary, self._strength(data)),
            cause=TokenRule(tree, self.contexts.vocabulary).executable(self.shelf),
            about=about,
        )
        explored: dict[str, Json] = {
            "correlation": significant(correlation),
            "unigram": significant(unigram),
        }
        second = TokenRule(again, self.contexts.vocabulary).executable(self.shelf)
        return Explained(description, "cause", METHOD, isinstance(tree, Branch), explored, second)

    def _halves(self, richness: str) -> tuple[Part, Part]:
        if richness not in self._parts:
            columns, flags = RICHNESS[richness]
            second = self.contexts.second
            self._parts[richness] = (
                Part(self.contexts, np.flatnonzero(~second), columns, flags),
                Part(self.contexts, np.flatnonzero(second), columns, flags),
            )
        return self._parts[richness]

    def _strength(self, data: Sequence[Fitted]) -> Strength:
        totals = reduce(add, (d.root for d in data)).totals
        places = {CATEGORICAL[column]: place for place, column in enumerate(data[0].part.columns)}
        return lambda place, token: float(totals[places[place]][self.contexts.code[token]])

    def _tree(self, grown: Grown, size: int = MOST_LEAVES) -> Tree:
        """The first questions of a tree, with at most so many leaves."""
        splits = grown.splits[: size - 1]
        gathered = np.arange(len(splits) + 1)[:, None] == grown.smaller(len(splits) + 1)
        n, total, _ = grown.sums @ gathered.T
        means = total / np.maximum(n, 1.0)

        def build(leaf: int, turn: int) -> Tree:
            for later, (split_leaf, split) in enumerate(splits[turn:], turn + 1):
                if split_leaf == leaf:
                    asked = predicate(split, self.contexts)
                    return Branch(asked, build(later, later), build(leaf, later))
            return Leaf(significant(float(means[leaf])))

        return build(0, 0)


def _cross(data: Sequence[Fitted], most: int) -> tuple[_Half, _Half]:
    """Grow on each document set and apply to the other."""
    first, second = data
    on_first, on_second = (grow([d], d.part.eligible, most) for d in data)
    return _Half(on_first, *second.apply(on_first)), _Half(on_second, *first.apply(on_second))


def _size(both: tuple[_Half, _Half]) -> int:
    """The smallest number of leaves that explains the other set within `WORTH` of the best."""
    left = []
    for size in range(1, max(len(h.grown.splits) for h in both) + 2):
        total = 0.0
        for half in both:
            means, (n, y, yy) = half.at(size)
            total += float((yy - 2 * means * y + means**2 * n).sum())
        left.append(total)
    if left[0] <= 0:
        return 1
    explained = 1.0 - np.array(left) / left[0]
    return int(np.flatnonzero(explained >= explained.max() - WORTH)[0]) + 1


def _crossed(both: tuple[_Half, _Half], size: int) -> float:
    """Correlation over both sets of each set's activation with the other set's rule."""
    moments = np.zeros(6)
    for half in both:
        predicted, sums = half.at(size)
        moments += _moments(predicted, tuple(sums))
    return _pearson(moments)


def _moments(
    predicted: Float[np.ndarray, " groups"], sums: Sequence[float | Float[np.ndarray, " groups"]]
) -> Float[np.ndarray, " 6"]:
    """(n, Σp, Σy, Σp², Σy², Σpy) where the prediction p is one number for each group of positions."""
    n, y, yy = sums
    columns = (n, predicted * n, y, predicted**2 * n, yy, predicted * y)
    return np.array([float(np.sum(c)) for c in columns])


def _pearson(moments: Float[np.ndarray, " 6"]) -> float:
    return float(Correlation().value(moments))


def _unigram(roots: Sequence[Sums]) -> float:
    """The same correlation for a table of mean activations by token, shrunk as `splits` does."""
    moments = np.zeros(6)
    for train, test in (roots, roots[::-1]):
        table = shrunk_means(train.counts[0], train.totals[0], train.yy)
        moments += _moments(table, (test.counts[0], test.totals[0], test.yy))
    return _pearson(moments)


def _agreement(both: tuple[_Half, _Half], size: int) -> dict[str, Json]:
    """How alike the two sets' rules are.

    ``agreement``: correlation over all explored positions of what they predict, 0 where one is constant.
    ``jaccard``: tokens and flags that both name, over those that either names; None where neither does.
    """
    means = []
    for half in both:
        predicted, _ = half.at(size)
        means.append(predicted[half.grown.smaller(len(predicted))])
    first, second = both
    shape = (len(means[0]), len(means[1]))
    moments = np.zeros(6)
    for a, b in ((first.grown.leaves[0], second.elsewhere), (first.elsewhere, second.grown.leaves[0])):
        n = np.bincount(a * shape[1] + b, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
        x, y = np.broadcast_to(means[0][:, None], shape), np.broadcast_to(means[1], shape)
        moments += np.array([(n * v).sum() for v in (np.ones(shape), x, y, x * x, y * y, x * y)])
    named = [_named(half.grown, size) for half in both]
    either = named[0] | named[1]
    return {
        "agreement": significant(_pearson(moments)),
        "jaccard": significant(len(named[0] & named[1]) / len(either)) if either else None,
    }


def _named(grown: Grown, size: int) -> set[tuple[int, int]]:
    """Every token that the first questions name, with its column; flags count as themselves."""
    out: set[tuple[int, int]] = set()
    for _, split in grown.splits[: size - 1]:
        out |= {(split.column, c) for c in split.codes} if split.flag < 0 else {(-1, split.flag)}
    return out


def _about(tree: Tree, grown: Grown, data: Sequence[Fitted], base: float) -> dict[str, Json]:
    asked = predicates(tree)
    fires = grown.sums[1] > base * grown.sums[0]
    mass = np.zeros(len(fires))
    firing = 0
    for ids, d in zip(grown.leaves, data, strict=True):
        active = np.flatnonzero(d.y > 0)
        firing += len(active)
        mass += np.bincount(ids[active], weights=d.y[active], minlength=len(fires))
    return {
        "length": len(asked),
        "tokens": sum(len(p.tokens) for p in asked),
        "claim": _claim(asked),
        "coverage": significant(float(mass[fires].sum() / mass.sum())) if mass.any() else 0.0,
        "base": significant(base),
        "firing": significant(firing / sum(len(d.y) for d in data)),
    }


def _claim(asked: list[Predicate]) -> str:
    """What the rule is about: the current ``token``, or its ``context``."""
    own = all(p.what in ("token", "class") and p.back == 0 for p in asked)
    return "token" if own else "context"
