"""Finished passes of a sweep on disk, so that a sweep that was killed goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json, digest, digest_tensor
from prosect.core.errors import Conflict
from prosect.data.batch import Batch
from prosect.model.edits import Edit
from prosect.store.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosect.model.model import Model

SCHEMA = 1


class Kept:
    """A folder with one small file for each finished pass.

    Args:
        folder: of this sweep alone; it is made.
        key: what the sweep is; another sweep's folder is refused.

    Raises:
        Conflict: the folder holds another sweep.
        BadInput: it cannot be written.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = Path(folder)
        header = self.folder / "sweep.json"
        if not header.exists():
            write_json(header, {"schema": SCHEMA, "key": key})
            return
        try:
            there = json.loads(header.read_bytes())
        except json.JSONDecodeError:
            there = None
        if there != {"schema": SCHEMA, "key": key}:
            raise Conflict(
                f"{self.folder}, which holds another sweep",
                "an empty folder or the same sweep",
                "another folder",
            )

    def get(self, name: str, count: int) -> Float[np.ndarray, " cells"] | None:
        """The scores of a pass, if it was finished."""
        path = self._path(name)
        content = path.read_bytes() if path.exists() else b""
        return np.frombuffer(content, dtype="<f8").copy() if len(content) == 8 * count > 0 else None

    def put(self, name: str, scores: Float[np.ndarray, " cells"]) -> None:
        """Keep the scores of a finished pass."""
        write_bytes(self._path(name), np.asarray(scores, dtype="<f8").tobytes())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.f64"


def key(model: Model, edits: Sequence[Sequence[Edit]], batch: Batch, metric: Any, settings: Json) -> str:
    """What a sweep is: model, rows, edits and settings to the last bit, functions by name."""
    seen: dict[int, str] = {}

    def named(value: object) -> Json:
        if isinstance(value, Tensor):
            if id(value) not in seen:
                seen[id(value)] = digest_tensor(value.detach().cpu())
            return seen[id(value)]
        if callable(value):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        return value

    lists = [
        [
            [
                e.site,
                e.op,
                e.rows,
                e.positions,
                e.heads,
                e.seed,
                *map(named, (e.value, e.function, e.direction)),
            ]
            for e in listed
        ]
        for listed in edits
    ]
    rows = {name: named(tensor) for name, tensor in batch.tensors.items()}
    return digest([model.digest, rows, named(batch.mask), lists, named(metric), settings])
