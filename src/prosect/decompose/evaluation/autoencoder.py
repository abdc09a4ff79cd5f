"""The rival that no direction explains: a small autoencoder whose decoder is nonlinear.

If activations lie on a curved surface of few dimensions, a few numbers and a curved map describe them more shortly than
any list of directions, sparse or dense. Hidden tanh units on both sides (Hinton & Salakhutdinov 2006, "Reducing the
dimensionality of data with neural networks", at its smallest); trained by Adam from a seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.base import SEED, OneSite
from prosect.decompose.contract import ActivationStream, Codes
from prosect.decompose.streams import finite_blocks

LAYERS = ("read_", "read_bias_", "code_", "code_bias_", "spread_", "spread_bias_", "write_", "write_bias_")


@dataclass(eq=False)
class Autoencoder(OneSite):
    """x → tanh units → a few signed codes → tanh units → x.

    Args:
        site: what it reads and writes.
        codes: numbers in the middle.
        hidden: tanh units on either side.
        steps: of Adam, on ``batch`` rows each.
        batch: rows of a step.
        rate: of the first step; it falls linearly to zero.
        seed: of its start and of the rows drawn.
    """

    kind: ClassVar[str] = "autoencoder"
    supports = frozenset({"decode", "signed"})

    site: str
    codes: int
    hidden: int = 32
    steps: int = 2000
    batch: int = 256
    rate: float = 1e-2
    seed: Seed = SEED
    widths_: dict[str, int] = field(init=False, repr=False)
    mean_: Float[Tensor, " width"] = field(init=False, repr=False)
    scale_: float = field(init=False, repr=False)
    read_: Float[Tensor, "width hidden"] = field(init=False, repr=False)
    read_bias_: Float[Tensor, " hidden"] = field(init=False, repr=False)
    code_: Float[Tensor, "hidden codes"] = field(init=False, repr=False)
    code_bias_: Float[Tensor, " codes"] = field(init=False, repr=False)
    spread_: Float[Tensor, "codes hidden"] = field(init=False, repr=False)
    spread_bias_: Float[Tensor, " hidden"] = field(init=False, repr=False)
    write_: Float[Tensor, "hidden width"] = field(init=False, repr=False)
    write_bias_: Float[Tensor, " width"] = field(init=False, repr=False)
    sizes_: Float[Tensor, " codes"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.codes, self.hidden, self.steps, self.batch) < 1 or not self.rate > 0:
            raise BadInput(f"{self}", "at least one code, hidden unit, step and row, and a rate above 0")

    @property
    def n_components(self) -> int:
        """Its codes."""
        return self.codes

    @property
    def sizes(self) -> Float[Tensor, " codes"]:
        """How far a code of 1 moves what is written, root mean square over what it was fitted on."""
        self._require_fitted()
        return self.sizes_

    @property
    def decoder_parameters(self) -> int:
        """Numbers in the decoder, mean and scale included."""
        width = self.widths_[self.site]
        return self.codes * self.hidden + self.hidden + self.hidden * width + width + width + 1

    def _fit(self, stream: ActivationStream) -> None:
        x = torch.cat(
            [block[self.site].detach().cpu().float() for block in finite_blocks(stream, (self.site,))]
        )
        if len(x) < 2:
            raise TooLittleData(f"{len(x)} positions for {self.name}", "at least 2")
        self.mean_ = x.mean(dim=0)
        self.scale_ = float((x - self.mean_).square().mean().sqrt()) or 1.0
        x = (x - self.mean_) / self.scale_
        generator = self.seed.child("start").torch()
        sizes = (x.shape[1], self.hidden, self.codes, self.hidden, x.shape[1])
        for number, (a, b) in enumerate(pairwise(sizes)):
            weight = torch.randn(a, b, generator=generator) / a**0.5
            setattr(self, LAYERS[2 * number], weight.requires_grad_())
            setattr(self, LAYERS[2 * number + 1], torch.zeros(b, requires_grad=True))
        trained = [getattr(self, name) for name in LAYERS]
        adam = torch.optim.Adam(trained, lr=self.rate)
        rows = self.seed.child("rows").torch()
        for step in range(self.steps):
            drawn = x[torch.randint(len(x), (self.batch,), generator=rows)]
            loss = (self._made(self._codes(drawn)) - drawn).square().mean()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.param_groups[0]["lr"] = self.rate * (1 - step / self.steps)
            adam.step()
        for name in LAYERS:
            setattr(self, name, getattr(self, name).detach())
        if not bool(torch.isfinite(self.write_).all()):
            raise NotFinite(f"weights of {self.name} after training", "finite ones", "a smaller rate")
        z = self._codes(x[:4096])
        steep = 1 - torch.tanh(z @ self.spread_ + self.spread_bias_).square()
        moved = [(steep * row) @ self.write_ for row in self.spread_]
        self.sizes_ = torch.stack([m.square().sum(dim=1).mean().sqrt() for m in moved]) * self.scale_

    def _codes(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.read_ + self.read_bias_) @ self.code_ + self.code_bias_

    def _made(self, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.spread_ + self.spread_bias_) @ self.write_ + self.write_bias_

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        return Codes.of_dense(self._codes((x[self.site].to(self.mean_) - self.mean_) / self.scale_))

    def _decode(self, codes: Codes) -> dict[str, Tensor]:
        return {self.site: self._made(codes.dense().to(self.mean_)) * self.scale_ + self.mean_}
