"""What an interpretable network cost and what it bought, always side by side: loss, concepts, hidden superposition.

A network whose neurons stand for one thing each may have paid for that in loss, or may only look it: what was pushed
out of the large activations went on in the small ones. Neither number says anything without the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prosect.core.errors import ShapeMismatch
from prosect.core.records import Measured
from prosect.decompose.evaluation.hidden import Hidden
from prosect.decompose.evaluation.seeds import over_seeds


@dataclass(frozen=True)
class Bargain:
    """A network against its dense twin, over seeds.

    Attributes:
        cost: its loss less the twin's of the same seed, in the loss's own unit.
        fewer: concepts to a neuron in the twin less those in the network: what was bought, on the face of it.
        sneaked: share of the features that sit in small activations of several neurons, 0 to 1.
        sneaked_in_twin: the same of the twin, which never claimed otherwise.
    """

    cost: Measured
    fewer: Measured
    sneaked: Measured
    sneaked_in_twin: Measured


def bargain(
    losses: Sequence[tuple[float, float]],
    concepts: Sequence[tuple[float, float]],
    tests: Sequence[tuple[Hidden, Hidden]],
) -> Bargain:
    """All of it, with 95 % intervals over seeds; every argument has (the network's, the twin's) for each seed.

    Args:
        losses: on the same inputs.
        concepts: mean effective number of concepts to a neuron (`polysemantic.concepts_of`).
        tests: for hidden superposition (`hidden.hidden`).

    Raises:
        ShapeMismatch: one of the three has other seeds.
        TooLittleData: there is no seed.
    """
    if not len(losses) == len(concepts) == len(tests):
        raise ShapeMismatch(
            f"{len(losses)} losses, {len(concepts)} counts of concepts and {len(tests)} tests",
            "one of each for every seed",
        )
    return Bargain(
        cost=over_seeds([mine - twin for mine, twin in losses]),
        fewer=over_seeds([twin - mine for mine, twin in concepts]),
        sneaked=over_seeds([float(mine.sneaked.mean()) for mine, _ in tests]),
        sneaked_in_twin=over_seeds([float(twin.sneaked.mean()) for _, twin in tests]),
    )
