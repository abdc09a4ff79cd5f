"""The programs that ship: what each computes, over which tokens, up to which length.

Every one is a function without arguments, so that its lines are what the checker names.
"""

from __future__ import annotations

from collections.abc import Callable

from prosect.organisms.compiler.language import (
    Expression,
    Program,
    aggregate,
    categorical,
    elementwise,
    indices,
    linear,
    numerical,
    select,
    selector_width,
    sequence_map,
    tokens,
)

LETTERS = ("a", "b", "c", "d")
NUMBERS = (0, 1, 2, 3)


def anywhere(_: object, __: object) -> bool:
    """Selects every position."""
    return True


def same(key: object, query: object) -> bool:
    """Selects equal values."""
    return key == query


def pair(first: Expression, second: Expression, name: str) -> Expression:
    """Both values as one."""
    return sequence_map(lambda a, b: (a, b), first, second, name=name)


def length() -> Expression:
    """How many positions there are, everywhere."""
    return selector_width(select(indices, indices, anywhere), name="length")


def reverse() -> Program:
    """Every token at the mirrored position."""
    target = sequence_map(lambda n, i: max(n - 1 - i, 0), length(), indices, name="mirrored-index")
    output = aggregate(select(indices, target, same), tokens, name="reversed")
    return Program(output, LETTERS, 6, name="reverse", about="the sequence backwards")


def sort() -> Program:
    """Tokens in ascending order; equal ones keep theirs."""
    placed = pair(tokens, indices, "token-and-index")
    before = select(placed, placed, lambda k, q: k < q)
    rank = selector_width(before, name="rank")
    output = aggregate(select(rank, indices, same), tokens, name="sorted")
    return Program(output, NUMBERS, 6, name="sort", about="the numbers in ascending order")


def histogram() -> Program:
    """How often each position's token occurs in the sequence."""
    output = selector_width(select(tokens, tokens, same), name="histogram")
    return Program(output, LETTERS, 6, name="histogram", about="how often each token occurs")


def fraction_previous() -> Program:
    """The share of tokens up to here, this one included, that are ``x``."""
    is_x = elementwise(lambda t: int(t == "x"), tokens, numerical=True, name="is-x")
    output = aggregate(select(indices, indices, lambda k, q: k <= q), is_x, name="fraction-of-x")
    return Program(
        output,
        ("x", "y", "z"),
        8,
        causal=True,
        name="fraction-previous",
        about="the share of x among the tokens so far",
    )


def _depth(opening: str, closing: str, name: str) -> Expression:
    """How many brackets of one sort are open after each position; an int, negative where too many closed."""
    sign = elementwise(lambda t: (t == opening) - (t == closing), tokens, numerical=True, name=f"{name}-sign")
    mean = aggregate(select(indices, indices, lambda k, q: k <= q), sign, name=f"{name}-mean")
    return sequence_map(
        lambda m, i: round(m * (i + 1)),
        categorical(mean, name=f"{name}-mean-value"),
        indices,
        name=f"{name}-depth",
    )


def dyck_1() -> Program:
    """Whether the whole sequence of brackets is balanced, said at every position."""
    depth = _depth("(", ")", "bracket")
    below = elementwise(lambda d: d < 0, depth, name="below-zero")
    broken = selector_width(select(below, below, lambda k, _: k), name="times-below-zero")
    last = sequence_map(lambda n, i: i == n - 1, length(), indices, name="is-last")
    final = aggregate(select(last, last, lambda k, _: k), depth, name="final-depth")
    output = sequence_map(lambda b, d: b == 0 and d == 0, broken, final, name="balanced")
    return Program(output, ("(", ")"), 8, name="dyck-1", about="whether round brackets are balanced")


def dyck_2() -> Program:
    """Whether brackets of two sorts are balanced and properly nested, said at every position.

    At each depth of nesting, of both sorts together, opening and closing brackets take turns, so that each
    closing bracket belongs to the one before it at that depth, which must be of its sort.
    """
    sign = elementwise(lambda t: 1 if t in "([" else -1, tokens, numerical=True, name="sign")
    mean = aggregate(select(indices, indices, lambda k, q: k <= q), sign, name="mean-sign")
    depth = sequence_map(
        lambda m, i: max(-1, min(i + 1, round(m * (i + 1)))),
        categorical(mean, name="mean-sign-value"),
        indices,
        name="depth",
    )
    level = sequence_map(lambda t, d: d if t in "([" else d + 1, tokens, depth, name="level")
    placed = pair(level, indices, "level-and-index")
    turn = selector_width(select(placed, placed, lambda k, q: k[0] == q[0] and k[1] <= q[1]), name="turn")
    own = pair(level, turn, "level-and-turn")
    partner = aggregate(
        select(own, own, lambda k, q: k[0] == q[0] and k[1] == q[1] - 1), tokens, "-", name="partner"
    )
    wrong = sequence_map(
        lambda t, p: t in ")]" and p + t not in ("()", "[]"), tokens, partner, name="wrong-partner"
    )
    bad = sequence_map(lambda w, d: w or d < 0, wrong, depth, name="bad")
    times = selector_width(select(bad, bad, lambda k, _: k), name="times-bad")
    last = sequence_map(lambda n, i: i == n - 1, length(), indices, name="is-last")
    final = aggregate(select(last, last, lambda k, _: k), depth, name="final-depth")
    output = sequence_map(lambda b, d: b == 0 and d == 0, times, final, name="balanced")
    return Program(
        output, ("(", ")", "[", "]"), 6, name="dyck-2", about="whether brackets of two sorts are balanced"
    )


def most_frequent() -> Program:
    """The token that occurs most often, everywhere; of equally frequent ones the first in the vocabulary."""
    count = selector_width(select(tokens, tokens, same), name="count")
    candidate = sequence_map(lambda c, t: (-c, t), count, tokens, name="candidate")
    better = selector_width(select(candidate, candidate, lambda k, q: k < q), name="better")
    best = elementwise(lambda b: b == 0, better, name="is-best")
    output = aggregate(select(best, best, lambda k, _: k), tokens, name="most-frequent")
    return Program(output, ("a", "b", "c"), 6, name="most-frequent", about="the token that occurs most often")


def remove_duplicates() -> Program:
    """First occurrences moved to the front, in order; ``-`` after them."""
    placed = pair(tokens, indices, "token-and-index")
    earlier = selector_width(
        select(placed, placed, lambda k, q: k[0] == q[0] and k[1] < q[1]), name="earlier-copies"
    )
    first = elementwise(lambda n: n == 0, earlier, name="is-first")
    kept = pair(first, indices, "first-and-index")
    rank = selector_width(select(kept, kept, lambda k, q: k[0] and k[1] < q[1]), name="firsts-before")
    target = sequence_map(lambda f, r: r if f else "gone", first, rank, name="target")
    output = aggregate(select(target, indices, same), tokens, "-", name="without-duplicates")
    return Program(output, LETTERS, 6, name="remove-duplicates", about="each token once, in order")


def detect_pattern() -> Program:
    """Whether the three tokens that end here are ``a b a``."""
    before = aggregate(select(indices, indices, lambda k, q: k == q - 1), tokens, "-", name="one-before")
    twice = aggregate(select(indices, indices, lambda k, q: k == q - 2), tokens, "-", name="two-before")
    last = sequence_map(lambda a, b: (a, b) == ("b", "a"), before, tokens, name="ends-b-a")
    output = sequence_map(lambda t, e: t == "a" and e, twice, last, name="found")
    return Program(
        output, ("a", "b", "c"), 8, causal=True, name="detect-pattern", about="where a b a has just been read"
    )


def count() -> Program:
    """How many tokens of the sequence are ``x``."""
    is_x = elementwise(lambda t: t == "x", tokens, name="is-x")
    output = selector_width(select(is_x, indices, lambda k, _: k), name="count-of-x")
    return Program(output, ("x", "y", "z"), 8, name="count", about="how often x occurs")


def max_of_k() -> Program:
    """The largest of the tokens, everywhere."""
    larger = selector_width(select(tokens, tokens, lambda k, q: k > q), name="how-many-larger")
    best = elementwise(lambda n: n == 0, larger, name="is-largest")
    output = aggregate(select(best, best, lambda k, _: k), tokens, name="largest")
    return Program(output, NUMBERS, 6, name="max-of-k", about="the largest of the numbers")


def modular_sum() -> Program:
    """The sum of the sequence modulo 3, everywhere."""
    mean = aggregate(select(tokens, tokens, anywhere), numerical(tokens, name="number"), name="mean")
    output = sequence_map(
        lambda m, n: round(m * n) % 3, categorical(mean, name="mean-value"), length(), name="sum-modulo-3"
    )
    return Program(output, (0, 1, 2), 6, name="modular-sum", about="the sum modulo 3")


def induction() -> Program:
    """What followed this token the last time it occurred; ``-`` where it is new."""
    placed = pair(tokens, indices, "token-and-index")
    before = aggregate(select(indices, indices, lambda k, q: k == q - 1), tokens, "-", name="previous-token")
    turn = selector_width(
        select(placed, placed, lambda k, q: k[0] == q[0] and k[1] <= q[1]), name="occurrence"
    )
    earlier = aggregate(select(indices, indices, lambda k, q: k == q - 1), turn, 0, name="occurrence-before")
    key = pair(before, earlier, "previous-and-occurrence")
    query = sequence_map(lambda t, n: (t, n - 1), tokens, turn, name="wanted")
    output = aggregate(select(key, query, same), tokens, "-", name="followed-before")
    return Program(
        output, LETTERS, 6, causal=True, name="induction", about="what followed this token the last time"
    )


def _share_so_far(letter: str) -> Expression:
    one = elementwise(lambda t: int(t == letter), tokens, numerical=True, name=f"is-{letter}")
    return aggregate(select(indices, indices, lambda k, q: k <= q), one, name=f"fraction-of-{letter}")


def difference_of_shares() -> Program:
    """The share of ``x`` so far less the share of ``y`` so far."""
    output = linear(1, _share_so_far("x"), -1, _share_so_far("y"), name="difference")
    return Program(
        output,
        ("x", "y", "z"),
        6,
        causal=True,
        name="difference-of-shares",
        about="the share of x so far less that of y",
    )


SHIPPED: dict[str, Callable[[], Program]] = {
    "reverse": reverse,
    "sort": sort,
    "histogram": histogram,
    "fraction-previous": fraction_previous,
    "dyck-1": dyck_1,
    "dyck-2": dyck_2,
    "most-frequent": most_frequent,
    "remove-duplicates": remove_duplicates,
    "detect-pattern": detect_pattern,
    "count": count,
    "max-of-k": max_of_k,
    "modular-sum": modular_sum,
    "induction": induction,
    "difference-of-shares": difference_of_shares,
}
"""Name → program."""
