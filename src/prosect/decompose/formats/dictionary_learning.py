"""The folders of dictionary_learning: ``config.json`` and the torch pickle ``ae.pt``; read, never written.

What each class computes is read from its source (saprmarks/dictionary_learning, dictionary.py and trainers/).
A pickle can run code, so opening one takes ``allow_pickle=True``, and even then only weights are unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName
from prosect.decompose.dictionary import Weights
from prosect.decompose.formats.files import Tensors, read_json, read_pickle, section, words
from prosect.decompose.formats.imported import Asked, Imported, build, gated
from prosect.decompose.formats.places import site_or_asked
from prosect.decompose.sparsity import Sparsity, Threshold, TopK

CONFIG, WEIGHTS = "config.json", "ae.pt"
Read = Callable[[Tensors], tuple[Weights, Sparsity]]


def read(folder: Path, asked: Asked) -> Imported:
    """The dictionary of one trainer, ``trainer_0`` and so on.

    Raises:
        UnsafeFile: ``allow_pickle`` was not given, or the pickle holds more than weights.
        BadInput: a file, setting or tensor is missing or damaged, or no site is known.
        UnknownName: a class that does not exist.
        ShapeMismatch: tensors that do not fit each other.
        NotFinite: a tensor holds NaN or infinity.
    """
    found = read_json(folder / CONFIG)
    trainer = section(found, "trainer", folder / CONFIG)
    kind = words(trainer, "dict_class", folder / CONFIG)
    if kind is None or kind not in CLASSES:
        raise UnknownName("dictionary_learning class", str(kind), CLASSES)
    tensors = Tensors(folder / WEIGHTS, read_pickle(folder / WEIGHTS, asked.allow_pickle))
    weights, sparsity = CLASSES[kind](tensors)
    tensors.done()
    by_norm = kind == "AutoEncoder"  # as its own loader does
    folded = ["codes are times the norms of their decoder rows, which have norm 1"] if by_norm else []
    reads, writes = _places(found, asked, folder)
    config = {**found, "metadata": {"model_name": trainer.get("lm_name")}}
    made = build(weights, sparsity, reads, writes, asked, by_norm)
    return Imported(made, "dictionary_learning", kind, config, tuple(folded))


def _linear(tensors: Tensors, centre: str) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder, decoder and the one bias of most classes, stored as torch.nn.Linear does."""
    n, d = tensors.width("encoder.weight", 0), tensors.width("encoder.weight", 1)
    encoder = tensors.take("encoder.weight", (n, d))
    return encoder, tensors.take("decoder.weight", (d, n)).T, tensors.take(centre, (d,))


def _matrices(tensors: Tensors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encoder, its bias, decoder and its bias of the classes that store them as W_enc and W_dec."""
    d, n = tensors.width("W_enc", 0), tensors.width("W_enc", 1)
    encoder, bias = tensors.take("W_enc", (d, n)).T, tensors.take("b_enc", (n,))
    return encoder, bias, tensors.take("W_dec", (n, d)), tensors.take("b_dec", (d,))


def _standard(tensors: Tensors) -> tuple[Weights, Sparsity]:
    encoder, decoder, centre = _linear(tensors, "bias")
    bias = tensors.take("encoder.bias", (len(encoder),))
    return Weights(encoder, bias, centre, decoder, centre), Threshold()


def _april(tensors: Tensors) -> tuple[Weights, Sparsity]:
    encoder, decoder, offset = _linear(tensors, "decoder.bias")
    bias = tensors.take("encoder.bias", (len(encoder),))
    return Weights(encoder, bias, torch.zeros_like(offset), decoder, offset), Threshold()


def _gated(tensors: Tensors) -> tuple[Weights, Sparsity]:
    encoder, decoder, centre = _linear(tensors, "decoder_bias")
    shape = (len(encoder),)
    gate, magnitude = tensors.take("gate_bias", shape), tensors.take("mag_bias", shape)
    encoder, bias, threshold = gated(encoder, gate, magnitude, tensors.take("r_mag", shape))
    return Weights(encoder, bias, centre, decoder, centre, None, threshold), Threshold()


def _topk(tensors: Tensors) -> tuple[Weights, Sparsity]:
    encoder, decoder, centre = _linear(tensors, "b_dec")
    bias = tensors.take("encoder.bias", (len(encoder),))
    k = int(tensors.number("k"))
    tensors.ignore("threshold")  # an alternative to k that it does not use unless told to
    return Weights(encoder, bias, centre, decoder, centre), TopK(k)


def _batch_topk(tensors: Tensors) -> tuple[Weights, Sparsity]:
    encoder, decoder, centre = _linear(tensors, "b_dec")
    bias = tensors.take("encoder.bias", (len(encoder),))
    threshold = _calibrated(tensors, bias)
    return Weights(encoder, bias, centre, decoder, centre, None, threshold), Threshold()


def _matryoshka(tensors: Tensors) -> tuple[Weights, Sparsity]:
    encoder, bias, decoder, centre = _matrices(tensors)
    threshold = _calibrated(tensors, bias)
    tensors.ignore("group_sizes")  # all groups are active after training
    return Weights(encoder, bias, centre, decoder, centre, None, threshold), Threshold()


def _jumprelu(tensors: Tensors) -> tuple[Weights, Sparsity]:
    encoder, bias, decoder, offset = _matrices(tensors)
    threshold = tensors.take("threshold", (len(encoder),))
    return Weights(encoder, bias, torch.zeros_like(offset), decoder, offset, None, threshold), Threshold()


def _calibrated(tensors: Tensors, bias: Tensor) -> Tensor:
    """The one threshold of a batch top-k dictionary; -1 is one that its training never set."""
    tensors.ignore("k")
    threshold = tensors.number("threshold")
    if threshold < 0:
        raise BadInput(
            f"{tensors.where} with a threshold of {threshold:g}, which training never set",
            "a threshold from 0",
            "training for longer than threshold_start_step",
        )
    return torch.full_like(bias, threshold)


CLASSES: dict[str, Read] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _april,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jumprelu,
}

_NAMED = re.compile(
    r"^(?P<part>resid_post|resid|mlp_out|mlp|attention|attn|attn_out)_?layer_?(?P<layer>\d+)$"
)
_PARTS = {"resid": "resid_post", "mlp": "mlp_out", "attention": "attn_out", "attn": "attn_out"}
_INPUTS = {"resid_post": "resid_pre", "mlp_out": "mlp_in", "attn_out": "attn_in"}


def _places(found: dict[str, Json], asked: Asked, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """From the module's name, which its user chose freely, and the side of it (``io``) that was collected."""
    where = folder / CONFIG
    named = _NAMED.match(words(section(found, "trainer", where), "submodule_name", where) or "")
    out: str | None = None
    into: str | None = None
    if named is not None:
        part = _PARTS.get(named["part"], named["part"])
        out, into = f"{part}.{named['layer']}", f"{_INPUTS[part]}.{named['layer']}"
    side = words(section(found, "buffer", where), "io", where) or "out"
    if side not in ("in", "out", "in_and_out"):
        raise UnknownName("side of a module", side, ("in", "out", "in_and_out"))
    reads = site_or_asked(asked.sites, out if side == "out" else into, str(folder))
    if side != "in_and_out":
        return reads, reads
    return reads, site_or_asked(asked.targets, out, f"what {folder} writes")
