"""The contract of every decomposition, and the sparse codes it gives.

fit(stream) → self      fitted attributes end in an underscore; signs are deterministic
encode({site: x}) → Codes
decode(codes) → {site: y}
directions              what each component writes, (n_components, width)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput
from prosect.core.records import Component
from prosect.decompose.definitions import DIRECTION, LATENT, Definition


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

    @classmethod
    def of_sparse(cls, dense: Float[Tensor, "n width"]) -> Codes:
        """Codes of an array that is mostly zero: as many places in each row as the fullest row needs."""
        width = dense.shape[1]
        present = dense != 0
        k = int(present.sum(dim=1).max()) if len(dense) else 0
        indices = present.to(torch.uint8).topk(k, dim=1).indices
        return cls(indices, dense.gather(1, indices), width)

    @classmethod
    def joined(cls, parts: Sequence[Codes]) -> Codes:
        """The rows of several, one after another; all have one width, and rows with fewer entries are filled up."""
        k = max(part.values.shape[1] for part in parts)
        missing = [k - part.values.shape[1] for part in parts]
        indices = [F.pad(part.indices, (0, m)) for part, m in zip(parts, missing, strict=True)]
        values = [F.pad(part.values, (0, m)) for part, m in zip(parts, missing, strict=True)]
        return cls(torch.cat(indices), torch.cat(values), parts[0].width)

    @property
    def active(self) -> Int[Tensor, " n"]:
        """Components present at each position; their mean is L0."""
        return (self.values != 0).sum(dim=1)

    def firing(self) -> Int[Tensor, " width"]:
        """At how many positions each component is present."""
        return torch.bincount(self.indices[self.values != 0], minlength=self.width)

    def dense(self) -> Float[Tensor, "n width"]:
        """The codes as an array; this allocates n × width numbers."""
        out = self.values.new_zeros((self.values.shape[0], self.width))
        return out.scatter_add_(1, self.indices, self.values)

    def columns(self, wanted: Sequence[int]) -> Float[Tensor, "n wanted"]:
        """The codes of some components, in the order given, without the whole array.

        Raises:
            BadInput: a component is not there, or is asked for twice.
        """
        bad = [i for i in wanted if not 0 <= i < self.width]
        if bad or len(set(wanted)) != len(wanted):
            raise BadInput(
                f"components {list(wanted)[:8]}", f"different numbers from 0 to {self.width - 1}, each once"
            )
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
    """Activations that can be gone through again: blocks of {site: (n, width)} in a fixed order.

    Attributes:
        sites: what every block holds.
        widths: numbers at each position, for each site.
        digest: of everything that determines what `blocks` gives, and in which order.
    """

    @property
    def sites(self) -> tuple[str, ...]: ...

    @property
    def widths(self) -> Mapping[str, int]: ...

    @property
    def digest(self) -> str: ...

    def blocks(self) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
        """Go through the activations from the beginning; the same rows in the same order each time."""

    def __len__(self) -> int:
        """Positions in all."""


Made = TypeVar("Made", bound="Decomposition")  # typing.Self defeats the checker of shapes in tests


class Decomposition(ABC):
    """A way to write what is at one or more sites as parts.

    Subclass it, and prove the subclass with `prosect.decompose.check.check_decomposition`.

    Attributes:
        kind: what it is called in `prosect.core.registries.DECOMPOSITIONS`.
        name: unique within a run, such as ``topk@resid_post.2``.
        reads: sites that `encode` needs.
        writes: sites that `decode` gives.
        n_components: how many parts; known once fitted.
        supports: what it can do and what holds of its codes: ``decode``; ``directions``, and ``unit`` where
            they have norm 1; ``sparse`` (codes keep few components); exactly one of ``nonnegative`` and
            ``signed``; ``streaming`` (fitting needs no more memory for more data).
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def supports(self) -> frozenset[str]: ...

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def writes(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def n_components(self) -> int: ...

    @property
    def definition(self) -> Definition:
        """What kind of feature its components are: directions where codes are signed coordinates, else latents."""
        return DIRECTION if {"signed", "directions"} <= self.supports else LATENT

    @abstractmethod
    def fit(self: Made, stream: ActivationStream) -> Made:
        """Learn from activations, forgetting what was learned before; returns self.

        Raises:
            TooLittleData: the stream is too short.
            Unsupported: a whole-array method would exceed its memory budget.
            NotFinite: an activation is NaN or infinite; the site and block are named.
        """

    @abstractmethod
    def encode(self, x: Mapping[str, Float[Tensor, "n _"]]) -> Codes:
        """The codes of activations at the sites it reads.

        Raises:
            BadInput: it is not fitted yet.
            UnknownName: a site that it reads is missing.
            ShapeMismatch: an activation is not as wide as what it was fitted on.
            NotFinite: an activation is NaN or infinite.
        """

    @abstractmethod
    def decode(self, codes: Codes) -> dict[str, Float[Tensor, "n _"]]:
        """The activations that the codes stand for.

        Raises:
            Unsupported: its codes do not determine activations.
            ShapeMismatch: the codes belong to a decomposition with another number of components.
        """

    def reconstruct(
        self, x: Mapping[str, Float[Tensor, "n _"]], codes: Codes | None = None
    ) -> dict[str, Float[Tensor, "n _"]]:
        """What it makes of ``x``: the decoded codes, and whatever else it writes for ``x``.

        Args:
            x: activations at the sites it reads.
            codes: what `encode` gave for them, if that is known already.

        Raises:
            Unsupported: its codes do not determine activations.
        """
        return self.decode(self.encode(x) if codes is None else codes)

    @property
    @abstractmethod
    def directions(self) -> Float[Tensor, "n_components width"]:
        """What each component writes for a code of 1, at the first site it writes.

        Raises:
            Unsupported: its components have no one direction.
        """

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], Json]:
        """Everything given and fitted, as tensors and JSON, for `from_state`."""

    @classmethod
    @abstractmethod
    def from_state(cls: type[Made], tensors: Mapping[str, Tensor], about: Json) -> Made:
        """The fitted decomposition that `state` described."""

    def component(self, index: int) -> Component:
        """The record of one component.

        Raises:
            BadInput: there is no such component.
        """
        if not 0 <= index < self.n_components:
            raise BadInput(f"component {index} of {self.name}", f"0 to {self.n_components - 1}")
        return Component(decomposition=self.name, index=index, reads=self.reads, writes=self.writes)
