"""The language: sequences made from sequences, as in RASP (Weiss, Goldberg & Yahav 2021, "Thinking Like
Transformers").

An expression stands for one value at every position. `tokens` and `indices` are given; `elementwise` and
`sequence_map` work position by position; `select` says which positions look at which, and `aggregate` and
`selector_width` are what can be done with that. A variable is *categorical* (one of finitely many values, a one-hot
vector in the network) or *numerical* (a number, one direction in the network). Types are inferred, and
everything checked, when a `Program` is checked (`check.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from prosect.core.errors import BadInput

Value = Hashable
TYPES = ("jaxtyping", "beartype")  # what wraps functions where tests check types


class _Nothing:
    """What a selection that is empty gives; there is one."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING = _Nothing()
"""The value of a categorical variable that has none: a vector of zeros."""


def _line() -> str:
    """``file.py:12`` of the code that wrote the expression: the nearest that is not in this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _ours(frame):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _ours(frame: FrameType) -> bool:
    """Whether this is not the user's code: this file, what a dataclass generates, what checks types."""
    module = str(frame.f_globals.get("__name__", ""))
    return module == __name__ or frame.f_code.co_filename.startswith("<") or module.startswith(TYPES)


@dataclass(frozen=True, eq=False)
class Expression:
    """One value at every position.

    Attributes:
        name: for messages and for the truth; made up from the operation where it is empty.
        line: where it was written.
    """

    name: str = field(default="", kw_only=True)
    line: str = field(default_factory=_line, kw_only=True)

    @property
    def reads(self) -> tuple[Expression, ...]:
        """The expressions it is made from."""
        return ()


@dataclass(frozen=True, eq=False)
class Tokens(Expression):
    """The token at each position; categorical, its values the program's vocabulary."""


@dataclass(frozen=True, eq=False)
class Indices(Expression):
    """The number of each position, from 0; categorical."""


tokens = Tokens(name="tokens", line="")
indices = Indices(name="indices", line="")


@dataclass(frozen=True, eq=False)
class Elementwise(Expression):
    """`elementwise`."""

    function: Callable[[Any], Any]
    of: Expression
    numerical: bool = False

    @property
    def reads(self) -> tuple[Expression, ...]:
        return (self.of,)


@dataclass(frozen=True, eq=False)
class SequenceMap(Expression):
    """`sequence_map`."""

    function: Callable[[Any, Any], Any]
    first: Expression
    second: Expression
    numerical: bool = False

    @property
    def reads(self) -> tuple[Expression, ...]:
        return (self.first, self.second)


@dataclass(frozen=True, eq=False)
class Linear(Expression):
    """`linear`."""

    a: int | float
    first: Expression
    b: int | float
    second: Expression

    @property
    def reads(self) -> tuple[Expression, ...]:
        return (self.first, self.second)


@dataclass(frozen=True, eq=False)
class Selector:
    """Which keys each query selects; no sequence itself. Made by `select`."""

    keys: Expression
    queries: Expression
    predicate: Callable[[Any, Any], bool]
    line: str = field(default_factory=_line)


@dataclass(frozen=True, eq=False)
class Aggregate(Expression):
    """`aggregate`."""

    selector: Selector
    values: Expression
    default: Any = NOTHING

    @property
    def reads(self) -> tuple[Expression, ...]:
        return (self.selector.queries, self.selector.keys, self.values)


@dataclass(frozen=True, eq=False)
class SelectorWidth(Expression):
    """`selector_width`."""

    selector: Selector

    @property
    def reads(self) -> tuple[Expression, ...]:
        return (self.selector.queries, self.selector.keys)


def elementwise(
    function: Callable[[Any], Any], of: Expression, *, numerical: bool = False, name: str = ""
) -> Expression:
    """``function`` of the value at each position.

    Args:
        function: called once for each value that the variable can have, when the program is checked.
        of: the variable; where it may be `NOTHING`, so may the argument.
        numerical: whether the result is a number rather than one of finitely many values.
        name: of the result.
    """
    return Elementwise(function, of, numerical, name=name)


def sequence_map(
    function: Callable[[Any, Any], Any],
    first: Expression,
    second: Expression,
    *,
    numerical: bool = False,
    name: str = "",
) -> Expression:
    """``function`` of two categorical variables at each position; called for every pair of their values."""
    return SequenceMap(function, first, second, numerical, name=name)


def linear(
    a: int | float, first: Expression, b: int | float, second: Expression, *, name: str = ""
) -> Expression:
    """``a · first + b · second``, both numerical."""
    return Linear(a, first, b, second, name=name)


def categorical(of: Expression, *, name: str = "") -> Expression:
    """The values of a numerical variable as categories; whole numbers become ints."""
    return Elementwise(_label, of, False, name=name)


def numerical(of: Expression, *, name: str = "") -> Expression:
    """A categorical variable whose values are numbers, as a number."""
    return Elementwise(_same, of, True, name=name)


def select(keys: Expression, queries: Expression, predicate: Callable[[Any, Any], bool]) -> Selector:
    """At each position, the positions with ``predicate(their key, this query)``.

    Args:
        keys: categorical, read at the places that may be selected.
        queries: categorical, read at the place that selects.
        predicate: called for every pair of values when the program is checked.
    """
    return Selector(keys, queries, predicate)


def aggregate(
    selector: Selector, values: Expression, default: Any = NOTHING, *, name: str = ""
) -> Expression:
    """The values at the selected positions: their mean where they are numbers, else the one there is.

    Args:
        selector: where to look; at most one place for a categorical variable.
        values: what to take from there.
        default: what a categorical variable becomes where nothing is selected. The mean of nothing is 0.
        name: of the result.
    """
    return Aggregate(selector, values, default, name=name)


def selector_width(selector: Selector, *, name: str = "") -> Expression:
    """How many positions are selected; categorical, ints from 0."""
    return SelectorWidth(selector, name=name)


@dataclass(frozen=True, eq=False)
class Program:
    """A program: what it computes, over which tokens, up to which length.

    Attributes:
        output: what it gives at each position.
        vocabulary: the tokens, all different.
        length: positions it is made for.
        causal: whether no position sees a later one.
        name: for people.
        about: one line on what it computes.
    """

    output: Expression
    vocabulary: Sequence[Value]
    length: int
    causal: bool = False
    name: str = "program"
    about: str = ""

    def __post_init__(self) -> None:
        if len(self.vocabulary) < 1 or len(set(self.vocabulary)) != len(self.vocabulary):
            raise BadInput(f"vocabulary {list(self.vocabulary)!r}", "one token or more, all different")
        if self.length < 1:
            raise BadInput(f"length {self.length}", "at least 1")


def _same(x: Any) -> Any:
    return x


def _label(x: Any) -> Any:
    return int(x) if x == int(x) else x
