"""The shipped programs compute what their names say, written down a second time in plain Python."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from prosect.organisms.compiler import zoo
from prosect.organisms.compiler.interpret import evaluate, every_input, run
from prosect.organisms.compiler.programs import SHIPPED


def balanced(s):
    stack = []
    for t in s:
        if t in "([":
            stack.append(t)
        elif not stack or stack.pop() + t not in ("()", "[]"):
            return False
    return not stack


def most_frequent(s):
    return max(sorted(set(s)), key=s.count)


def last_follower(s, i):
    before = [j for j in range(i) if s[j] == s[i]]
    return s[before[-1] + 1] if before else "-"


def unique(s):
    kept = list(dict.fromkeys(s))
    return kept + ["-"] * (len(s) - len(kept))


EXPECTED = {
    "reverse": lambda s: s[::-1],
    "sort": sorted,
    "histogram": lambda s: [Counter(s)[t] for t in s],
    "fraction-previous": lambda s: [Fraction(s[: i + 1].count("x"), i + 1) for i in range(len(s))],
    "dyck-1": lambda s: [balanced(s)] * len(s),
    "dyck-2": lambda s: [balanced(s)] * len(s),
    "most-frequent": lambda s: [most_frequent(s)] * len(s),
    "remove-duplicates": unique,
    "detect-pattern": lambda s: [s[max(i - 2, 0) : i + 1] == ["a", "b", "a"] for i in range(len(s))],
    "count": lambda s: [s.count("x")] * len(s),
    "max-of-k": lambda s: [max(s)] * len(s),
    "modular-sum": lambda s: [sum(s) % 3] * len(s),
    "induction": lambda s: [last_follower(s, i) for i in range(len(s))],
    "difference-of-shares": lambda s: [
        Fraction(s[: i + 1].count("x") - s[: i + 1].count("y"), i + 1) for i in range(len(s))
    ],
}
"""What each program should give for a list of tokens."""


def test_every_shipped_program_is_written_down_twice():
    assert set(EXPECTED) == set(SHIPPED) and len(SHIPPED) >= 12


@pytest.mark.parametrize("name", SHIPPED)
def test_it_gives_what_its_name_says(name):
    program = zoo.program_of(name)
    rng = np.random.default_rng(0)
    for tokens in every_input(program):
        rows = tokens if len(tokens) <= 300 else tokens[rng.choice(len(tokens), 300, replace=False)]
        found = run(program, rows)["output"]
        for codes, got in zip(rows, found, strict=True):
            sequence = [program.vocabulary[c] for c in codes]
            assert [program.output.value(int(c)) for c in got] == EXPECTED[name](sequence), sequence


def test_one_sequence_at_a_time_is_the_same():
    program = zoo.program_of("sort")
    assert evaluate(program, [3, 1, 2, 1]) == [1, 1, 2, 3]


@pytest.mark.parametrize("name", SHIPPED)
def test_it_says_which_line_made_each_operation(name):
    assert all(step.line.startswith("programs.py:") for step in zoo.program_of(name).steps)
