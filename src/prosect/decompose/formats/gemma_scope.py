"""The archives of Gemma Scope: ``layer_N/width_W/average_l0_L/params.npz``.

    pre = x W_enc + b_enc        z = pre · 1[pre > threshold]        y = z W_dec + b_dec

Lieberum et al. 2024, "Gemma Scope". The archive holds numbers alone; which site they belong to is in the
names of the folders and of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import Unsupported
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.formats.files import Tensors, read_npz
from prosect.decompose.formats.imported import Asked, Imported, build, one_site, uncentred, weights_of
from prosect.decompose.formats.places import from_hook, site_or_asked
from prosect.decompose.sparsity import Threshold
from prosect.store.atomic import replacing

WEIGHTS = "params.npz"
_LAYER = re.compile(r"layer_(\d+)(?:/|$)")
_REPOSITORY = re.compile(r"gemma-scope-(?P<size>\w+)-(?P<tuned>pt|it)-(?P<part>res|mlp|att|transcoders)\b")
_HOOKS = {
    "res": ("hook_resid_post", None),
    "mlp": ("hook_mlp_out", None),
    "att": ("attn.hook_z", None),
    "transcoders": ("ln2.hook_normalized", "hook_mlp_out"),
}


def read(folder: Path, asked: Asked) -> Imported:
    """The dictionary in a folder.

    Raises:
        BadInput: the archive is missing or damaged, an array is missing, or no site is known.
        ShapeMismatch: arrays that do not fit each other.
        NotFinite: an array holds NaN or infinity.
        UnsafeFile: an array is a pickle.
    """
    tensors = Tensors(folder / WEIGHTS, read_npz(folder / WEIGHTS))
    d, n = tensors.width("W_enc", 0), tensors.width("W_enc", 1)
    encoder, bias = tensors.take("W_enc", (d, n)).T, tensors.take("b_enc", (n,))
    threshold = tensors.take("threshold", (n,))
    out = tensors.width("W_dec", 1)
    decoder, offset = tensors.take("W_dec", (n, out)), tensors.take("b_dec", (out,))
    tensors.done()
    weights = Weights(encoder, bias, encoder.new_zeros(d), decoder, offset, None, threshold)
    hook, target, model = _said(folder)
    reads = site_or_asked(asked.sites, hook, str(folder))
    writes = reads
    if target is not None or asked.targets is not None:
        writes = site_or_asked(asked.targets, target, f"what {folder} writes")
    config: dict[str, Json] = {"d_in": d, "d_sae": n, "d_out": out, "metadata": {"model_name": model}}
    made = build(weights, Threshold(), reads, writes, asked)
    return Imported(made, "gemma_scope", "jumprelu" if target is None else "jumprelu_transcoder", config)


def write(
    folder: Path,
    dictionary: Dictionary,
    metadata: Mapping[str, Json],
    frequencies: Float[Tensor, " latents"] | None,
) -> None:
    """Write ``params.npz`` in float32; the site has no place in it.

    Raises:
        Unsupported: its latents have no thresholds, or a skip leads around them.
    """
    import numpy as np

    one_site(dictionary, "gemma_scope")
    if not isinstance(dictionary.sparsity, Threshold) or dictionary.skip:
        raise Unsupported(f"{dictionary.name} as gemma_scope", "thresholds, and no skip", 'format="saelens"')
    weights = uncentred(weights_of(dictionary))
    assert weights.threshold is not None
    arrays = {
        "W_enc": weights.encoder.T,
        "W_dec": weights.decoder,
        "b_enc": weights.bias,
        "b_dec": weights.offset,
        "threshold": weights.threshold.clamp_min(0.0),
    }
    ready = {
        name: value.detach().to("cpu", torch.float32).contiguous().numpy() for name, value in arrays.items()
    }
    with replacing(folder / WEIGHTS) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **ready)


def _said(folder: Path) -> tuple[str | None, str | None, str | None]:
    """The site it reads, the one it writes if that is another, and the model, as far as the path tells."""
    path = folder.absolute().as_posix()
    layer, repository = _LAYER.search(path), _REPOSITORY.search(path)
    if layer is None or repository is None:
        return None, None, None
    hook, target = _HOOKS[repository["part"]]
    block = f"blocks.{layer[1]}."
    model = f"gemma-2-{repository['size']}{'-it' if repository['tuned'] == 'it' else ''}"
    return from_hook(block + hook), None if target is None else from_hook(block + target), model
