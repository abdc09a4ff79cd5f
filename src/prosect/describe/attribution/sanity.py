"""Whether a map depends on the model at all: weights randomised, and labels where the model can be trained again.

Adebayo et al. 2018, "Sanity checks for saliency maps", sections 3.1 and 3.2. A map that stays the same when
every weight is random says nothing about what was learned. Passing shows only that it depends on the
weights, not that it is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.randomise import grouped, layers, randomised
from prosect.describe.attribution.ranks import over_rows, spearman, structure
from prosect.model import Model

Map = Callable[[Explicand, list[int]], Float[np.ndarray, "rows features"]]
"""(what is explained, which rows of the batch these are) → the map, made as the one that is checked was."""
Retrain = Callable[[Seed], Model]
"""A seed → the same architecture trained by the same recipe on permuted labels."""
Verdict = Literal["passed", "failed", "inconclusive", "not run"]
LIMIT = 0.5
"""Of the similarity to a map on random weights. A convention, halfway between a map that keeps all its ranks
and one that keeps none; it was not fitted to anything."""


@dataclass(frozen=True)
class Randomisation:
    """How weights are randomised.

    Attributes:
        stages: groups of layers; the last cascading stage randomises the whole model.
        draws: random models for each stage; similarities are averaged over them.
        rows: rows of the batch that are looked at, the first ones.
        independent: also randomise each group alone.
    """

    stages: int = 3
    draws: int = 2
    rows: int = 16
    independent: bool = True

    def __post_init__(self) -> None:
        if min(self.stages, self.draws, self.rows) < 1:
            raise BadInput(
                f"{self.stages} stages, {self.draws} draws, {self.rows} rows", "at least 1 of each"
            )


@dataclass(frozen=True)
class Similarity:
    """How alike the map and another are; means over rows with 95 % intervals over independent units.

    The draws of weights are few and the same for all rows: the interval says how the number would differ on
    other rows, and ``draws`` how it differs between random models.

    Attributes:
        name: what the other map was made on.
        randomised: the modules whose weights were random.
        rank: Spearman's correlation of values.
        absolute: Spearman's correlation of absolute values.
        structure: structural similarity of absolute values, where features form a picture.
        draws: ``rank`` and ``absolute`` of each random model by itself.
    """

    name: str
    randomised: tuple[str, ...]
    rank: Measured
    absolute: Measured
    structure: Measured | None
    draws: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Sanity:
    """What the checks found.

    Attributes:
        verdict: on weights: passed if, on entirely random models, both rank correlations lie below the limit
            with their whole interval and on every random model by itself; failed if one of them lies above
            it likewise (which takes 13 rows or more), or if no map changed at all.
        words: the verdict in words.
        cascade: the top group randomised, the two top groups, and so on to the whole model.
        independent: each group alone.
        repeat: control: the same map again with another seed; what a map that ignored the weights scores.
        other_row: control: the map of another row on the intact model; what all maps share.
        labels: the map of a model trained on permuted labels; None if it was not run.
        labels_words: the same in words, or why it was not run.
        limit: of similarity.
    """

    verdict: Verdict
    words: str
    cascade: tuple[Similarity, ...] = ()
    independent: tuple[Similarity, ...] = ()
    repeat: Similarity | None = None
    other_row: Similarity | None = None
    labels: Similarity | None = None
    labels_words: str = "not run: no training recipe was given"
    limit: float = LIMIT


def check(
    explicand: Explicand,
    original: Float[np.ndarray, "rows features"],
    make: Map,
    how: Randomisation,
    retrain: Retrain | None,
    seed: Seed,
) -> Sanity:
    """Make the map again on random weights, and on random labels if there is a recipe.

    Args:
        explicand: what was explained.
        original: its map.
        make: makes it again; called while the weights are random.
        how: see `Randomisation`.
        retrain: the training recipe, if there is one.
        seed: of weights and labels.
    """
    rows = list(range(min(how.rows, len(explicand))))
    part, kept = explicand.rows(rows), original[rows]
    alike = _Alike(part, kept, seed.child("intervals"))
    groups = grouped(layers(part.model, part.batch), how.stages)
    if not groups:
        return Sanity("not run", "not run: the model has no floating-point parameters to randomise")
    cascade, independent = [], []
    for number in range(len(groups)):
        upper = [n for names, _ in groups[: number + 1] for n in names]
        several = [p for _, ps in groups[: number + 1] for p in ps]
        where = f"top {number + 1} of {len(groups)} groups of layers" if number + 1 < len(groups) else "all"
        maps = []
        for draw in range(how.draws):
            with randomised(several, seed.child("cascade", number, draw)):
                maps.append(make(part.again(), rows))
        cascade.append(alike.to(maps, f"random weights: {where}", tuple(upper)))
        if not how.independent or len(groups) == 1:
            continue
        names, alone, maps = groups[number][0], groups[number][1], []
        for draw in range(how.draws):
            with randomised(alone, seed.child("independent", number, draw)):
                maps.append(make(part.again(), rows))
        independent.append(alike.to(maps, f"random weights: group {number + 1} alone", names))
    repeat = alike.to([make(part.again(), rows)], "the same model, another seed", ())
    other = alike.to([np.roll(kept, 1, axis=0)], "another row", ()) if len(rows) > 1 else None
    verdict, words = _judged(cascade[-1])
    labels, labels_words = None, "not run: no training recipe was given"
    if retrain is not None:
        labels = alike.to([_relabelled(part, make, rows, retrain, seed)], "permuted labels", ())
        labels_words = f"{_judged(labels)[0]}: {_judged(labels)[1]}"
    return Sanity(verdict, words, tuple(cascade), tuple(independent), repeat, other, labels, labels_words)


def _judged(found: Similarity) -> tuple[Verdict, str]:
    most = max((found.rank, found.absolute), key=lambda m: m.estimate or 0.0)
    ends = [(m.low, m.high) for m in (found.rank, found.absolute)]
    said = f"rank correlation with the map on {found.name}: {most.estimate:.2f}"
    if most.low is not None and most.high is not None:
        said += f" [{most.low:.2f}, {most.high:.2f}]"
    if found.draws and all(min(d) > 1 - 1e-9 for d in found.draws):
        return "failed", f"{said}: the map did not change at all"
    lowest, highest = (tuple(pick(d[i] for d in found.draws) for i in (0, 1)) for pick in (min, max))
    if all(high is not None and max(high, d) < LIMIT for (_, high), d in zip(ends, highest, strict=True)):
        return "passed", f"{said}, below {LIMIT:g}"
    if any(low is not None and min(low, d) > LIMIT for (low, _), d in zip(ends, lowest, strict=True)):
        return "failed", f"{said}: the map hardly depends on what was learned"
    return "inconclusive", f"{said}, not clearly below {LIMIT:g}"


def _relabelled(
    part: Explicand, make: Map, rows: list[int], retrain: Retrain, seed: Seed
) -> Float[np.ndarray, "rows features"]:
    trained = retrain(seed.child("labels"))
    moved = Explicand(
        trained,
        trained.batch(part.batch),
        part.metric,
        part.features,
        part.present,
        part.budget_mb,
        part.cost,
    )
    if moved.x.shape != part.x.shape:
        raise ShapeMismatch(
            f"a model retrained with {tuple(moved.x.shape)} at {part.features.place}",
            f"{tuple(part.x.shape)}: the same architecture",
        )
    return make(moved, rows)


class _Alike:
    """Compares maps with one that is kept."""

    def __init__(self, explicand: Explicand, kept: Float[np.ndarray, "rows features"], seed: Seed) -> None:
        self.kept, self.seed = kept, seed
        self.present = explicand.present.numpy()
        self.units = explicand.batch.units
        grid = explicand.features.grid
        self.picture = grid[-2:] if len(grid) >= 2 and min(grid[-2:]) > 1 else None
        self.depth = int(np.prod(grid[:-2])) if self.picture else 1

    def to(
        self, maps: list[Float[np.ndarray, "rows features"]], name: str, names: tuple[str, ...]
    ) -> Similarity:
        """The mean similarity to ``maps``."""
        absolute = np.stack([spearman(abs(self.kept), abs(m), self.present) for m in maps])
        rank = np.stack([spearman(self.kept, m, self.present) for m in maps])
        shape = None
        if self.picture:
            each = [structure(self._as_picture(self.kept), self._as_picture(m)) for m in maps]
            shape = self._over(np.mean(each, axis=0), "structure", name)
        draws = tuple(
            (float(r), float(a)) for r, a in zip(rank.mean(axis=1), absolute.mean(axis=1), strict=True)
        )
        return Similarity(
            name,
            names,
            self._over(rank.mean(axis=0), "rank", name),
            self._over(absolute.mean(axis=0), "absolute", name),
            shape,
            draws,
        )

    def _over(self, values: np.ndarray, what: str, name: str) -> Measured:
        return over_rows(values, self.units, self.seed.child(what, name), -1.0, 1.0)

    def _as_picture(self, m: np.ndarray) -> np.ndarray:
        """Absolute values, channels added up."""
        assert self.picture is not None
        return np.asarray(np.abs(m).reshape(len(m), self.depth, *self.picture).sum(axis=1))
