"""The terminal's table and the notebook's card; and what the page's style and script promise."""

import re
from importlib.resources import files
from io import StringIO

import pytest
from reader import read_page
from rich.cells import cell_len
from rich.console import Console

from conftest import RUNS
from prosect.core.verdicts import verdicts
from prosect.report import run_card, summary
from prosect.store.ledger import read

STYLE = files("prosect.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
SCRIPT = files("prosect.report").joinpath("templates", "script.js").read_text(encoding="utf-8")


def in_terminal(run):
    out = StringIO()
    Console(file=out, width=80, force_terminal=False).print(summary(run))
    return out.getvalue()


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_terminal_gets_eighty_columns_and_the_ledgers_counts(runs, name):
    said = in_terminal(runs(name))
    folded = [line for line in said.splitlines() if not line.startswith(("Report", "No report", "/"))]
    assert all(cell_len(line) <= 80 for line in folded)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", said)
    found = [v.overall for v in verdicts(read(runs(name) / "ledger.jsonl")).values()]
    if found:
        for outcome, word in (
            ("supported", "supported"),
            ("refuted", "refuted"),
            ("not tested", "not tested"),
        ):
            assert re.search(rf"^ *{found.count(outcome)}  \S {word}", said, re.M)
        assert re.search(rf"^ *{len(found)}  claims? registered", said, re.M)
    else:
        assert "No claim was registered" in said


def test_the_terminal_names_three_of_each(runs):
    said = in_terminal(runs("normal"))
    best, worst = said.split("Strongest support")[1].split("Most surprising failures")
    assert best.count("●") == 3 and worst.count("○") == 3 and worst.count("explored") == 3


def test_markup_of_a_run_means_nothing_to_the_terminal(copy):
    run = copy("slight")
    text = (run / "findings.json").read_text().replace("A small model", "[bold red]A[/] [link=http://x]small")
    (run / "findings.json").write_text(text)
    assert "[bold red]A[/] [link=http://x]small" in in_terminal(run)


@pytest.mark.parametrize("name", ["normal", "hostile", "empty", "unfinished"])
def test_the_card_is_html_without_script(runs, name):
    html = run_card(runs(name))
    page = read_page(html)
    assert {n.tag for n in page.walk()} <= {"root", "div", "strong", "table", "tr", "th", "td", "p"}
    found = verdicts(read(runs(name) / "ledger.jsonl"))
    assert f"{len(found):,}" in page.words
    assert "http" not in html


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_both_themes():
    """WCAG 2.1: at least 4.5 to 1 for text, 3 to 1 for what a figure needs to be read."""
    themes = dict(re.findall(r"--(\w+): (light-dark\(.+?\));", STYLE))
    colours = {k: re.findall(r"#[0-9a-f]{6}", v) for k, v in themes.items()}
    for theme in (0, 1):
        at = {k: v[theme] for k, v in colours.items() if v}
        for ground in ("paper", "raised"):
            for ink in ("ink", "muted", "accent"):
                assert contrast(at[ink], at[ground]) >= 4.5, (ink, ground, theme)
        shades = [at[f"s{i}"] for i in range(1, 9)]
        assert all(contrast(at["ink"], s) >= 4.5 for s in shades)
        light = [luminance(s) for s in shades]
        assert light == sorted(light, reverse=theme == 0)  # darker, or lighter, at every step
        assert contrast(shades[-1], at["paper"]) >= 2.9


def test_script_is_small_and_style_fetches_nothing():
    assert len(SCRIPT.encode()) < 30_000
    assert not re.search(r"url\((?!#hatch\))|@import|@font-face|https?:", STYLE)
    assert not re.search(
        r"https?:|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML|localStorage|document\.write", SCRIPT
    )
    assert "</" not in SCRIPT and "</" not in STYLE


def test_every_shape_that_carries_meaning_survives_print():
    printed = STYLE.split("@media print")[1]
    assert "print-color-adjust: exact" in printed
    for name in ("mk.r", "mk.i"):
        assert f".{name}" in STYLE or "border: .13em" in STYLE
