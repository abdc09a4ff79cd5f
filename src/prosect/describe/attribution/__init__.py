"""Which inputs a number depends on: attribution maps with their checks attached."""

from __future__ import annotations

from prosect.describe.attribution.attribute import METHODS, attribute
from prosect.describe.attribution.compare import Agreement, against_patching
from prosect.describe.attribution.deletion import Deletion, deletion
from prosect.describe.attribution.expected import ExpectedGradients
from prosect.describe.attribution.gradcam import GradCam, enlarged, pointing
from prosect.describe.attribution.gradients import InputGradient, Saliency
from prosect.describe.attribution.imitate import Imitation, imitate
from prosect.describe.attribution.integrated import IntegratedGradients
from prosect.describe.attribution.lime import Lime
from prosect.describe.attribution.method import Method, Scores
from prosect.describe.attribution.metrics import by_row, logit
from prosect.describe.attribution.occlusion import Occlusion
from prosect.describe.attribution.result import Attribution
from prosect.describe.attribution.sanity import Randomisation, Sanity
from prosect.describe.attribution.shapley import Shapley
from prosect.describe.attribution.surrogates import fit

__all__ = [
    "METHODS",
    "Agreement",
    "Attribution",
    "Deletion",
    "ExpectedGradients",
    "GradCam",
    "Imitation",
    "InputGradient",
    "IntegratedGradients",
    "Lime",
    "Method",
    "Occlusion",
    "Randomisation",
    "Saliency",
    "Sanity",
    "Scores",
    "Shapley",
    "against_patching",
    "attribute",
    "by_row",
    "deletion",
    "enlarged",
    "fit",
    "imitate",
    "logit",
    "pointing",
]
