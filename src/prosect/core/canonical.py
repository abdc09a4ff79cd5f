"""Canonical JSON and digests: the same content gives the same bytes, so a hash can freeze it.

Keys are sorted, separators are minimal, text is UTF-8, floats are written shortest-exact, and NaN and
infinity are refused (they have no JSON form, and a frozen claim must not hold one).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from prosect.core.errors import BadInput, NotFinite

if TYPE_CHECKING:
    import torch

Json = Any
"""A value made of dict, list, str, int, float, bool and None. (A recursive alias defeats pydantic.)"""


def plain(value: object) -> Json:
    """``value`` as dicts, lists, strings, numbers, booleans and None.

    Raises:
        NotFinite: a number in it is NaN or infinite.
        BadInput: something in it has no JSON form.
    """
    kind = type(value)  # the exact common types first: records are large, and hashed often
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is dict:
        return {k if type(k) is str else str(k): plain(v) for k, v in value.items()}  # type: ignore[attr-defined]
    if kind is list or kind is tuple:
        return [plain(v) for v in value]  # type: ignore[attr-defined]
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            raise NotFinite(
                f"{number} in a record", "finite numbers", "storing None where a value is unknown"
            )
        return number
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value.tolist()]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return [plain(v) for v in sorted(value)]
    if isinstance(value, PurePath):
        return value.as_posix()
    raise BadInput(f"a {type(value).__name__} in a record", "JSON values", "converting it first")


def canonical_json(value: object) -> bytes:
    """The one byte string that stands for ``value``."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: object) -> str:
    """SHA-256 of bytes as they are, or of the canonical JSON of anything else; 64 hex digits."""
    data = value if isinstance(value, bytes) else canonical_json(value)
    return hashlib.sha256(data).hexdigest()


def digest_tensor(tensor: torch.Tensor) -> str:
    """SHA-256 over dtype, shape and bytes; the same on any device."""
    import torch

    flat = tensor.detach().to("cpu").contiguous()
    head = f"{flat.dtype}|{tuple(flat.shape)}|".encode()
    raw = flat.reshape(-1).view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    hasher = hashlib.sha256(head)
    hasher.update(raw.tobytes())
    return hasher.hexdigest()


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """One digest over named tensors, independent of their order."""
    return digest({name: digest_tensor(t) for name, t in tensors.items()})
