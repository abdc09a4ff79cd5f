"""From what heads or neurons give to what their sublayer adds to the stream: a linear map, once norms are held.

A sublayer ends in a projection; in some families a norm or a factor comes after it. The map is read off the
modules themselves, called on what they were given, and proved on the run: what it makes of the run's own input
must be what the run added to the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prosect.core.errors import Unsupported
from prosect.model.forward import settled
from prosect.model.model import Model
from prosect.model.trace import Trace
from prosect.model.unembed import Acting, acting

Sublayer = Literal["attn", "mlp"]
INNER = {"attn": "z", "mlp": "mlp_act"}
"""What the projection of each sublayer reads."""


@dataclass(frozen=True)
class Branch:
    """One sublayer's last steps at one position of each row, norms held at their scale.

    Attributes:
        inner: (rows, width) what the projection was given: heads side by side, or neurons.
        projection: the module.
        factor: what follows multiplies by this.
        norm: what follows is this norm, its scale held; None without one.
    """

    inner: Float[Tensor, "rows width"]
    projection: nn.Module
    factor: float = 1.0
    norm: Acting | None = None

    def after(self, y: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """What becomes of a part of the projection's output, float64, without any bias."""
        wide = y.double() * self.factor
        return wide if self.norm is None else self.norm.linear(wide)

    def reads(
        self, g: Float[Tensor, "rows d_model"]
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, " rows"]]:
        """What a direction in the stream reads here.

        Args:
            g: float64.

        Returns:
            The direction that it is in the projection's input, and what the biases add, both float64.
        """
        back = g if self.norm is None else self.norm.transposed(g)
        constant = torch.zeros_like(g[:, 0]) if self.norm is None else g @ self.norm.bias
        back = back * self.factor
        zero = torch.zeros_like(self.inner).requires_grad_()
        with settled(self.projection, grad=True):
            out = self.projection(zero[:, None, :])[:, 0].double()
            (direction,) = torch.autograd.grad((out * back).sum(), zero)
        return direction.double(), constant + (out.detach() * back).sum(dim=-1)


def branch(
    model: Model,
    trace: Trace,
    sublayer: Sublayer,
    layer: int,
    at: Int[Tensor, " rows"],
    added: Float[Tensor, "rows d_model"],
) -> Branch:
    """The last steps of a sublayer in one run, at one position of each row.

    Args:
        model: what was run.
        trace: holds ``z`` or ``mlp_act`` of the layer.
        sublayer: which.
        layer: of which block.
        at: index of the position on the axis of positions.
        added: what the sublayer added to the stream there.

    Raises:
        Unsupported: something else than a norm or a factor follows the projection.
    """
    kind = INNER[sublayer]
    inner_site, post_site = f"{kind}.{layer}", f"{sublayer}_out_post.{layer}"
    rows = torch.arange(len(at), device=at.device)
    place = model.sites.entry(model.sites.site(inner_site)).place
    inner = trace[inner_site][rows, at].flatten(1).detach()
    if place.side != "in":
        raise Unsupported(f"splitting {post_site}, whose projection is no module", "a projection of its own")
    with settled(place.module):
        out = place.module(inner[:, None, :])[:, 0]
    if _same(out, added):
        return Branch(inner, place.module)
    size = float((out.double() ** 2).sum())
    factor = float((out.double() * added.double()).sum()) / size if size > 0 else 1.0
    if _same(out.double() * factor, added):
        return Branch(inner, place.module, factor)
    if post_site in model.sites:
        follows = model.sites.entry(model.sites.site(post_site)).place.module
        held = acting(follows, out, int(added.shape[-1]))
        if held is not None and _same(held.linear(out.double()) + held.bias, added):
            return Branch(inner, place.module, 1.0, held)
    raise Unsupported(
        f"splitting {post_site}: what follows its projection is neither a norm nor a factor",
        "a sublayer that is linear once its norm is held",
        "split='sublayers'",
    )


def _same(a: Tensor, b: Tensor) -> bool:
    wide = torch.finfo(b.dtype).eps > 1e-6
    error = float((a.double() - b.double()).abs().max())
    return error <= (3e-2 if wide else 1e-4) * max(float(b.double().abs().max()), 1e-12)
