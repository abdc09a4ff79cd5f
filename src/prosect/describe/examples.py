"""Chooses what a person is shown: examples from the whole range of a component, never the top alone.

Top examples make a polysemantic component look simple and a random direction look meaningful (Bolukbasi et
al. 2021), so four strata are drawn, each from two disjoint document sets: top, middle, near misses, and
uniformly at random from the declared population. Everything comes from explore; nothing here is evidence.

The place of the centre in its window is drawn in the same way for every stratum, so that it tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from markupsafe import Markup
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch
from prosect.core.exhibits import AttentionExample, InputExample, Stratum, TokenExample
from prosect.core.markup import card
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.contexts import Contexts, token_ids
from prosect.describe.roles import HeadRole, scored_positions
from prosect.describe.vocabulary import Vocabulary
from prosect.describe.wording import significant

WINDOW = 24
TOP = 0.1
"""Share of the active positions that counts as the top."""

MIDDLE = (0.3, 0.7)
"""Quantiles of the active positions between which lies the middle."""

DENSE = 0.5
"""A component active on more positions than this is called active only in its highest tenth."""

STRATA: tuple[Stratum, ...] = get_args(Stratum)
Documents = Literal["first", "second"]
Shown = TypeVar("Shown", TokenExample, InputExample, AttentionExample)


@dataclass(frozen=True)
class Examples(Generic[Shown]):
    """Examples, and what must be said with them.

    Attributes:
        shown: the examples, by document set and stratum.
        population: what they were drawn from, in words, for `Exhibit.units_drawn`.
        short: how many fewer than asked each stratum holds, over both sets; strata that are full are absent.
        agreement: how alike the tokens at the top are in the two document sets, in [0, 1]: the sum over
            tokens of the smaller of their shares there. None where there are no tokens or nothing is active.
    """

    shown: tuple[Shown, ...]
    population: str
    short: Mapping[str, int] = field(default_factory=dict)
    agreement: float | None = None

    def _repr_html_(self) -> Markup:
        return card(
            "Examples",
            [
                ("shown", len(self.shown)),
                ("drawn from", self.population),
                ("too few", ", ".join(f"{n} of {s}" for s, n in self.short.items()) or "none"),
                ("agreement", "–" if self.agreement is None else f"{self.agreement:.2f}"),
            ],
            "Examples illustrate; they are no evidence.",
        )


def token_examples(
    contexts: Contexts,
    activation: Float[np.ndarray, " _"],
    seed: Seed,
    predicted: Float[np.ndarray, " _"] | None = None,
    each: int = 3,
    window: int = WINDOW,
) -> Examples[TokenExample]:
    """Windows of text around positions of every stratum.

    A near miss is a position where the component is not active though the description says it should be; where
    there is no such position, or no description, one whose token is also found where the component is active.

    Args:
        contexts: the explored documents, in two disjoint sets.
        activation: at every explored position.
        seed: of every draw.
        predicted: what the description predicts at every explored position.
        each: how many for each stratum and document set.
        window: most tokens shown around a position.

    Raises:
        ShapeMismatch: activations or predictions do not fit the documents.
        NotFinite: one is NaN or infinite.
        BadInput: ``each`` or ``window`` is below 1.
    """
    _check_sizes(each, window)
    values = contexts.checked(activation)
    rule = None if predicted is None else contexts.checked(predicted)
    active = _active(values)
    seen = np.isin(contexts.tokens, np.unique(contexts.tokens[active]))
    near = _near(active, rule, seen)
    strings, shown, short = contexts.vocabulary.strings, [], dict.fromkeys(STRATA, 0)
    for name, second in _sets():
        population = np.flatnonzero(contexts.second == second)
        for stratum in STRATA:
            at = seed.child("examples", name, stratum).numpy()
            drawn = _draw(values, active, near, population, contexts.unit, stratum, each, at)
            short[stratum] += each - len(drawn)
            for place in drawn:
                start, stop = _window(contexts, place, window, at)
                shown.append(
                    TokenExample(
                        documents=name,
                        stratum=stratum,
                        source=contexts.rows[contexts.row[place]].document,
                        tokens=tuple(strings[t] for t in contexts.tokens[start:stop]),
                        measured=tuple(significant(v) for v in values[start:stop].tolist()),
                        predicted=()
                        if rule is None
                        else tuple(significant(v) for v in rule[start:stop].tolist()),
                        centre=place - start,
                    )
                )
    first, second_units = contexts.units
    return Examples(
        tuple(shown),
        f"{len(contexts):,} positions of explored text, {first:,} and {second_units:,} independent units in two "
        "disjoint sets; random examples are drawn uniformly from all positions of their set",
        {s: n for s, n in short.items() if n},
        _agreement(contexts, values, active),
    )


def input_examples(
    activation: Float[np.ndarray, " n"],
    words: Callable[[int], str],
    second: Bool[np.ndarray, " n"],
    seed: Seed,
    predicted: Float[np.ndarray, " n"] | None = None,
    each: int = 3,
) -> Examples[InputExample]:
    """Inputs of every stratum, for networks without tokens; near misses need a description.

    Args:
        activation: at every explored input.
        words: number of an input → the input in words.
        second: which inputs are in the second of two disjoint sets.
        seed: of every draw.
        predicted: what the description predicts at every explored input.
        each: how many for each stratum and set.

    Raises:
        NotFinite: an activation or prediction is NaN or infinite.
        BadInput: ``each`` is below 1.
    """
    _check_sizes(each, 1)
    for numbers in (activation, predicted):
        if numbers is not None and not np.isfinite(numbers).all():
            raise NotFinite(
                "NaN or infinity in activations or predictions", "finite numbers", "the site read"
            )
    values = activation.astype(np.float64)
    active = _active(values)
    near = _near(active, predicted, np.zeros(len(values), dtype=bool))
    own, shown, short = np.arange(len(values)), [], dict.fromkeys(STRATA, 0)
    for name, in_second in _sets():
        population = np.flatnonzero(second == in_second)
        for stratum in STRATA:
            at = seed.child("examples", name, stratum).numpy()
            drawn = _draw(values, active, near, population, own, stratum, each, at)
            short[stratum] += each - len(drawn)
            shown += [
                InputExample(
                    documents=name,
                    stratum=stratum,
                    words=words(i),
                    measured=significant(float(values[i])),
                    predicted=None if predicted is None else significant(float(predicted[i])),
                )
                for i in drawn
            ]
    return Examples(
        tuple(shown),
        f"{len(values):,} explored inputs in two disjoint sets; random examples are drawn uniformly from all "
        "inputs of their set",
        {s: n for s, n in short.items() if n},
    )


def attention_examples(
    explored: Iterable[tuple[Batch, Float[Tensor, "_ _ _"]]],
    vocabulary: Vocabulary,
    seed: Seed,
    role: HeadRole | None = None,
    each: int = 4,
) -> Examples[AttentionExample]:
    """Queries with all that they look at: some drawn uniformly from where the role applies, as many from all.

    Args:
        explored: batches with one head's weights, (rows, queries, keys).
        vocabulary: strings of the tokens.
        seed: of every draw.
        role: where the head is said to look.
        each: how many from where the role applies, and how many from all queries beyond position 0.

    Raises:
        ShapeMismatch: weights do not fit their batch.
        BadInput: ``each`` is below 1.
    """
    _check_sizes(each, 1)
    found: list[AttentionExample] = []
    places: list[tuple[int, int, int]] = []
    applies: list[bool] = []
    kept: list[tuple[Batch, np.ndarray, np.ndarray]] = []
    for number, (batch, attention) in enumerate(explored):
        ids, _ = token_ids(batch)
        if tuple(attention.shape) != (*ids.shape, ids.shape[1]):
            raise ShapeMismatch(
                f"attention of shape {tuple(attention.shape)}", f"{(*ids.shape, ids.shape[1])}"
            )
        predicted = np.zeros((*ids.shape, ids.shape[1])) if role is None else role.attention(batch)
        kept.append((batch, attention.detach().cpu().double().numpy(), predicted))
        for row, query in np.argwhere(scored_positions(batch)):
            if query:
                places.append((number, int(row), int(query)))
                applies.append(bool(predicted[row, query].any()))
    where, short = np.flatnonzero(np.array(applies, dtype=bool)), {}
    for name, pool in (("role", where), ("random", np.arange(len(places)))):
        wanted = each if role is not None or name == "random" else 0
        at = seed.child("attention examples", name).numpy()
        for index in at.choice(pool, min(wanted, len(pool)), replace=False) if len(pool) else ():
            number, row, query = places[index]
            batch, weights, predicted = kept[number]
            ids = token_ids(batch)[0][row, : query + 1]
            found.append(
                AttentionExample(
                    tokens=tuple(vocabulary.strings[t] for t in ids),
                    query=query,
                    attention=tuple(significant(v) for v in weights[row, query, : query + 1].tolist()),
                    predicted=tuple(significant(v) for v in predicted[row, query, : query + 1].tolist()),
                    source=batch.rows[row].document,
                )
            )
        if wanted > len(pool):
            short[name] = wanted - len(pool)
    where_words = (
        f"; the role applies to {len(where):,} of them, from which {each} were drawn" if role else ""
    )
    return Examples(
        tuple(found),
        f"{len(places):,} queries of explored text beyond the first position, from which {each} were drawn "
        f"uniformly{where_words}",
        short,
    )


def _check_sizes(each: int, window: int) -> None:
    if each < 1 or window < 1:
        raise BadInput(f"{each} examples in windows of {window}", "1 or more")


def _sets() -> tuple[tuple[Documents, bool], tuple[Documents, bool]]:
    return ("first", False), ("second", True)


def _active(values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Above 0; for a component that mostly is, in its highest tenth."""
    active = values > 0
    if active.mean() <= DENSE:
        return np.asarray(active)
    return np.asarray(values > np.quantile(values, 1 - TOP))


def _near(
    active: Bool[np.ndarray, " n"], predicted: Float[np.ndarray, " n"] | None, seen: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    if predicted is not None:
        missed = ~active & (predicted > predicted.mean())
        if missed.any():
            return np.asarray(missed)
    return np.asarray(~active & seen)


def _draw(
    values: Float[np.ndarray, " n"],
    active: Bool[np.ndarray, " n"],
    near: Bool[np.ndarray, " n"],
    population: Int[np.ndarray, " m"],
    unit: Int[np.ndarray, " n"],
    stratum: Stratum,
    each: int,
    generator: np.random.Generator,
) -> list[int]:
    """Positions of one stratum; but for random ones, from different units as far as there are enough."""
    if stratum == "random":
        return [int(i) for i in generator.permutation(population)[:each]]
    if stratum == "near miss":
        pool = population[near[population]]
    else:
        ranked = population[active[population]]
        ranked = ranked[np.argsort(values[ranked], kind="stable")]
        low, high = (1 - TOP, 1.0) if stratum == "top" else MIDDLE
        pool = ranked[int(np.floor(low * len(ranked))) : int(np.ceil(high * len(ranked)))]
    mixed = generator.permutation(pool)
    _, first = np.unique(unit[mixed], return_index=True)
    fresh = np.sort(first)
    rest = np.setdiff1d(np.arange(len(mixed)), fresh)
    return [int(i) for i in mixed[np.concatenate([fresh, rest])][:each]]


def _window(contexts: Contexts, place: int, window: int, generator: np.random.Generator) -> tuple[int, int]:
    """Where a window around a position begins and ends, within its row; at least half of it lies before."""
    row = contexts.row[place]
    begin, end = int(contexts.starts[row]), int(contexts.starts[row + 1])
    size = min(window, end - begin)
    start = place - int(generator.integers(size // 2, size))
    start = min(max(start, begin), end - size)
    return start, start + size


def _agreement(
    contexts: Contexts, values: Float[np.ndarray, " n"], active: Bool[np.ndarray, " n"]
) -> float | None:
    shares: list[Shaped[np.ndarray, " vocabulary"]] = []
    for _, second in _sets():
        ranked = np.flatnonzero(active & (contexts.second == second))
        if not len(ranked):
            return None
        ranked = ranked[np.argsort(values[ranked], kind="stable")]
        top = contexts.tokens[ranked[int(np.floor((1 - TOP) * len(ranked))) :]]
        shares.append(np.bincount(top, minlength=len(contexts.vocabulary)) / len(top))
    return significant(float(np.minimum(*shares).sum()))
