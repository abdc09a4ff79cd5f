"""Progress: one rich display on a terminal, one plain line for each step elsewhere, nothing when quiet.

Everything goes to standard error, so that standard output stays what was asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_quiet: ContextVar[bool] = ContextVar("quiet", default=True)
_display: ContextVar[RichProgress | None] = ContextVar("display", default=None)


class Step:
    """One step under way. `advance` moves it; `note` shows live numbers such as a loss."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._started = time.monotonic()
        display = _display.get()
        self._task = display.add_task(label, total=total, note="", unit=unit) if display else None

    def advance(self, amount: int = 1) -> None:
        """``amount`` more units are done."""
        self.done += amount
        display = _display.get()
        if display is not None and self._task is not None:
            display.update(self._task, advance=amount)

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar."""
        display = _display.get()
        if display is not None and self._task is not None:
            display.update(self._task, note=text)

    def finish(self) -> None:
        """Close the step; without a terminal this prints its one line."""
        seconds = time.monotonic() - self._started
        display = _display.get()
        if display is not None and self._task is not None:
            display.update(self._task, total=self.done or 1, completed=self.done or 1)
        elif not _quiet.get():
            amount = f" {self.done:,} {self.unit}" if self.done and self.unit else ""
            print(f"{self.label}:{amount} in {seconds:.1f} s", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def step(label: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
    """A step of the work, shown while it runs."""
    current = Step(label, total, unit)
    try:
        yield current
    finally:
        current.finish()


@contextmanager
def shown(quiet: bool = False) -> Iterator[None]:
    """Show the steps inside: bars where standard error is a terminal, plain lines elsewhere."""
    quiet_token = _quiet.set(quiet)
    try:
        if quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        ) as display:
            token = _display.set(display)
            try:
                yield
            finally:
                _display.reset(token)
    finally:
        _quiet.reset(quiet_token)


def say(text: str) -> None:
    """A line for the person at the terminal: a decision taken for them, or where something was put."""
    if _quiet.get():
        return
    display = _display.get()
    if display is not None:
        display.console.print(text, markup=False, highlight=False)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
