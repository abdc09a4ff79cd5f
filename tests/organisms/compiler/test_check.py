"""The checker: what cannot be compiled exactly is refused with its line and the reason."""

import re
from fractions import Fraction

import numpy as np
import pytest

from prosect.core.errors import BadInput
from prosect.organisms.compiler import (
    Program,
    aggregate,
    categorical,
    check,
    compiled,
    elementwise,
    indices,
    linear,
    numerical,
    select,
    selector_width,
    sequence_map,
    tokens,
)
from prosect.organisms.compiler.language import Elementwise, Tokens
from prosect.organisms.compiler.parts import Ramps, neurons
from prosect.organisms.compiler.types import Table, Variable

LETTERS = ("a", "b")


def same(k, q):
    return k == q


def anywhere(k, q):
    return True


def refused(output, why, vocabulary=LETTERS, length=3, causal=False):
    with pytest.raises(BadInput, match=why) as caught:
        check(Program(output, vocabulary, length, causal))
    assert isinstance(output, Tokens) or re.search(r"test_check\.py:\d+: ", str(caught.value))
    return str(caught.value)


def share():
    return aggregate(
        select(indices, indices, lambda k, q: k <= q), elementwise(lambda t: t == "a", tokens, numerical=True)
    )


def test_a_category_is_taken_from_one_place():
    said = refused(aggregate(select(tokens, tokens, anywhere), tokens, name="mixed"), "different values")
    assert "input (a b), position 0" in said and "'mixed'" in said


def test_several_places_with_one_value_are_one_value():
    made = check(Program(aggregate(select(tokens, tokens, same), tokens), LETTERS, 3))
    assert made.output.values == LETTERS


def test_the_line_is_that_of_the_operation():
    number = test_the_line_is_that_of_the_operation.__code__.co_firstlineno
    output = aggregate(select(tokens, tokens, anywhere), tokens)
    assert f"test_check.py:{number + 2}: " in refused(output, "different values")


def test_an_output_always_has_a_value():
    output = aggregate(select(indices, indices, lambda k, q: k == q - 1), tokens)
    assert "position 0" in refused(output, "gives nothing")


def test_functions_are_called_on_every_value_there_can_be():
    assert "(0): ZeroDivisionError" in refused(elementwise(lambda i: 1 / i, indices), "fails on")
    said = refused(sequence_map(lambda a, b: a + b, tokens, indices), "fails on")
    assert "(a, 0)" in said


def test_numbers_are_numbers():
    refused(elementwise(lambda t: t, tokens, numerical=True), "gives 'a'")
    refused(elementwise(lambda t: float("nan"), tokens, numerical=True), "gives nan")
    refused(elementwise(lambda t: 2**0.5, tokens, numerical=True), "denominator")
    refused(elementwise(lambda i: 10.0 ** (3 * i), indices, numerical=True), "up to 1000")


def test_sets_of_values_stay_small():
    with pytest.raises(BadInput, match="2,199,023,255,550 inputs"):
        check(Program(tokens, LETTERS, 40))
    wide = elementwise(lambda i: Fraction(7**i, 401), indices, numerical=True)
    refused(aggregate(select(tokens, tokens, same), wide), "more than 512 different numbers", length=6)
    pair = sequence_map(lambda a, b: (a, b), indices, indices)
    refused(sequence_map(lambda a, b: 0, pair, pair), "81 × 81 pairs of values", ("a",), 9)


def test_types_have_to_fit():
    refused(selector_width(select(share(), tokens, same)), "a number")
    refused(sequence_map(lambda a, b: a, share(), tokens), "a number")
    refused(linear(1, share(), 1, tokens), "categorical")
    refused(aggregate(select(tokens, tokens, same), numerical(indices), default=1), "mean of nothing is 0")
    check(Program(selector_width(select(categorical(share()), categorical(share()), same)), LETTERS, 3))


def test_selecting_by_nothing_is_refused_with_an_input():
    before = aggregate(select(indices, indices, lambda k, q: k == q - 1), tokens)
    assert "position 0" in refused(selector_width(select(before, tokens, same)), "is nothing at")


def test_numbers_too_close_to_tell_apart():
    fine = elementwise(lambda i: Fraction(i, 9000), indices, numerical=True)
    refused(elementwise(lambda x: x > Fraction(1, 9000), fine), "apart")


def test_numbers_that_take_too_much_activation_to_tell_apart():
    """Each is far enough from the next, but one neuron, or all of them together, would round away 1e-4."""
    fine = elementwise(lambda i: (-1, 0, Fraction(1, 900), 1)[i], indices, numerical=True)
    refused(elementwise(lambda x: x > Fraction(1, 1800), fine), "neurons reach", length=4)
    many = elementwise(lambda i: Fraction(i, 900), tokens, numerical=True)
    program = Program(elementwise(lambda x: int(900 * x) % 2, many), range(240), 1)
    with pytest.raises(BadInput, match="neurons together reach"):
        check(program)


def test_ramps_rise_away_from_the_middle():
    """Of n steps of one size, half rise downwards: at either end half are up, 2, 4, 6 ... quarters of a gap each."""
    for n in (1, 4, 7):
        number = Variable("x", tuple(Fraction(i, 3) for i in range(n + 1)), numerical=True)
        ramps = Ramps.of(number, np.arange(n + 1))
        larger = n - n // 2
        assert min(ramps.below, n - ramps.below) == n // 2
        assert np.isclose(ramps.largest, 2 * (larger - 0.5) + 0.5)
        assert np.isclose(ramps.total, sum(4 * (i + 0.5) for i in range(larger)))
        part = neurons(Table(Variable("y", tuple(range(n + 1))), ("x",), np.arange(n + 1)), {"x": number})
        x = np.array([[float(v)] for v in number.values])
        act = np.maximum(x @ part.up["x"] + part.bias, 0)
        assert np.allclose(act @ part.down, np.eye(n + 1)) and act.max() <= ramps.largest + 0.5


def test_a_causal_program_looks_at_nothing_later():
    later = selector_width(select(indices, indices, lambda k, q: k > q))
    assert "position 1 from position 0" in refused(later, "selects", causal=True)
    check(Program(later, LETTERS, 3))


def test_what_no_one_can_write_is_refused_too():
    loop = elementwise(lambda t: t, tokens)
    object.__setattr__(loop, "of", Elementwise(lambda t: t, loop))
    refused(loop, "depends on itself")


@pytest.mark.parametrize(("vocabulary", "length"), [((), 3), (("a", "a"), 3), (("a",), 0)])
def test_vocabularies_and_lengths(vocabulary, length):
    with pytest.raises(BadInput):
        Program(tokens, vocabulary, length)


def test_what_is_not_in_the_vocabulary_is_refused():
    made = compiled(Program(tokens, LETTERS, 3))
    for sequence in (["c"], [], ["a"] * 4):
        with pytest.raises(BadInput):
            made.run(sequence)
        with pytest.raises(BadInput):
            made.interpret(sequence)
