"""What a line can read off activations, at one site and at several together."""

from __future__ import annotations

from prosect.describe.probes.concepts import Concept, concepts
from prosect.describe.probes.layers import LayerProbes, SiteReading, probe_layers
from prosect.describe.probes.linear import LinearProbe

__all__ = ["Concept", "LayerProbes", "LinearProbe", "SiteReading", "concepts", "probe_layers"]
