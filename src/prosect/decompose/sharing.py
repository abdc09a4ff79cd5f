"""Where a crosscoder's latents write: which of its sites share a feature, and which have it alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from prosect.decompose.dictionary import Dictionary


def relative_norms(
    dictionary: Dictionary, scales: Mapping[str, float] | None = None
) -> Float[Tensor, "latents sites"]:
    """For each latent, the share of each site in the sum of the norms of what it writes.

    Norms are taken relative to the scale of the site's activations, else the site with the largest activations
    would seem to own everything. Lindsey et al. 2024, "Sparse crosscoders for cross-layer features and
    model diffing".

    Args:
        dictionary: fitted; the columns are the sites it writes, in their order.
        scales: how large activations are at each site; None for those that training found.

    Returns:
        Rows that sum to 1; 0 throughout for a latent that writes nothing.

    Raises:
        BadInput: no scales are known; it was not trained here.
        UnknownName: a site has no scale.
    """
    known = dictionary.facts_.get("scales") if scales is None and dictionary.fitted else scales
    if known is None:
        raise BadInput(
            f"no scales for {dictionary.name}",
            "how large activations are at each site it writes",
            "scales={site: root mean square of its centred activations}",
        )
    for site in dictionary.writes:
        if site not in known:
            raise UnknownName("scale of site", site, known)
    norms = torch.stack([dictionary.decoder(s).norm(dim=1) / known[s] for s in dictionary.writes], dim=1)
    total = norms.sum(dim=1, keepdim=True)
    return norms / torch.where(total > 0, total, 1.0)


def present(shares: Float[Tensor, "latents sites"], margin: float = 0.15) -> Bool[Tensor, "latents sites"]:
    """At which sites a latent's feature is present.

    Between two sites, a latent with a share below ``margin`` at one is exclusive to the other. Among several, a
    site counts as without the feature if, beside the site where its norm is largest, its share would be below
    ``margin``. A latent trained with an L1 penalty can look exclusive without being so: the penalty shrinks
    the weaker of two small norms to 0 (Minder et al. 2025, "Robustly identifying concepts introduced during
    chat fine-tuning using crosscoders"); BatchTopK has no such penalty.

    Args:
        shares: from `relative_norms`.
        margin: above 0 and below one half.

    Raises:
        BadInput: the margin lies elsewhere.
    """
    if not 0 < margin < 0.5:
        raise BadInput(f"a margin of {margin}", "above 0 and below 0.5")
    largest = shares.max(dim=1, keepdim=True).values
    return (shares >= margin / (1 - margin) * largest) & (largest > 0)
