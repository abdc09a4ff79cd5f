"""Activation over two inputs as two small images, measured and predicted, on one scale of lightness."""

from __future__ import annotations

from markupsafe import Markup

from prosect.core.exhibits import Grid
from prosect.core.markup import element
from prosect.report.words import number

SHADES = 8
MOST_CELLS = 128 * 128
_Rows = tuple[tuple[float, ...], ...]


def drawable(grid: Grid) -> bool:
    """Whether both images have the same number of cells, and few enough."""
    shapes = [(len(rows), {len(r) for r in rows}) for rows in (grid.measured, grid.predicted)]
    if any(len(widths) != 1 for _, widths in shapes) or shapes[0] != shapes[1]:
        return False
    return 0 < shapes[0][0] * max(shapes[0][1]) <= MOST_CELLS


def grids(grid: Grid) -> tuple[Markup, Markup, str]:
    """Both images, and the scale they share in words."""
    low = min(min(row) for rows in (grid.measured, grid.predicted) for row in rows)
    high = max(max(row) for rows in (grid.measured, grid.predicted) for row in rows)
    measured = _image(grid.measured, low, high, f"Measured over {grid.rows} and {grid.columns}")
    predicted = _image(grid.predicted, low, high, f"Predicted over {grid.rows} and {grid.columns}")
    return measured, predicted, f"from {number(low)} (blank) to {number(high)} (full)"


def shade(value: float, low: float, high: float) -> int:
    """Lightness step of ``value``: 0 at ``low`` to `SHADES` at ``high``."""
    if high <= low:
        return 0
    return min(SHADES, max(0, round(SHADES * (value - low) / (high - low))))


def _image(rows: _Rows, low: float, high: float, title: str) -> Markup:
    """One path for each shade: runs of equal cells in a row become one stroke of their length."""
    strokes: dict[int, list[str]] = {}
    for r, row in enumerate(rows):
        steps = [shade(v, low, high) for v in row]
        start = 0
        for c in range(1, len(steps) + 1):
            if c == len(steps) or steps[c] != steps[start]:
                if steps[start]:
                    strokes.setdefault(steps[start], []).append(f"M{start} {r}h{c - start}")
                start = c
    paths = [element("path", class_=f"s{s}", d="".join(found)) for s, found in sorted(strokes.items())]
    width, height = len(rows[0]), len(rows)
    frame = element("rect", class_="frame", width=width, height=height)
    image = element("g", *paths, transform="translate(0 .5)")
    return element(
        "svg",
        element("title", title),
        image,
        frame,
        class_="grid",
        viewBox=f"0 0 {width} {height}",
        role="img",
        preserveAspectRatio="none",
    )
