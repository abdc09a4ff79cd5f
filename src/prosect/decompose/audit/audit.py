"""`audit`: every line of the scorecard, none of them silently left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from prosect.core.errors import ProsectError, UnknownName
from prosect.core.progress import step
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.concepts import concepts
from prosect.decompose.audit.cost import cost
from prosect.decompose.audit.coverage import coverage
from prosect.decompose.audit.function import function
from prosect.decompose.audit.limitations import LIMITATIONS
from prosect.decompose.audit.linearity import linearity
from prosect.decompose.audit.lines import Line, not_run
from prosect.decompose.audit.mechanism import mechanism
from prosect.decompose.audit.proxy import proxy
from prosect.decompose.audit.reconstruction import reconstruction
from prosect.decompose.audit.reseeded import reseeded

LINES: dict[str, Callable[[Case], Line]] = {
    "L1": reconstruction,
    "L2": cost,
    "L3": linearity,
    "L4": proxy,
    "L5": function,
    "L6": coverage,
    "L7": mechanism,
    "L8": concepts,
    "L9": reseeded,
}
"""How each limitation is measured."""


def audit(case: Case, only: Iterable[str] = ()) -> tuple[Line, ...]:
    """Measure every limitation of a dictionary.

    A line that this dictionary, model or text does not allow says why it was not run; so does one that was not
    asked for.

    Args:
        case: the dictionary in its model.
        only: ids of `LIMITATIONS`; all by default.

    Raises:
        UnknownName: an id is none of them.
    """
    asked = list(only) or list(LIMITATIONS)
    for id in asked:
        if id not in LIMITATIONS:
            raise UnknownName("limitation", id, LIMITATIONS)
    out = []
    with step("auditing", len(LIMITATIONS), "lines") as shown:
        for id, measure in LINES.items():
            if id not in asked:
                out.append(not_run(id, "not asked for"))
            else:
                try:
                    line = measure(case)
                    out.append(replace(line, unit=case.sample.unit) if line.unit == "document" else line)
                except ProsectError as error:
                    out.append(not_run(id, str(error)))
            shown.advance(1)
    return tuple(out)
