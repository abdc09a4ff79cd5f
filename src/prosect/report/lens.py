"""A text read at every layer: the token in each cell, shaded by its probability, bold where the true one leads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prosect.core.pictures import LensTable, Reading
from prosect.report.headings import Heading, tokens
from prosect.report.passages import SHADES, step
from prosect.report.text import prose
from prosect.report.words import count, number

MOST_TOKENS, MOST_LAYERS = 48, 64
TOKEN = 12


@dataclass(frozen=True)
class Said:
    """What one layer says at one position.

    Attributes:
        classes: shade, and whether the true token ranks first.
        token: the likeliest, cut to fit.
        rank: of the true token; empty where there is none.
        more: probability and rank in words, and the whole token where it was cut.
    """

    classes: str
    token: str
    rank: str
    more: str


@dataclass(frozen=True)
class DrawnLens:
    """A lens table ready for the page.

    Attributes:
        target: what the ranks are of; empty where there is none.
        first: how many of the cells shown have the true token at rank 1, and of how many.
    """

    kind: Literal["lens"]
    title: str
    about: str
    tokens: tuple[Heading, ...]
    rows: tuple[tuple[Heading, tuple[Said, ...]], ...]
    target: str
    first: tuple[int, int]
    left_out: str


def lens_table(data: LensTable) -> DrawnLens | str:
    """The table, or why it cannot be drawn, in words."""
    if not data.tokens or not data.layers:
        return "it has no tokens or no layers"
    if len(data.readings) != len(data.layers) or {len(r) for r in data.readings} != {len(data.tokens)}:
        return f"its readings are not {count(len(data.layers), 'layer')} of {len(data.tokens):,}"
    start, above = max(0, len(data.tokens) - MOST_TOKENS), max(0, len(data.layers) - MOST_LAYERS)
    layers = [Heading(h, "") for h in (prose(name, 24) for name in data.layers[above:])]
    shown = [row[start:] for row in data.readings[above:]]
    ranks = [cell.rank for row in shown for cell in row if cell.rank is not None]
    return DrawnLens(
        kind="lens",
        title=prose(data.title, 200),
        about=prose(data.about, 800),
        tokens=tokens(data.tokens[start:], TOKEN),
        rows=tuple((name, tuple(map(_said, row))) for name, row in zip(layers, shown, strict=True)),
        target=prose(data.target, 120) if ranks else "",
        first=(sum(r == 1 for r in ranks), len(ranks)),
        left_out=_left_out(start, len(data.tokens), above, len(data.layers)),
    )


def _said(reading: Reading) -> Said:
    name = tokens([reading.token], TOKEN)[0]
    shade = step(min(max(reading.probability, 0.0), 1.0), 1.0, SHADES)
    classes = [f"s{shade}"] if shade else []
    rank = "" if reading.rank is None else prose(number(reading.rank), 16)
    if reading.rank == 1:
        classes.append("first")
    more = [name.whole] if name.whole else []
    more.append(f"probability {number(reading.probability)}")
    if rank:
        more.append(f"the true one ranks {rank}")
    return Said(" ".join(classes), name.shown, rank, ", ".join(more))


def _left_out(start: int, tokens: int, above: int, layers: int) -> str:
    said = []
    if start:
        said.append(f"the last {tokens - start:,} of {count(tokens, 'token')}")
    if above:
        said.append(f"the last {layers - above:,} of {count(layers, 'layer')}")
    return f"Shown are {' and '.join(said)}; the others are in findings.json." if said else ""
