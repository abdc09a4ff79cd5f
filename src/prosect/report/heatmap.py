"""A number for each place and position as a table: shaded by size, hatched where negative, the control beside it.

Small maps have their numbers in the cells. Larger ones show the number of the cell that is pointed at, and
their largest cells in words; screen readers find a number in every cell of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from prosect.core.pictures import HeatMap
from prosect.report.headings import Heading, names
from prosect.report.passages import SHADES, step
from prosect.report.text import prose
from prosect.report.words import count, number

MOST_ROWS, MOST_COLUMNS = 64, 64
"""More would be too small to read at the width of the page."""
NUMBERED_COLUMNS = 14
"""So many numbers of three digits fit side by side."""
NAME, POSITION = 26, 14
LARGEST = 10

_Rows = Sequence[Sequence[float | None]]
_Grid = Float[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Cell:
    """One value.

    Attributes:
        classes: shade, sign, outline.
        value: the number in words; empty where there is nothing.
        at: where it is, for those who point at it.
        ends: its 95 % interval in words; empty where there is none.
        claimed: whether a claim was made about it.
        stop: whether the keyboard stops at it.
    """

    classes: str
    value: str
    at: str
    ends: str
    claimed: bool
    stop: bool


@dataclass(frozen=True)
class Panel:
    """The map itself or its control: rows of cells under a name."""

    name: str
    rows: tuple[tuple[Heading, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class DrawnMap:
    """A heat map ready for the page.

    Attributes:
        numbered: whether numbers stand in the cells.
        intervals: whether intervals stand beside them.
        turned: whether the names along the top are written upwards.
        scale: the magnitude that has the full shade, with its unit.
        signed: whether there are negative values.
        claimed: how many of the cells shown are outlined.
        largest: the largest cells in words; empty where all numbers can be read.
        left_out: what is not drawn, in a sentence.
    """

    kind: Literal["heat map"]
    title: str
    about: str
    n: str
    columns: tuple[Heading, ...]
    panels: tuple[Panel, ...]
    numbered: bool
    intervals: bool
    turned: bool
    scale: str
    signed: bool
    claimed: int
    largest: tuple[str, ...]
    left_out: str


def heat_map(data: HeatMap) -> DrawnMap | str:
    """The map, or why it cannot be drawn, in words."""
    shape = (len(data.rows), len(data.columns))
    if not all(shape):
        return "it has no rows or no columns"
    if not _fits(data.values, shape):
        return f"its values are not {count(shape[0], 'row')} of {shape[1]:,}"
    if data.control and not _fits(data.control, shape):
        return f"its control’s values are not {count(shape[0], 'row')} of {shape[1]:,}"
    for name, grid in (("lower", data.low), ("upper", data.high)):
        if grid and not _fits(grid, shape):
            return f"the {name} ends of its intervals are not {count(shape[0], 'row')} of {shape[1]:,}"
    values = _array(data.values)
    control = _array(data.control) if data.control else None
    ends = (_array(data.low), _array(data.high)) if data.low and data.high else None
    claimed = np.zeros(shape, dtype=bool)
    outside = 0
    for r, c in data.claimed:
        if 0 <= r < shape[0] and 0 <= c < shape[1]:
            claimed[r, c] = True
        else:
            outside += 1

    top, left = part(values, claimed, MOST_ROWS, MOST_COLUMNS)
    rows, columns = slice(top, top + MOST_ROWS), slice(left, left + MOST_COLUMNS)
    numbered = len(data.columns[columns]) <= NUMBERED_COLUMNS
    loud = loudest(values, LARGEST)
    largest = max(_size(values), 0.0 if control is None else _size(control))
    down, along = names(data.rows, NAME), names(data.columns, POSITION)
    stops = claimed.copy()
    for r, c in loud:
        stops[r, c] = True

    def panel(name: str, of: Float[np.ndarray, "rows columns"], own: bool) -> Panel:
        made = []
        for r in range(*rows.indices(shape[0])):
            cells = tuple(
                _cell(
                    of[r, c],
                    largest,
                    "" if numbered else f"{down[r].shown}, {along[c].shown}",
                    _ends(ends, r, c) if own else "",
                    own and bool(claimed[r, c]),
                    own and not numbered and bool(stops[r, c]),
                )
                for c in range(*columns.indices(shape[1]))
            )
            made.append((down[r], cells))
        return Panel(name, tuple(made))

    panels = [panel("explored", values, True)]
    if control is not None:
        panels.append(panel("control", control, False))
    shown = claimed[rows, columns]
    said = (
        ()
        if numbered and shape == shown.shape
        else tuple(
            _said(
                down[r],
                along[c],
                values[r, c],
                _ends(ends, r, c),
                None if control is None else control[r, c],
            )
            for r, c in loud
        )
    )
    unit = prose(data.unit, 40)
    return DrawnMap(
        kind="heat map",
        title=prose(data.title, 200),
        about=prose(data.about, 800),
        n=count(data.n, "independent unit") if data.n > 0 else "",
        columns=along[columns],
        panels=tuple(panels),
        numbered=numbered,
        intervals=ends is not None,
        turned=not numbered or max(len(h.shown) for h in along[columns]) > _room(len(along[columns])),
        scale=f"{number(largest)} {unit}".rstrip(),
        signed=any("neg" in cell.classes for p in panels for _, row in p.rows for cell in row),
        claimed=int(shown.sum()),
        largest=said,
        left_out=_left_out(shape, top, left, int(claimed.sum() - shown.sum()), outside),
    )


def _room(columns: int) -> int:
    """Characters that a name may have above its column: few columns may be wider than their numbers."""
    return 16 if columns <= 4 else 6


def part(
    values: Float[np.ndarray, "rows columns"],
    claimed: Bool[np.ndarray, "rows columns"],
    most_rows: int,
    most_columns: int,
) -> tuple[int, int]:
    """First row and column of the part that is drawn, of a map that is too large.

    Of all parts of the largest size that fits, the one with the most claimed cells; of those, the one whose
    magnitudes add up to most; of those, the first.
    """
    height, width = min(most_rows, values.shape[0]), min(most_columns, values.shape[1])
    if (height, width) == values.shape:
        return 0, 0
    claims = _sums(claimed.astype(np.float64), height, width)
    size = np.abs(np.nan_to_num(values))
    sizes = _sums(size / max(float(size.max()), 1e-300), height, width)
    sizes = np.where(claims == claims.max(), sizes, -1.0)
    r, c = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
    return int(r), int(c)


def loudest(values: Float[np.ndarray, "rows columns"], most: int) -> list[tuple[int, int]]:
    """Row and column of the largest magnitudes, largest first; zeros and gaps are none of them."""
    size = np.abs(np.nan_to_num(values)).ravel()
    order = np.argsort(-size, kind="stable")[:most]
    return [divmod(int(i), values.shape[1]) for i in order if size[i] > 0]


def _sums(
    values: Float[np.ndarray, "rows columns"], height: int, width: int
) -> Float[np.ndarray, "tops lefts"]:
    """The sum over every part of ``height`` by ``width``."""
    whole = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    parts = (
        whole[height:, width:] - whole[:-height, width:] - whole[height:, :-width] + whole[:-height, :-width]
    )
    out: Float[np.ndarray, "tops lefts"] = parts.round(9)  # or rounding would choose between equal parts
    return out


def _ends(ends: tuple[_Grid, _Grid] | None, r: int, c: int) -> str:
    """The interval of a cell in words."""
    if ends is None or np.isnan(ends[0][r, c]) or np.isnan(ends[1][r, c]):
        return ""
    return f"[{number(float(ends[0][r, c]))}, {number(float(ends[1][r, c]))}]"


def _cell(value: float, largest: float, at: str, ends: str, claimed: bool, stop: bool) -> Cell:
    if np.isnan(value):
        return Cell("nil at" if claimed else "nil", "", at, "", claimed, False)
    shade = step(value, largest, SHADES)
    classes = [f"s{shade}"] if shade else []
    if shade and value < 0:
        classes.append("neg")
    if claimed:
        classes.append("at")
    return Cell(" ".join(classes), number(float(value)), at, ends, claimed, stop)


def _said(row: Heading, column: Heading, value: float, ends: str, control: float | None) -> str:
    said = f"{row.shown} at {column.shown}: {number(float(value))} {ends}".rstrip()
    if control is None:
        return said
    return f"{said} (control {'nothing' if np.isnan(control) else number(float(control))})"


def _left_out(shape: tuple[int, int], top: int, left: int, claimed: int, outside: int) -> str:
    said = []
    if shape[0] > MOST_ROWS or shape[1] > MOST_COLUMNS:
        which = []
        if shape[0] > MOST_ROWS:
            which.append(f"rows {top + 1:,} to {top + MOST_ROWS:,} of {shape[0]:,}")
        if shape[1] > MOST_COLUMNS:
            which.append(f"columns {left + 1:,} to {left + MOST_COLUMNS:,} of {shape[1]:,}")
        drawn = min(shape[0], MOST_ROWS) * min(shape[1], MOST_COLUMNS)
        missing = f"{count(shape[0] * shape[1] - drawn, 'cell')} are in findings.json alone"
        said.append(
            f"Drawn are {' and '.join(which)}, the part with the most claimed cells and, among equals, the "
            f"largest values; {missing}" + (f", {claimed:,} of them claimed." if claimed else ".")
        )
    if outside:
        said.append(f"{count(outside, 'claimed cell')} of the records lie outside the map.")
    return " ".join(said)


def _fits(values: _Rows, shape: tuple[int, int]) -> bool:
    return len(values) == shape[0] and all(len(row) == shape[1] for row in values)


def _array(values: _Rows) -> Float[np.ndarray, "rows columns"]:
    out: Shaped[np.ndarray, "rows columns"] = np.array(
        [[np.nan if v is None else v for v in row] for row in values], dtype=np.float64
    )
    return out


def _size(values: Float[np.ndarray, "rows columns"]) -> float:
    return float(np.abs(np.nan_to_num(values)).max())
