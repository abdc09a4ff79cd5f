"""Errors that say what was got, what was expected and what to try.

ProsectError            exit code 1
├── BadInput            exit code 2: the user can mend it
│   ├── UnknownName     a name that is not there, with the nearest that are
│   ├── NotFinite       NaN or infinity where a number was needed
│   ├── ShapeMismatch   a tensor or dictionary made for something else
│   ├── UnsafeFile      pickles, remote code, paths that lead out of a folder
│   ├── OutOfScope      a claim used on a model or data that it was not made for
│   ├── Conflict        the place already holds something else
│   ├── NewerSchema     written by a later prosect
│   ├── TooLittleData   fewer independent units than a test needs
│   └── Unsupported     a thing this architecture or method does not have, refused by name
├── RankLost            exit code 2: another process of a training stopped (decompose/ranks)
└── VerificationFailed  exit code 1: a ledger that does not hold
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProsectError(Exception):
    """Anything prosect raises on purpose."""

    exit_code = 1


class BadInput(ProsectError, ValueError):
    """Something the user handed in cannot be used.

    Args:
        got: what was received, with its value where that helps.
        expected: what would have been accepted.
        hint: what to try next; may be empty.
    """

    exit_code = 2

    def __init__(self, got: str, expected: str, hint: str = "") -> None:
        self.got, self.expected, self.hint = got, expected, hint
        message = f"got {got}; expected {expected}"
        super().__init__(f"{message}; try {hint}" if hint else message)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.got, self.expected, self.hint))


class UnknownName(BadInput):
    """A name that is not among those known; names the nearest ones.

    Args:
        what: what kind of thing the name should denote, such as ``"site"``.
        name: the name received.
        known: every name that would have been accepted.
        hint: what to try next.
    """

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.what, self.name, self.known = what, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=4, cutoff=0.5)
        listed = near or self.known[:8]
        more = "" if near or len(self.known) <= 8 else f" and {len(self.known) - 8} more"
        expected = f"one of {', '.join(listed)}{more}" if listed else "nothing: none are known here"
        super().__init__(f"unknown {what} {name!r}", expected, hint)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.what, self.name, self.known, self.hint))


class NotFinite(BadInput):
    """NaN or infinity where finite numbers were needed."""


class ShapeMismatch(BadInput):
    """A tensor whose shape does not fit, or a dictionary made for another width or model."""


class UnsafeFile(BadInput):
    """A file that could run code or lead outside its folder: refused unless explicitly allowed."""


class OutOfScope(BadInput):
    """A claim used on a model, data, dtype or tokenizer other than the one it was tested on."""


class Conflict(BadInput):
    """The place already holds something else, or someone else is working there."""


class NewerSchema(BadInput):
    """A record written by a later version of prosect."""


class TooLittleData(BadInput):
    """Fewer independent units than the work needs."""


class Unsupported(BadInput):
    """Something this architecture or method does not have; refused by name rather than guessed."""


class VerificationFailed(ProsectError):
    """A ledger line was edited, deleted, inserted or reordered, or a published head does not match."""
