"""Tokens as people read them: invisible characters shown, everything quoted, long lists cut and counted."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

VISIBLE = {" ": "·", "\n": "⏎", "\t": "→", "`": "\\`", "\\": "\\\\"}
"""Characters with a sign of their own; a backslash escapes everything else that cannot be seen."""

LONGEST_TOKEN = 24
LONGEST_SENTENCE = 120


def visible(text: str) -> str:
    """``text`` on one line with nothing invisible in it.

    A space is ``·``, a newline ``⏎``, a tab ``→``; control, format, private and unassigned characters,
    other spaces, combining marks without a base, and the signs themselves are written as escapes.

    Example:
        >>> visible(" self\\n")
        '·self⏎'
    """
    out: list[str] = []
    for i, char in enumerate(text):
        if char in VISIBLE:
            out.append(VISIBLE[char])
        elif char in "·⏎→":
            out.append(f"\\u{ord(char):04x}")
        else:
            category = unicodedata.category(char)
            bare_mark = category[0] == "M" and i == 0
            if category[0] in "CZ" or bare_mark:
                code = ord(char)
                out.append(
                    f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
                )
            else:
                out.append(char)
    return "".join(out)


def quoted(token: str) -> str:
    """One token between back quotes, cut if it is very long; an empty one says so."""
    if not token:
        return "the empty token"
    shown = visible(token)
    return f"`{shown if len(shown) <= LONGEST_TOKEN else shown[: LONGEST_TOKEN - 1] + '…'}`"


def listing(tokens: Sequence[str], shown: int) -> str:
    """The first ``shown`` tokens, quoted, and how many more there are."""
    parts = [quoted(t) for t in tokens[:shown]]
    rest = len(tokens) - len(parts)
    if rest:
        return f"{', '.join(parts)} and {rest} more"
    return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def significant(value: float, digits: int = 6) -> float:
    """``value`` rounded to so many significant digits: what records hold and people read."""
    return float(f"{value:.{digits}g}")
