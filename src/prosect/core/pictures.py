"""What can be seen of a whole network at once: maps over places and tokens, readings by layer, curves by dose.

A picture shows what explore looked like. It is never an estimate: what was chosen because it looked large is
claimed, and measured anew on data that nobody had seen.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prosect.core.records import Finite, Measured, Record


class HeatMap(Record):
    """One number for each place and position: the effect of patching it, a share of attention.

    Attributes:
        title: what was mapped.
        about: how, in one sentence: what was put where, over how many rows, beside which control.
        rows: names down the side, such as sites; the first layer comes first.
        columns: names along the top, such as positions or tokens.
        values: (rows, columns); None where there is nothing.
        control: the same for the control; empty where there is none.
        low: lower ends of 95 % intervals of the values; empty where none were made.
        high: their upper ends.
        unit: of the values.
        n: independent units that each value is a mean of.
        claimed: (row, column) of the cells that a claim was made about.
    """

    picture: Literal["heat map"] = "heat map"
    title: str
    about: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Finite | None, ...], ...]
    control: tuple[tuple[Finite | None, ...], ...] = ()
    low: tuple[tuple[Finite | None, ...], ...] = ()
    high: tuple[tuple[Finite | None, ...], ...] = ()
    unit: str = ""
    n: int = 0
    claimed: tuple[tuple[int, int], ...] = ()


class TokenValues(Record):
    """One text with a number for each token.

    Attributes:
        source: where the text is from.
        note: what must be known of this one, such as the completeness error.
    """

    tokens: tuple[str, ...]
    values: tuple[Finite, ...]
    source: str = ""
    note: str = ""


class TokenMap(Record):
    """Numbers over the tokens of some texts, such as attributions; signs are shown.

    Attributes:
        texts: drawn at random unless ``about`` says otherwise.
    """

    picture: Literal["token map"] = "token map"
    title: str
    about: str
    texts: tuple[TokenValues, ...]
    unit: str = ""


class Reading(Record):
    """What a layer says at a position: its likeliest token, how likely, and where the true one ranks (from 1)."""

    token: str
    probability: Finite
    rank: int | None = None


class LensTable(Record):
    """A text read at every layer.

    Attributes:
        tokens: of the text, along the top.
        layers: down the side, the first layer first.
        readings: (layers, tokens).
        target: what ``rank`` is of.
    """

    picture: Literal["lens"] = "lens"
    title: str
    about: str
    tokens: tuple[str, ...]
    layers: tuple[str, ...]
    readings: tuple[tuple[Reading, ...], ...]
    target: str = "the token that follows"


class Series(Record):
    """One line of a curve; ``role`` is ``own`` for what is claimed about, else ``control`` or ``side effect``."""

    name: str
    role: Literal["own", "control", "side effect"]
    measured: tuple[Measured, ...]


class Curve(Record):
    """How something changes with a dose, an interval at each.

    Attributes:
        along: what the doses are, such as "strength".
        doses: where each series has its numbers.
        unit: of the numbers.
    """

    picture: Literal["curve"] = "curve"
    title: str
    about: str
    along: str
    doses: tuple[Finite, ...]
    series: tuple[Series, ...]
    unit: str = ""


Picture = Annotated[HeatMap | TokenMap | LensTable | Curve, Field(discriminator="picture")]
"""Any of them, told apart by ``picture``."""
