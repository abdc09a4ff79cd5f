"""Where in a text each token stands: its line, and whether quotes, a comment or brackets are open there.

A small left-to-right scanner over characters, right for Python and for text that quotes and brackets like
it. It never fails: in other text an apostrophe inside a word opens nothing, a quoted string ends with its
line at the latest, and brackets that were never opened close nothing. It sees a window from its first
token on, so what was opened before the window is unknown to it, as it is to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from prosect.describe.vocabulary import Vocabulary

CODE, COMMENT, STRING, PAIR, TRIPLE = range(5)
"""Outside; after ``#``; inside one quote; after two quotes (an empty string, or a third may follow); inside
three."""

NO_WORD, PREFIX, PREFIXES, WORD = range(4)
"""In code: not in a word; after one or two letters that may prefix a string (r, b, f, u); in another word."""


class State(NamedTuple):
    """Between two characters.

    Attributes:
        mode: one of the modes above.
        quote: the quotation mark that opened, or empty.
        run: closing marks seen in a row inside three quotes; 1 in STRING right after it opened.
        escaped: the next character is escaped.
        word: one of the word states above.
    """

    mode: int = CODE
    quote: str = ""
    run: int = 0
    escaped: bool = False
    word: int = NO_WORD


class Step(NamedTuple):
    """What a token does: the state after it, and bracket depth d becomes max(d + net, floor)."""

    after: State
    net: int
    floor: int


START = State()


def read(state: State, char: str) -> tuple[State, int]:
    """The state after one character, and the change in bracket depth it asks for."""
    mode, quote = state.mode, state.quote
    if mode == COMMENT:
        return (START if char == "\n" else state), 0
    if mode == STRING:
        if state.escaped:
            return State(STRING, quote), 0
        if char == "\n":
            return START, 0
        if char == quote:
            return (State(PAIR, quote) if state.run else START), 0
        return State(STRING, quote, escaped=char == "\\"), 0
    if mode == TRIPLE:
        if state.escaped:
            return State(TRIPLE, quote), 0
        if char == quote:
            return (START if state.run == 2 else State(TRIPLE, quote, state.run + 1)), 0
        return State(TRIPLE, quote, escaped=char == "\\"), 0
    if mode == PAIR and char == quote:
        return State(TRIPLE, quote), 0
    word = state.word if mode == CODE else NO_WORD
    if char in "'\"":
        # After a word a quotation mark is an apostrophe, or closes what opened before the window.
        return (START if word == WORD else State(STRING, char, run=1)), 0
    if char == "#":
        return State(COMMENT), 0
    if char.isalnum() or char == "_":
        can_prefix = char in "rbfuRBFU" and word in (NO_WORD, PREFIX)
        return State(word=word + 1 if can_prefix else WORD), 0
    return START, 1 if char in "([{" else -1 if char in ")]}" else 0


@dataclass(frozen=True)
class Scan:
    """Where each token of a window stands.

    Attributes:
        line: the token that has the line's first visible character, up to and including this one; the line
            is the one this token ends in; -1 while the line is empty.
        previous: likewise for the nearest earlier line that is not blank; -1 where there is none.
        quotes: inside quotation marks, the marks included.
        comment: inside a comment.
        brackets: inside brackets, the brackets included.
    """

    line: Int[np.ndarray, " n"]
    previous: Int[np.ndarray, " n"]
    quotes: Bool[np.ndarray, " n"]
    comment: Bool[np.ndarray, " n"]
    brackets: Bool[np.ndarray, " n"]

    def at(self, kept: Bool[np.ndarray, " n"]) -> Scan:
        """Some of its tokens."""
        return Scan(
            *(column[kept] for column in (self.line, self.previous, self.quotes, self.comment, self.brackets))
        )


class Scanner:
    """Scans windows of one vocabulary; what a token does from a state is computed once and kept.

    Args:
        vocabulary: strings of the tokens. A special token is no text: it ends everything that is open.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._strings = vocabulary.strings
        self._specials = vocabulary.specials
        self._steps: dict[tuple[State, int], Step] = {}
        self._lines: dict[int, tuple[bool, bool, bool, bool]] = {}

    def scan(self, windows: Sequence[Sequence[int]]) -> Scan:
        """The tokens of all windows, one after another."""
        count = sum(len(w) for w in windows)
        line, previous = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
        flags = np.zeros((3, count), dtype=bool)
        at = 0
        for window in windows:
            state, depth, first, before = START, 0, -1, -1
            for token in window:
                if token in self._specials:
                    state, depth, first, before = START, 0, -1, -1
                    at += 1
                    continue
                step = self._steps.get((state, token)) or self._step(state, token)
                newline, head, middle, tail = self._lines.get(token) or self._line(token)
                if newline:
                    ended = token if middle or (head and first < 0) else first
                    before = ended if ended >= 0 else before
                    first = token if tail else -1
                elif first < 0 and tail:
                    first = token
                line[at], previous[at] = first, before
                after = max(depth + step.net, step.floor)
                flags[0, at] = state.mode in (STRING, TRIPLE) or step.after.mode in (STRING, TRIPLE)
                flags[1, at] = step.after.mode == COMMENT
                flags[2, at] = depth > 0 or after > 0
                state, depth = step.after, after
                at += 1
        return Scan(line, previous, flags[0], flags[1], flags[2])

    def _step(self, state: State, token: int) -> Step:
        now, net, floor = state, 0, 0
        for char in self._strings[token]:
            now, change = read(now, char)
            net += change
            floor = floor + change if change >= 0 else max(floor - 1, 0)
        made = Step(now, net, floor)
        self._steps[state, token] = made
        return made

    def _line(self, token: int) -> tuple[bool, bool, bool, bool]:
        """Whether it has a newline, and visible text before the first, between, and after the last."""
        head, *rest = self._strings[token].split("\n")
        visible = [bool(part.strip()) for part in rest]
        if rest:
            made = (True, bool(head.strip()), any(visible[:-1]), visible[-1])
        else:
            made = (False, False, False, bool(head.strip()))
        self._lines[token] = made
        return made
