"""From the residual stream to the outputs: the unembedding with the last norm folded in, and direct effects.

The last norm divides by a scale that depends on the input; everything else about it is linear and can be
folded into the unembedding: W_U · diag(gain), with the mean taken out along the stream where the norm takes
it out. What the norm does is measured on it, not read off its class, so that a gain stored as 1 + w or a
centring of unknown name is folded as it acts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import ShapeMismatch
from prosect.model.forward import settled


@dataclass(frozen=True)
class Norm:
    """What a norm does: gain · (x - mean or not) / scale(x) + bias.

    Attributes:
        gain, bias: (d_model,).
        centred: whether the mean over the stream is taken out.
        scaled: whether it divides by a scale at all; False for an identity.
    """

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool
    scaled: bool

    def scale(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
        """What it divides ``x`` by, but for the small constant that norms add under the root."""
        if not self.scaled:
            return torch.ones_like(x[..., :1])
        y = x - x.mean(dim=-1, keepdim=True) if self.centred else x
        return y.pow(2).mean(dim=-1, keepdim=True).sqrt()

    def __call__(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The norm itself."""
        y = x - x.mean(dim=-1, keepdim=True) if self.centred else x
        return self.gain * y / self.scale(x) + self.bias


def measure(norm: nn.Module, width: int) -> Norm | None:
    """Find out what ``norm`` does by calling it; None if it is no norm of this form.

    Large inputs make the constant under the root too small to matter.
    """
    reference = next(norm.parameters(), torch.zeros(1))
    signs = torch.ones(width, dtype=torch.float64)
    signs[1::2] = -1

    def of(x: Tensor) -> Tensor:
        with settled(norm):
            y: Tensor = norm(x.to(reference.device, reference.dtype)[None, None])
        return y[0, 0].double().cpu()

    ones, ramp = torch.ones(width, dtype=torch.float64), torch.linspace(-1, 3, width, dtype=torch.float64)
    bias = of(torch.zeros(width, dtype=torch.float64))
    size = 1e3
    scaled = not torch.allclose(of(2 * ramp) - bias, 2 * (of(ramp) - bias), rtol=1e-3, atol=1e-6)
    centred = torch.allclose(of(size * ones), bias, rtol=1e-3, atol=1e-3) and width > 1
    guess = Norm(ones, torch.zeros_like(ones), centred, scaled)
    gain = (of(size * signs) - bias) / guess(size * signs)
    found = Norm(gain, bias, centred, scaled)
    tolerance = 1e-3 if reference.dtype in (torch.float32, torch.float64) else 3e-2
    right = torch.allclose(of(size * ramp), found(size * ramp), rtol=tolerance, atol=tolerance)
    return found if right else None


def folded(head: nn.Module, norm: Norm) -> Float[Tensor, "vocab d_model"] | None:
    """The unembedding that reads the stream divided by the norm's scale; None if ``head`` has no such matrix."""
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] != norm.gain.shape[0]:
        return None
    matrix = weight.detach() * norm.gain.to(weight.device, weight.dtype)
    return matrix - matrix.mean(dim=1, keepdim=True) if norm.centred else matrix


def direct_effect(
    unembedding: Float[Tensor, "vocab d_model"],
    directions: Float[Tensor, "*n width"],
    centred: bool = True,
) -> Float[Tensor, "*n vocab"]:
    """What directions in the residual stream add to the logits by themselves, at a norm scale of 1.

    Args:
        unembedding: as `Model.unembedding`.
        directions: (..., d_model).
        centred: take out the mean over the vocabulary, which no softmax sees.

    Raises:
        ShapeMismatch: directions of another width.
    """
    if directions.shape[-1] != unembedding.shape[1]:
        raise ShapeMismatch(f"directions of width {directions.shape[-1]}", f"{unembedding.shape[1]}")
    logits = directions.to(unembedding.device, unembedding.dtype) @ unembedding.T
    return logits - logits.mean(dim=-1, keepdim=True) if centred else logits
