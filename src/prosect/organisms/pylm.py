"""`pylm`: a small language model of real Python source, trained by `scripts/train_pylm.py` and shipped.

It opens through the same path as any user's Hugging Face folder. Nobody knows its mechanism, so its truth is
unknown, which is not the same as empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prosect.core.errors import BadInput
from prosect.core.truth import Truth

if TYPE_CHECKING:
    from torch import nn

    from prosect.model import Model

FOLDER = Path(__file__).parent / "weights" / "pylm"


def untrained(seed: int = 0) -> nn.Module:
    """The model null: the same sizes, weights as large and random; norms stay as they are."""
    from prosect.core.seeds import Seed
    from prosect.organisms.redrawn import redrawn

    model, _ = build()
    return redrawn(model.module, Seed(seed).child("pylm", "untrained"), kept=lambda name: "norm" in name)


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Real language model of Python source; nobody knows its mechanism.

    Trained on the standard library by `scripts/train_pylm.py`; one network ships, whatever the seed.

    Raises:
        BadInput: the weights were not installed with the package.
    """
    from prosect.model import load

    if not (FOLDER / "model.safetensors").exists():
        raise BadInput(
            "a prosect without the weights of pylm", "its package data", "installing prosect again"
        )
    model = load(FOLDER)
    model.name = "organism:pylm"
    size = f"{sum(p.numel() for p in model.module.parameters()) / 1e6:.1f} M parameters"
    return model, Truth("pylm", unknown=True, size=size)
