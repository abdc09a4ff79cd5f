"""What components do, in words that can be run: rules, head roles, effects, formulas, and examples."""

from __future__ import annotations

from prosect.core.registries import DESCRIPTIONS

DESCRIPTIONS.register(
    "concept-reading",
    "prosect.describe.probes.reading:ConceptReading",
    "how often a linear probe tells a concept right",
)
DESCRIPTIONS.register(
    "additive-table", "prosect.describe.additive:AdditiveTable", "a sum of tables over the last few tokens"
)
DESCRIPTIONS.register(
    "surrogate", "prosect.describe.surrogate:SurrogateRule", "a linear model, a tree or a sum of functions"
)
