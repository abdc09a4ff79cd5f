"""What is known about an organism, in machine-readable form. The truth does not know the methods.

A method under test is handed a model and data, never this. `Truth.unknown` stands for a real model, whose
mechanism nobody knows: it is never read as "nothing is true of it".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from prosect.core.canonical import Json


@dataclass(frozen=True)
class FeatureDirections:
    """Directions that generate the activations at a site.

    Attributes:
        site: where.
        directions: unit vectors, shape (features, width).
        frequency: how often each feature is active, shape (features,).
        names: what each stands for; empty where features have no names.
    """

    site: str
    directions: Float[np.ndarray, "features width"]
    frequency: Float[np.ndarray, " features"]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variable:
    """A variable that lives in one component.

    Attributes:
        site: where, such as ``z.1.h0`` or ``hidden``.
        index: which unit of that site; 0 for a whole head.
        kind: what sort of variable: ``head-role``, ``trigonometric``, ``token-rule``, ``nothing``.
        parameters: its exact parameters.
        effect: what it writes, in the same form, where that is known.
    """

    site: str
    index: int
    kind: str
    parameters: Mapping[str, Json] = field(default_factory=dict)
    effect: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class Truth:
    """Everything that is known of an organism.

    Attributes:
        organism: its name.
        unknown: nothing is known (a real model); every other field is then empty and says nothing.
        features: directions at sites.
        variables: what single components carry; complete for the sites that occur in it, so that a
            component of such a site that is not listed carries nothing.
        edges: ablation (``zero``, ``mean``, ``resample``) → the edges (writer, reader) that matter under it.
        labels: sample labels, by name; ``NAME@PART`` has one for every input that the organism's source of the
            same seed gives in that part.
        quantities: closed-form numbers, by name.
        nulls: how to make its nulls: name → what it destroys.
        size: how large it is, in words.
    """

    organism: str
    unknown: bool = False
    features: tuple[FeatureDirections, ...] = ()
    variables: tuple[Variable, ...] = ()
    edges: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    quantities: Mapping[str, float] = field(default_factory=dict)
    nulls: Mapping[str, str] = field(default_factory=dict)
    size: str = ""

    def variable(self, site: str, index: int) -> Variable | None:
        """The variable at one component, if one is listed."""
        for v in self.variables:
            if v.site == site and v.index == index:
                return v
        return None
