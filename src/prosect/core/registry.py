"""Names that resolve lazily to code.

A registry maps a name to ``"module:attribute"`` and imports the module only when the name is used, so
that listing what exists costs nothing and a lower floor can reach a higher one by name alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from prosect.core.errors import BadInput, UnknownName


class Registry:
    """A table from names to lazily imported objects.

    Args:
        what: what its names denote, for messages: ``"organism"``.
    """

    def __init__(self, what: str, entries: dict[str, tuple[str, str]] | None = None) -> None:
        self.what = what
        self._where: dict[str, str] = {}
        self._about: dict[str, str] = {}
        for name, (where, about) in (entries or {}).items():
            self.register(name, where, about)

    def register(self, name: str, where: str, about: str = "") -> None:
        """Add ``name`` → ``where`` (``"package.module:attribute"``); refuses to replace another entry.

        Raises:
            BadInput: ``where`` is not of that form, or the name is taken by something else.
        """
        if where.count(":") != 1:
            raise BadInput(f"{where!r} for {self.what} {name!r}", "'package.module:attribute'")
        if self._where.get(name, where) != where:
            raise BadInput(
                f"{self.what} {name!r} twice ({self._where[name]} and {where})", "one meaning for each name"
            )
        self._where[name], self._about[name] = where, about

    def get(self, name: str) -> Any:
        """Import and return what ``name`` stands for.

        Raises:
            UnknownName: nothing has that name; the nearest ones are in the message.
        """
        if name not in self._where:
            raise UnknownName(self.what, name, self._where)
        module, attribute = self._where[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def about(self, name: str) -> str:
        """One line on what ``name`` is."""
        return self._about[name]

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._where))
