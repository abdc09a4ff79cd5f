"""The types of variables and the operations a checked program consists of.

Every variable has finitely many values, in order; a *code* is the number of one. Numbers are exact fractions, so
that what a program gives is known without rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

NO_VALUE = -1
"""The code of `NOTHING`."""
UNDEFINED = -2
"""The code of what no program gives: a categorical variable taken from several places at once."""

Codes = Int[np.ndarray, "rows positions"]
Role = Literal["q", "k", "v", "mlp_in", "output"]


@dataclass(frozen=True)
class Variable:
    """A variable of a checked program.

    Attributes:
        name: unique within the program.
        values: what it can be, in order of their codes; fractions in ascending order for numerical ones.
        numerical: a number, or one of finitely many values.
        may_be_nothing: whether some input leaves it without a value.
    """

    name: str
    values: tuple[Any, ...]
    numerical: bool = False
    may_be_nothing: bool = False

    @property
    def width(self) -> int:
        """Dimensions it takes in the residual stream."""
        return 1 if self.numerical else len(self.values)

    def vectors(self) -> np.ndarray:
        """What stands for each code, then for `NOTHING`: shape (values + 1, width)."""
        if self.numerical:
            return np.array([*(float(v) for v in self.values), 0.0])[:, None]
        return np.eye(len(self.values) + 1, len(self.values))

    def value(self, code: int) -> Any:
        """The value of a code.

        Raises:
            ValueError: the code of what is undefined.
        """
        from prosect.organisms.compiler.language import NOTHING

        if code == UNDEFINED:
            raise ValueError(f"{self.name} is undefined there")
        return NOTHING if code == NO_VALUE else self.values[code]


@dataclass(frozen=True, eq=False)
class Attend:
    """One head: a select with what is done with it.

    Attributes:
        out: the variable it makes.
        query: name of the variable read at the place that selects.
        key: name of the variable read at the places that may be selected.
        chosen: (keys + 1, queries + 1), whether a key is selected by a query; False for `NOTHING`.
        value: name of the variable that is taken; None where only the number of places counts.
        form: ``mean``, ``pick`` (the one value there is) or ``share`` (1 / (1 + number of places)).
        line: where it was written.
    """

    out: Variable
    query: str
    key: str
    chosen: Bool[np.ndarray, "keys queries"] = field(repr=False)
    value: str | None
    form: Literal["mean", "pick", "share"]
    line: str = ""

    @property
    def reads(self) -> tuple[tuple[Role, str], ...]:
        """What it reads, and as what."""
        always: tuple[tuple[Role, str], ...] = (("q", self.query), ("k", self.key))
        return always if self.value is None else (*always, ("v", self.value))


@dataclass(frozen=True, eq=False)
class Table:
    """Neurons of one MLP: a function of one or two variables at the same position.

    Attributes:
        out: the variable it makes.
        of: names of the variables it reads, one or two.
        codes: code of the result for every code, `NOTHING` last; one axis for each variable.
        factors: of a linear function of numerical variables; None for any other.
        line: where it was written.
    """

    out: Variable
    of: tuple[str, ...]
    codes: Int[np.ndarray, ...] = field(repr=False)
    factors: tuple[float, ...] | None = None
    line: str = ""

    @property
    def reads(self) -> tuple[tuple[Role, str], ...]:
        """What it reads, and as what."""
        return tuple(("mlp_in", name) for name in dict.fromkeys(self.of))


Step = Attend | Table


@dataclass(frozen=True, eq=False)
class Checked:
    """A program that passed the checker.

    Attributes:
        name, about: as of the program.
        vocabulary: its tokens.
        length: positions it is made for.
        causal: whether no position sees a later one.
        given: the variables that are there from the start, ``tokens`` and ``indices``.
        steps: in an order in which they can be computed.
        output: the variable it gives.
    """

    name: str
    about: str
    vocabulary: tuple[Any, ...]
    length: int
    causal: bool
    given: tuple[Variable, ...]
    steps: tuple[Step, ...]
    output: Variable

    @property
    def variables(self) -> dict[str, Variable]:
        """Every variable by name."""
        return {v.name: v for v in (*self.given, *(s.out for s in self.steps))}
