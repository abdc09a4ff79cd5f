"""The folders of EleutherAI's sparsify: ``cfg.json`` and ``sae.safetensors``, one for each module of a model.

    z = the k largest of relu(E (x - b_dec) + bias)        y = z W_dec + b_dec + W_skip x

A transcoder (``transcode``) predicts a module's output from its input and does not subtract b_dec. Read from
the source of sparsify 1.3 (sparse_coder.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import UnknownName, Unsupported
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.formats.files import Tensors, count, read_json, read_safetensors, section, words
from prosect.decompose.formats.imported import Asked, Imported, build, one_site, uncentred, weights_of
from prosect.decompose.formats.places import from_module, site_or_asked
from prosect.decompose.sparsity import TopK
from prosect.store.atomic import write_json
from prosect.store.tensors import save_tensors

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def read(folder: Path, asked: Asked) -> Imported:
    """The sparse coder in a folder, which is named after the module that it belongs to.

    Raises:
        BadInput: a file, setting or tensor is missing or damaged, or the folder's name is no module.
        UnknownName: an activation that does not exist.
        Unsupported: groupmax.
        ShapeMismatch: a tensor has another shape than the configuration says.
        NotFinite: a tensor holds NaN or infinity.
    """
    found, where = read_json(folder / CONFIG), folder / CONFIG
    activation = found.get("activation", "topk")
    if activation == "groupmax":
        raise Unsupported(f"the activation groupmax in {where}", "topk")
    if activation != "topk" or found.get("signed"):
        raise UnknownName("sparsify activation", "signed" if found.get("signed") else activation, ("topk",))
    d, k = count(found, "d_in", where), count(found, "k", where)
    n = found.get("num_latents") or d * count(found, "expansion_factor", where)
    transcodes, skips = bool(found.get("transcode")), bool(found.get("skip_connection"))
    tensors = Tensors(folder / WEIGHTS, read_safetensors(folder / WEIGHTS))
    encoder, bias = tensors.take("encoder.weight", (n, d)), tensors.take("encoder.bias", (n,))
    decoder, offset = tensors.take("W_dec", (n, d)), tensors.take("b_dec", (d,))
    skip = tensors.take("W_skip", (d, d)).T if skips else None
    tensors.done()
    centre = offset.new_zeros(d) if transcodes else offset
    if skip is not None and not transcodes:  # the skip takes x itself, ours what is left of it
        offset = offset + centre @ skip
    reads, writes = _places(found, transcodes, asked, folder)
    weights = Weights(encoder, bias, centre, decoder, offset, skip)
    kind = f"{'skip_' if skips else ''}{'transcoder' if transcodes else 'topk'}"
    return Imported(build(weights, TopK(k), reads, writes, asked), "sparsify", kind, found)


def write(
    folder: Path,
    dictionary: Dictionary,
    metadata: Mapping[str, Json],
    frequencies: Float[Tensor, " latents"] | None,
) -> None:
    """Write ``cfg.json`` and ``sae.safetensors``; what is known beside the numbers has no place there.

    Raises:
        Unsupported: it keeps no fixed number of latents, or writes another width than it reads.
    """
    one_site(dictionary, "sparsify")
    if not isinstance(dictionary.sparsity, TopK):
        raise Unsupported(
            f"{dictionary.name} as sparsify", "a dictionary that keeps the k largest", 'format="saelens"'
        )
    weights = uncentred(weights_of(dictionary))
    n, d = weights.encoder.shape
    if weights.decoder.shape[1] != d:
        raise Unsupported(
            f"{dictionary.name}, which reads {d} numbers and writes {weights.decoder.shape[1]}, as sparsify",
            "as many as it reads",
            'format="prosect"',
        )
    transcodes = dictionary.targets is not None
    bias = weights.bias
    if not transcodes:  # it subtracts b_dec before it encodes
        subtracted = weights.encoder.double() @ weights.offset.double()
        bias = (bias.double() + subtracted).to(bias.dtype)
    tensors = {
        "encoder.weight": weights.encoder,
        "encoder.bias": bias,
        "W_dec": weights.decoder,
        "b_dec": weights.offset,
    }
    if weights.skip is not None:
        tensors["W_skip"] = weights.skip.T
    config = {
        "activation": "topk",
        "expansion_factor": max(1, n // d),
        "normalize_decoder": "unit" in dictionary.supports,
        "num_latents": n,
        "k": dictionary.sparsity.k,
        "multi_topk": False,
        "skip_connection": dictionary.skip,
        "transcode": transcodes,
        "d_in": d,
        "prosect": {"reads": dictionary.reads[0], "writes": dictionary.writes[0]},
    }
    save_tensors(folder / WEIGHTS, tensors)
    write_json(folder / CONFIG, config)


def _places(
    found: dict[str, Json], transcodes: bool, asked: Asked, folder: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    where = folder / CONFIG
    ours = section(found, "prosect", where)
    module = folder.name
    named = from_module(module) != module  # only a name that is known is believed
    side = "in" if transcodes else "out"
    said = words(ours, "reads", where) or (from_module(module, side) if named else None)
    reads = site_or_asked(asked.sites, said, str(folder))
    if not transcodes:
        return reads, reads
    said = words(ours, "writes", where) or (from_module(module) if named else None)
    return reads, site_or_asked(asked.targets, said, f"what {folder} writes")
