"""The coverage page: what it names exists, no row is there twice, and its counts are its own."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
STATES = {"done", "part", "not yet"}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| id |"))
]


def test_every_row_has_four_cells_and_one_of_three_states():
    assert ROWS
    assert [row for row in ROWS if len(row) != 4] == []
    assert {state for _, _, state, _ in ROWS} <= STATES


def test_no_id_occurs_twice_and_series_have_no_gap():
    ids = [row[0] for row in ROWS]
    assert [i for i, n in Counter(ids).items() if n > 1] == []
    series: dict[str, list[int]] = {}
    for name in ids:
        stem, number = re.fullmatch(r"([A-Z](?:\d\.)?|\d\.(?:\d\.)?)(\d+)", name).groups()
        series.setdefault(stem, []).append(int(number))
    assert series.pop("2.") == [4, 6]  # sections of one row
    for stem, numbers in series.items():
        assert numbers == list(range(1, len(numbers) + 1)), stem


def test_the_counts_at_the_top_are_the_tables():
    total, *counts = map(
        int, re.search(r"(\d+) rows, of which (\d+) done, (\d+) part, (\d+) not yet", PAGE).groups()
    )
    found = Counter(row[2] for row in ROWS)
    assert total == len(ROWS)
    assert counts == [found["done"], found["part"], found["not yet"]]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_shows_it_exists(row):
    _, _, state, shown = row
    named = re.findall(r"`([^`]+)`", shown)
    assert bool(named) == (state != "not yet")
    said = re.sub(r"`[^`]+`", "", shown)  # a test's name may speak of something else that lacks something
    assert ("lacks" in said) == (state == "part")
    for name in named:
        file, _, test = name.partition("::")
        path = ROOT / file
        assert path.is_file(), name
        assert bool(test) == file.startswith("tests/"), name
        if test:
            assert re.search(rf"^def {re.escape(test)}\(", path.read_text(encoding="utf-8"), re.M), name
        else:
            assert file.startswith(("benchmarks/", "docs/")), name
