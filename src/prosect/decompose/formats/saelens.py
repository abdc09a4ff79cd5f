"""The folders of SAELens: ``cfg.json`` and ``sae_weights.safetensors``, with ``sparsity.safetensors`` beside them.

    pre = (x - apply · b_dec) W_enc + b_enc        y = z W_dec + b_dec + W_skip x

z is relu(pre), the k largest of pre, pre where it is above a threshold (JumpReLU), or
1[xW_enc + b_gate > 0] · relu(exp(r_mag) xW_enc + b_mag) (gated); checked against SAELens 6.54.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.decompose.dictionary import Weights
from prosect.decompose.formats.files import Tensors, read_json, read_safetensors, section, words
from prosect.decompose.formats.imported import Asked, Imported, build, gated
from prosect.decompose.formats.places import from_hook, on_stream, site_or_asked
from prosect.decompose.formats.saelens_config import TRANSCODERS, Config, config
from prosect.decompose.sparsity import Sparsity, Threshold, TopK

CONFIG, WEIGHTS, SPARSITY, SCALER = (
    "cfg.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
    "activation_scaler.json",
)
FLOOR = 1e-10
"""What SAELens adds to a frequency before it takes the logarithm."""


def read(folder: Path, asked: Asked) -> Imported:
    """The dictionary in a folder that SAELens, or `prosect.decompose.formats.saelens_write`, has written.

    Raises:
        BadInput: a file, setting or tensor is missing or damaged; the scale is unknown.
        UnknownName: an architecture that does not exist.
        Unsupported: one that a dictionary here cannot hold, or a normalisation that weights cannot hold.
        ShapeMismatch: a tensor has another shape than the configuration says.
        NotFinite: a tensor holds NaN or infinity.
        UnsafeFile: the weights are a pickle.
    """
    found = config(read_json(folder / CONFIG), folder / CONFIG)
    tensors = Tensors(folder / WEIGHTS, read_safetensors(folder / WEIGHTS))
    _no_factors(tensors, found, folder)
    weights, sparsity = _weights(tensors, found)
    tensors.done()
    folded = ["codes are times the norms of their decoder rows, which have norm 1"] if found.by_norm else []
    if found.firing == "gated":
        folded.append("gate and magnitude are one encoder with thresholds")
    if found.scaled and asked.scale is None:
        asked = replace(asked, scale=_scale(folder))
    if asked.scale is not None:
        folded.append(f"the scale {asked.scale:g} of its inputs")
    reads, writes = _places(found, asked, folder)
    if asked.mean_free is None:
        asked = replace(asked, mean_free=found.mean_free and on_stream(reads[0]))
    if asked.mean_free:
        folded.append("the mean over dimensions is off its inputs (center_writing_weights)")
    dictionary = build(weights, sparsity, reads, writes, asked, found.by_norm)
    frequencies = _frequencies(folder, found)
    return Imported(dictionary, "saelens", found.architecture, found.found, tuple(folded), frequencies)


def _weights(tensors: Tensors, found: Config) -> tuple[Weights, Sparsity]:
    n, d_in, d_out = found.d_sae, found.d_in, found.d_out
    encoder = tensors.take("W_enc", (d_in, n)).T
    decoder, offset = tensors.take("W_dec", (n, d_out)), tensors.take("b_dec", (d_out,))
    centre = offset if found.centred else offset.new_zeros(d_in)
    skip: Tensor | None = None
    if found.architecture.endswith("skip_transcoder"):
        skip = tensors.take("W_skip", (d_out, d_in)).T  # on x itself; a transcoder has no centre
    threshold: Tensor | None = None
    sparsity: Sparsity = Threshold()
    if found.firing == "gated":
        gate, magnitude, ratio = (tensors.take(name, (n,)) for name in ("b_gate", "b_mag", "r_mag"))
        encoder, bias, threshold = gated(encoder, gate, magnitude, ratio)
    else:
        bias = tensors.take("b_enc", (n,))
    if found.firing == "jumprelu":
        logs = "log_threshold" in tensors  # what SAELens trained before 6.48
        threshold = tensors.take("log_threshold", (n,)).exp() if logs else tensors.take("threshold", (n,))
    elif found.firing == "batch":
        threshold = torch.full_like(bias, tensors.number("topk_threshold"))
        if found.by_norm:  # it is in the units of codes, the others in those of pre-activations
            threshold = threshold / decoder.norm(dim=1).clamp_min(torch.finfo(decoder.dtype).tiny)
    elif found.k is not None:
        sparsity = TopK(found.k)
    return Weights(encoder, bias, centre, decoder, offset, skip, threshold), sparsity


def _no_factors(tensors: Tensors, found: Config, folder: Path) -> None:
    """Factors on the codes, which SAELens stored before version 6, may be there if they are all 1."""
    if "scaling_factor" in tensors:
        factors = tensors.take("scaling_factor", (found.d_sae,))
        if not bool((factors == 1).all()):
            raise Unsupported(
                f"codes that {folder / WEIGHTS} multiplies by factors found afterwards (scaling_factor)",
                "factors of 1",
                "multiplying the rows of W_dec by them",
            )


def _scale(folder: Path) -> float:
    """The scale of a training checkpoint, which lies beside it."""
    path = folder / SCALER
    scale = read_json(path).get("scaling_factor") if path.is_file() else None
    if not isinstance(scale, int | float):
        raise BadInput(
            f"{folder}, trained on scaled activations (expected_average_only_in) with the scale not in it",
            "the number that activations were multiplied by",
            "scale=√d_in / (mean norm of activations), as its training measured it",
        )
    return float(scale)


def _places(found: Config, asked: Asked, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What it reads and what it writes."""
    where = folder / CONFIG
    ours = section(section(found.found, "metadata", where), "prosect", where)
    said = from_hook(found.hook, found.head) if found.hook else None
    reads = site_or_asked(asked.sites, words(ours, "reads", where) or said, str(folder))
    if found.architecture not in TRANSCODERS:
        return reads, reads
    out = from_hook(found.hook_out, found.head_out) if found.hook_out else None
    return reads, site_or_asked(asked.targets, words(ours, "writes", where) or out, f"what {folder} writes")


def _frequencies(folder: Path, found: Config) -> Tensor | None:
    """How often each latent fired, stored as log10(frequency + 1e-10)."""
    if not (folder / SPARSITY).is_file():
        return None
    tensors = Tensors(folder / SPARSITY, read_safetensors(folder / SPARSITY))
    logs = tensors.take("sparsity", (found.d_sae,))
    tensors.done()
    return (10.0**logs - FLOOR).clamp(0.0, 1.0)
