"""Opening networks: their sites, what flows there, edits to it, and proof that the names are right."""

from __future__ import annotations

from prosect.model.edits import (
    Edit,
    freeze,
    mean,
    patch,
    project_out,
    replace,
    resample,
    scale,
    steer,
    zero,
)
from prosect.model.entry import After
from prosect.model.load import load
from prosect.model.model import Model
from prosect.model.trace import Trace

__all__ = [
    "After",
    "Edit",
    "Model",
    "Trace",
    "freeze",
    "load",
    "mean",
    "patch",
    "project_out",
    "replace",
    "resample",
    "scale",
    "steer",
    "zero",
]
