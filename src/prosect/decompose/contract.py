"""The contract of every decomposition, and the sparse codes it gives.

fit(stream) → self      fitted attributes end in an underscore; signs are deterministic
encode({site: x}) → Codes
decode(codes) → {site: y}
directions              what each component writes, (n_components, width)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import Json


@dataclass(frozen=True)
class Codes:
    """Sparse rows: for each of n positions, k component numbers and their values.

    Entries whose value is 0 are absent whatever their index; an index occurs at most once in a row with a
    value other than 0.

    Attributes:
        indices: component numbers.
        values: their codes.
        width: number of components.
    """

    indices: Int[Tensor, "n k"]
    values: Float[Tensor, "n k"]
    width: int

    @classmethod
    def of_dense(cls, dense: Float[Tensor, "n width"]) -> Codes:
        """Codes of a dense array, every component kept."""
        n, width = dense.shape
        return cls(torch.arange(width, device=dense.device).expand(n, width), dense, width)

    def dense(self) -> Float[Tensor, "n width"]:
        """The codes as an array; this allocates n × width numbers."""
        out = self.values.new_zeros((self.values.shape[0], self.width))
        return out.scatter_add_(1, self.indices, self.values)

    def columns(self, wanted: Sequence[int]) -> Float[Tensor, "n wanted"]:
        """The codes of some components, without the whole array."""
        place = torch.full((self.width,), len(wanted), dtype=torch.long, device=self.indices.device)
        place[torch.tensor(list(wanted), dtype=torch.long, device=place.device)] = torch.arange(
            len(wanted), device=place.device
        )
        out = self.values.new_zeros((self.values.shape[0], len(wanted) + 1))
        return out.scatter_add_(1, place[self.indices], self.values)[:, :-1]

    def __len__(self) -> int:
        return int(self.values.shape[0])


@runtime_checkable
class ActivationStream(Protocol):
    """Activations that can be gone through again: blocks of {site: (n, width)} in a fixed order."""

    sites: tuple[str, ...]
    widths: Mapping[str, int]
    digest: str

    def blocks(self) -> Iterator[dict[str, Float[Tensor, "n width"]]]:
        """Go through the activations from the beginning."""

    def __len__(self) -> int:
        """Positions in all."""


@runtime_checkable
class Decomposition(Protocol):
    """A way to write what is at one or more sites as parts.

    Attributes:
        name: unique within a run, such as ``topk@resid_post.2``.
        reads: sites that `encode` needs.
        writes: sites that `decode` gives.
        n_components: how many parts.
        supports: what it can do: ``decode``, ``sparse``, ``nonnegative``, ``streaming``, ``directions``.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    n_components: int
    supports: frozenset[str]

    def fit(self, stream: ActivationStream) -> Self:
        """Learn from activations; returns self.

        Raises:
            TooLittleData: a whole-array method would exceed its memory budget, or the stream is too short.
            NotFinite: an activation is NaN or infinite; the site and block are named.
        """

    def encode(self, x: Mapping[str, Float[Tensor, "n width"]]) -> Codes:
        """The codes of activations at the sites it reads.

        Raises:
            ShapeMismatch: an activation is not as wide as what it was fitted on.
        """

    def decode(self, codes: Codes) -> dict[str, Float[Tensor, "n width"]]:
        """The activations that the codes stand for."""

    @property
    def directions(self) -> Float[Tensor, "n_components width"]:
        """What each component writes for a code of 1, at the first site it writes."""

    def state(self) -> tuple[dict[str, Tensor], Json]:
        """Everything fitted, as tensors and JSON, for `from_state`."""

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], about: Json) -> Self:
        """The fitted decomposition that `state` described."""
