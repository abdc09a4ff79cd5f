"""From the residual stream to the outputs: the unembedding with the last norm folded in, and direct effects.

The last norm divides by a scale that depends on the input; everything else about it is linear and can be
folded into the unembedding: W_U · diag(gain), with the mean taken out along the stream where the norm takes
it out. What the norm does is measured on it, not read off its class, so that a gain stored as 1 + w or a
centring of unknown name is folded as it acts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import ShapeMismatch, Unsupported
from prosect.model.forward import settled

if TYPE_CHECKING:
    from prosect.model.model import Model

WITHIN = 1e-4
"""How far head(norm(stream)) may miss the model's own logits, relative to the largest."""
NEAR_ONE = 1e-4
"""A factor on the logits this close to 1 is none."""


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


@dataclass(frozen=True)
class Readout:
    """How the residual stream becomes logits: the model's own last norm and unembedding, and what follows.

    Attributes:
        norm: the last norm; it computes its statistics from whatever stream it is given.
        head: the unembedding.
        factor: the logits are ``head(norm(x))`` times this.
        cap: they are then cap · tanh(logits / cap); None where they are not capped.
        error: of this account against the model's own output when it was made, relative to its largest logit.
    """

    norm: nn.Module
    head: nn.Module
    factor: float
    cap: float | None
    error: float

    def __call__(self, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b vocab"]:
        """Logits of a stream, as the model would give them if its last block ended with it."""
        return self.capped(self.uncapped(x))

    def uncapped(self, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b vocab"]:
        """Logits before the cap."""
        logits: Tensor = self.head(self.norm(x))
        return logits if self.factor == 1.0 else logits * self.factor

    def capped(self, logits: Float[Tensor, "*b vocab"]) -> Float[Tensor, "*b vocab"]:
        """The cap, if there is one."""
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def readout(model: Model) -> Readout:
    """How ``model`` reads its stream into logits, found on its example and proved there.

    Raises:
        Unsupported: it is no language model, or something else lies between its stream and its logits.
    """
    norm, head = model._norm, model._head  # what `Model.unembedding` is folded from
    if norm is None or head is None or not model.n_layers:
        raise Unsupported(f"reading the stream of {model.name} into logits", "a decoder with an unembedding")
    last = f"resid_post.{model.n_layers - 1}"
    with model.runner.meter.paused():
        trace = model.run(model.example, [last])
    config: Any = model.module.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    cap = getattr(text, "final_logit_softcapping", None)
    with settled(model.module):
        bare = head(norm(trace[last]))
    got = trace.output.double()
    linear = got if cap is None else cap * torch.atanh((got / cap).clamp(-1 + 1e-6, 1 - 1e-6))
    raw = bare.double()
    size = float((raw * raw).sum())
    factor = float((raw * linear).sum()) / size if size > 0 else 1.0
    if abs(factor - 1.0) < NEAR_ONE:
        factor = 1.0  # so that a model without a factor gets its own logits to the last bit
    made = Readout(norm, head, factor, None if cap is None else float(cap), 0.0)
    with settled(model.module):
        error = float((made(trace[last]).double() - got).abs().max() / got.abs().max().clamp(min=1e-30))
    if not error <= (WITHIN if model.dtype in (torch.float32, torch.float64) else 3e-2):
        raise Unsupported(
            f"a lens on {model.name}: its last norm and unembedding miss its own logits by {error:.2g}",
            f"less than {WITHIN:g} of the largest logit",
            "a model whose logits are head(norm(stream)), a factor and a cap",
        )
    return replace(made, error=error)


def acting(norm: nn.Module, x: Float[Tensor, "*b d_model"], width: int) -> Acting | None:
    """``norm`` as it acts on one stream: a linear map, once its scale is held; None if it is no norm of this form.

    The scale is read off what the norm gave, so that the constant under its root is in it.
    """
    found = measure(norm, width)
    if found is None:
        return None
    with settled(norm):
        given = norm(x)
    gain, bias = found.gain.to(x.device), found.bias.to(x.device)
    wide = x.double()
    plain = gain * (wide - wide.mean(dim=-1, keepdim=True) if found.centred else wide)
    out = given.double() - bias
    inverse = torch.ones_like(plain[..., :1])
    if found.scaled:
        size = (plain * plain).sum(dim=-1, keepdim=True)
        inverse = torch.where(size > 0, (plain * out).sum(dim=-1, keepdim=True) / size.clamp(min=1e-300), 0.0)
    return Acting(gain, bias, found.centred, inverse)


@dataclass(frozen=True)
class Acting:
    """A norm with its scale held at what it was: x → gain · (x - mean or not) · inverse + bias.

    Attributes:
        gain, bias: (d_model,), float64.
        centred: whether the mean over the stream is taken out.
        inverse: (..., 1): one over the scale at each position.
    """

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool
    inverse: Float[Tensor, "... 1"]

    def linear(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What a part of the stream becomes, without the bias."""
        y = x - x.mean(dim=-1, keepdim=True) if self.centred else x
        return self.gain * y * self.inverse

    def transposed(self, g: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The direction in the stream that a direction ``g`` after the norm reads."""
        back = self.gain * g * self.inverse
        return back - back.mean(dim=-1, keepdim=True) if self.centred else back
