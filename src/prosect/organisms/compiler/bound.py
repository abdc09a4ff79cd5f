"""Functions of a program under names of their own: beside ``build`` a module has ``build_dyck_1``, bound to "dyck-1".

The registry of organisms, and whoever looks beside it, knows functions by name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any


def bound(
    module: str, programs: Collection[str], *functions: Callable[..., Any]
) -> Callable[[str], Callable[..., Any]]:
    """A module's ``__getattr__``.

    Args:
        module: its name.
        programs: names of programs.
        functions: of a program's name and more.
    """
    by_name = {f.__name__: f for f in functions}

    def find(attribute: str) -> Callable[..., Any]:
        kind, _, rest = attribute.partition("_")
        program = rest.replace("_", "-")
        if kind in by_name and program in programs:
            return partial(by_name[kind], program)
        raise AttributeError(f"module {module!r} has no attribute {attribute!r}")

    return find
