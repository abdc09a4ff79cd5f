"""The eight limitations of sparse dictionaries, and how far each may go before it counts as there.

The names are those of Sharkey et al. 2025, "Open Problems in Mechanistic Interpretability". The shares are part of the
method: they are fixed here, before anything is measured, and shown beside every number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limitation:
    """One way in which dictionaries fall short.

    Attributes:
        name: the limitation in words.
        number: what is measured for it; more is worse.
        share: how far from absent to present the control interval reaches, from 0 to 1.
        why: the reason for this share.
    """

    name: str
    number: str
    share: float
    why: str


LIMITATIONS: dict[str, Limitation] = {
    "L1": Limitation(
        "reconstruction errors are too high",
        "share of the loss that is lost with the reconstruction in the model, against the mean in its place",
        0.1,
        "a tenth of what random directions as many and as sparse lose",
    ),
    "L2": Limitation(
        "too expensive for large models",
        "parameters of one such dictionary for every layer over those of the model",
        1.0,
        "together no larger than the model itself",
    ),
    "L3": Limitation(
        "representations need not be linear",
        "accuracy at wanted concepts that hidden units add to a linear probe",
        0.15,
        "a share of what hidden units add for a ring, which no direction reads",
    ),
    "L4": Limitation(
        "sparsity is no proxy for interpretability",
        "share of a concept that latents other than its best write, beyond chance, mean over the concepts it carries",
        0.2,
        "a fifth of what is read where half of every concept was moved to another latent by hand",
    ),
    "L5": Limitation(
        "feature geometry is left unexplained",
        "R² of what latents do by how their directions lie, beyond the same latents permuted",
        0.25,
        "a quarter of what a function shows that is nothing but geometry",
    ),
    "L6": Limitation(
        "applies to a part of the model",
        "share of what is written to the residual stream by modules that it does not describe",
        0.5,
        "at least half of the model is described",
    ),
    "L7": Limitation(
        "describes activations, not mechanisms",
        "share of the next latents' variance that the weights do not predict",
        0.25,
        "three quarters of the next latents follow from the weights",
    ),
    "L8": Limitation(
        "lacks concepts that are needed",
        "F1 at wanted concepts that is lost by reading 5 latents instead of the activations",
        0.2,
        "a fifth of what is lost where the concept was erased before encoding",
    ),
    "L9": Limitation(
        "another seed finds other latents",
        "1 minus the mean cosine of latents matched between seeds",
        0.3,
        "of the way from the same latents to random directions that are matched alike, at most three tenths",
    ),
}
"""The eight limitations, and the dependence on the seed that belongs beside them."""
