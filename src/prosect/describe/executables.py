"""The half of a description that runs: checks shared by every kind before anything of it is used."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NewerSchema, ProsectError
from prosect.core.records import Executable
from prosect.store.shelf import Shelf

Owner = TypeVar("Owner")
Key = TypeVar("Key")
Made = TypeVar("Made")
Kept = TypeVar("Kept", bound="Stored")


def parameters_of(executable: Executable, kind: str, version: int = 1) -> Mapping[str, Json]:
    """The parameters of an executable that is of ``kind`` and of a version this code understands.

    Raises:
        BadInput: it is of another kind or of a version that never was, or its parameters are no mapping.
        NewerSchema: a later prosect wrote it.
    """
    if executable.kind != kind:
        raise BadInput(f"an executable of kind {executable.kind!r}", f"kind {kind!r}")
    if executable.version > version:
        raise NewerSchema(
            f"{kind} version {executable.version}", f"at most {version}, which this version runs"
        )
    if executable.version < 1:
        raise BadInput(f"{kind} version {executable.version}", "version 1 or above")
    if not isinstance(executable.parameters, Mapping):
        raise BadInput(f"{kind} without parameters", "a mapping of parameters")
    return executable.parameters


@contextmanager
def reading(kind: str) -> Iterator[None]:
    """Turns whatever is missing or malformed in stored parameters into one clear error.

    Raises:
        BadInput: the parameters inside are not those of ``kind``.
    """
    try:
        yield
    except ProsectError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(
            f"malformed parameters of a {kind} ({error})", "the parameters that its explainer wrote"
        ) from error


def tensor_of(executable: Executable, name: str, shelf: Shelf) -> Tensor:
    """A tensor that the executable refers to.

    Raises:
        BadInput: it names no such tensor, or the shelf does not hold it.
    """
    if name not in executable.tensors:
        raise BadInput(f"a {executable.kind} without its tensor {name!r}", "the digest of that tensor")
    return shelf.get(executable.tensors[name])


class Stored:
    """A dataclass that is stored field by field: tensors go on the shelf, everything else is a parameter.

    For descriptions whose other fields are plain numbers and words, which JSON gives back as they were.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    @classmethod
    def of(cls: type[Kept], executable: Executable, shelf: Shelf) -> Kept:
        """What an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed; a tensor is not there.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            held = {name: shelf.get(digest) for name, digest in executable.tensors.items()}
            make: Callable[..., Kept] = cls
            return make(**held, **parameters)

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored; tensors go on the shelf, which a description without any does not need."""
        tensors = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        if tensors and shelf is None:
            raise BadInput(f"a {self.kind} with tensors and no shelf", "a shelf to put them on")
        return Executable(
            kind=self.kind,
            version=self.version,
            parameters={k: v for k, v in vars(self).items() if k not in tensors},
            tensors={k: shelf.put(v) for k, v in tensors.items()} if shelf is not None else {},
        )


def remembered(make: Callable[[Owner, Key], Made], size: int = 4) -> Callable[[Owner, Key], Made]:
    """``make(owner, key)`` for the last few owners, so that many rules share the columns of one batch.

    Owners are compared by identity and held weakly: what is remembered lives no longer than they do.
    """
    held: dict[tuple[int, int], tuple[Any, Key, Made]] = {}

    def recall(owner: Owner, key: Key) -> Made:
        place = (id(owner), id(key))
        found = held.get(place)
        if found is not None and found[0]() is owner and found[1] is key:
            return found[2]
        made = make(owner, key)
        for stale in [p for p, (reference, _, _) in [*held.items()] if reference() is None]:
            held.pop(stale, None)
        while len(held) >= size:
            held.pop(next(iter(held)), None)
        held[place] = (weakref.ref(owner), key, made)
        return made

    return recall
