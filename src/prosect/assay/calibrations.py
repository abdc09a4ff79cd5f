"""How often each method's supported claims were true on organisms: measured once, shipped, shown with every claim.

`benchmarks/truthfulness.py` measures them through the same loop and writes ``calibrations.json``. A
calibration holds for the method's source as it was then; where that has changed it counts as not measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources

from prosect.core.canonical import digest
from prosect.core.provenance import source_digest
from prosect.core.records import Calibration
from prosect.core.verdicts import Verdict

FILE = "calibrations.json"
SOURCES = {
    "rules@1": ("prosect.describe.explainer", "prosect.describe.splits", "prosect.describe.rules"),
    "effects@1": ("prosect.describe.effects",),
    "direct-effects@1": ("prosect.describe.effects",),
    "roles@1": ("prosect.describe.role_explainer", "prosect.describe.roles"),
    "inputs@1": ("prosect.describe.inputs",),
    "trigonometric@1": ("prosect.describe.waves", "prosect.describe.trigonometric"),
    "trigonometric-output@1": ("prosect.describe.waves", "prosect.describe.trigonometric"),
}
"""Method → the modules that make it up."""


def code_of(method: str) -> str:
    """Digest of a method's source."""
    return digest([source_digest(m) for m in SOURCES.get(method, ())])


def packaged(found: Iterable[Verdict]) -> list[Calibration]:
    """The shipped calibrations of the methods that made these claims, those of changed methods left out."""
    used = {v.hypothesis.explainer for v in found}
    return [c for c in everything() if c.method in used and c.code == code_of(c.method)]


def everything() -> list[Calibration]:
    """Every shipped calibration."""
    file = resources.files("prosect.assay") / FILE
    if not file.is_file():
        return []
    return [Calibration.model_validate(c) for c in json.loads(file.read_text(encoding="utf-8"))]
