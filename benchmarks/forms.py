"""Every form of training a dictionary, prosect's and SAELens', as one kind of function: rows in, a fitted dictionary out.

What is trained by SAELens runs in its own trainer with its own defaults but for what is passed here, is saved as it
saves, and is read back as any dictionary of a user is, so that one marker judges both.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.objectives import OBJECTIVES
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.recipe import Recipe
from prosect.decompose.streams import ArrayStream
from prosect.organisms.synthetic import SITE

DECAY = 0.2
"""Share of the steps, the last, over which the rate falls, in both: `Recipe`'s default."""


@dataclass(frozen=True)
class Asked:
    """What one training is to do.

    Attributes:
        rows: (n, width).
        latents: how many.
        active: latents wanted at a position.
        batch: rows of a step.
        rate: learning rate; None for the form's own default.
        price: weight of the penalty, for forms whose sparsity is not set directly.
        seed: of the training.
    """

    rows: Tensor
    latents: int
    active: int
    batch: int
    rate: float | None
    price: float | None
    seed: Seed


@dataclass(frozen=True)
class Form:
    """A way of training.

    Attributes:
        fit: trains.
        rates: learning rates that tuning tries.
        prices: weights of the penalty that tuning tries; (None,) where sparsity is set directly.
    """

    fit: Callable[[Asked], Dictionary]
    rates: tuple[float | None, ...]
    prices: tuple[float | None, ...] = (None,)


RATES = (3e-4, 1e-3, 3e-3, 8e-3)
"""Of both; SAELens' default is the first."""


def own(name: str, **fixed: Any) -> Callable[[Asked], Dictionary]:
    """Training by prosect, with its default recipe but for batch and rate."""

    def fit(asked: Asked) -> Dictionary:
        parameters = dict(fixed)
        if name == "jumprelu":
            parameters["target_l0"] = float(asked.active)
        elif name in ("l1", "gated"):
            parameters["weight"] = asked.price
        else:
            parameters["k"] = asked.active
        recipe = Recipe(batch=asked.batch, rate=asked.rate, decay=DECAY)
        made = Dictionary(SITE, asked.latents, OBJECTIVES[name](**parameters), recipe=recipe, seed=asked.seed)
        return made.fit(ArrayStream({SITE: asked.rows}))

    return fit


def saelens(name: str) -> Callable[[Asked], Dictionary]:
    """Training by SAELens' trainer."""

    def fit(asked: Asked) -> Dictionary:
        from sae_lens import saes
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        kind, more = {
            "standard": ("Standard", {"l1_coefficient": asked.price}),
            "gated": ("Gated", {"l1_coefficient": asked.price}),
            "jumprelu": (
                "JumpReLU",
                {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(asked.active)},
            ),
            "topk": ("TopK", {"k": asked.active, "use_sparse_activations": False}),
            "batchtopk": ("BatchTopK", {"k": asked.active}),
            "matryoshka": (
                "MatryoshkaBatchTopK",
                {"k": asked.active, "matryoshka_widths": widths(asked.latents)},
            ),
            "matching pursuit": (
                "MatchingPursuit",
                {"max_iterations": asked.active, "residual_threshold": 0.0},
            ),
        }[name]
        width, steps = asked.rows.shape[1], len(asked.rows) // asked.batch
        config = getattr(saes, f"{kind}TrainingSAEConfig")(
            d_in=width, d_sae=asked.latents, dtype="float32", device="cpu", **more
        )
        torch.manual_seed(
            asked.seed.child("saelens").numpy().integers(2**31).item()
        )  # it has no seed of its own
        trainer = SAETrainer(
            SAETrainerConfig(
                total_training_samples=steps * asked.batch,
                train_batch_size_samples=asked.batch,
                lr=asked.rate or 3e-4,
                lr_end=0.0,
                lr_decay_steps=int(DECAY * steps),
                logger=LoggingConfig(log_to_wandb=False),
            ),
            getattr(saes, f"{kind}TrainingSAE")(config),
            batches(asked),
        )
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # what the peer warns of is its own
            trained = trainer.fit()
            if name == "matching pursuit":
                return pursued(trained, asked)
            with tempfile.TemporaryDirectory() as folder:
                trained.save_inference_model(folder)
                return Dictionary.from_pretrained(folder, sites=SITE)

    return fit


def widths(latents: int) -> list[int]:
    """Prefixes for Matryoshka: those that prosect has by default."""
    return [latents // 32, latents // 8, latents * 11 // 32, latents]


def pursued(trained: Any, asked: Asked) -> Dictionary:
    """A matching-pursuit SAE as a dictionary that is encoded by as many rounds; formats have no place for it."""
    decoder, width = trained.W_dec.detach().clone(), asked.rows.shape[1]
    centre = trained.b_dec.detach().clone()
    centre = centre if trained.cfg.apply_b_dec_to_input else torch.zeros_like(centre)
    weights = Weights(
        decoder.clone(), torch.zeros(asked.latents), centre, decoder, centre.clone(), None, None
    )
    return Dictionary(SITE, asked.latents, Pursuit(asked.active)).with_weights(weights, {SITE: width})


def batches(asked: Asked) -> Iterator[Tensor]:
    """Rows in a shuffled order, as prosect's own trainer takes them."""
    order = torch.randperm(len(asked.rows), generator=asked.seed.child("order").torch())
    for part in order.split(asked.batch):
        if len(part) == asked.batch:
            yield asked.rows[part]


FORMS: dict[str, Form] = {
    "topk": Form(own("topk"), RATES),
    "batchtopk": Form(own("batchtopk"), RATES),
    "matryoshka": Form(own("matryoshka"), RATES),
    "jumprelu": Form(own("jumprelu"), RATES),
    "pursuit": Form(own("pursuit"), RATES),
    "l1": Form(own("l1"), RATES, (0.03, 0.1, 0.3)),
    "gated": Form(own("gated"), RATES, (0.03, 0.1, 0.3)),
}
"""prosect's."""
PEERS: dict[str, Form] = {
    "SAELens topk": Form(saelens("topk"), RATES),
    "SAELens batchtopk": Form(saelens("batchtopk"), RATES),
    "SAELens matryoshka": Form(saelens("matryoshka"), RATES),
    "SAELens jumprelu": Form(saelens("jumprelu"), RATES),
    "SAELens standard": Form(saelens("standard"), RATES, (1.0, 3.0, 10.0)),
    "SAELens gated": Form(saelens("gated"), RATES, (1.0, 3.0, 10.0)),
    "SAELens matching pursuit": Form(saelens("matching pursuit"), RATES[:3]),
}
"""SAELens' architectures."""
