"""The static checker: types of all variables, and every reason why a program cannot be compiled exactly.

Value sets are inferred from operation to operation. What no type can tell (whether a selection finds one value
only, or may find none) is decided by running the interpreter on every input, so an error shows the input. Errors
name the line that wrote the operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int

from prosect.core.errors import BadInput
from prosect.organisms.compiler.interpret import compute, given, inputs_of
from prosect.organisms.compiler.language import (
    NOTHING,
    Aggregate,
    Elementwise,
    Expression,
    Indices,
    Linear,
    Program,
    Selector,
    SelectorWidth,
    SequenceMap,
    Tokens,
)
from prosect.organisms.compiler.parts import Ramps
from prosect.organisms.compiler.types import (
    NO_VALUE,
    UNDEFINED,
    Attend,
    Checked,
    Codes,
    Role,
    Step,
    Table,
    Variable,
)

MOST_INPUTS = 60_000  # all of them are run
MOST_VALUES = 512
MOST_PAIRS = 4096  # of values, in a sequence map: a neuron for each at worst
FINEST = 1e-3  # distance of two numbers that neurons must tell apart
LARGEST = 1000.0  # of a number: float32 keeps 1e-4 of it
TOO_STEEP = 300.0  # activation of a ramp beyond which rounding reaches other variables
TOO_MUCH = 10_000.0  # of the activations of all ramps together: their sum is rounded by about 1e-8 of it


def check(program: Program) -> Checked:
    """The program with all its types, or why it cannot be compiled.

    Raises:
        BadInput: the line, the operation, and the reason.
    """
    return tried(program)[0]


def tried(program: Program) -> tuple[Checked, Codes]:
    """`check`, and what the output is on every input of the full length, in the order of `inputs_of`."""
    inputs = sum(len(program.vocabulary) ** n for n in range(1, program.length + 1))
    if inputs > MOST_INPUTS:
        raise BadInput(
            f"{program.name} with {len(program.vocabulary)} tokens up to length {program.length}: {inputs:,} inputs",
            f"at most {MOST_INPUTS:,}, all of which are checked",
            "fewer tokens or a shorter length",
        )
    checker = _Checker(program)
    output = checker.visit(program.output)
    reachable = _needed(checker.steps, output.name)
    for codes in checker.codes[output.name]:
        if (codes == NO_VALUE).any():
            checker.refuse(
                program.output,
                f"gives nothing at {checker.example(checker.codes[output.name], NO_VALUE)}",
                "an output that always has a value",
                "a default in aggregate",
            )
    made = Checked(
        program.name,
        program.about,
        tuple(program.vocabulary),
        program.length,
        program.causal,
        checker.given,
        reachable,
        output,
    )
    return made, checker.codes[output.name][-1]


def _needed(steps: Sequence[Step], output: str) -> tuple[Step, ...]:
    """The steps that the output is made from."""
    wanted, kept = {output}, []
    for step in reversed(steps):
        if step.out.name in wanted:
            wanted.update(name for _, name in step.reads)
            kept.append(step)
    return tuple(reversed(kept))


class _Checker:
    """One program being checked: what was found so far, and every variable's codes on every input."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.inputs = [inputs_of(len(program.vocabulary), n) for n in range(1, program.length + 1)]
        places = tuple(range(program.length))
        self.given = (
            Variable("tokens", tuple(program.vocabulary)),
            Variable("indices", places),
        )
        self.by_name = {v.name: v for v in self.given}
        self.codes: dict[str, list[Codes]] = {
            v.name: [np.asarray(given(v, x)) for x in self.inputs] for v in self.given
        }
        self.steps: list[Step] = []
        self.done: dict[Expression, Variable] = {}
        self.entered: set[Expression] = set()

    def visit(self, e: Expression) -> Variable:
        """The variable of an expression, with everything below it."""
        if e in self.done:
            return self.done[e]
        if e in self.entered:
            self.refuse(e, "depends on itself", "operations without cycles")
        self.entered.add(e)
        below = [self.visit(other) for other in e.reads]
        match e:
            case Tokens():
                found = self.given[0]
            case Indices():
                found = self.given[1]
            case Elementwise():
                found = self._elementwise(e, below[0])
            case SequenceMap():
                found = self._sequence_map(e, *below)
            case Linear():
                found = self._linear(e, *below)
            case Aggregate():
                found = self._aggregate(e, *below)
            case SelectorWidth():
                found = self._width(e, *below)
            case _:
                self.refuse(e, f"is a {type(e).__name__}", "an operation of the language")
        self.done[e] = found
        return found

    def refuse(self, e: Expression, got: str, expected: str, hint: str = "") -> NoReturn:
        what = type(e).__name__.lower() + (f" {e.name!r}" if e.name else "")
        where = f"{e.line}: " if e.line else ""
        raise BadInput(f"{where}{what} of {self.program.name}, which {got}", expected, hint)

    def example(self, codes: Sequence[Int[np.ndarray, "_ _"]], wanted: int) -> str:
        """The first input and position at which a variable has some code."""
        for tokens, found in zip(self.inputs, codes, strict=True):
            rows, at = np.nonzero(found == wanted)
            if len(rows):
                shown = " ".join(str(self.program.vocabulary[t]) for t in tokens[rows[0]])
                return f"input ({shown}), position {at[0]}"
        return "no input"

    def _elementwise(self, e: Elementwise, of: Variable) -> Variable:
        values = [self._called(e, e.function, (v,)) for v in of.values]
        if of.may_be_nothing:
            values.append(self._called(e, e.function, (NOTHING,)))
        out, codes = self._made(e, values, e.numerical)
        table = np.full(len(of.values) + 1, UNDEFINED if e.numerical else NO_VALUE)
        table[: len(codes)] = codes
        if not of.numerical:
            return self._add(Table(out, (of.name,), table, line=e.line), e)
        self._apart(e, of, table)
        if not out.numerical:
            return self._add(Table(out, (of.name,), table, line=e.line), e)
        # ramps leave some of float32's rounding, which would add up in a number: neurons that cap take it away
        table[-1] = NO_VALUE
        rough = Variable(f"{out.name}.rough", out.values)
        found = self._add(Table(rough, (of.name,), table, line=e.line), e)
        same = np.array([*range(len(out.values)), UNDEFINED])
        return self._add(Table(out, (found.name,), same, line=e.line), e)

    def _sequence_map(self, e: SequenceMap, first: Variable, second: Variable) -> Variable:
        for one in (first, second):
            if one.numerical:
                self.refuse(
                    e, f"reads {one.name}, a number", "two categorical variables", "categorical(x), or linear"
                )
        columns = [[*v.values, *([NOTHING] if v.may_be_nothing else [])] for v in (first, second)]
        if len(columns[0]) * len(columns[1]) > MOST_PAIRS:
            self.refuse(
                e,
                f"reads {len(columns[0])} × {len(columns[1])} pairs of values",
                f"at most {MOST_PAIRS:,}",
                "variables with fewer values",
            )
        values = [self._called(e, e.function, (a, b)) for a in columns[0] for b in columns[1]]
        out, codes = self._made(e, values, e.numerical)
        table = np.full(
            (len(first.values) + 1, len(second.values) + 1), UNDEFINED if e.numerical else NO_VALUE
        )
        table[: len(columns[0]), : len(columns[1])] = codes.reshape(len(columns[0]), len(columns[1]))
        return self._add(Table(out, (first.name, second.name), table, line=e.line), e)

    def _linear(self, e: Linear, first: Variable, second: Variable) -> Variable:
        for one in (first, second):
            if not one.numerical:
                self.refuse(e, f"reads {one.name}, which is categorical", "two numbers", "numerical(x)")
        a, b = (self._number(e, f) for f in (e.a, e.b))
        values = [a * x + b * y for x in first.values for y in second.values]
        out, codes = self._made(e, values, True)
        shape = (len(first.values), len(second.values))
        return self._add(
            Table(out, (first.name, second.name), codes.reshape(shape), (float(a), float(b)), line=e.line), e
        )

    def _aggregate(self, e: Aggregate, query: Variable, key: Variable, of: Variable) -> Variable:
        chosen = self._chosen(e, e.selector, query, key)
        if of.numerical:
            if e.default is not NOTHING:
                self.refuse(
                    e, f"has the default {e.default!r} for a number", "none: the mean of nothing is 0"
                )
            out = Variable(self._name(e), self._means(e, of), numerical=True)
            return self._add(Attend(out, query.name, key.name, chosen, of.name, "mean", e.line), e)
        filled = e.default is not NOTHING
        out = Variable(f"{self._name(e)}.found" if filled else self._name(e), of.values)
        found = self._add(Attend(out, query.name, key.name, chosen, of.name, "pick", e.line), e)
        if not filled:
            return found
        values = [*found.values, e.default if found.may_be_nothing else NOTHING]
        made, codes = self._made(e, values, False)
        return self._add(Table(made, (found.name,), codes, line=e.line), e)

    def _width(self, e: SelectorWidth, query: Variable, key: Variable) -> Variable:
        chosen = self._chosen(e, e.selector, query, key)
        n = self.program.length
        name = self._name(e)
        share = Variable(f"{name}.share", tuple(Fraction(1, w + 1) for w in range(n, -1, -1)), numerical=True)
        found = self._add(Attend(share, query.name, key.name, chosen, None, "share", e.line), e)
        out = Variable(name, tuple(range(n + 1)))
        codes = np.array([*range(n, -1, -1), NO_VALUE])
        return self._add(Table(out, (found.name,), codes, line=e.line), e)

    def _chosen(self, e: Expression, selector: Selector, query: Variable, key: Variable) -> np.ndarray:
        for one in (key, query):
            if one.numerical:
                self.refuse(
                    e, f"selects by {one.name}, a number", "categorical keys and queries", "categorical(x)"
                )
            if one.may_be_nothing:
                where = self.example(self.codes[one.name], NO_VALUE)
                self.refuse(
                    e,
                    f"selects by {one.name}, which is nothing at {where}",
                    "a value everywhere",
                    "a default",
                )
        table = np.zeros((len(key.values) + 1, len(query.values) + 1), dtype=bool)
        for i, k in enumerate(key.values):
            for j, q in enumerate(query.values):
                table[i, j] = bool(self._called(e, selector.predicate, (k, q)))
        later = np.tril(table[:-1, :-1], -1)
        if self.program.causal and key.name == query.name == "indices" and later.any():
            k, q = np.argwhere(later)[0]
            self.refuse(
                e, f"selects position {k} from position {q}", "no later position, in a causal program"
            )
        return table

    def _means(self, e: Expression, of: Variable) -> tuple[Fraction, ...]:
        """Every mean of up to as many values as there are positions, and 0 for none."""
        sums, means = {Fraction(0)}, {Fraction(0)}
        for number in range(1, self.program.length + 1):
            sums = {s + v for s in sums for v in of.values}
            means |= {s / number for s in sums}
            if len(means) > MOST_VALUES:
                self.refuse(
                    e,
                    f"can be more than {MOST_VALUES} different numbers",
                    f"at most {MOST_VALUES}",
                    "fewer values",
                )
        scale = math.lcm(*(m.denominator for m in means)) * math.lcm(*range(1, self.program.length + 1))
        if scale * LARGEST >= 2**62:
            self.refuse(
                e, "averages fractions without a common denominator", "halves, thirds ...", "rounder numbers"
            )
        return tuple(sorted(means))

    def _made(self, e: Expression, values: Sequence[Any], numerical: bool) -> tuple[Variable, np.ndarray]:
        """The variable with these values, and the code of each."""
        if numerical:
            numbers = [self._number(e, v) for v in values]
            known: list[Any] = sorted(set(numbers))
            values = numbers
        else:
            known = list(dict.fromkeys(v for v in values if v is not NOTHING))
        if not known or len(known) > MOST_VALUES:
            self.refuse(
                e, f"can have {len(known)} values", f"1 to {MOST_VALUES}", "a function that gives fewer"
            )
        code = {v: i for i, v in enumerate(known)} | {NOTHING: NO_VALUE}
        return Variable(self._name(e), tuple(known), numerical), np.array([code[v] for v in values])

    def _number(self, e: Expression, value: Any) -> Fraction:
        try:
            number = Fraction(value).limit_denominator(10_000)
            wrong = abs(float(number) - float(value)) > 1e-9
        except (TypeError, ValueError, OverflowError):
            wrong = True
        if wrong:
            self.refuse(
                e,
                f"gives {value!r}",
                "a number whose denominator is at most 10,000",
                "rounding, or a Fraction",
            )
        if abs(number) > LARGEST:
            self.refuse(
                e, f"gives {float(number):g}", f"numbers up to {LARGEST:g} in size", "scaling it down"
            )
        return number

    def _apart(self, e: Expression, of: Variable, table: np.ndarray) -> None:
        """Neighbouring numbers with different results must be far enough apart for float32."""
        for i in range(len(of.values) - 1):
            gap = float(of.values[i + 1] - of.values[i])
            if table[i] != table[i + 1] and gap < FINEST:
                pair = f"{of.values[i]} and {of.values[i + 1]}"
                self.refuse(e, f"has to tell {pair} of {of.name} apart", f"numbers at least {FINEST:g} apart")
        ramps = Ramps.of(of, table)
        for reached, most in ((ramps.largest, TOO_STEEP), (ramps.total, TOO_MUCH)):
            if reached > most:
                together = " together" if most == TOO_MUCH else ""
                self.refuse(
                    e,
                    f"tells so many numbers of {of.name} apart that neurons{together} reach {reached:.0f}",
                    f"at most {most:g}, which float32 leaves exact enough",
                    "fewer numbers, or further apart",
                )

    def _called(self, e: Expression, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        shown = ", ".join(str(a) for a in arguments)
        try:
            value = function(*arguments)
            hash(value)
        except Exception as error:  # whatever the user's function raises
            reason = f"{type(error).__name__}: {error}"
            self.refuse(
                e, f"fails on ({shown}): {reason}", "a function of every value there can be", "a guard for it"
            )
        return value

    def _name(self, e: Expression) -> str:
        name = e.name or f"{type(e).__name__.lower()}-{len(self.steps) + 1}"
        return name if name not in self.by_name else f"{name}-{len(self.steps) + 1}"

    def _codes_of(self, number: int, _: Role, name: str) -> Codes:
        return self.codes[name][number]

    def _add(self, step: Step, e: Expression) -> Variable:
        """Run a step on every input, note what it can be, and keep it."""
        name = step.out.name
        by_name = self.by_name | {name: step.out}
        codes = [
            compute(step, by_name, partial(self._codes_of, i), self.program.causal)
            for i in range(len(self.inputs))
        ]
        if any((c == UNDEFINED).any() for c in codes):
            where = self.example(codes, UNDEFINED)
            self.refuse(
                e,
                f"takes different values from several places at once at {where}",
                "a selector of width one, or one that finds equal values, for a categorical variable",
                "a narrower predicate, or a number, whose mean is taken",
            )
        out = replace(step.out, may_be_nothing=any((c == NO_VALUE).any() for c in codes))
        self.steps.append(replace(step, out=out))
        self.by_name[name], self.codes[name] = out, codes
        return out
