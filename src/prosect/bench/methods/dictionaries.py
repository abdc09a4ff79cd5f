"""Feature recovery by sparse dictionaries, each form of training on the same small budget.

All are told how many features there are and how many are active at once, and have as many latents as there are
features. A direction is a row of the decoder.
"""

from __future__ import annotations

from prosect.bench.given import Answer, Given
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.jumprelu import JumpReLU
from prosect.decompose.objective import Objective
from prosect.decompose.penalties import L1
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import Sparsity, TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.topk import BatchTopK

SITE = "x"
STEPS = 1200
BATCH = 512
RATE = 5e-3


def topk(given: Given, seed: Seed) -> Answer:
    """The k largest latents of each row (Gao et al. 2024)."""
    return _trained(given, seed, TopK(max(1, round(given.about["active"]))))


def batchtopk(given: Given, seed: Seed) -> Answer:
    """The k largest of each row on average over a batch (Bussmann et al. 2024)."""
    return _trained(given, seed, BatchTopK(max(1, round(given.about["active"]))))


def jumprelu(given: Given, seed: Seed) -> Answer:
    """A threshold for each latent, trained towards the right number of them (Rajamanoharan et al. 2024)."""
    return _trained(given, seed, JumpReLU(target_l0=max(0.1, float(given.about["active"]))))


def l1(given: Given, seed: Seed) -> Answer:
    """A penalty on the sum of codes (Bricken et al. 2023)."""
    return _trained(given, seed, L1())


def _trained(given: Given, seed: Seed, form: Sparsity | Objective) -> Answer:
    x = given.tensors["activations"]
    stream = ArrayStream({SITE: x}, seed=seed.child("rows"), epochs=max(1, STEPS * BATCH // len(x)))
    recipe = Recipe(batch=BATCH, rate=RATE)
    made = Dictionary(SITE, given.about["count"], form, recipe=recipe, seed=seed)  # type: ignore[arg-type]
    return {"directions": made.fit(stream).directions.double()}
