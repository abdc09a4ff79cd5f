"""Text that others wrote, made safe to look at: nothing in it can hide, reorder or ring a bell.

Escaping for HTML is not done here: templates and `core.markup` do that to everything. This is about
what escaping leaves alone: control characters, invisible ones, and those that reverse the order of what
follows. They are shown instead of obeyed.
"""

from __future__ import annotations

import re
import unicodedata

SPACE, NEWLINE, TAB = "·", "⏎", "→"
_NEGATIVE = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
_JOINERS = "\u200c\u200d"  # they shape letters and emoji; harmless in prose


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def prose(text: object, most: int = 600) -> str:
    """A sentence or name on one line: controls shown, runs of white space made one, clipped at ``most``."""
    said = str(text)
    out = clip(said, most)
    if not out.isprintable():  # nearly always it is, and pages have a great many names
        out = "".join(
            " " if c in "\n\r\t" else _shown(c) if _hidden(c) and c not in _JOINERS else c for c in out
        )
    return " ".join(out.split())


def signed(text: str) -> str:
    """Numbers below zero with a minus sign instead of a hyphen; a range or a name keeps its own."""
    return _NEGATIVE.sub("−", text)


def code(text: object, most: int = 2000) -> str:
    """Text whose lines matter: newlines kept, other controls shown, clipped at ``most``."""
    return "".join(_shown(c) if _hidden(c) and c != "\n" else c for c in clip(str(text), most))


def visible(token: str, most: int = 80) -> str:
    """A token with its white space to be seen: · for a space, ⏎ for a newline, → for a tab."""
    out = []
    for c in clip(token, most):
        if c == " ":
            out.append(SPACE)
        elif c == "\n":
            out.append(NEWLINE)
        elif c == "\t":
            out.append(TAB)
        elif _hidden(c) or unicodedata.category(c) == "Zs":
            out.append(_shown(c))
        else:
            out.append(c)
    if out and unicodedata.category(out[0][0]).startswith("M"):
        out.insert(0, "◌")  # or the mark would sit on the token before
    return "".join(out) or "∅"


def clip(text: str, most: int) -> str:
    """``text``, or its beginning and how long it was."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
