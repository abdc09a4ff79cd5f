"""A small language whose programs compile to transformers, and programs in it: networks known to the last weight."""

from __future__ import annotations

from prosect.organisms.compiler.check import check
from prosect.organisms.compiler.compile import Compiled, compiled
from prosect.organisms.compiler.language import (
    NOTHING,
    Program,
    aggregate,
    categorical,
    elementwise,
    indices,
    linear,
    numerical,
    select,
    selector_width,
    sequence_map,
    tokens,
)

__all__ = [
    "NOTHING",
    "Compiled",
    "Program",
    "aggregate",
    "categorical",
    "check",
    "compiled",
    "elementwise",
    "indices",
    "linear",
    "numerical",
    "select",
    "selector_width",
    "sequence_map",
    "tokens",
]
