"""Tokens as a reader should see them: shaded by what was measured, underlined by what was predicted.

Shade and underline have steps, given as classes; the value itself appears when a token is pointed at or
walked to, and the largest ones are in a sentence for those who cannot see the shading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from prosect.core.exhibits import AttentionExample, Exhibit, TokenExample
from prosect.core.markup import element
from prosect.report.text import NEWLINE, SPACE, TAB, visible
from prosect.report.words import number

SHADES, LINES = 8, 4
MOST_TOKENS = 64
SPOKEN = 4
STRATA = ("top", "middle", "near miss", "random")
MOST_EACH = 6
"""Examples shown of one stratum from one set of documents."""


@dataclass(frozen=True)
class Scale:
    """The largest magnitudes, so that one shade means one value all over a card."""

    measured: float
    predicted: float


def scale_of(exhibit: Exhibit) -> Scale:
    """Over every token example of a component."""
    return Scale(
        max((abs(v) for e in exhibit.tokens for v in e.measured), default=0.0),
        max((abs(v) for e in exhibit.tokens for v in e.predicted), default=0.0),
    )


def passage(example: TokenExample, scale: Scale) -> Markup:
    """The tokens of one example; the one it was drawn for is outlined."""
    return _line(example.tokens, example.measured, example.predicted, example.centre, scale, "activation")


def attention(example: AttentionExample) -> Markup:
    """Where one query looks, on the scale of attention itself, 0 to 1."""
    scale = Scale(1.0, 1.0)
    return _line(example.tokens, example.attention, example.predicted, example.query, scale, "attention")


def _line(
    tokens: Sequence[str],
    measured: Sequence[float],
    predicted: Sequence[float],
    centre: int,
    scale: Scale,
    what: str,
) -> Markup:
    start = max(0, min(centre - MOST_TOKENS * 2 // 3, len(tokens) - MOST_TOKENS))
    stop = min(len(tokens), start + MOST_TOKENS)
    parts: list[str] = ["…"] if start else []
    loudest: list[tuple[float, int, str]] = []
    for i in range(start, stop):
        m = measured[i] if i < len(measured) else 0.0
        p = predicted[i] if i < len(predicted) else None
        classes = _classes(m, p, scale, i == centre)
        text = faint(visible(tokens[i]))
        if classes:
            value = f"{number(m)}" if p is None else f"{number(m)}, predicted {number(p)}"
            parts.append(f'<span class="{classes}" data-v="{value}">{text}</span>')
            loudest.append((max(abs(m), abs(p or 0.0)), i, f"{visible(tokens[i])} {value}"))
        else:
            parts.append(f"<bdi>{text}</bdi>" if reorders(tokens[i]) else text)
    if stop < len(tokens):
        parts.append("…")
    loudest.sort(key=lambda item: (-item[0], item[1]))
    said = "; ".join(words for _, _, words in loudest[:SPOKEN])
    spoken = element("span", f"{what}: {said or 'none'}.", class_="sr")
    return Markup('<p class="tk" dir="ltr">') + Markup("".join(parts)) + spoken + Markup("</p>")


def _classes(m: float, p: float | None, scale: Scale, centre: bool) -> str:
    shade = step(m, scale.measured, SHADES)
    line = step(p or 0.0, scale.predicted, LINES)
    out = [f"s{shade}"] if shade else []
    if line:
        out.append(f"u{line}")
    if shade and m < 0:
        out.append("neg")
    if centre:
        out.append("at")
    return " ".join(["t", *out]) if out else ""


def step(value: float, largest: float, steps: int) -> int:
    """0 for nothing to see, else 1 to ``steps`` by magnitude."""
    if largest <= 0 or abs(value) < 0.02 * largest:
        return 0
    return min(steps, max(1, round(steps * (abs(value) / largest))))


def faint(text: str) -> str:
    """Escaped text whose white-space signs stand back."""
    out = str(escape(text))
    for sign in (SPACE, NEWLINE, TAB):
        if sign in out:
            out = out.replace(sign, f"<i>{sign}</i>").replace("</i><i>", "")
    return out


def reorders(token: str) -> bool:
    """Whether a token may be written from right to left, and has to be kept apart from its neighbours."""
    return any(ord(c) > 0x58F for c in token)


@dataclass(frozen=True)
class Stratum:
    """Examples drawn in one way, from both sets of documents."""

    name: str
    first: tuple[tuple[str, Markup], ...]
    second: tuple[tuple[str, Markup], ...]
    left_out: int


def strata(exhibit: Exhibit) -> tuple[Stratum, ...]:
    """Token examples by stratum, each with the name of its source."""
    scale = scale_of(exhibit)
    out = []
    for name in STRATA:
        sides = {
            side: [e for e in exhibit.tokens if e.stratum == name and e.documents == side]
            for side in ("first", "second")
        }
        drawn = {k: tuple((e.source, passage(e, scale)) for e in v[:MOST_EACH]) for k, v in sides.items()}
        if any(drawn.values()):
            left = sum(len(v) - len(drawn[k]) for k, v in sides.items())
            out.append(Stratum(name, drawn["first"], drawn["second"], left))
    return tuple(out)
