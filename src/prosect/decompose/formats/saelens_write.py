"""Writing folders that SAELens 6 loads: the default form in which dictionaries are saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.formats.imported import one_site, uncentred, weights_of
from prosect.decompose.formats.places import has_heads, to_hook
from prosect.decompose.formats.saelens import CONFIG, FLOOR, SPARSITY, WEIGHTS
from prosect.decompose.sparsity import Threshold, TopK
from prosect.store.atomic import write_json
from prosect.store.tensors import save_tensors

VERSION = "6.54.12"
"""The version whose form is written; without one, SAELens takes a folder for an older one."""


def write(
    folder: Path,
    dictionary: Dictionary,
    metadata: Mapping[str, Json],
    frequencies: Float[Tensor, " latents"] | None,
) -> None:
    """Write ``cfg.json``, ``sae_weights.safetensors`` and, if frequencies are known, ``sparsity.safetensors``.

    The decoder's bias is subtracted on the way in, as SAELens can say, or else the centre is folded into the
    encoder's bias.

    Args:
        folder: an empty folder.
        dictionary: a fitted one that reads one site and writes one.
        metadata: what is known of the model and the data, by SAELens's names.
        frequencies: the share of tokens on which each latent fired.

    Raises:
        Unsupported: SAELens has no such architecture.
        ShapeMismatch: not one frequency for each latent.
        BadInput: frequencies outside 0 to 1.
    """
    one_site(dictionary, "saelens")
    given = weights_of(dictionary)
    transcoder = dictionary.targets is not None
    centred = not transcoder and torch.equal(given.centre, given.offset)
    weights = given if centred else uncentred(given)
    architecture = _architecture(dictionary, weights, transcoder)
    tensors = {
        "W_enc": weights.encoder.T,
        "b_enc": weights.bias,
        "W_dec": weights.decoder,
        "b_dec": weights.offset,
    }
    if "jumprelu" in architecture:
        assert weights.threshold is not None
        tensors["threshold"] = weights.threshold.clamp_min(0.0)
    if weights.skip is not None:
        tensors["W_skip"] = weights.skip.T
    config: dict[str, Json] = {
        "architecture": architecture,
        "d_in": weights.encoder.shape[1],
        "d_sae": dictionary.latents,
        "dtype": str(weights.encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": centred,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if _reshaped(dictionary) else "none",
        "metadata": _metadata(dictionary, metadata),
    }
    if transcoder:
        config["d_out"] = weights.decoder.shape[1]
    if isinstance(dictionary.sparsity, TopK):
        config |= {"k": dictionary.sparsity.k, "rescale_acts_by_decoder_norm": False}
    save_tensors(folder / WEIGHTS, tensors)
    write_json(folder / CONFIG, config)
    if frequencies is not None:
        save_tensors(folder / SPARSITY, {"sparsity": _logarithms(frequencies, dictionary)})


def _architecture(dictionary: Dictionary, weights: Weights, transcoder: bool) -> str:
    kind = type(dictionary.sparsity)
    if dictionary.skip and not transcoder:
        raise Unsupported(
            f"{dictionary.name}, an autoencoder with a skip, as saelens",
            "a skip transcoder",
            'format="prosect"',
        )
    if kind is TopK:
        if transcoder:
            raise Unsupported(
                f"{dictionary.name}, a top-k transcoder, as saelens",
                "a transcoder whose latents have thresholds",
                'format="sparsify" or format="prosect"',
            )
        return "topk"
    if kind is not Threshold:
        raise Unsupported(
            f"the sparsity {dictionary.sparsity.name!r} of {dictionary.name} as saelens",
            "TopK or Threshold",
            'format="prosect"',
        )
    relu = weights.threshold is None or not bool((weights.threshold > 0).any())
    if not transcoder:
        return "standard" if relu else "jumprelu"
    return f"{'' if relu else 'jumprelu_'}{'skip_' if dictionary.skip else ''}transcoder"


def _reshaped(dictionary: Dictionary) -> bool:
    """Whether TransformerLens gives what it reads by heads, which SAELens can lay flat for ``hook_z`` alone."""
    hook, head = to_hook(dictionary.reads[0])
    return dictionary.targets is None and head is None and hook.endswith("_z") and has_heads(hook)


def _metadata(dictionary: Dictionary, given: Mapping[str, Json]) -> dict[str, Json]:
    hook, head = to_hook(dictionary.reads[0])
    known: dict[str, Json] = {
        "model_name": None,
        "model_class_name": None,
        "hook_name": hook,
        "hook_head_index": head,
        "context_size": None,
        "prepend_bos": None,
        "exclude_special_tokens": None,
        "seqpos_slice": None,
        "dataset_path": None,
        "model_from_pretrained_kwargs": {},
        "neuronpedia_id": None,
        "sae_lens_training_version": None,
    }
    if dictionary.targets is not None:
        known["hook_name_out"], known["hook_head_index_out"] = to_hook(dictionary.writes[0])
    mine = {"reads": dictionary.reads[0], "writes": dictionary.writes[0]}
    places = {name: known[name] for name in known if name.startswith("hook_")}
    return {**known, **plain(dict(given)), **places, "sae_lens_version": VERSION, "prosect": mine}


def _logarithms(frequencies: Tensor, dictionary: Dictionary) -> Tensor:
    if tuple(frequencies.shape) != (dictionary.latents,):
        raise ShapeMismatch(f"frequencies {tuple(frequencies.shape)}", f"({dictionary.latents},)")
    if not bool(((frequencies >= 0) & (frequencies <= 1)).all()):
        raise BadInput("frequencies that are not shares", "numbers from 0 to 1")
    return torch.log10(frequencies.double() + FLOOR).float()
