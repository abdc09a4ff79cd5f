"""What belongs to an organism: the functions beside its registered builder, found by how the builder's name ends.

Beside ``build_x`` a module has ``network_x``, ``source_x``, ``untrained_x`` and, where an output is right or wrong at every
position, ``targets_x``. A builder that is bound to a first argument, as those of compiled programs are, has them bound to
the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from prosect.core.registries import ORGANISMS

Function = Callable[..., Any]


@dataclass(frozen=True)
class Functions:
    """An organism's functions; None for what it does not have.

    Attributes:
        build: seed → (opened model, truth).
        network: seed → (module, truth).
        source: seed and sizes → its inputs, cut into parts.
        untrained: seed → a network of the same sizes with random weights.
        targets: batch → the right output at every position, -1 (or NaN, for a number) where there is none.
    """

    build: Function
    network: Function | None
    source: Function | None
    untrained: Function | None
    targets: Function | None


def functions(name: str) -> Functions:
    """Those of the organism of that name.

    Raises:
        UnknownName: there is no such organism.
    """
    build = ORGANISMS.get(name)
    bound = isinstance(build, partial)
    plain = build.func if bound else build
    home = importlib.import_module(str(plain.__module__))
    ending = str(plain.__name__).removeprefix("build")

    def beside(kind: str) -> Function | None:
        found = getattr(home, kind + ending, None)
        if not callable(found):
            return None
        return partial(found, *build.args, **build.keywords) if bound else found

    return Functions(build, *(beside(kind) for kind in ("network", "source", "untrained", "targets")))
