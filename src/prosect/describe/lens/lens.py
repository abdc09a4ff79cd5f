"""What a lens is: something done to a layer's stream before the model's own last norm and unembedding read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.core.seeds import Seed
from prosect.model.model import Model


@runtime_checkable
class Lens(Protocol):
    """Takes a layer's stream to where the last layer's would be."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def sites(self) -> tuple[str, ...] | None:
        """The sites that it can read; None for any of the stream's."""

    def translate(self, site: str, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """The stream at ``site``, to be read by the last norm and the unembedding."""


@dataclass(frozen=True)
class LogitLens:
    """The stream as it is (nostalgebraist 2020, "interpreting GPT: the logit lens").

    The last norm computes its statistics from each layer's own stream: the last layer's scale on an early
    stream, which is many times smaller, would read a different distribution.
    """

    name: str = "logit lens"
    sites: tuple[str, ...] | None = None

    def translate(self, site: str, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """``x`` itself."""
        return x


@dataclass(frozen=True)
class Turned:
    """A control: another lens, whose stream is turned by one random rotation first.

    Norms, angles between positions and layers, and everything else that does not depend on which direction
    means which token are as they were.

    Attributes:
        lens: the lens it is a control for.
        seed: of the rotation.
    """

    lens: Lens
    seed: Seed

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.lens.name} of the stream turned at random"

    @property
    def sites(self) -> tuple[str, ...] | None:
        """Those of the lens."""
        return self.lens.sites

    def translate(self, site: str, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """What the lens makes of ``x`` turned."""
        return self.lens.translate(site, x @ rotation(x.shape[-1], self.seed).to(x.device, x.dtype))


def rotation(width: int, seed: Seed) -> Float[Tensor, "width width"]:
    """An orthogonal matrix drawn from the uniform distribution (Mezzadri 2007)."""
    drawn = torch.randn(width, width, generator=seed.child("rotation").torch(), dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    turned: Tensor = q * torch.sign(torch.diagonal(r))
    return turned


def stream_sites(model: Model, sites: Sequence[str] | None = None) -> tuple[str, ...]:
    """The sites of the stream to read: those given, or what enters the first block and what leaves each.

    Raises:
        Unsupported: one of them is not of the stream.
        UnknownName: one of them does not exist.
        BadInput: none.
    """
    if sites is None:
        named = ["resid_pre.0", *(f"resid_post.{i}" for i in range(model.n_layers or 0))]
        sites = [name for name in named if name in model.sites]
    elif isinstance(sites, str):
        sites = [sites]
    if not sites:
        raise BadInput("no site to read", "at least one of the residual stream", "resid_post.0")
    out = []
    for name in sites:
        info = model.sites.info(name)
        if not info.kind.startswith("resid_"):
            raise Unsupported(
                f"a lens on {name}, which is {info.about}", "a site of the residual stream", "resid_post.0"
            )
        out.append(info.name)
    return tuple(dict.fromkeys(out))
