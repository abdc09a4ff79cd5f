"""Which weights a cross-layer transcoder may have: a latent reads one layer, and writes it and all later ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput


class Masks(NamedTuple):
    """True where a weight may differ from 0."""

    encoder: Bool[Tensor, "latents reads"]
    decoder: Bool[Tensor, "latents writes"]
    skip: Bool[Tensor, "reads writes"]


def check_layers(latents: int, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
    """Raises BadInput unless each layer has a site to read, one to write, and an equal share of the latents."""
    if len(reads) != len(writes):
        raise BadInput(
            f"{len(reads)} sites read and {len(writes)} written across layers",
            "for each layer one to read and one to write, in the order of the layers",
        )
    if latents % len(reads):
        raise BadInput(
            f"{latents} latents over {len(reads)} layers",
            "a multiple of the layers, each of which has equally many",
        )


def cross_layer_masks(latents: int, reads: Mapping[str, int], writes: Mapping[str, int]) -> Masks:
    """Where a cross-layer transcoder's weights may lie.

    The first latents / layers latents belong to the first layer, and so on. Latents of layer l read site l of
    ``reads`` and write sites l and later of ``writes``; so does a skip. Ameisen et al. 2025, "Circuit
    tracing: revealing computational graphs in language models", section 2.

    Args:
        latents: how many; a multiple of the number of layers.
        reads: width of each site read, in the order of the layers.
        writes: width of each site written, likewise.
    """
    layer = torch.arange(latents) // (latents // len(reads))
    of_read = torch.arange(len(reads)).repeat_interleave(torch.tensor(list(reads.values())))
    of_write = torch.arange(len(writes)).repeat_interleave(torch.tensor(list(writes.values())))
    return Masks(
        layer[:, None] == of_read[None, :],
        layer[:, None] <= of_write[None, :],
        of_read[:, None] <= of_write[None, :],
    )


def check_zeros(
    name: str,
    masks: Masks,
    encoder: Float[Tensor, "latents reads"],
    decoder: Float[Tensor, "latents writes"],
    skip: Float[Tensor, "reads writes"] | None,
) -> None:
    """Raises BadInput if a weight of the dictionary ``name`` lies outside the masks."""
    for what, mask, value in zip(masks._fields, masks, (encoder, decoder, skip), strict=True):
        if value is not None and bool((value[~mask.to(value.device)] != 0).any()):
            raise BadInput(
                f"a weight in the {what} of {name} from a layer to an earlier one or to another's latents",
                "zeros there",
            )
