"""The folders of Gemma Scope 2: ``params.safetensors``, and ``config.json`` that says where it was trained.

    pre = x w_enc + b_enc        z = pre · 1[pre > threshold]        y = z w_dec + b_dec + x affine_skip_connection

As SAELens 6.54 loads them (pretrained_sae_loaders.py). The configuration names the module and the side of it that
was read and written, so the site is known to the letter. Crosscoders and cross-layer transcoders, whose tensors
have an axis more, are refused for it.
"""

from __future__ import annotations

import re
from pathlib import Path

from prosect.core.canonical import Json
from prosect.core.errors import UnknownName
from prosect.decompose.dictionary import Weights
from prosect.decompose.formats.files import Tensors, read_json, read_safetensors, words
from prosect.decompose.formats.imported import Asked, Imported, build
from prosect.decompose.formats.places import from_module, site_or_asked
from prosect.decompose.sparsity import Threshold

CONFIG, WEIGHTS = "config.json", "params.safetensors"
_POINT = re.compile(r"^(?P<path>.*\.(?P<layer>\d+)(?P<inner>\..*)?)\.(?P<side>input|output)$")
_INNER = {
    (".self_attn.o_proj", "input"): "z",
    (".pre_feedforward_layernorm", "output"): "mlp_in",
    (".post_feedforward_layernorm", "output"): "mlp_out_post",
    (".post_attention_layernorm", "output"): "attn_out_post",
}


def read(folder: Path, asked: Asked) -> Imported:
    """The dictionary in a folder.

    Raises:
        BadInput: a file or tensor is missing or damaged, or no site is known.
        UnknownName: another architecture than jump_relu.
        ShapeMismatch: tensors that do not fit each other, or have an axis more.
        NotFinite: a tensor holds NaN or infinity.
        UnsafeFile: the weights are a pickle.
    """
    where = folder / CONFIG
    found: dict[str, Json] = read_json(where) if where.is_file() else {}  # some folders come without
    kind = words(found, "architecture", where) or "jump_relu"
    if kind != "jump_relu":
        raise UnknownName("Gemma Scope 2 architecture", kind, ("jump_relu",))
    tensors = Tensors(folder / WEIGHTS, read_safetensors(folder / WEIGHTS))
    d, n = tensors.width("w_enc", 0), tensors.width("w_enc", 1)
    encoder, bias = tensors.take("w_enc", (d, n)).T, tensors.take("b_enc", (n,))
    out = tensors.width("w_dec", 1)
    decoder, offset = tensors.take("w_dec", (n, out)), tensors.take("b_dec", (out,))
    threshold = tensors.take("threshold", (n,))
    affine = "affine_skip_connection" in tensors
    skip = tensors.take("affine_skip_connection", (d, out)) if affine else None
    tensors.done()
    into, onto = (_site(words(found, f"hf_hook_point_{side}", where)) for side in ("in", "out"))
    reads = site_or_asked(asked.sites, into, str(folder))
    writes = reads
    if onto not in (None, into) or asked.targets is not None:
        writes = site_or_asked(asked.targets, onto, f"what {folder} writes")
    weights = Weights(encoder, bias, encoder.new_zeros(d), decoder, offset, skip, threshold)
    made = build(weights, Threshold(), reads, writes, asked)
    config = {**found, "metadata": {"model_name": found.get("model_name")}}
    return Imported(made, "gemma_scope_2", kind, config)


def _site(point: str | None) -> str | None:
    """The site that a module's ``.input`` or ``.output`` is."""
    named = _POINT.match(point or "")
    if named is None:
        return point
    inner = _INNER.get((named["inner"] or "", named["side"]))
    if inner is not None:
        return f"{inner}.{named['layer']}"
    return from_module(named["path"], "in" if named["side"] == "input" else "out")
