"""Which latents of a dictionary may fire, given their pre-activations: the seam between its variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName


@runtime_checkable
class Sparsity(Protocol):
    """Chooses latents; a chosen latent's code is its pre-activation where that is positive, else 0.

    Implementations are frozen dataclasses, whose fields are their parameters.

    Attributes:
        name: in `SPARSITIES`, and in the names of dictionaries.
    """

    name: ClassVar[str]

    def check(self, latents: int) -> None:
        """Raises BadInput if it makes no sense for that many latents."""

    def select(self, pre: Float[Tensor, "n latents"]) -> Int[Tensor, "n k"]:
        """The latents that may fire at each position, each at most once."""


@dataclass(frozen=True)
class TopK:
    """The k largest pre-activations at each position.

    Makhzani & Frey 2013, "k-Sparse Autoencoders"; Gao et al. 2024, "Scaling and evaluating sparse
    autoencoders", section 2.3.

    Args:
        k: latents at each position, from 1 to their number; fewer fire where pre-activations are negative.
    """

    name: ClassVar[str] = "topk"

    k: int

    def check(self, latents: int) -> None:
        """Raises BadInput unless 1 ≤ k ≤ latents."""
        if not 1 <= self.k <= latents:
            raise BadInput(f"k = {self.k} of {latents} latents", f"1 to {latents}")

    def select(self, pre: Float[Tensor, "n latents"]) -> Int[Tensor, "n k"]:
        """The k largest of each row, in no particular order."""
        return largest(pre, self.k)


GROUP = 8


def largest(pre: Float[Tensor, "n latents"], k: int) -> Int[Tensor, "n k"]:
    """Where the k largest entries of each row are; exact, and faster than topk alone on wide rows.

    Columns are dealt into groups of `GROUP`. An entry among the k largest is at most its group's maximum,
    so it lies in one of the k groups with the largest maxima, and topk need only look there.
    """
    n, latents = pre.shape
    groups = latents // GROUP
    if latents % GROUP or groups < 2 * k:
        return pre.topk(k, dim=1, sorted=False).indices
    dealt = pre.view(n, GROUP, groups)  # group j holds columns j, j + groups, j + 2 groups ...
    chosen = dealt.amax(dim=1).topk(k, dim=1, sorted=False).indices
    candidates = dealt.gather(2, chosen[:, None, :].expand(n, GROUP, k)).reshape(n, GROUP * k)
    best = candidates.topk(k, dim=1, sorted=False).indices
    return best // k * groups + chosen.gather(1, best % k)


SPARSITIES: dict[str, type[Sparsity]] = {"topk": TopK}


def sparsity_of(stored: Json) -> Sparsity:
    """The sparsity that was stored as ``{"name": ..., parameters}``.

    Raises:
        UnknownName: no such sparsity.
    """
    parameters = dict(stored)
    name = parameters.pop("name")
    if name not in SPARSITIES:
        raise UnknownName("sparsity", name, SPARSITIES)
    return SPARSITIES[name](**parameters)
