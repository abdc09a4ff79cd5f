"""The test plans that claims are registered with, and the rivals each must beat.

Margins come from the spec. The number of resamples is raised at registration to what the corrected
threshold needs.
"""

from __future__ import annotations

from prosect.assay.plans.components import (
    OTHER_SETS,
    SECOND,
    attends,
    changes_outputs,
    matters_together,
    matters_where,
    predicts,
    raises_outputs,
    replaces,
)
from prosect.assay.plans.made import DRAWS, Fitted
from prosect.assay.plans.measurements import (
    activates,
    attributes,
    carries,
    flows,
    patches,
    reads,
    steers,
    tells,
)

__all__ = [
    "DRAWS",
    "OTHER_SETS",
    "SECOND",
    "Fitted",
    "activates",
    "attends",
    "attributes",
    "carries",
    "changes_outputs",
    "flows",
    "matters_together",
    "matters_where",
    "patches",
    "predicts",
    "raises_outputs",
    "reads",
    "replaces",
    "steers",
    "tells",
]
