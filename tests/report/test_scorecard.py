"""The page of an audit: inert, the same each time, with every line, its controls and its words; and the table."""

import io
import subprocess
import sys

import pytest
from fabricate import HOSTILE
from reader import read_page
from rich.console import Console
from test_safety import check_inert

from prosect.core.exhibits import Figure
from prosect.core.records import Measured
from prosect.decompose.audit.limitations import LIMITATIONS
from prosect.decompose.audit.lines import Line, Scorecard, exact, not_run
from prosect.report.scorecard import axis_over, drawn, page, table, value


def about(x, reach=0.02):
    return Measured(estimate=x, low=x - reach, high=x + reach, n=40, method="bootstrap")


def card(hostile=""):
    figures = (
        Figure(name=f"figure {hostile}", measured=about(0.4), unit="nats", about=hostile),
        Figure(name="missing", measured=Measured(estimate=None, note=f"not run: {hostile}no curve")),
    )
    controls = {"absent": f"identity {hostile}", "present": "random", "null": "shuffled"}
    lines = [
        Line(
            "L1",
            about(0.3),
            about(0.0),
            about(1.0),
            about(0.9),
            controls=controls,
            figures=figures,
            remarks=(f"r{hostile}",),
        ),
        Line("L2", exact(0.25), exact(0.0), exact(1.0), Measured(estimate=None, note="a count")),
        Line("L3", about(0.01), about(0.0), about(0.4), about(-0.1)),
        Line("L4", about(0.1, 0.05), about(0.0), about(0.5), about(0.0)),
        Line("L5", about(0.1), about(0.1), about(0.1), about(0.1)),
        *(not_run(id, f"because {hostile}{id}") for id in list(LIMITATIONS)[5:]),
    ]
    return Scorecard(
        f"topk@x {hostile}",
        {"model": f"m {hostile}", "n": 3},
        tuple(lines),
        (f"note {hostile}",),
        {"python": "3"},
    )


@pytest.fixture(scope="module")
def made():
    return read_page(page(card()))


def test_every_line_has_its_word_its_controls_and_its_reason(made):
    text = made.text
    for id, limitation in LIMITATIONS.items():
        assert f"{id} {limitation.name}" in text
    for word in ("outside", "inside", "undecided", "cannot tell", "not run"):
        assert word in text
    assert "because L7" in text and "no curve" in text and "identity" in text
    assert "2 are inside" in text and "4 are not run" in text


def test_the_page_is_inert_whatever_the_records_hold():
    for hostile in (
        HOSTILE if isinstance(HOSTILE, str) else HOSTILE[0],
        "<script>alert(1)</script>",
        '"><img src=x>',
    ):
        html = page(card(hostile))
        check_inert(html)
        assert "<script>alert" not in html


def test_the_same_records_give_the_same_bytes():
    assert page(card()) == page(card())


def test_a_line_that_was_not_run_or_cannot_tell_has_no_drawing():
    found = card()
    axis = axis_over(found)
    assert drawn(found.line("L7"), axis) == "" and drawn(found.line("L5"), axis) == ""
    assert "within" in drawn(found.line("L1"), axis)


def test_the_axis_holds_the_controls_and_is_bounded():
    far = Line("L1", about(900.0), about(0.0), about(1.0), about(-50.0))
    axis = axis_over(Scorecard("d", {}, (far,)))
    assert axis.low <= 0 and axis.high >= 1 and axis.high - axis.low <= 3
    assert "clear" in drawn(far, axis)  # it lies beyond the axis, and an arrow says so
    assert "clear" not in drawn(card().line("L1"), axis)


def test_a_count_is_shown_without_an_interval():
    assert value(exact(1234.0)) == "1,234"
    assert value(exact(0.25)) == "0.25"
    assert value(Measured(estimate=None, note="why")) == "why"


def test_the_table_fits_eighty_columns_and_says_why_a_line_was_not_run():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(card("[red]x")))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "L6 was not run" in text and "○ outside" in text and "[red]x" in text


def test_no_torch_is_needed_to_show_a_scorecard():
    code = "import sys; from prosect.report.scorecard import page; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
