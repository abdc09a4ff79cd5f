"""Names along the sides of a picture: short enough to stand there, whole where they are pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prosect.report.text import prose, visible

MOST_WHOLE = 120


@dataclass(frozen=True)
class Heading:
    """A name as it is shown, and all of it where that is more (else empty)."""

    shown: str
    whole: str


def names(found: Sequence[str], most: int) -> tuple[Heading, ...]:
    """Names of places, such as sites; those longer than ``most`` characters are cut.

    Where any of them can only be a token (it begins or ends with white space, is empty or holds a control), all
    are taken for tokens, and their white space is made visible.
    """
    if any(name != name.strip() or not name or not name.isprintable() for name in found):
        return tokens(found, most)
    return tuple(_cut(prose(name, MOST_WHOLE), most) for name in found)


def tokens(found: Sequence[str], most: int) -> tuple[Heading, ...]:
    """Tokens with their white space visible; those longer than ``most`` characters are cut."""
    return tuple(_cut(visible(token, MOST_WHOLE), most) for token in found)


def _cut(said: str, most: int) -> Heading:
    return Heading(said, "") if len(said) <= most else Heading(f"{said[: most - 1]}…", said)
