"""prosect's own form: one safetensors file that holds any dictionary, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, Unsupported
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.formats.files import present
from prosect.decompose.formats.imported import Asked, Imported, moved
from prosect.decompose.keep import load_decomposition, save_decomposition

WEIGHTS = "dictionary.safetensors"


def read(folder: Path, asked: Asked) -> Imported:
    """The dictionary in a folder.

    Raises:
        BadInput: the file is missing or damaged, or holds another kind of decomposition.
        Unsupported: other sites or a fold were asked for: they are part of what was saved.
        NewerSchema: a later prosect wrote it.
    """
    if asked != Asked(allow_pickle=asked.allow_pickle, device=asked.device):
        raise Unsupported(f"other sites, or a fold, for {folder}", "loading it as it was saved")
    found = load_decomposition(present(folder / WEIGHTS))
    if not isinstance(found, Dictionary):
        raise BadInput(f"{folder}, which holds a decomposition of kind {found.kind!r}", "a dictionary")
    if found.device != asked.device:
        found = moved(found, asked.device)
    return Imported(found, "prosect", found.sparsity.name, found.asked())


def write(
    folder: Path,
    dictionary: Dictionary,
    metadata: Mapping[str, Json],
    frequencies: Float[Tensor, " latents"] | None,
) -> None:
    """Write ``dictionary.safetensors``.

    Raises:
        BadInput: it is not fitted.
    """
    save_decomposition(folder / WEIGHTS, dictionary)
