"""Numbers over the tokens of some texts: shaded by size, underlined by sign, the largest in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from prosect.core.markup import element
from prosect.core.pictures import TokenMap, TokenValues
from prosect.report.passages import SHADES, faint, reorders, step
from prosect.report.text import prose, signed, visible
from prosect.report.words import count, number

MOST_TEXTS = 8
MOST_TOKENS = 256
SPOKEN = 5


@dataclass(frozen=True)
class DrawnText:
    """One text.

    Attributes:
        line: its tokens.
        largest: the largest values in words.
        left_out: what of it is not shown.
    """

    line: Markup
    source: str
    note: str
    largest: str
    left_out: str


@dataclass(frozen=True)
class DrawnTokens:
    """A token map ready for the page; one shade means one value in all of its texts.

    Attributes:
        scale: the magnitude that has the full shade, with its unit.
        signed: whether there are negative values.
        left_out: texts not shown.
    """

    kind: Literal["token map"]
    title: str
    about: str
    texts: tuple[DrawnText, ...]
    scale: str
    signed: bool
    left_out: int


def token_map(data: TokenMap) -> DrawnTokens | str:
    """The map, or why it cannot be drawn, in words."""
    texts = data.texts[:MOST_TEXTS]
    if not any(t.tokens for t in texts):
        return "it has no text"
    for i, t in enumerate(texts, 1):
        if len(t.tokens) != len(t.values):
            return f"text {i} has {count(len(t.values), 'value')} for {count(len(t.tokens), 'token')}"
    largest = max((abs(v) for t in texts for v in t.values), default=0.0)
    return DrawnTokens(
        kind="token map",
        title=prose(data.title, 200),
        about=prose(data.about, 800),
        texts=tuple(_text(t, i, len(texts), largest) for i, t in enumerate(texts, 1)),
        scale=f"{number(largest)} {prose(data.unit, 40)}".rstrip(),
        signed=any(v < 0 for t in texts for v in t.values),
        left_out=len(data.texts) - len(texts),
    )


def _text(data: TokenValues, i: int, of: int, largest: float) -> DrawnText:
    order = sorted(range(len(data.values)), key=lambda j: (-abs(data.values[j]), j))
    loud = [j for j in order[:SPOKEN] if data.values[j] != 0]
    centre = order[0] if order else 0
    start = max(0, min(centre - MOST_TOKENS // 2, len(data.tokens) - MOST_TOKENS))
    stop = min(len(data.tokens), start + MOST_TOKENS)
    parts = [_token(data.tokens[j], data.values[j], largest) for j in range(start, stop)]
    if start:
        parts.insert(0, "…")
    if stop < len(data.tokens):
        parts.append("…")
    line = element(
        "p", Markup("".join(parts)), class_="tk", dir="ltr", tabindex="0", role="group",
        aria_label=f"text {i} of {of}",
    )  # fmt: skip
    cut = stop - start < len(data.tokens)
    return DrawnText(
        line=line,
        source=prose(data.source, 80),
        note=signed(prose(data.note, 200)),
        largest="; ".join(f"{visible(data.tokens[j], 24)} {number(data.values[j])}" for j in loud),
        left_out=f"tokens {start + 1:,} to {stop:,} of {len(data.tokens):,}, around the largest value"
        if cut
        else "",
    )


def _token(token: str, value: float, largest: float) -> str:
    text = faint(visible(token))
    shade = step(value, largest, SHADES)
    if shade:
        sign = "minus" if value < 0 else "plus"
        return f'<span class="t s{shade} {sign}" data-v="{number(value)}">{text}</span>'
    return f"<bdi>{text}</bdi>" if reorders(token) else text
