"""The ``cfg.json`` of SAELens, of version 6 and of those before it, as one record.

Version 6 is what is described at https://decoderesearch.github.io/SAELens; before it, one flat record held
the dictionary's settings and those of its training, under several names. What a setting leaves to guess is
refused: a setting that is read wrongly gives numbers that are wrong in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName, Unsupported
from prosect.decompose.formats.files import count, section, words

TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
"""Architectures that write another site than they read → how their latents fire."""
BATCH = ("batchtopk", "matryoshka_batchtopk")
"""Architectures that exist while training only; SAELens saves them as jumprelu when it is over."""
KNOWN = ("standard", "topk", "jumprelu", "gated", *BATCH, *TRANSCODERS)
REFUSED = {
    "temporal": "its codes depend on other positions",
    "matching_pursuit": "it encodes in steps, each on what the last has left",
    "matryoshka_matching_pursuit": "it encodes in steps, each on what the last has left",
    "abstopk": "its codes have either sign",
}
NORMALISED = {
    "constant_norm_rescale": "each input is divided by its own norm",
    "layer_norm": "each input is divided by its own standard deviation",
    "covariance_whitening": "inputs are whitened by matrices that lie outside the weights",
}
"""Kinds of normalisation that no weights can hold, and why."""


@dataclass(frozen=True)
class Config:
    """What a ``cfg.json`` says, in the words of version 6.

    Attributes:
        architecture: one of `KNOWN`.
        d_in: width of what it reads.
        d_sae: its latents.
        d_out: width of what it writes.
        centred: whether the decoder's bias is subtracted from what it reads.
        scaled: whether it was trained on activations multiplied by one number.
        k: latents at each position, for topk.
        by_norm: whether codes are multiplied by the norms of the decoder's rows (topk and the like).
        hook: what it reads, as the file names it; None if it does not.
        hook_out: what it writes, if that is another site.
        head: of ``hook``; None for all.
        head_out: of ``hook_out``; None for all.
        mean_free: whether its model was opened with the mean taken off all that is written to the stream.
        found: the file.
    """

    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    centred: bool
    scaled: bool
    k: int | None
    by_norm: bool
    hook: str | None
    hook_out: str | None
    head: int | None
    head_out: int | None
    mean_free: bool
    found: dict[str, Json]

    @property
    def firing(self) -> str:
        """How its latents fire: standard, topk, jumprelu, gated or batch."""
        if self.architecture in BATCH:
            return "batch"
        return TRANSCODERS.get(self.architecture, self.architecture)


def config(found: dict[str, Json], where: Path) -> Config:
    """What a ``cfg.json`` says.

    Args:
        found: its contents.
        where: the file, for messages.

    Raises:
        BadInput: a setting is missing or makes no sense.
        UnknownName: an architecture that does not exist.
        Unsupported: an architecture or a normalisation that a dictionary here cannot hold.
    """
    section(found, "metadata", where)
    said = found if _version(found) >= 6 else _before_6(found, where)
    metadata = section(said, "metadata", where)
    architecture = said.get("architecture", "standard")
    if architecture in REFUSED:
        raise Unsupported(
            f"the architecture {architecture!r} in {where} ({REFUSED[architecture]})",
            f"one of {', '.join(KNOWN)}",
        )
    if architecture not in KNOWN:
        raise UnknownName("SAELens architecture", str(architecture), KNOWN)
    d_in, d_sae = (count(said, name, where) for name in ("d_in", "d_sae"))
    transcoder = architecture in TRANSCODERS
    by_norm = bool(said.get("rescale_acts_by_decoder_norm", architecture in BATCH))
    return Config(
        architecture=architecture,
        d_in=d_in,
        d_sae=d_sae,
        d_out=count(said, "d_out", where) if transcoder else d_in,
        centred=not transcoder and _flag(said, "apply_b_dec_to_input", True, where),
        scaled=_scaled(said, where),
        k=count(said, "k", where) if architecture == "topk" else None,
        by_norm=by_norm and architecture in ("topk", *BATCH),
        hook=words(metadata, "hook_name", where),
        hook_out=words(metadata, "hook_name_out", where) if transcoder else None,
        head=_head(metadata, "hook_head_index", where),
        head_out=_head(metadata, "hook_head_index_out", where),
        mean_free=section(metadata, "model_from_pretrained_kwargs", where).get("center_writing_weights")
        is True,
        found=said,
    )


def _version(found: dict[str, Json]) -> int:
    said = found.get("sae_lens_version") or (found.get("metadata") or {}).get("sae_lens_version")
    number = re.match(r"\d+", str(said or ""))
    return int(number[0]) if number else 0


_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_ABOUT_MODEL = (
    "model_name",
    "model_class_name",
    "hook_name",
    "hook_name_out",
    "hook_head_index",
    "hook_head_index_out",
    "model_from_pretrained_kwargs",
    "prepend_bos",
    "context_size",
    "dataset_path",
    "seqpos_slice",
    "exclude_special_tokens",
    "neuronpedia_id",
)


def _before_6(found: dict[str, Json], where: Path) -> dict[str, Json]:
    """A flat record in the words of version 6."""
    old = {_RENAMED.get(name, name): value for name, value in found.items()}
    activation = old.get("activation_fn", "relu")
    if activation == "topk":
        old["architecture"] = "topk"
        old.setdefault("k", section(old, "activation_fn_kwargs", where).get("k"))
    elif activation != "relu":
        raise Unsupported(f"the activation {activation!r} in {where}", "relu or topk")
    if old.get("finetuning_scaling_factor"):
        raise Unsupported(
            f"codes that {where} multiplies by factors found afterwards (finetuning_scaling_factor)",
            "a dictionary without them",
            "saving it without the factors in the version of SAELens that made it",
        )
    about = {name: old[name] for name in _ABOUT_MODEL if name in old}
    return {**old, "metadata": {**(old.get("metadata") or {}), **about}}


def _scaled(said: dict[str, Json], where: Path) -> bool:
    kind = said.get("normalize_activations")
    if kind is True or kind == "expected_average_only_in":
        return True
    if kind in (None, False, "none"):
        return False
    if kind in NORMALISED:
        raise Unsupported(
            f"normalize_activations={kind!r} in {where} ({NORMALISED[kind]})",
            "none, or expected_average_only_in",
            "normalising the activations yourself, loading a copy whose cfg.json says none, and reading its "
            "reconstructions as normalised ones",
        )
    raise UnknownName("normalize_activations", str(kind), ("none", "expected_average_only_in", *NORMALISED))


def _head(metadata: dict[str, Json], name: str, where: Path) -> int | None:
    value = metadata.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise BadInput(f"{name}={value!r} in {where}", "the number of a head, or null")
    return value


def _flag(said: dict[str, Json], name: str, default: bool, where: Path) -> bool:
    value = said.get(name, default)
    if value not in (True, False):
        raise BadInput(f"{name}={value!r} in {where}", "true or false")
    return bool(value)
