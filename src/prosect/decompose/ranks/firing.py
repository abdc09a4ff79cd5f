"""Which latents fire, where some of them may be on other ranks."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import Unsupported
from prosect.decompose.kernels import Picks
from prosect.decompose.ranks.dealt import Ranks
from prosect.decompose.sparsity import Sparsity, Threshold, TopK


def firing(
    sparsity: Sparsity,
    pre: Float[Tensor, "n here"],
    threshold: Float[Tensor, " here"] | None,
    ranks: Ranks,
) -> tuple[Picks, Float[Tensor, " m"]]:
    """The latents of this rank that fire, and their codes, all above 0.

    Args:
        sparsity: what decides, over the latents of all ranks.
        pre: pre-activations of this rank's latents, at the same positions on all ranks.
        threshold: of this rank's latents, where they have one.
        ranks: what latents are dealt to.

    Raises:
        Unsupported: a sparsity that pre-activations do not determine, such as matching pursuit (`pursuing.pursued`).
    """
    n, width = pre.shape
    if isinstance(sparsity, TopK):
        picks = ranks.largest(pre, sparsity.k)
        values = pre.reshape(-1)[picks.places]
        above = values > 0
        return Picks(picks.rows[above], picks.latents[above], n, width), values[above]
    if isinstance(sparsity, Threshold):
        above = pre > (0.0 if threshold is None else threshold.clamp(min=0.0))
        places = above.reshape(-1).nonzero().squeeze(1)
        return Picks.at(places, n, width), pre.reshape(-1)[places]
    raise Unsupported(f"{sparsity} with latents dealt to ranks", "TopK or Threshold")
