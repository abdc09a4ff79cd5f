"""Which latents of a dictionary fire, given their pre-activations, in the form used after training.

There are few such forms, because most of what training tells apart ends the same way: ReLU, JumpReLU, Gated,
BatchTopK and Matryoshka dictionaries all fire where a pre-activation is above its latent's threshold
(`Threshold`); those trained with a fixed number at each position keep the largest (`TopK`). The ways of training
are in `prosect.decompose.objectives`. Any dictionary can also be encoded by matching pursuit (`Pursuit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName
from prosect.decompose.contract import Codes
from prosect.decompose.pursuit import Pursuit


@runtime_checkable
class Sparsity(Protocol):
    """Chooses latents; a chosen latent's code is its pre-activation where that is positive, else 0.

    Implementations are frozen dataclasses, whose fields are their parameters.

    Attributes:
        name: in `SPARSITIES`, and in the names of dictionaries.
        thresholded: whether a latent's own threshold decides.
    """

    name: ClassVar[str]
    thresholded: ClassVar[bool]

    def check(self, latents: int) -> None:
        """Raises BadInput if it makes no sense for that many latents."""

    def codes(self, pre: Float[Tensor, "n latents"], threshold: Float[Tensor, " latents"] | None) -> Codes:
        """The codes of pre-activations, with the latents' thresholds where it has any."""


@dataclass(frozen=True)
class TopK:
    """The k largest pre-activations at each position.

    Makhzani & Frey 2013, "k-Sparse Autoencoders"; Gao et al. 2024, "Scaling and evaluating sparse
    autoencoders", section 2.3.

    Args:
        k: latents at each position, from 1 to their number; fewer fire where pre-activations are negative.
    """

    name: ClassVar[str] = "topk"
    thresholded: ClassVar[bool] = False

    k: int

    def check(self, latents: int) -> None:
        """Raises BadInput unless 1 ≤ k ≤ latents."""
        if not 1 <= self.k <= latents:
            raise BadInput(f"k = {self.k} of {latents} latents", f"1 to {latents}")

    def select(self, pre: Float[Tensor, "n latents"]) -> Int[Tensor, "n k"]:
        """The k largest of each row, in no particular order."""
        return largest(pre, self.k)

    def codes(self, pre: Float[Tensor, "n latents"], threshold: Float[Tensor, " latents"] | None) -> Codes:
        """The k largest of each row, where they are positive."""
        indices = self.select(pre)
        return Codes(indices, torch.relu(pre.gather(1, indices)), pre.shape[1])


@dataclass(frozen=True)
class Threshold:
    """Every latent whose pre-activation is positive and above its own threshold.

    z = pre · 1[pre > max(θ, 0)]. The form of ReLU dictionaries (θ = 0), JumpReLU (Rajamanoharan et al. 2024b,
    "Jumping Ahead"), Gated (Rajamanoharan et al. 2024a; θ = b_mag - exp(r) b_gate once the magnitudes' scale
    is folded into the encoder), and of BatchTopK (Bussmann et al. 2024) once its threshold is calibrated.
    """

    name: ClassVar[str] = "threshold"
    thresholded: ClassVar[bool] = True

    def check(self, latents: int) -> None:
        """Any number of latents will do."""

    def codes(self, pre: Float[Tensor, "n latents"], threshold: Float[Tensor, " latents"] | None) -> Codes:
        """What lies above the thresholds; without any, above 0."""
        lowest = 0.0 if threshold is None else threshold.clamp(min=0.0)
        return Codes.of_sparse(torch.where(pre > lowest, pre, 0.0))


GROUP = 8


def largest(pre: Float[Tensor, "n latents"], k: int) -> Int[Tensor, "n k"]:
    """Where the k largest entries of each row are; exact, and faster than topk alone on wide rows.

    Columns are dealt into groups of `GROUP`. An entry among the k largest is at most its group's maximum,
    so it lies in one of the k groups with the largest maxima, and topk need only look there. Of equal
    positive entries the first are taken, so that the choice is one that several processes can agree on: one
    entry more than is wanted shows in which rows there is such a choice.
    """
    n, latents = pre.shape
    if k >= latents:
        return torch.arange(latents, device=pre.device).expand(n, latents)
    groups = latents // GROUP
    if latents % GROUP or groups < 2 * k:
        values, best = pre.topk(k + 1, dim=1)
        least, out = values[:, k - 1], best[:, :k]
        tied = values[:, k] == least
    else:
        dealt = pre.view(n, GROUP, groups)  # group j holds columns j, j + groups, j + 2 groups ...
        maxima, chosen = dealt.amax(dim=1).topk(k + 1, dim=1)
        chosen = chosen[:, :k]
        candidates = dealt.gather(2, chosen[:, None, :].expand(n, GROUP, k)).reshape(n, GROUP * k)
        values, best = candidates.topk(k + 1, dim=1)
        least, best = values[:, k - 1], best[:, :k]
        out = best // k * groups + chosen.gather(1, best % k)
        tied = (values[:, k] == least) | (maxima[:, k] == least)
    tied &= least > 0
    if bool(tied.any()):
        out[tied] = pre[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return out


SCREEN = 128
"""Entries that share a maximum while the largest of a whole array are sought, at most."""


def largest_of_all(x: Float[Tensor, "n width"], count: int) -> Int[Tensor, " count"]:
    """Where the ``count`` largest entries of a whole array are, in the array laid flat, ascending; exact.

    The array is dealt into groups. The count-th largest of the groups' maxima is an entry that count - 1
    others reach, so no entry below it can be among the largest, and few remain to be looked at. Of equal
    entries the first are taken.
    """
    flat = x.reshape(-1)
    group = SCREEN
    while group > 1 and (len(flat) % group or len(flat) // group < 4 * count):
        group //= 2
    candidates = torch.arange(0)
    if group > 1:
        maxima = flat.view(group, -1).amax(dim=0)
        floor = maxima.topk(count, sorted=False).values.min()
        candidates = (flat >= floor).nonzero().squeeze(1)
    if len(candidates) < count:  # too few to screen, or NaN among them
        candidates = torch.arange(len(flat), device=flat.device)
    values = flat[candidates].nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    last = values.topk(count, sorted=False).values.min()
    above = values > last
    tied = (values == last).nonzero().squeeze(1)[: count - int(above.sum())]
    above[tied] = True
    return candidates[above]


SPARSITIES: dict[str, type[Sparsity]] = {"topk": TopK, "threshold": Threshold, "pursuit": Pursuit}


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
