"""Which pictures of explore are drawn on a page of bounded size, and which are only counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prosect.core.pictures import Curve, HeatMap, LensTable, Picture, TokenMap
from prosect.report.curve import DrawnCurve, curve
from prosect.report.heatmap import DrawnMap, heat_map
from prosect.report.lens import DrawnLens, lens_table
from prosect.report.text import prose
from prosect.report.tokenmap import DrawnTokens, token_map
from prosect.report.words import count

MOST_PICTURES = 24
SHARE = 4
"""At most this part of the page, one in so many bytes, goes to pictures."""
NAMES = {
    "heat map": ("heat map", ""),
    "token map": ("map of tokens", "maps of tokens"),
    "lens": ("lens table", ""),
    "curve": ("curve", ""),
}

Drawn = DrawnMap | DrawnTokens | DrawnLens | DrawnCurve


@dataclass(frozen=True)
class Refused:
    """A picture whose records do not fit together: its title, and why it cannot be drawn."""

    kind: str
    title: str
    why: str


@dataclass(frozen=True)
class Explored:
    """What the page shows of explore.

    Attributes:
        figures: drawn, in the order of the records.
        of: how many pictures there are.
        left_out: those that are not drawn, counted by kind; empty if all are.
    """

    figures: tuple[Markup, ...]
    of: int
    left_out: str


def explored(
    pictures: Sequence[Picture], room: int, figure: Callable[[Drawn | Refused], Markup]
) -> Explored | None:
    """The first `MOST_PICTURES` that fit, in order; None where there are none.

    Args:
        pictures: what the run recorded.
        room: bytes for all of them; one that does not fit is passed over, and smaller ones after it are drawn.
        figure: a picture as HTML.
    """
    if not pictures:
        return None
    figures: list[Markup] = []
    missing: list[Picture] = []
    for picture in pictures:
        if len(figures) < MOST_PICTURES:
            made = figure(draw(picture))
            size = len(made.encode("utf-8", "replace"))
            if size <= room:
                figures.append(made)
                room -= size
                continue
        missing.append(picture)
    return Explored(tuple(figures), len(pictures), tally(missing))


def draw(picture: Picture) -> Drawn | Refused:
    """A picture ready for the page, or why it is not drawn."""
    made: Drawn | str
    match picture:
        case HeatMap():
            made = heat_map(picture)
        case TokenMap():
            made = token_map(picture)
        case LensTable():
            made = lens_table(picture)
        case Curve():
            made = curve(picture)
    if isinstance(made, str):
        return Refused("refused", prose(picture.title, 200), made)
    return made


def tally(pictures: Sequence[Picture]) -> str:
    """``2 heat maps, 1 curve``."""
    found: Counter[str] = Counter(p.picture for p in pictures)
    return ", ".join(count(found[kind], *name) for kind, name in NAMES.items() if found[kind])
