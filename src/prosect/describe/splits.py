"""The best question to ask next: sums over every category of every column, and the gain of a split.

Everything is computed from counts and sums of the whole data, so nothing is subsampled: the larger part of
a split has the sums of the whole minus those of the smaller part, and for a sparse activation only the
positions where it is not zero are summed.

Categories are ordered by mean activation, which makes the best division into two sets one of the prefixes
of that order (Breiman et al. 1984, section 4.2). A category seen a few times has an extreme mean by chance,
so deviations are shrunk by an empirical-Bayes factor n/(n + κ), where κ is the ratio of the variance within
categories to that between them; where categories do not differ, κ is infinite and nothing is gained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from prosect.describe.contexts import CATEGORICAL, FLAGS, Contexts
from prosect.describe.rules import Predicate

MOST_TOKENS = 32
"""Most tokens in the set that a question names."""

FEWEST_ROWS = 4
"""Fewest positions on either side of a split."""

FEWEST_UNITS = 2
"""A token must occur in as many units to be named."""

BETTER = 1.02
"""A later column replaces an earlier, simpler one if it gains this much more."""

EXCEPT = 1.05
"""Naming the tokens with the lowest means must gain this much more than naming those with the highest."""

PER_TOKEN = 0.01
"""A question is preferred to one that names a token more unless that gains this much more."""


@dataclass(frozen=True)
class Sums:
    """What is known of a set of positions.

    Attributes:
        n: positions.
        y: sum of activations.
        yy: sum of squares.
        counts: positions of each category, for each column used; float, so that they subtract exactly.
        totals: sum of activations likewise.
        flag_counts: positions where each flag holds.
        flag_totals: sum of activations there.
    """

    n: float
    y: float
    yy: float
    counts: tuple[Float[np.ndarray, " categories"], ...]
    totals: tuple[Float[np.ndarray, " categories"], ...]
    flag_counts: Float[np.ndarray, " flags"]
    flag_totals: Float[np.ndarray, " flags"]

    def __add__(self, other: Sums) -> Sums:
        return self._with(other, 1.0)

    def __sub__(self, other: Sums) -> Sums:
        return self._with(other, -1.0)

    def _with(self, other: Sums, sign: float) -> Sums:
        return Sums(
            self.n + sign * other.n,
            self.y + sign * other.y,
            self.yy + sign * other.yy,
            tuple(a + sign * b for a, b in zip(self.counts, other.counts, strict=True)),
            tuple(a + sign * b for a, b in zip(self.totals, other.totals, strict=True)),
            self.flag_counts + sign * other.flag_counts,
            self.flag_totals + sign * other.flag_totals,
        )

    @property
    def mean(self) -> float:
        """Mean activation, 0 where there is no position."""
        return self.y / self.n if self.n else 0.0

    @property
    def spread(self) -> float:
        """Sum of squared deviations from the mean."""
        return max(self.yy - self.y * self.y / self.n, 0.0) if self.n else 0.0


@dataclass(frozen=True)
class Split:
    """A question about a set of positions.

    Attributes:
        gain: how much of the sum of squares it removes, as far as that will hold on other data.
        column: index in `CATEGORICAL`, or -1 for a flag.
        codes: the categories named.
        flag: index in `FLAGS`, or -1.
    """

    gain: float
    column: int = -1
    codes: tuple[int, ...] = ()
    flag: int = -1


class Part:
    """Some of the explored positions, with the sums that do not depend on the activation.

    Args:
        contexts: every column.
        rows: which positions, ascending.
        columns: indices in `CATEGORICAL` that may be asked about.
        flags: indices in `FLAGS` likewise.
    """

    def __init__(
        self,
        contexts: Contexts,
        rows: Int[np.ndarray, " m"],
        columns: tuple[int, ...],
        flags: tuple[int, ...],
    ) -> None:
        self.rows, self.columns, self.flags = rows, columns, flags
        self.categories = len(contexts.named) + 1
        self.codes = np.ascontiguousarray(contexts.codes[list(columns)][:, rows])
        # Few combinations of flags occur, so one sum for each combination gives the sums of all flags.
        packed = np.packbits(contexts.flags[rows][:, list(flags)], axis=1)
        patterns, pattern = np.unique(packed, axis=0, return_inverse=True)
        self.pattern = pattern.reshape(-1).astype(np.int32)
        self.patterns = np.unpackbits(patterns, axis=1, count=len(flags)).astype(bool)
        self._patterns = self.patterns.astype(float)
        self.counts = tuple(self._bincount(c) for c in self.codes)
        self.flag_counts = self._flags(np.bincount(self.pattern, minlength=len(patterns)))
        units = contexts.unit[rows]
        enough = min(FEWEST_UNITS, len(np.unique(units)))
        self.eligible = tuple(_in_units(c, units, self.categories) >= enough for c in self.codes)

    def __len__(self) -> int:
        return len(self.rows)

    def root(self, y: Float[np.ndarray, " m"]) -> Sums:
        """Sums over all positions of this part."""
        alive = np.flatnonzero(y)
        totals, flag_totals = self._totals(alive if len(alive) * 4 < len(y) else slice(None), y)
        return Sums(
            float(len(y)),
            float(y.sum()),
            float((y * y).sum()),
            self.counts,
            totals,
            self.flag_counts,
            flag_totals,
        )

    def sums(self, at: Int[np.ndarray, " k"], y: Float[np.ndarray, " m"]) -> Sums:
        """Sums over some positions, given by their place in this part."""
        values = y[at]
        totals, flag_totals = self._totals(at, y)
        return Sums(
            float(len(at)),
            float(values.sum()),
            float((values * values).sum()),
            tuple(self._bincount(c[at]) for c in self.codes),
            totals,
            self._flags(np.bincount(self.pattern[at], minlength=len(self.patterns))),
            flag_totals,
        )

    def inside(self, split: Split, at: Int[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
        """Where the question holds, among some positions."""
        if split.flag >= 0:
            return np.asarray(self.patterns[:, self.flags.index(split.flag)][self.pattern[at]])
        table = np.zeros(self.categories, dtype=bool)
        table[list(split.codes)] = True
        return np.asarray(table[self.codes[self.columns.index(split.column)][at]])

    def _bincount(self, codes: np.ndarray) -> Float[np.ndarray, " categories"]:
        return np.bincount(codes, minlength=self.categories).astype(float)

    def _flags(self, of_patterns: np.ndarray) -> Float[np.ndarray, " flags"]:
        some = np.flatnonzero(of_patterns)
        return np.asarray(np.einsum("p,pf->f", of_patterns[some].astype(float), self._patterns[some]))

    def _totals(
        self, at: np.ndarray | slice, y: np.ndarray
    ) -> tuple[tuple[Float[np.ndarray, " categories"], ...], Float[np.ndarray, " flags"]]:
        values = y[at]
        # bincount forgets that weights are floats where there are none
        totals = tuple(
            np.bincount(c[at], weights=values, minlength=self.categories).astype(float) for c in self.codes
        )
        by_pattern = np.bincount(self.pattern[at], weights=values, minlength=len(self.patterns))
        return totals, self._flags(by_pattern)


def merged(first: Part, second: Part) -> tuple[Bool[np.ndarray, " categories"], ...]:
    """Which tokens may be named by a rule about both parts: those that either part may name."""
    return tuple(a | b for a, b in zip(first.eligible, second.eligible, strict=True))


def _in_units(
    codes: Int[np.ndarray, " m"], units: Int[np.ndarray, " m"], categories: int
) -> Int[np.ndarray, " categories"]:
    pairs = np.unique(codes.astype(np.int64) * (int(units.max(initial=0)) + 1) + units)
    return np.bincount(pairs // (int(units.max(initial=0)) + 1), minlength=categories)


def best(
    sums: Sums,
    columns: tuple[int, ...],
    flags: tuple[int, ...],
    eligible: tuple[Bool[np.ndarray, " categories"], ...],
) -> Split | None:
    """The question with the largest gain; None where no question gains anything."""
    if sums.n < 2 * FEWEST_ROWS or sums.spread <= 1e-12 * max(sums.yy, 1e-300):
        return None
    found: Split | None = None
    worth = 0.0
    for place, column in enumerate(columns):
        split = _categories(sums, sums.counts[place], sums.totals[place], eligible[place], column)
        if split is not None and _worth(split) > BETTER * worth:
            found, worth = split, _worth(split)
    deviation = sums.flag_totals - sums.flag_counts * sums.mean
    other = sums.n - sums.flag_counts
    usable = (sums.flag_counts >= FEWEST_ROWS) & (other >= FEWEST_ROWS)
    safe = np.where(usable, sums.flag_counts, 1.0), np.where(usable, other, 1.0)
    gains = np.where(usable, deviation**2 * (1 / safe[0] + 1 / safe[1]), 0.0)
    for place, flag in enumerate(flags):
        if gains[place] > BETTER * worth:
            found, worth = Split(float(gains[place]), flag=flag), float(gains[place])
    return found if found is not None and found.gain > 1e-9 * sums.spread else None


def _worth(split: Split) -> float:
    return split.gain / (1 + PER_TOKEN * max(len(split.codes) - 1, 0))


def shrinkage(
    counts: Float[np.ndarray, " c"], deviations: Float[np.ndarray, " c"], spread: float
) -> Float[np.ndarray, " c"]:
    """The factor by which to shrink each category's deviation: n/(n + κ), by one-way analysis of variance.

    Args:
        counts: positions of each category, all above 0.
        deviations: sum of activations of each category, less its count times the overall mean.
        spread: sum of squared deviations of all positions from the overall mean.
    """
    groups, n = len(counts), float(counts.sum())
    between = float((deviations**2 / counts).sum())
    within = max(spread - between, 0.0) / max(n - groups, 1.0)
    size = n - float((counts**2).sum()) / n
    variance = (between - (groups - 1) * within) / size if size > 0 else 0.0
    if variance <= 0:
        return np.zeros(groups)
    return counts / (counts + within / variance)


def shrunk_means(
    counts: Float[np.ndarray, " c"], totals: Float[np.ndarray, " c"], squares: float
) -> Float[np.ndarray, " c"]:
    """The mean of each category, shrunk towards the overall mean, which empty categories get.

    Args:
        counts: positions of each category.
        totals: sum of activations of each.
        squares: sum of all squared activations.
    """
    n, y = float(counts.sum()), float(totals.sum())
    means = np.full(len(counts), y / n if n else 0.0)
    seen = np.flatnonzero(counts)
    if len(seen):
        deviations = totals[seen] - counts[seen] * (y / n)
        factor = shrinkage(counts[seen], deviations, max(squares - y * y / n, 0.0))
        means[seen] += factor * deviations / counts[seen]
    return means


def _categories(
    sums: Sums,
    counts: Float[np.ndarray, " categories"],
    totals: Float[np.ndarray, " categories"],
    eligible: Bool[np.ndarray, " categories"],
    column: int,
) -> Split | None:
    present = np.flatnonzero(counts > 0.5)
    if len(present) < 2:
        return None
    n = counts[present]
    deviation = totals[present] - n * sums.mean
    shrunk = deviation * shrinkage(n, deviation, sums.spread)
    usable = np.flatnonzero(eligible[present] & (present > 0))  # "none" is never named
    found: Split | None = None
    for sign in (1.0, -1.0):
        means = sign * shrunk[usable] / n[usable]
        if len(means) > MOST_TOKENS:
            usable_top = usable[np.sort(np.argpartition(-means, MOST_TOKENS - 1)[:MOST_TOKENS])]
        else:
            usable_top = usable
        order = usable_top[np.argsort(-(sign * shrunk[usable_top] / n[usable_top]), kind="stable")]
        size, moved = np.cumsum(n[order]), np.cumsum(shrunk[order])
        rest = sums.n - size
        fits = (size >= FEWEST_ROWS) & (rest >= FEWEST_ROWS) & (sign * moved > 0)
        if not fits.any():
            continue
        gains = np.where(fits, moved**2 * (1 / size + 1 / np.where(fits, rest, 1.0)), 0.0)
        k = int(np.argmax(gains)) + 1
        if found is None or gains[k - 1] > EXCEPT * found.gain:
            codes = tuple(sorted(present[order[:k]].tolist()))
            found = Split(float(gains[k - 1]), column=column, codes=codes)
    return found


def predicate(split: Split, contexts: Contexts) -> Predicate:
    """The question in the form that is stored."""
    if split.flag >= 0:
        what, which, back = FLAGS[split.flag]
        if what == "position":
            return Predicate(what, below=int(which))
        return Predicate(what, back=back, name=which)
    what, back = CATEGORICAL[split.column]
    tokens = sorted(contexts.named[np.array(split.codes) - 1].tolist())
    return Predicate(what, back=back, tokens=tuple(tokens))
