"""Decompositions on disk: one safetensors file each, read back to the bit."""

from __future__ import annotations

from pathlib import Path

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.registries import DECOMPOSITIONS
from prosect.core.schema import SCHEMA, check_version
from prosect.decompose.contract import Decomposition
from prosect.store.tensors import load_tensors, save_tensors


def save_decomposition(path: Path, decomposition: Decomposition, model: str | None = None) -> None:
    """Write a fitted decomposition.

    Args:
        path: the file.
        decomposition: what to write; its ``kind`` must be registered, so that it can be read back.
        model: digest of the model it was fitted on.

    Raises:
        UnknownName: its kind is not registered.
        BadInput: it is not fitted, or the place cannot be written.
    """
    DECOMPOSITIONS.get(decomposition.kind)
    tensors, state = decomposition.state()
    about = {"schema": SCHEMA, "kind": decomposition.kind, "model": model, "state": state}
    save_tensors(path, tensors, about)


def load_decomposition(path: Path, model: str | None = None) -> Decomposition:
    """Read what `save_decomposition` wrote.

    Args:
        path: the file.
        model: digest of the model it is meant for; None does not check.

    Raises:
        BadInput: the file is missing, damaged, or holds no decomposition.
        ShapeMismatch: it was fitted on another model.
        NewerSchema: a later prosect wrote it.
    """
    tensors, about = load_tensors(path)
    if not isinstance(about, dict) or not {"schema", "kind", "model", "state"} <= about.keys():
        raise BadInput(f"{path}, which holds no decomposition", "a file that save_decomposition wrote")
    check_version(about["schema"], str(path))
    if model is not None and about["model"] is not None and about["model"] != model:
        raise ShapeMismatch(
            f"{path}, fitted on model {about['model'][:16]}",
            f"one fitted on {model[:16]}",
            "fitting it again on this model",
        )
    found: Decomposition = DECOMPOSITIONS.get(about["kind"]).from_state(tensors, about["state"])
    return found
