"""Which latents of a dictionary fire, given their pre-activations, in the form used after training.

There are few such forms, because most of what training tells apart ends the same way: ReLU, JumpReLU, Gated,
BatchTopK and Matryoshka dictionaries all fire where a pre-activation is above its latent's threshold
(`Threshold`); those trained with a fixed number at each position keep the largest (`TopK`). The ways of training
are in `prosect.decompose.objectives`. Any dictionary can also be encoded by matching pursuit (`Pursuit`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
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
    """Where the k largest entries of each row are, in no particular order; exact.

    Of equal positive entries the first are taken, so that the choice is one that several processes can agree on.
    """
    n, latents = pre.shape
    if k >= latents:
        return torch.arange(latents, device=pre.device).expand(n, latents)
    out = some_largest(pre, k)
    least = pre.gather(1, out).amin(dim=1, keepdim=True)
    tied = ((pre >= least).sum(dim=1) > k) & (least[:, 0] > 0)
    if bool(tied.any()):
        out[tied] = pre[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return out


def some_largest(pre: Float[Tensor, "n latents"], k: int) -> Int[Tensor, "n k"]:
    """Where the k largest entries of each row are; of equal ones any, and faster than topk on wide rows.

    Columns are dealt into groups of `GROUP`. An entry among the k largest is at most its group's maximum,
    so it lies in one of the k groups with the largest maxima, and one need only look there.
    """
    n, latents = pre.shape
    groups = latents // GROUP
    if latents % GROUP or groups < 2 * k:
        return highest(pre, k)
    dealt = pre.view(n, GROUP, groups)  # group j holds columns j, j + groups, j + 2 groups ...
    chosen = highest(dealt.amax(dim=1), k)
    candidates = dealt.gather(2, chosen[:, None, :].expand(n, GROUP, k)).reshape(n, GROUP * k)
    best = highest(candidates, k)
    return best // k * groups + chosen.gather(1, best % k)


MANY = 2**18
"""Entries from which on numpy's partition, made of vector instructions, beats torch's topk on a processor."""


def highest(x: Float[Tensor, "n width"], k: int) -> Int[Tensor, "n k"]:
    """Where the k largest entries of each row are, by sorting through all of them; in no particular order."""
    if _few(x) or k == x.shape[1]:
        return x.topk(k, dim=1, sorted=False).indices
    at = x.shape[1] - k
    return _by_rows(x, lambda rows: np.argpartition(rows, at, axis=1)[:, at:])


def highest_but(x: Float[Tensor, "n width"], k: int) -> Float[Tensor, "n 1"]:
    """The largest entry of each row but the k largest."""
    if _few(x):
        return x.topk(k + 1, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    at = x.shape[1] - k - 1
    return _by_rows(x, lambda rows: np.partition(rows, at, axis=1)[:, at : at + 1])


def _few(x: Tensor) -> bool:
    return x.device.type != "cpu" or x.numel() < MANY


def _by_rows(x: Tensor, work: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Work of numpy on the rows of a matrix, as many at once as torch has threads: it lets go of the interpreter."""
    rows = x.detach().float().numpy()
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        return torch.from_numpy(np.concatenate(list(pool.map(work, np.array_split(rows, threads)))))


SCREEN = 128
"""Entries that share a maximum while the largest of a whole array are sought, at most."""


def largest_of_all(x: Float[Tensor, "n width"], count: int) -> Int[Tensor, " count"]:
    """Where the ``count`` largest entries of a whole array are, in the array laid flat, ascending; exact.

    Few entries are as large as `floor_of_all`, and only those remain to be looked at. Of equal entries the first
    are taken.
    """
    flat, floor = x.reshape(-1), floor_of_all(x, count)
    candidates = torch.arange(0) if floor is None else (flat >= floor).nonzero().squeeze(1)
    if len(candidates) < count:  # too few to screen, or NaN among them
        candidates = torch.arange(len(flat), device=flat.device)
    values = flat[candidates].nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    last = values.topk(count, sorted=False).values.min()
    above = values > last
    tied = (values == last).nonzero().squeeze(1)[: count - int(above.sum())]
    above[tied] = True
    return candidates[above]


def floor_of_all(x: Float[Tensor, "n width"], count: int) -> Float[Tensor, ""] | None:
    """An entry that at least ``count`` of a whole array reach, and not many more; None if there are too few entries.

    The array is dealt into groups. The count-th largest of the groups' maxima is an entry that count - 1 others reach.
    """
    group = SCREEN
    while group > 1 and (x.numel() % group or x.numel() // group < 4 * count):
        group //= 2
    if group == 1:
        return None
    maxima = x.reshape(group, -1).amax(dim=0)
    return maxima.topk(count, sorted=False).values.min()


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
