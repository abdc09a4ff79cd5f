"""What every dictionary is compared with: neurons, PCA, ICA, rotations and random directions.

Their codes are signed and present everywhere, which would make comparison of firing or of error meaningless. So each
is made as sparse as the dictionary: signs become components of their own, and at each position only the k largest
stay (`KeepLargest`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.core.registries import DECOMPOSITIONS
from prosect.core.seeds import Seed
from prosect.decompose.base import OneSite
from prosect.decompose.contract import ActivationStream, Codes, Decomposition
from prosect.decompose.linear import Ica, Neurons, Pca, RandomDirections


@dataclass(eq=False)
class KeepLargest(Decomposition):
    """Another decomposition, of whose codes only the k that write most stay at each position.

    Component j is what was component j where its code is positive, and n + j where it is negative.

    Args:
        inner: with signed codes and a direction for each component.
        k: components kept at a position.

    Raises:
        Unsupported: the other's codes are not signed, or it has no directions.
        BadInput: k is below 1; `encode` refuses one above the number of components.
    """

    kind: ClassVar[str] = "keep-largest"

    inner: Decomposition
    k: int

    def __post_init__(self) -> None:
        if not {"signed", "directions"} <= self.inner.supports:
            raise Unsupported(f"keeping the largest of {self.inner.name}", "signed codes and directions")
        if self.k < 1:
            raise BadInput(f"k = {self.k}", "at least 1")

    @property
    def supports(self) -> frozenset[str]:
        """Sparse and non-negative; otherwise as the other."""
        return (self.inner.supports - {"signed"}) | {"nonnegative", "sparse"}

    @property
    def name(self) -> str:
        """``pca@site, 10 kept``."""
        return f"{self.inner.name}, {self.k} kept"

    @property
    def reads(self) -> tuple[str, ...]:
        """As the other."""
        return self.inner.reads

    @property
    def writes(self) -> tuple[str, ...]:
        """As the other."""
        return self.inner.writes

    @property
    def n_components(self) -> int:
        """Twice as many."""
        return 2 * self.inner.n_components

    def fit(self, stream: ActivationStream) -> KeepLargest:
        """Fit the other; returns self."""
        self.inner.fit(stream)
        return self

    def encode(self, x: Mapping[str, Float[Tensor, "n _"]]) -> Codes:
        """The k codes of each position that move what is written furthest, none negative."""
        signed = self.inner.encode(x).dense()
        if self.k > signed.shape[1]:
            raise BadInput(f"k = {self.k} of {self.inner.name}", f"at most {signed.shape[1]}, its components")
        sizes = self.inner.directions.norm(dim=1).to(signed)
        kept = (signed.abs() * sizes).topk(self.k, dim=1).indices
        values = signed.gather(1, kept)
        return Codes(kept + self.inner.n_components * (values < 0), values.abs(), self.n_components)

    def decode(self, codes: Codes) -> dict[str, Float[Tensor, "n _"]]:
        """What the other makes of the codes with their signs."""
        if codes.width != self.n_components:
            raise ShapeMismatch(
                f"codes of {codes.width} components for {self.name}", f"codes of its {self.n_components}"
            )
        below = codes.indices >= self.inner.n_components
        values = torch.where(below, -codes.values, codes.values)
        n = self.inner.n_components
        return self.inner.decode(Codes(codes.indices % n, values, n))

    @property
    def directions(self) -> Float[Tensor, "n_components width"]:
        """Those of the other, and their opposites."""
        found = self.inner.directions
        return torch.cat([found, -found])

    def state(self) -> tuple[dict[str, Tensor], Json]:
        """That of the other, and k."""
        tensors, about = self.inner.state()
        return tensors, {"inner": about, "kind": self.inner.kind, "k": self.k}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], about: Json) -> KeepLargest:
        """What `state` described."""
        inner: type[Decomposition] = DECOMPOSITIONS.get(about["kind"])
        return cls(inner.from_state(tensors, about["inner"]), about["k"])


@dataclass(eq=False)
class Rotation(OneSite):
    """The axes of a site turned at random: what neurons would be if they were nothing special.

    Where nothing privileges the neurons, both do equally well at anything.

    Args:
        site: what it decomposes.
        seed: of the rotation, which is drawn uniformly (Mezzadri 2007).
    """

    kind: ClassVar[str] = "rotation"
    supports = frozenset({"decode", "directions", "unit", "signed", "streaming"})

    site: str
    seed: Seed
    widths_: dict[str, int] = field(init=False, repr=False)
    axes_: Float[Tensor, "width width"] = field(init=False, repr=False)

    @property
    def n_components(self) -> int:
        """As many as the site is wide."""
        return self.width

    def _fit(self, stream: ActivationStream) -> None:
        width = stream.widths[self.site]
        drawn = torch.randn((width, width), generator=self.seed.torch(), dtype=torch.float64)
        q, r = torch.linalg.qr(drawn)
        self.axes_ = (q * torch.sign(torch.diagonal(r))).T.contiguous()

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        return Codes.of_dense(x[self.site] @ self.axes_.to(x[self.site]).T)

    def _decode(self, codes: Codes) -> dict[str, Tensor]:
        dense = codes.dense()
        return {self.site: dense @ self.axes_.to(dense)}

    def _directions(self) -> Tensor:
        return self.axes_


def baselines(
    stream: ActivationStream, site: str, k: int, components: int, seed: Seed
) -> dict[str, Decomposition]:
    """Neurons, a random rotation of them, PCA, ICA and random directions, fitted, each present as often as k of ``components`` latents.

    Args:
        stream: what they are fitted on; ICA holds all of it in memory.
        site: to decompose.
        k: components at a position; all but random directions keep at most as many as they have.
        components: how many random directions.
        seed: of the rotation, of ICA's start and of the random directions.
    """
    width = stream.widths[site]
    kept = min(k, width)
    return {
        "neurons": KeepLargest(Neurons(site).fit(stream), kept),
        "rotation": KeepLargest(Rotation(site, seed.child("rotation")).fit(stream), kept),
        "PCA": KeepLargest(Pca(site).fit(stream), kept),
        "ICA": KeepLargest(Ica(site, seed=seed.child("ica")).fit(stream), kept),
        "random": RandomDirections.alike(site, components, k / components, seed.child("random")).fit(stream),
    }
