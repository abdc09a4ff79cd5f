"""Drawings hold what they are given, at the place where it belongs."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from reader import read_page

from prosect.core.exhibits import Grid, Scatter, TokenExample
from prosect.core.records import Measured
from prosect.report.axis import PAD, WIDTH, axis_for
from prosect.report.drawings import axis_row, outcome_bar, share_bar, whisker
from prosect.report.grid import SHADES, drawable, grids, shade
from prosect.report.passages import Scale, passage
from prosect.report.scatter import LEFT, SIDE, TOP, scatter
from prosect.report.tally import Tally

calm = settings(deadline=None, max_examples=50)  # a busy machine is no failure
FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@calm
@given(st.lists(FINITE, max_size=8), st.booleans())
def test_an_axis_holds_its_values_between_round_ticks(values, zero):
    axis = axis_for(values, zero=zero)
    assert all(axis.holds(v) for v in values) and (not zero or axis.holds(0.0))
    assert axis.ticks[0] == axis.low < axis.high == axis.ticks[-1]
    assert list(axis.ticks) == sorted(axis.ticks) and 2 <= len(axis.ticks) <= 8
    steps = np.diff(axis.ticks)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    for v in values:
        assert PAD <= axis.x(v) <= WIDTH - PAD


@calm
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_a_bar_is_as_long_as_its_counts(s, r, i, n):
    tally = Tally(s, r, i, n)
    rects = read_page(str(outcome_bar(tally, 300.0, 12.0))).all("rect")
    counts = [c for c in (s, r, i, n) if c]
    assert len(rects) == len(counts)
    for rect, c in zip(rects, counts, strict=True):
        width = float(rect.attributes["width"])
        assert abs(width - (299 * c / tally.registered - 1)) < 0.2 or width == 0.8
    if rects:
        last = rects[-1].attributes
        assert float(last["x"]) + float(last["width"]) <= 300.5


def test_a_bar_over_a_larger_whole_leaves_the_rest_empty():
    rects = read_page(str(outcome_bar(Tally(5, 5, 0, 0), 300.0, 12.0, 100))).all("rect")
    assert sum(float(r.attributes["width"]) for r in rects) < 31
    whole, seen = read_page(str(share_bar(1, 4, 100.0))).all("rect")
    assert float(seen.attributes["width"]) == 25 and float(whole.attributes["width"]) == 99


@calm
@given(FINITE, st.floats(0, 100), st.floats(0, 100), FINITE, FINITE)
def test_a_whisker_is_where_its_numbers_are(centre, below, above, explored, bar):
    m = Measured(estimate=centre, low=centre - below, high=centre + above, n=5)
    axis = axis_for([centre, m.low, m.high, explored, bar])
    drawn = read_page(str(whisker(axis, m, explored=explored, bar=bar, line=centre, fall=True)))
    dot = drawn.one("circle", "own")
    assert abs(float(dot.attributes["cx"]) - axis.x(centre)) <= 0.051
    left, right = map(float, re.findall(r"M(.+?) 9H(.+)", drawn.one("path", "wh").attributes["d"])[0])
    assert abs(left - axis.x(m.low)) <= 0.051 and abs(right - axis.x(m.high)) <= 0.051
    stroke = float(drawn.one("path", "clear").attributes["d"].split(" ")[0][1:])
    assert abs(stroke - axis.x(bar)) <= 0.051
    assert "nan" not in str(drawn.text) and len(axis_row(axis)) > 0


def test_unknown_ends_run_off_the_axis_and_nothing_measured_draws_nothing():
    axis = axis_for([0.0, 1.0])
    drawn = str(whisker(axis, Measured(estimate=0.5, low=0.2, n=3)))
    assert f"H{WIDTH - PAD / 2:g}" in drawn
    assert "circle" not in str(whisker(axis, Measured(estimate=None, n=0)))


@calm
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=30))
def test_scatter_points_lie_inside_and_in_order(points):
    x, y = zip(*points, strict=True)
    data = Scatter(predicted=x, measured=y, control_predicted=x, control_measured=y, population=99)
    page = read_page(str(scatter(data)))
    for class_ in ("own", "control"):
        d = page.one("path", class_).attributes["d"]
        drawn = [tuple(map(float, p)) for p in re.findall(r"M(\S+) (\S+?)h\.1", d)]
        assert len(drawn) == len(points)
        assert all(LEFT <= a <= LEFT + SIDE and TOP <= b <= TOP + SIDE for a, b in drawn)
    own = np.array(drawn)
    assert np.argmax(own[:, 0]) in np.flatnonzero(own[:, 0] == own[:, 0].max())
    assert np.all(own[np.array(x) == max(x), 0] == own[:, 0].max())
    assert np.all(own[np.array(y) == max(y), 1] == own[:, 1].min())
    assert "Measured against predicted" in page.one("title").text


@calm
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_grids_runs_unfold_to_its_cells(rows, columns, seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 0.3, 1.0, -2.0], size=(2, rows, columns))
    grid = Grid(
        rows="a",
        columns="b",
        measured=tuple(map(tuple, values[0].tolist())),
        predicted=tuple(map(tuple, values[1].tolist())),
    )
    assert drawable(grid)
    low, high = values.min(), values.max()
    for image, matrix in zip(grids(grid)[:2], values, strict=True):
        seen = np.zeros((rows, columns), dtype=int)
        for path in read_page(str(image)).all("path"):
            for c, r, run in re.findall(r"M(\d+) (\d+)h(\d+)", path.attributes["d"]):
                cells = seen[int(r), int(c) : int(c) + int(run)]
                assert not cells.any() and len(cells) == int(run)
                cells[:] = int(path.classes[0][1:])
        expected = [[shade(float(v), float(low), float(high)) for v in row] for row in matrix]
        assert seen.tolist() == expected and seen.max() <= SHADES


def test_ragged_and_enormous_grids_are_not_drawn():
    ragged = Grid(rows="a", columns="b", measured=((1.0,), (1.0, 2.0)), predicted=((1.0,), (1.0, 2.0)))
    assert not drawable(ragged)
    wide = tuple((0.0,) * 200 for _ in range(200))
    assert not drawable(Grid(rows="a", columns="b", measured=wide, predicted=wide))
    assert not drawable(Grid(rows="a", columns="b", measured=(), predicted=()))


def example(measured, predicted=(), tokens=None, centre=0):
    tokens = tokens or tuple("abcdefgh"[: len(measured)])
    return TokenExample(
        documents="first",
        stratum="top",
        source="x.py",
        tokens=tokens,
        measured=measured,
        predicted=predicted,
        centre=centre,
    )


def test_shade_and_underline_grow_with_the_value():
    shown = passage(
        example((0.0, 1.0, 2.0, 4.0, 0.01, -4.0), (0.0, 0.5, 1.0, 0.0, 0.0, 0.0)), Scale(4.0, 1.0)
    )
    page = read_page(str(shown))
    tokens = {n.text: n.classes for n in page.all("span", "t")}
    assert (
        tokens["a"] == ["t", "at"] and "e" not in tokens
    )  # below 2 % of the largest there is nothing to see
    assert [tokens[c][1] for c in "bcd"] == ["s2", "s4", "s8"]
    assert "u2" in tokens["b"] and "u4" in tokens["c"] and len(tokens["d"]) == 2
    assert tokens["f"][1:] == ["s8", "neg"]
    values = {n.text: n.attributes["data-v"] for n in page.all("span", "t")}
    assert values["c"] == "2.00, predicted 1.00" and values["f"] == "−4.00, predicted 0"
    assert page.one("span", "sr").words.startswith("activation: d 4.00, predicted 0; f −4.00")
    assert page.words.startswith("abcdef")


def test_long_windows_are_cut_around_their_token():
    tokens = tuple(f"t{i} " for i in range(500))
    page = read_page(str(passage(example((0.0,) * 500, (), tokens, 400), Scale(0.0, 0.0))))
    assert page.words.startswith("…") and "t400" in page.text and "t0·" not in page.text
    assert page.one("span", "at").text == "t400·"


def test_missing_measurements_are_nothing_to_see_and_no_error():
    page = read_page(str(passage(example((1.0,), (), ("a", "b", "c")), Scale(1.0, 0.0))))
    assert [n.text for n in page.all("span", "t")] == ["a"]
