"""Files that somebody else wrote: read without running anything in them, and checked before they are used."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, Conflict, NotFinite, ShapeMismatch, UnsafeFile
from prosect.store.atomic import disk_errors, sync_folder


def present(path: Path) -> Path:
    """The path, if there is a file.

    Raises:
        BadInput: there is none; what the folder holds instead is named.
    """
    if path.is_file():
        return path
    around = sorted(p.name for p in path.parent.iterdir())[:8] if path.parent.is_dir() else []
    raise BadInput(f"{path.parent} without {path.name}", path.name, f"a whole copy; it holds {around}")


def read_json(path: Path) -> dict[str, Json]:
    """A JSON object.

    Raises:
        BadInput: the file is missing, or holds something else.
    """
    try:
        found = json.loads(present(path).read_text(encoding="utf-8"))
    except ValueError as error:  # bad JSON and bad UTF-8 alike
        raise BadInput(f"{path}, which is not JSON ({error})", "a JSON object") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}, which holds a {type(found).__name__}", "a JSON object")
    return found


def section(found: Mapping[str, Json], name: str, where: Path) -> dict[str, Json]:
    """A part of a configuration; empty if it is not there.

    Raises:
        BadInput: it is something else than a JSON object.
    """
    value = found.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{name}={value!r} in {where}", "a JSON object")
    return value


def count(found: Mapping[str, Json], name: str, where: Path) -> int:
    """A whole number, at least 1, out of a configuration.

    Raises:
        BadInput: it is missing, or something else.
    """
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{name}={value!r} in {where}", "a whole number, at least 1")
    return value


def words(found: Mapping[str, Json], name: str, where: Path) -> str | None:
    """A text out of a configuration; None if it is not there.

    Raises:
        BadInput: it is something else.
    """
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{name}={value!r} in {where}", "a text")
    return value


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        BadInput: the file is missing, cut short or no safetensors.
        UnsafeFile: it is a pickle under another name.
    """
    from safetensors import SafetensorError, safe_open

    with present(path).open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK" or (start[:1] == b"\x80" and 2 <= start[1] <= 5):
        raise UnsafeFile(f"{path}, which is a pickle under another name", "safetensors")
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(
            f"{path}, which is not readable as safetensors ({error})", "a whole file", "copying it again"
        ) from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a NumPy archive; pickled objects in it are refused.

    Raises:
        BadInput: the file is missing, cut short or no archive of numbers.
        UnsafeFile: an array in it is a pickle.
    """
    import numpy as np

    try:
        with present(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except ValueError as error:
        if "pickle" in str(error):
            raise UnsafeFile(f"{path}, which holds pickled objects", "arrays of numbers") from error
        raise BadInput(f"{path}, which is no archive of arrays ({error})", "an .npz file") from error
    except (OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path}, which is not readable as an .npz ({error})", "a whole file", "copying it again"
        ) from error


def read_pickle(path: Path, allow: bool) -> dict[str, Tensor]:
    """The tensors of a torch pickle, by torch's unpickler for weights alone.

    Args:
        path: the file.
        allow: whether the user has said that this file may be unpickled.

    Raises:
        UnsafeFile: it may not, or it holds more than weights.
        BadInput: the file is missing, cut short or holds no tensors by name.
    """
    import pickle

    if not allow:
        raise UnsafeFile(
            f"{present(path)}, a torch pickle, which can run code",
            "safetensors",
            "allow_pickle=True if you trust where it comes from, and saving it again as safetensors",
        )
    try:
        found = torch.load(present(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFile(f"{path}, whose pickle holds more than weights", "weights alone") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise BadInput(f"{path}, which torch cannot read ({error})", "a whole file") from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise BadInput(f"{path}, which holds a {type(found).__name__}", "tensors by name")
    return found


class Tensors:
    """Tensors out of a file, each taken once and checked when it is.

    Args:
        where: the file, for messages.
        found: what it holds.
    """

    def __init__(self, where: Path, found: Mapping[str, Tensor]) -> None:
        self.where, self._left = where, dict(found)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def width(self, name: str, axis: int) -> int:
        """The size of one axis of a matrix, without taking it.

        Raises:
            BadInput: it is missing.
            ShapeMismatch: it is no matrix.
        """
        shape = self._there(name).shape
        if len(shape) != 2:
            raise ShapeMismatch(f"{name} {tuple(shape)} in {self.where}", "a matrix")
        return int(shape[axis])

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor of finite numbers, in float32 or wider.

        Raises:
            BadInput: it is missing, or holds no floating-point numbers.
            ShapeMismatch: it has another shape.
            NotFinite: it holds NaN or infinity.
        """
        value = self._there(name)
        if tuple(value.shape) != shape:
            turned = len(shape) == 2 and tuple(value.shape) == shape[::-1]
            raise ShapeMismatch(
                f"{name} {tuple(value.shape)} in {self.where}",
                f"{shape}",
                "its transpose, if that is how it was made" if turned else "",
            )
        if value.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            raise BadInput(
                f"{name} of {value.dtype} in {self.where}", "float16, bfloat16, float32 or float64"
            )
        if not bool(torch.isfinite(value).all()):
            raise NotFinite(f"NaN or infinity in {name} in {self.where}", "finite numbers")
        del self._left[name]
        return value.to(torch.promote_types(value.dtype, torch.float32))

    def number(self, name: str) -> float:
        """A single number.

        Raises:
            BadInput: it is missing, or is not one finite number.
        """
        value = self._there(name)
        if value.numel() != 1 or not bool(torch.isfinite(value)):
            raise BadInput(f"{name} {value.tolist()} in {self.where}", "one finite number")
        del self._left[name]
        return float(value)

    def ignore(self, *names: str) -> None:
        """Leave tensors aside that change nothing here."""
        for name in names:
            self._left.pop(name, None)

    def done(self) -> None:
        """Refuse whatever nobody has taken: it may mean something.

        Raises:
            BadInput: there is a tensor of which nothing is known.
        """
        if self._left:
            raise BadInput(f"unknown tensors {sorted(self._left)} in {self.where}", "those of its format")

    def _there(self, name: str) -> Tensor:
        if name not in self._left:
            raise BadInput(
                f"{self.where} without {name!r}", f"a tensor of that name beside {sorted(self._left)}"
            )
        return self._left[name]


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when the block ends without error; otherwise nothing is left.

    Raises:
        Conflict: the folder is there and holds something.
        BadInput: the disk is full or the place cannot be written.
    """
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Conflict(f"{folder}, which holds something already", "a new folder", "another name")
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        try:
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            sync_folder(temporary)
            temporary.replace(folder)  # an empty folder may be replaced, a filled one not
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
