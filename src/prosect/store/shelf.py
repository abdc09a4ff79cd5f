"""Tensors that records refer to by digest: parameters of descriptions, kept in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prosect.core.canonical import digest_tensor
from prosect.core.errors import BadInput, VerificationFailed
from prosect.store.tensors import load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor


class Shelf:
    """Tensors by digest, in a folder, or only in memory without one.

    Args:
        folder: where they are kept; None keeps them in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._held: dict[str, Tensor] = {}

    def put(self, tensor: Tensor) -> str:
        """Keep a tensor; returns its digest."""
        key = digest_tensor(tensor)
        if key not in self._held:
            self._held[key] = tensor.detach().to("cpu").contiguous()
            if self.folder is not None and not self._path(key).exists():
                save_tensors(self._path(key), {"tensor": tensor})
        return key

    def get(self, key: str) -> Tensor:
        """The tensor with this digest.

        Raises:
            BadInput: it is not here.
            VerificationFailed: what is here has another digest.
        """
        if key not in self._held:
            if self.folder is None:
                raise BadInput(f"tensor {key[:16]}, which is not held", "a tensor put on this shelf")
            tensor = load_tensors(self._path(key))[0]["tensor"]
            if digest_tensor(tensor) != key:
                raise VerificationFailed(f"tensor {key[:16]} in {self.folder.name} was changed")
            self._held[key] = tensor
        return self._held[key]

    def _path(self, key: str) -> Path:
        if self.folder is None or not key.isalnum():
            raise BadInput(f"tensor {key!r}", "a digest")
        return self.folder / f"{key[:32]}.safetensors"
