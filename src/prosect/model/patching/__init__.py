"""What parts of a network do to its output, by putting there what another run had."""

from __future__ import annotations

from prosect.model.patching.activation import PatchCell, PatchMap, denoising, noising
from prosect.model.patching.attribution import AtpMap, attribution_patching
from prosect.model.patching.cells import Candidate
from prosect.model.patching.confirm import ReEstimated, re_estimate
from prosect.model.patching.joint import JointEffects, joint_effects
from prosect.model.patching.mediation import Mediation, mediation
from prosect.model.patching.metrics import by_row, logit_difference
from prosect.model.patching.optimal import OptimalAblation, divergence, optimal_ablation
from prosect.model.patching.pairs import Pairs
from prosect.model.patching.paths import PathEffects, edge_effects, path_patching
from prosect.model.patching.scores import Cost, RowScores
from prosect.model.patching.scrubbing import Meaning, Scrubbed, scrub

__all__ = [
    "AtpMap",
    "Candidate",
    "Cost",
    "JointEffects",
    "Meaning",
    "Mediation",
    "OptimalAblation",
    "Pairs",
    "PatchCell",
    "PatchMap",
    "PathEffects",
    "ReEstimated",
    "RowScores",
    "Scrubbed",
    "attribution_patching",
    "by_row",
    "denoising",
    "divergence",
    "edge_effects",
    "joint_effects",
    "logit_difference",
    "mediation",
    "noising",
    "optimal_ablation",
    "path_patching",
    "re_estimate",
    "scrub",
]
