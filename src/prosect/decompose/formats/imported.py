"""What a format gives: a dictionary, and the record of the files it comes from.

Other projects write one formula in several ways. In the notation of this room

    z = sparsity(E (x - centre) + bias, threshold)        y = D z + offset + S (x - centre)

and each function here turns one of their ways into it. They compute in float64, so that folding costs one
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, Unsupported
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.sparsity import Sparsity


@dataclass(frozen=True)
class Asked:
    """What the user says beside naming the files.

    Attributes:
        sites: what it reads, where the files do not say or say it wrongly.
        targets: what it writes, if that is not what it reads.
        scale: what activations were multiplied by before they reached it in training.
        mean_free: whether the mean over dimensions was off its inputs in training; None for what the files say.
        allow_pickle: whether a torch pickle may be opened.
        device: where its numbers go.
    """

    sites: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    scale: float | None = None
    mean_free: bool | None = None
    allow_pickle: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Imported:
    """A dictionary out of another project's files.

    Attributes:
        dictionary: ready to encode.
        format: a name in `prosect.decompose.formats.registry.FORMATS`.
        architecture: what that project calls its kind.
        config: its configuration as it was found.
        folded: what was folded into its numbers, in words.
        frequencies: the share of tokens on which each latent fired in training, where the files say.
    """

    dictionary: Dictionary
    format: str
    architecture: str
    config: dict[str, Json]
    folded: tuple[str, ...] = ()
    frequencies: Float[Tensor, " latents"] | None = field(default=None, repr=False)

    @property
    def metadata(self) -> dict[str, Json]:
        """What the files say of the model and the data, to be handed to `save_dictionary`."""
        return dict(self.config.get("metadata") or {})


def build(
    weights: Weights,
    sparsity: Sparsity,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    asked: Asked,
    by_norm: bool = False,
) -> Dictionary:
    """The dictionary with these numbers, in the widest of their precisions.

    Args:
        weights: its numbers.
        sparsity: which latents may fire.
        reads: the site it reads.
        writes: the site it writes.
        asked: what to fold into the numbers, and where they go.
        by_norm: whether its codes are multiplied by the norms of its decoder rows.

    Raises:
        BadInput: several sites, k out of range.
        Unsupported: a scale was asked for, and it reads another site than it writes.
    """
    if len(reads) != 1 or len(writes) != 1:
        raise BadInput(f"sites {reads} and targets {writes}", "one site each, as the files hold one")
    if asked.scale is not None:
        if reads != writes:
            raise Unsupported("a scale for a transcoder", "the scales of both its sites folded by hand")
        weights = scaled(weights, asked.scale)
    if by_norm:
        weights = by_decoder_norm(weights)
    if asked.mean_free:
        weights = mean_free(weights)
    weights = replace(weights, centre=weights.centre.clone())  # it is often the offset, and is kept apart
    given = {f.name: getattr(weights, f.name) for f in fields(weights)}
    dtype = torch.float32
    for value in given.values():
        if value is not None:
            dtype = torch.promote_types(dtype, value.dtype)
    ready: dict[str, Any] = {
        name: None if value is None else value.to(asked.device, dtype).contiguous()
        for name, value in given.items()
    }
    latents, read = weights.encoder.shape
    made = Dictionary(reads, latents, sparsity, writes, skip=weights.skip is not None, device=asked.device)
    return made.with_weights(Weights(**ready), {reads[0]: read, writes[0]: weights.decoder.shape[1]})


def scaled(weights: Weights, scale: float) -> Weights:
    """For a dictionary made for ``scale`` · x: the one for x, whose codes reconstruct x itself.

    Raises:
        BadInput: the scale is not positive and finite.
    """
    if not 0 < scale < float("inf"):
        raise BadInput(f"a scale of {scale}", "a positive number")
    return replace(
        weights,
        encoder=weights.encoder * scale,
        centre=weights.centre / scale,
        decoder=weights.decoder / scale,
        offset=weights.offset / scale,
    )


def mean_free(weights: Weights) -> Weights:
    """For a dictionary made for inputs whose mean over dimensions was taken off: the one for inputs as they are.

    TransformerLens can take that mean off all that is written to the residual stream
    (``center_writing_weights``), which a model whose layers start with LayerNorm does not notice, and a
    dictionary does. Codes are those for the inputs without it, whichever are given; so are reconstructions.
    """
    encoder = weights.encoder - weights.encoder.mean(dim=1, keepdim=True)
    bias = weights.bias + (encoder - weights.encoder) @ weights.centre
    made = replace(weights, encoder=encoder, bias=bias)
    if weights.skip is None:
        return made
    skip = weights.skip - weights.skip.mean(dim=0, keepdim=True)
    return replace(made, skip=skip, offset=weights.offset + weights.centre @ (skip - weights.skip))


def gated(
    encoder: Float[Tensor, "latents reads"],
    gate: Float[Tensor, " latents"],
    magnitude: Float[Tensor, " latents"],
    log_ratio: Float[Tensor, " latents"],
) -> tuple[Float[Tensor, "latents reads"], Float[Tensor, " latents"], Float[Tensor, " latents"]]:
    """A gated encoder as encoder, bias and threshold (Rajamanoharan et al. 2024a, section 3.2).

    1[Ex + gate > 0] · relu(exp(r) Ex + magnitude): with m = exp(r) Ex + magnitude, the gate is open where
    m > magnitude - exp(r) gate.

    Args:
        encoder: E.
        gate: bias of the gate.
        magnitude: bias of the magnitude.
        log_ratio: r.
    """
    ratio = log_ratio.double().exp()
    threshold = magnitude.double() - ratio * gate.double()
    return (
        (encoder.double() * ratio[:, None]).to(encoder.dtype),
        magnitude,
        threshold.to(encoder.dtype),
    )


def by_decoder_norm(weights: Weights) -> Weights:
    """Codes multiplied by the norms of their decoder rows, which then have norm 1; rows of zeros stay."""
    norms = weights.decoder.norm(dim=1)
    factor = torch.where(norms > 0, norms, torch.ones_like(norms))
    return replace(
        weights,
        encoder=weights.encoder * factor[:, None],
        bias=weights.bias * factor,
        decoder=weights.decoder / factor[:, None],
        threshold=None if weights.threshold is None else weights.threshold * factor,
    )


def uncentred(weights: Weights) -> Weights:
    """The same dictionary with a centre of 0, for formats that have none."""
    if not bool(weights.centre.any()):
        return weights
    centre, dtype = weights.centre.double(), weights.bias.dtype
    offset = weights.offset.double()
    if weights.skip is not None:
        offset = offset - centre @ weights.skip.double()
    return replace(
        weights,
        bias=(weights.bias.double() - weights.encoder.double() @ centre).to(dtype),
        centre=torch.zeros_like(weights.centre),
        offset=offset.to(dtype),
    )


def weights_of(dictionary: Dictionary) -> Weights:
    """A fitted dictionary's numbers.

    Raises:
        BadInput: it is not fitted.
    """
    if not dictionary.fitted:
        raise BadInput(f"{dictionary.name}, which is not fitted", "a fitted dictionary", "fit(stream)")
    return Weights(
        dictionary.encoder_,
        dictionary.bias_,
        dictionary.centre_,
        dictionary.decoder_,
        dictionary.offset_,
        dictionary.skip_ if dictionary.skip else None,
        dictionary.threshold_ if dictionary.sparsity.thresholded else None,
    )


def moved(dictionary: Dictionary, device: str) -> Dictionary:
    """The same dictionary on another device."""
    given = weights_of(dictionary)
    values: dict[str, Any] = {f.name: getattr(given, f.name) for f in fields(given)}
    there: dict[str, Any] = {name: None if v is None else v.to(device) for name, v in values.items()}
    return replace(dictionary, device=device).with_weights(
        Weights(**there), dictionary.widths_, dictionary.history_
    )


def one_site(dictionary: Dictionary, format: str) -> None:
    """Refuse what reads or writes several sites.

    Raises:
        Unsupported: it does.
    """
    if len(dictionary.reads) > 1 or len(dictionary.writes) > 1:
        raise Unsupported(
            f"{dictionary.name}, which spans several sites, as {format}",
            "a dictionary that reads one site and writes one",
            'format="prosect", which holds any',
        )
