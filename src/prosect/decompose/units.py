"""The parts that the architecture itself has: neurons and attention heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.records import Component
from prosect.decompose.base import Fittable, OneSite
from prosect.decompose.contract import ActivationStream, Codes
from prosect.decompose.definitions import SUBSPACE, Definition


@dataclass(eq=False)
class Neurons(OneSite):
    """The units of a site as they are: the code of unit j is the activation's j-th number.

    Args:
        site: such as ``mlp_act.2``; for ``resid_post.2`` these are the axes of the residual stream.
    """

    kind: ClassVar[str] = "neurons"
    supports = frozenset({"decode", "directions", "unit", "signed", "streaming"})

    site: str
    widths_: dict[str, int] = field(init=False, repr=False)

    @property
    def n_components(self) -> int:
        """As many as the site is wide."""
        return self.width

    def _fit(self, stream: ActivationStream) -> None:
        """There is nothing to learn but the width."""

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        return Codes.of_dense(x[self.site])

    def _decode(self, codes: Codes) -> dict[str, Tensor]:
        return {self.site: codes.dense()}

    def _directions(self) -> Tensor:
        return torch.eye(self.width)


@dataclass(eq=False)
class Heads(Fittable):
    """Attention heads: each component is a whole head, as wide as its output before the output projection.

    A head carries a vector at each position, of which a code can only say how large it is: the code is
    the vector's Euclidean norm. It does not determine the vector, so there is no `decode` and there are
    no `directions`.

    Args:
        sites: one for each head, such as ``z.2.h0``.
    """

    kind: ClassVar[str] = "heads"
    supports = frozenset({"nonnegative", "streaming"})

    sites: tuple[str, ...]
    widths_: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise BadInput(f"the sites {self.sites} for heads", "one site for each head, such as z.2.h0")

    @staticmethod
    def of_layers(layers: int | range | tuple[int, ...], heads: int) -> Heads:
        """The ``heads`` heads of each of these layers."""
        chosen = (layers,) if isinstance(layers, int) else tuple(layers)
        return Heads(tuple(f"z.{layer}.h{head}" for layer in chosen for head in range(heads)))

    @property
    def name(self) -> str:
        """``heads@z.2`` where all are of one layer, else ``heads``."""
        layers = {site.rpartition(".h")[0] for site in self.sites}
        return f"heads@{layers.pop()}" if len(layers) == 1 else "heads"

    @property
    def reads(self) -> tuple[str, ...]:
        """The sites of all heads."""
        return self.sites

    @property
    def writes(self) -> tuple[str, ...]:
        """The sites of all heads."""
        return self.sites

    @property
    def n_components(self) -> int:
        """One for each head."""
        return len(self.sites)

    @property
    def definition(self) -> Definition:
        """A head writes along as many dimensions as it is wide."""
        return SUBSPACE

    def component(self, index: int) -> Component:
        """The record of one head: its own site and width."""
        record = super().component(index)
        self._require_fitted()
        site = self.sites[index]
        return record.model_copy(update={"reads": (site,), "writes": (site,), "width": self.widths_[site]})

    def _fit(self, stream: ActivationStream) -> None:
        """There is nothing to learn but the widths."""

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        return Codes.of_dense(torch.stack([x[site].norm(dim=1) for site in self.sites], dim=1))
