"""Named tensors on disk as safetensors: no pickles, checked on reading."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prosect.core.canonical import Json, canonical_json
from prosect.core.errors import BadInput
from prosect.store.atomic import replacing

if TYPE_CHECKING:
    import torch


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: Json = None) -> None:
    """Write tensors and a JSON value beside them, atomically.

    Raises:
        BadInput: the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    places: set[int] = set()
    for name, t in ready.items():  # one tensor under two names would be refused
        if t.untyped_storage().data_ptr() in places:
            ready[name] = t.clone()
        places.add(t.untyped_storage().data_ptr())
    with replacing(path) as temporary:
        try:
            save_file(ready, temporary, metadata={"prosect": canonical_json(about).decode()})
        except SafetensorError as error:  # it hides the system's own error in its words
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(temporary)) from error


def load_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, torch.Tensor], Json]:
    """Read what `save_tensors` wrote.

    Raises:
        BadInput: the file is missing, cut short or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise BadInput(f"{path}, which does not exist", "a safetensors file")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            about = (file.metadata() or {}).get("prosect", "null")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(about)  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(
            f"{path}, which is not readable as safetensors ({error})",
            "a safetensors file",
            "deleting it, so that it is made again",
        ) from error
