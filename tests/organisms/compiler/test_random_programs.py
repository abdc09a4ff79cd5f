"""Random programs, compiled and compared with the interpreter on every input."""

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.organisms.compiler import compiled
from prosect.organisms.compiler.agreement import NUMERIC, agreement
from prosect.organisms.compiler.random_programs import dependence, random_program
from prosect.organisms.compiler.types import Table
from prosect.organisms.compiler.zoo import program_of


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), operations=st.integers(2, 6), turn=st.none() | st.integers(0, 9))
def test_a_random_program_is_compiled_exactly(seed, operations, turn):
    found = agreement(compiled(random_program(seed, operations), turn))
    assert found.complete, found


def test_a_program_that_reads_off_many_numbers_stays_exact_in_any_basis():
    """It tells 85 sums of means apart, some a sixtieth from the next: where rounding of ramps adds up most."""
    program = random_program(447, operations=6)
    (steep,) = [s for s in program.steps if isinstance(s, Table) and s.out.name == "digits-4"]
    number = program.variables[steep.of[0]]
    assert len(number.values) == 85
    for turn in range(4):
        assert agreement(compiled(program, turn)).error < NUMERIC / 2


@cache
def drawn(seed):
    return random_program(seed)


def test_most_of_them_depend_on_several_positions_and_are_not_constant():
    depends = [dependence(drawn(seed)) for seed in range(20)]
    assert sum(d >= 2 for d in depends) >= 0.8 * len(depends), depends


def test_dependence_of_known_programs():
    assert dependence(program_of("histogram")) == 6
    assert dependence(program_of("detect-pattern")) == 3
    assert dependence(program_of("reverse")) == 1


def test_the_same_seed_draws_the_same_program():
    a, b = drawn(7), random_program(7)
    assert [s.out for s in a.steps] == [s.out for s in b.steps]
    assert len({len(drawn(seed).steps) for seed in range(6)}) > 1
