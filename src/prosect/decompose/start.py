"""Where training starts: the point activations are centred on, their scale, and random directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.decompose.recipe import Recipe

DRAWN = 1024
"""Random rows drawn at a time."""


class Scaling(NamedTuple):
    """How sites side by side are standardised: (x - centre) / scale, one scale for each site."""

    centre: Float[Tensor, " width"]
    scale: Float[Tensor, " width"]

    def to(self, device: str) -> Scaling:
        """The same on a device."""
        return Scaling(self.centre.to(device), self.scale.to(device))


def scaling(sample: Mapping[str, Float[Tensor, "n _"]], sites: Mapping[str, int], recipe: Recipe) -> Scaling:
    """The centre and scale of some sites, from a sample of their activations.

    Raises:
        BadInput: the activations at a site do not vary.
    """
    centres, scales = [], []
    for site, width in sites.items():
        x = sample[site].to("cpu", torch.float64)
        centre = geometric_median(x) if recipe.start == "geometric median" else x.mean(dim=0)
        scale = (x - centre).square().mean().sqrt()
        if not scale > 0:
            raise BadInput(f"{len(x):,} equal activations at {site}", "activations that vary", "another site")
        centres.append(centre)
        scales.append(scale.expand(width))
    return Scaling(torch.cat(centres).float(), torch.cat(scales).float())


def geometric_median(
    x: Float[Tensor, "n width"], iterations: int = 100, tolerance: float = 1e-6
) -> Float[Tensor, " width"]:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration.

    It resists the few positions of huge norm that residual streams have, which a mean does not.

    Args:
        x: rows.
        iterations: at most this many.
        tolerance: it stops when a step is shorter than this share of the mean distance.
    """
    at: Tensor = x.mean(dim=0)
    for _ in range(iterations):
        distance = (x - at).norm(dim=1)
        typical = distance.mean()
        if not typical > 0:
            break
        weight = distance.clamp_min(float(typical) * 1e-9).reciprocal()
        before, at = at, weight @ x / weight.sum()
        if (at - before).norm() <= tolerance * typical:
            break
    return at


def on_sphere(like: Tensor, generator: torch.Generator, mask: Tensor | None = None, begin: int = 0) -> Tensor:
    """Rows of norm 1 in uniformly random directions, drawn on the CPU so that devices agree.

    Args:
        like: gives shape, dtype and device.
        generator: of the draw.
        mask: where a row may differ from 0; None for anywhere.
        begin: which of all rows the first is, where ranks have some of them each; those before are drawn too,
            a few at a time, and thrown away.
    """
    out = torch.empty_like(like, requires_grad=False)
    rows, width = like.shape
    for start in range(0, begin + rows, DRAWN):
        stop = min(start + DRAWN, begin + rows)
        drawn: Tensor = torch.randn((DRAWN, width), generator=generator, dtype=torch.float64)
        here = slice(max(start, begin) - begin, stop - begin)
        if stop <= begin:
            continue
        drawn = drawn[max(start, begin) - start : stop - start]
        if mask is not None:
            drawn = drawn * mask[here].cpu()
        out[here] = (drawn / drawn.norm(dim=1, keepdim=True)).to(out)
    return out
