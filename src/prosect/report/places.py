"""Where a component is: its kind, site and layer, and its cell on the map of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prosect.core.records import Component
from prosect.report.reading import Shelved

_TRAINED = ("topk", "batchtopk", "matryoshka", "pursuit", "l1", "gated", "jumprelu")
_KINDS = {"heads": "head", "neurons": "neuron", **dict.fromkeys(_TRAINED, "latent")}
_DIRECTIONS = ("random", "pca", "svd", "ica", "nmf", "kmeans")


@dataclass(frozen=True)
class Place:
    """Kind (``latent``, ``head``, ``neuron``, ``direction``), site, and layer or -1."""

    kind: str
    site: str
    layer: int

    @property
    def column(self) -> str:
        """The column of the map: ``heads``, ``neurons``, ``dictionary on resid_post``."""
        base = re.sub(r"\.\d+(\.h\d+)?$", "", self.site)
        if self.kind in ("head", "neuron"):
            return f"{self.kind}s"
        return f"{'dictionary' if self.kind == 'latent' else self.kind + 's'} on {base}"


def place_of(component: Component, exhibit: Shelved | None) -> Place:
    """Where its exhibit says it is; without one, what its decomposition and first site say."""
    if exhibit is not None:
        return Place(exhibit.kind, exhibit.site, exhibit.layer)
    method, _, at = component.decomposition.partition("@")
    kind = _KINDS.get(method, "direction" if method in _DIRECTIONS else "component")
    site = component.reads[0] if component.reads else at
    layer = re.search(r"\.(\d+)(?:\.h\d+)?$", site)
    return Place(kind, site, int(layer.group(1)) if layer else -1)
