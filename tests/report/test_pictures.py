"""Pictures hold what they are given, every cell where it belongs, and none of them acts or grows without end."""

import re

import numpy as np
import pytest
from explored import dose, heat, lens
from fabricate import HOSTILE, fabricate
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from reader import read_page
from test_safety import check_inert

from prosect.core.pictures import Curve, HeatMap, LensTable, Reading, Series, TokenMap, TokenValues
from prosect.core.records import Measured
from prosect.report import build, run_card
from prosect.report.curve import HEIGHT, MOST_SERIES, WIDTH, curve
from prosect.report.headings import names
from prosect.report.heatmap import MOST_COLUMNS, MOST_ROWS, loudest, part
from prosect.report.page import render, templates
from prosect.report.pictures import MOST_PICTURES, Refused, draw, explored
from prosect.report.reading import read_run
from prosect.report.words import number

calm = settings(deadline=None, max_examples=25)
FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def figure(drawn):
    """What is drawn, as the page has it."""
    return Markup(templates().get_template("picture.html.j2").render(p=drawn))


def page_of(picture):
    return read_page(str(figure(draw(picture)))).one("figure", "picture")


def simple(values, **more):
    return HeatMap(
        title="map",
        about="how",
        rows=tuple(f"r{i}" for i in range(len(values))),
        columns=tuple(f"c{j}" for j in range(len(values[0]))),
        values=values,
        **more,
    )


def shade(node):
    return next((int(c[1:]) for c in node.classes if re.fullmatch("s[1-8]", c)), 0)


def bodies(page):
    return [[r.all("td") for r in t.one("tbody").all("tr")] for t in page.all("table", "map")]


@calm
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_map_has_every_number_in_its_cell_and_shade_grows_with_size(rows, columns, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-3, 3)
    gaps = rng.random((rows, columns)) < 0.2
    own = tuple(
        tuple(None if g else float(v) for v, g in zip(*rc, strict=True))
        for rc in zip(values, gaps, strict=True)
    )
    control = tuple(map(tuple, (rng.choice([0.4, 3.0]) * values).tolist()))
    page = page_of(simple(own, control=control, claimed=((0, 0),)))
    drawn = []
    for table, given_ in zip(bodies(page), (own, control), strict=True):
        assert [len(r) for r in table] == [columns] * rows
        for cells, row in zip(table, given_, strict=True):
            for cell, v in zip(cells, row, strict=True):
                said = cell.words.removesuffix(", claimed")
                assert said in (number(v), "nothing", "") if v is None else said == number(v)
                assert ("nil" in cell.classes) == (v is None)
                if v is not None:
                    drawn.append((abs(v), shade(cell)))
                    assert ("neg" in cell.classes) == (v < 0 and shade(cell) > 0)
    drawn.sort()
    steps = [s for _, s in drawn]
    assert steps == sorted(steps) and steps[-1] == 8
    for size, s in drawn:  # one scale for the map and its control: eighths of the largest of both
        assert abs(s / 8 - size / drawn[-1][0]) <= 1 / 16 + 1e-9 or (s == 1 and size < drawn[-1][0] / 8)


@pytest.mark.parametrize("columns", [6, 40])
def test_every_claimed_cell_is_outlined_and_no_other(columns):
    rng = np.random.default_rng(1)
    values = tuple(map(tuple, rng.normal(size=(5, columns)).tolist()))
    claimed = {(0, 0), (4, columns - 1), (2, 3)}
    page = page_of(simple(values, control=values, claimed=tuple(claimed), n=7))
    own, control = bodies(page)
    found = {(r, c) for r, row in enumerate(own) for c, cell in enumerate(row) if "at" in cell.classes}
    assert found == claimed
    assert {(r, c) for r, row in enumerate(own) for c, x in enumerate(row) if "claimed" in x.words} == claimed
    assert not any("at" in cell.classes for row in control for cell in row)
    assert "3 cells that claims were made about" in page.words and "7 independent units" in page.words
    assert "explored, no evidence" in page.words


@pytest.mark.parametrize("columns", [3, 40])
def test_intervals_stand_beside_their_numbers_and_never_in_the_control(columns):
    values = tuple(tuple(float(c) for c in range(columns)) for _ in range(2))
    low, high = ([tuple(v + d for v in row) for row in values] for d in (-0.5, 0.25))
    low[0] = (None, *low[0][1:])
    page = page_of(simple(values, control=values, low=tuple(low), high=tuple(high)))
    own, control = bodies(page)
    assert own[1][2].words == "2.00[1.50, 2.25]" if columns == 3 else "2.00 [1.50, 2.25]"
    assert "[" not in own[0][0].words and not any("[" in c.words for row in control for c in row)
    assert "95 % interval" in page.words


def test_a_dense_map_says_where_a_cell_is_and_its_largest_in_words():
    values = np.zeros((3, 40))
    values[1, 17], values[2, 5] = -4.0, 3.0
    page = page_of(simple(tuple(map(tuple, values.tolist())), control=tuple(map(tuple, values.tolist()))))
    cell = bodies(page)[0][1][17]
    assert cell.one("b").attributes["data-at"] == "r1, c17" and cell.words == "−4.00"
    assert "Largest: r1 at c17: −4.00 (control −4.00); r2 at c5: 3.00 (control 3.00)." in page.words
    stops = [n.words for n in page.all("td", tabindex="0")]
    assert stops == ["−4.00", "3.00"]  # the keyboard stops at what is worth a look, not at 120 cells


@calm
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_part_drawn_is_the_best_of_all_parts(rows, columns, height, width, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, (rows, columns)).astype(float)
    values[rng.random((rows, columns)) < 0.1] = np.nan
    claimed = rng.random((rows, columns)) < 0.15
    h, w = min(height, rows), min(width, columns)

    def worth(top, left):
        at = slice(top, top + h), slice(left, left + w)
        return claimed[at].sum(), round(float(np.abs(np.nan_to_num(values))[at].sum()), 6), -top, -left

    every = [(t, c) for t in range(rows - h + 1) for c in range(columns - w + 1)]
    assert part(values, claimed, height, width) == max(every, key=lambda at: worth(*at))


@calm
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_loudest_are_the_largest_in_order(rows, columns, seed):
    values = np.random.default_rng(seed).integers(-5, 6, (rows, columns)).astype(float)
    found = loudest(values, 4)
    sizes = [abs(values[at]) for at in found]
    assert sizes == sorted(np.abs(values[values != 0]), reverse=True)[:4]


def test_a_map_that_is_too_large_shows_its_best_part_and_counts_the_rest():
    values = np.full((70, 100), 0.01)
    values[69, 99] = 5.0
    values[0, 0] = -9.0
    page = page_of(simple(tuple(map(tuple, values.tolist())), claimed=((69, 99), (68, 98), (0, 0), (400, 1))))
    (table,) = bodies(page)
    assert len(table) == MOST_ROWS and {len(r) for r in table} == {MOST_COLUMNS}
    assert table[-1][-1].words == "5.00, claimed"
    said = page.words
    assert "rows 7 to 70 of 70 and columns 37 to 100 of 100" in said
    assert f"{7000 - 64 * 64:,} cells are in findings.json alone, 1 of them claimed" in said
    assert "1 claimed cell of the records lie outside" in said
    assert "r0 at c0: −9.00" in said  # the largest, though it is not drawn


def test_names_that_are_tokens_show_their_white_space_and_long_ones_are_cut():
    found = names(["layer one", "b"], 20)
    assert [h.shown for h in found] == ["layer one", "b"]
    found = names([" self", "b c"], 20)
    assert [h.shown for h in found] == ["·self", "b·c"]
    (cut,) = names(["x" * 30], 10)
    assert cut.shown == "x" * 9 + "…" and cut.whole == "x" * 30


def test_a_token_map_underlines_by_sign_and_says_the_largest():
    texts = (
        TokenValues(tokens=(" a", "b", "c\n", "d"), values=(2.0, -4.0, 0.0, 1.0), source="s.py", note="error 1 %"),
        TokenValues(tokens=("e",), values=(-8.0,)),
    )  # fmt: skip
    page = page_of(TokenMap(title="t", about="a", texts=texts, unit="nats"))
    first, second = page.all("div", "text")
    found = {n.text: (shade(n), n.classes[-1], n.attributes["data-v"]) for n in first.all("span", "t")}
    assert found == {"·a": (2, "plus", "2.00"), "b": (4, "minus", "−4.00"), "d": (1, "plus", "1.00")}
    assert "largest: b −4.00; ·a 2.00; d 1.00 · error 1 %" in first.one("span", "src").words
    assert "s.py" in first.words and shade(second.one("span", "t")) == 8
    assert first.one("p", "tk").words.startswith("·abc⏎d")
    assert first.one("p", "tk").attributes["tabindex"] == "0"
    assert "up to 8.00 nats" in page.words and "where negative" in page.words


def test_long_texts_are_cut_around_the_largest_and_many_are_counted():
    values = [0.1] * 1000
    values[600] = -3.0
    text = TokenValues(tokens=tuple(f"t{i}." for i in range(1000)), values=tuple(values))
    page = page_of(TokenMap(title="t", about="a", texts=(text,) * 11))
    assert "3 more texts" in page.words
    first = page.all("div", "text")[0]
    line = first.one("p", "tk").text
    assert "t600." in line and "t1." not in line and len(re.findall(r"t\d+\.", line)) == 256
    assert "tokens 473 to 728 of 1,000" in first.words


def test_a_lens_table_shades_by_probability_and_marks_rank_one():
    rng = np.random.default_rng(0)
    data = lens(rng, 4, [" a", "b", "c"], str)
    page = page_of(data)
    (table,) = bodies(page)
    pairs = []
    for cells, readings in zip(table, data.readings, strict=True):
        for cell, reading in zip(cells, readings, strict=True):
            assert ("first" in cell.classes) == (reading.rank == 1)
            assert cell.one("i").text == number(reading.rank)
            assert cell.text.startswith(reading.token.replace(" ", "·"))
            assert f"probability {number(reading.probability)}" in cell.words
            pairs.append((reading.probability, shade(cell)))
    steps = [s for _, s in sorted(pairs)]
    assert steps == sorted(steps)
    first = sum(r.rank == 1 for row in data.readings for r in row)
    assert f"{first} of 12 cells" in page.words
    box = page.one("div", "scroll")
    assert (box.attributes["tabindex"], box.attributes["role"]) == ("0", "region")
    assert box.attributes["aria-label"]


def test_a_lens_without_truth_says_nothing_of_ranks():
    row = tuple(Reading(token="x", probability=p) for p in (0.0, 1.0))
    page = page_of(LensTable(title="t", about="a", tokens=("a", "b"), layers=("l",), readings=(row,)))
    assert "rank" not in page.words and [shade(c) for c in bodies(page)[0][0]] == [0, 8]


def points(path):
    """Where the pen is set down or drawn to, of a path of absolute M, L, H and V."""
    return [(float(a), float(b)) for a, b in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


@calm
@given(
    st.lists(st.tuples(FINITE, FINITE, st.floats(0, 1e3)), min_size=1, max_size=12),
    st.booleans(),
)
def test_a_curve_lies_inside_its_frame_in_order_of_dose_and_value(rows, open_end):
    doses, centres, halves = zip(*rows, strict=True)
    made = tuple(
        Measured(estimate=c, low=None if open_end else c - h, high=c + h, n=5)
        for c, h in zip(centres, halves, strict=True)
    )
    roles = ("control", "own", "side effect")
    data = Curve(
        title="t", about="a", along="dose", doses=doses,
        series=tuple(Series(name=r, role=r, measured=made) for r in roles),
    )  # fmt: skip
    page = read_page(str(curve(data).drawing))
    assert len(page.all("path", "way")) == len(page.all("path", "mark")) == 3
    for node in page.all("path"):
        for x, y in points(node.attributes["d"]):
            assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
        for y in re.findall(r"V(-?[\d.]+)", node.attributes["d"]):
            assert 0 <= float(y) <= HEIGHT
    for node in page.all("text"):
        if "x" in node.attributes:
            assert 0 <= float(node.attributes["x"]) <= WIDTH and 0 <= float(node.attributes["y"]) <= HEIGHT
    own = next(n for n in page.all("path", "way") if "own" in n.classes)
    drawn = np.array(points(own.attributes["d"]))
    assert len(drawn) == len(doses) and (np.diff(drawn[:, 0]) >= 0).all()
    in_order = [c for _, c in sorted(zip(doses, centres, strict=True), key=lambda p: p[0])]
    for i, a in enumerate(in_order):
        for j, b in enumerate(in_order):
            assert not (a < b and drawn[i, 1] < drawn[j, 1] - 1e-9)  # a larger value is never lower


def test_what_was_not_measured_is_a_gap():
    made = tuple(Measured(estimate=e, note="" if e is not None else "too few") for e in (1.0, None, 2.0, 3.0))
    data = Curve(
        title="t", about="a", along="d", doses=(0, 1, 2, 3), series=(Series(name="s", role="own", measured=made),)
    )  # fmt: skip
    drawn = curve(data)
    way = read_page(str(drawn.drawing)).one("path", "way").attributes["d"]
    assert way.count("M") == 2 and way.count("L") == 1
    assert [row[1][0] for row in drawn.table] == ["1.00", "too few", "2.00", "3.00"]


def test_series_are_told_apart_by_shape_and_by_words():
    page = page_of(dose(np.random.default_rng(0), (-1, 0, 1)))
    keys = page.all("span", "key")
    shapes = [k.one("path", "mark").attributes["d"] for k in keys]
    assert len(set(shapes)) == len(shapes) == 4
    drawn = page.one("svg", "curve").all("path", "mark")
    for shape, mark in zip(shapes, reversed(drawn), strict=True):
        assert mark.attributes["d"].count(shape.removeprefix("M14 7")) == 3  # the legend's, at each dose
    assert [k.one("path", "mark").classes[1] for k in keys] == ["own", "side", "control", "control"]
    assert "side effect, n = 40" in keys[1].words and "control, n = 48" in keys[2].words
    assert len(page.all("path", "band")) == 1
    rows = page.one("table", "plain").one("tbody").all("tr")
    assert [r.one("th").words for r in rows] == ["−1", "0", "1"]
    assert all(re.fullmatch(r"\S+ \[\S+, \S+\]", td.words) for r in rows for td in r.all("td"))


def test_doses_of_many_sizes_stand_at_even_steps_and_this_is_said():
    crowded, calm_ = (dose(np.random.default_rng(0), d) for d in ((0, 0.01, 0.1, 1, 10, 100), (0, 1, 2, 4)))
    assert curve(crowded).even and not curve(calm_).even
    assert "not to scale" in page_of(crowded).words and "not to scale" not in page_of(calm_).words


def test_many_series_are_cut_own_first():
    row = (Measured(estimate=1.0, n=3),)
    series = [Series(name=f"c{i}", role="control", measured=row) for i in range(12)]
    series.append(Series(name="mine", role="own", measured=row))
    drawn = curve(Curve(title="t", about="a", along="d", doses=(1.0,), series=tuple(series)))
    assert len(drawn.lines) == MOST_SERIES and drawn.lines[0].name == "mine"
    assert "5 more series" in drawn.left_out


M = Measured(estimate=1.0)
BROKEN = {
    "ragged": HeatMap(title="t", about="", rows=("a", "b"), columns=("c", "d"), values=((1.0, 2.0), (1.0,))),
    "empty map": HeatMap(title="t", about="", rows=(), columns=("c",), values=()),
    "control": simple(((1.0, 2.0),), control=((1.0,),)),
    "interval": simple(((1.0, 2.0),), low=((1.0, 2.0),), high=((1.0,),)),
    "no text": TokenMap(title="t", about="", texts=()),
    "values": TokenMap(title="t", about="", texts=(TokenValues(tokens=("a",), values=(1.0, 2.0)),)),
    "lens": LensTable(title="t", about="", tokens=("a",), layers=("l",), readings=()),
    "no dose": Curve(title="t", about="", along="d", doses=(), series=()),
    "short": Curve(title="t", about="", along="d", doses=(1.0, 2.0), series=(Series(name="s", role="own", measured=(M,)),)),
    "nothing": Curve(title="t", about="", along="d", doses=(1.0,), series=(Series(name="s", role="own", measured=(Measured(estimate=None),)),)),
    "huge": Curve(title="t", about="", along="d", doses=(1e200,), series=(Series(name="s", role="own", measured=(M,)),)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_records_that_do_not_fit_together_are_not_drawn_and_say_why(name):
    made = draw(BROKEN[name])
    assert isinstance(made, Refused) and made.why
    page = page_of(BROKEN[name])
    assert f"Not drawn: {made.why}." in page.words and not page.all("table") and not page.all("svg")


@pytest.mark.parametrize("size", [1e-300, 1e308, 0.0])
def test_numbers_of_any_size_are_drawn(size):
    drawn = [simple(((size, -size), (None, size)), claimed=((0, 1), (-1, 0)))]
    drawn.append(TokenMap(title="t", about="", texts=(TokenValues(tokens=("a", "b"), values=(size, -size)),)))
    reading = Reading(token="", probability=size, rank=-(10**30))
    drawn.append(LensTable(title="t", about="", tokens=("",), layers=("",), readings=((reading,),)))
    for picture in drawn:
        assert "Not drawn" not in page_of(picture).words


def test_hostile_pictures_are_inert_and_to_be_seen(pages):
    html, _ = pages("pictured-hostile")
    page = check_inert(html)
    section = page.one("section", id="explored")
    assert len(section.all("figure", "picture")) == 9
    labels = [n.attributes["aria-label"] for n in section.all("div", "scroll")]
    assert labels and all(labels)
    assert "<script>alert(1)</script>" in section.text and "⟨U+202E⟩" in section.text


@pytest.mark.parametrize("text", HOSTILE)
def test_every_string_of_every_picture_is_escaped(text):
    found = Measured(estimate=1.0, low=0.0, high=2.0, n=1, method=text, note=text)
    reading = Reading(token=text, probability=0.5, rank=1)
    for picture in (
        HeatMap(title=text, about=text, rows=(text,), columns=(text,) * 20, values=((1.0,) * 20,), unit=text),
        TokenMap(title=text, about=text, unit=text, texts=(TokenValues(tokens=(text,), values=(1.0,), source=text, note=text),)),
        LensTable(title=text, about=text, tokens=(text,), layers=(text,), readings=((reading,),), target=text),
        Curve(title=text, about=text, along=text, doses=(1.0,), unit=text, series=(Series(name=text, role="own", measured=(found,)),)),
        HeatMap(title=text, about=text, rows=(), columns=(), values=()),
    ):  # fmt: skip
        html = str(figure(draw(picture)))
        read_page(html)
        assert not re.search(r"<(script|img|b>angles)", html)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2028\u2029\ufeff]", html)
        for tag in re.findall(r"<[^>]*>", html):
            assert not re.search(r"\son\w+=[^\"]*$", re.sub(r'"[^"]*"', "", tag)), tag


def test_the_section_stands_between_the_map_and_the_components(pages):
    _, page = pages("pictured")
    order = [
        n.attributes["id"] for n in page.one("main").children if not isinstance(n, str) and n.tag == "section"
    ]
    assert order[:4] == ["failed", "map", "explored", "components"]  # fmt: skip
    links = [a.attributes["href"] for a in page.one("nav", "contents").all("a")]
    assert links.index("#explored") == links.index("#map") + 1
    assert "neither an estimate nor evidence" in page.one("section", id="explored").words
    _, without = pages("slight")
    assert not without.all("section", id="explored") and not without.all("a", href="#explored")


def test_pictures_are_bounded_and_the_rest_is_counted(runs):
    small = heat(np.random.default_rng(0), ("a",), ("b", "c"))
    found = explored((small,) * (MOST_PICTURES + 3), 10**9, figure)
    assert len(found.figures) == MOST_PICTURES and found.left_out == "3 heat maps"
    room = 2 * len(str(figure(draw(small))).encode())
    curve_ = dose(np.random.default_rng(0), (0, 1))
    found = explored((small, curve_, small, small, curve_), room, figure)
    assert len(found.figures) == 2 and found.left_out == "1 heat map, 2 curves"
    assert explored((), 10, figure) is None
    run = read_run(runs("pictured"))
    html = render(run, 300_000)
    assert len(html.encode()) <= 300_000
    page = read_page(html)
    drawn = len(page.all("figure", "picture"))
    assert 0 < drawn < 9
    said = page.one("section", id="explored").words
    assert "9 pictures" in said and "Not drawn, to keep this page small" in said


def test_strings_of_any_length_do_not_burst_a_picture(tmp_path):
    long = "<x>" * 300_000
    maps = HeatMap(
        title=long, about=long, rows=(long,), columns=(long, long), values=((1.0, 2.0),), unit=long
    )
    text = TokenMap(title=long, about=long, texts=(TokenValues(tokens=(long,), values=(1.0,), source=long),))
    run = fabricate(
        tmp_path / "run", latents=1, heads=0, neurons=0, rounds=1, rich=False, pictures=(maps, text)
    )
    page = read_page(build(run).read_text(encoding="utf-8"))
    assert len(page.all("figure", "picture")) == 2
    assert len(page.one("section", id="explored").text) < 10_000


def test_the_notebooks_card_counts_them(runs):
    assert (
        "5 heat maps, 1 map of tokens, 1 lens table, 2 curves" in read_page(run_card(runs("pictured"))).words
    )
    assert "pictures of explore" not in run_card(runs("slight"))
