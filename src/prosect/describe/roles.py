"""Where a head looks: roles as rules over the text, and the positional baseline, as attention they predict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName
from prosect.core.records import Executable
from prosect.data.batch import Batch
from prosect.describe.contexts import token_ids
from prosect.describe.executables import parameters_of, reading, remembered, tensor_of
from prosect.store.shelf import Shelf

ROLES = {
    "previous": "the token before",
    "first": "the first token of the window",
    "offset": "the token a fixed number of places back",
    "duplicate": "earlier occurrences of the current token",
    "induction": "the tokens right after earlier occurrences of the current token",
}
"""Name → what such a head looks at."""

SEVERAL = ("duplicate", "induction")
"""Roles with more than one eligible key: attention is spread evenly over ``all`` or put on the ``last``."""


@dataclass(frozen=True)
class HeadRole:
    """The attention that a role predicts.

    A query has as eligible keys, among the positions up to itself:

    - ``previous``: the one before; ``offset``: the one ``offset`` places back, 0 for itself
    - ``first``: position 0
    - ``duplicate``: earlier positions that hold the same token
    - ``induction``: positions whose token before is the query's token and lies before the query; after an
      immediate repetition that is the query itself

    A query at position 0 has only one key and so says nothing about a role: it is never predicted.

    Args:
        role: one of `ROLES`.
        offset: places back, for ``offset`` alone.
        keys: for roles with several eligible keys: ``all`` spreads attention evenly over them, ``last`` puts
            it on the most recent.

    Raises:
        UnknownName: there is no such role.
        BadInput: ``offset`` is negative, or ``keys`` is neither.
    """

    role: str
    offset: int = 0
    keys: str = "all"

    kind = "head-role"
    version = 1

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UnknownName("head role", self.role, ROLES)
        if self.offset < 0 or (self.role != "offset" and self.offset):
            raise BadInput(
                f"offset {self.offset} for the role {self.role!r}", "0 or above, for the role 'offset'"
            )
        if self.keys not in ("all", "last"):
            raise BadInput(f"keys {self.keys!r}", "'all' or 'last'")

    @classmethod
    def read(cls, parameters: Json) -> HeadRole:
        """The role that its ``json`` says."""
        with reading(cls.kind):
            return cls(**parameters)

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> HeadRole:
        """The role that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        return cls.read(dict(parameters_of(executable, cls.kind, cls.version)))

    @property
    def json(self) -> Json:
        """As stored: only what the role uses."""
        out: dict[str, Json] = {"role": self.role}
        if self.role == "offset":
            out["offset"] = self.offset
        if self.role in SEVERAL:
            out["keys"] = self.keys
        return out

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored."""
        return Executable(kind=self.kind, version=self.version, parameters=self.json)

    @property
    def words(self) -> str:
        """What a head with this role looks at."""
        if self.role == "offset":
            plural = "" if self.offset == 1 else "s"
            return (
                f"the token {self.offset} place{plural} back" if self.offset else "the current token itself"
            )
        if self.role in SEVERAL and self.keys == "last":
            return {
                "duplicate": "the last earlier occurrence of the current token",
                "induction": "the token right after the last earlier occurrence of the current token",
            }[self.role]
        return ROLES[self.role]

    def eligible(self, batch: Batch) -> Bool[np.ndarray, "rows queries keys"]:
        """The keys that each query should look at; none where the role says nothing.

        Raises:
            BadInput: the batch holds no tokens.
        """
        grid = _grid(batch, None)
        match self.role:
            case "previous":
                keys = grid.back == 1
            case "offset":
                keys = grid.back == self.offset
            case "first":
                keys = np.broadcast_to(np.arange(grid.same.shape[2]) == 0, grid.same.shape[1:])
            case "duplicate":
                keys = grid.same & (grid.back > 0)
            case _:
                after = np.zeros_like(grid.same)
                after[:, :, 1:] = grid.same[:, :, :-1]
                keys = after
        found = keys & grid.open
        if self.role in SEVERAL and self.keys == "last":
            last = found.shape[2] - 1 - np.argmax(found[:, :, ::-1], axis=2)
            found = found & (np.arange(found.shape[2]) == last[:, :, None])
        return np.asarray(found)

    def attention(self, batch: Batch) -> Float[np.ndarray, "rows queries keys"]:
        """The predicted weights: rows sum to 1 where the role applies and are zero where it says nothing.

        Raises:
            BadInput: the batch holds no tokens.
        """
        keys = self.eligible(batch)
        return np.asarray(keys / np.maximum(keys.sum(axis=2, keepdims=True), 1))


def scored_positions(batch: Batch) -> Bool[np.ndarray, "rows positions"]:
    """The positions of a batch that statistics are made of: real, and not special.

    Raises:
        BadInput: the batch holds no tokens.
    """
    _, mask = token_ids(batch)
    return mask if batch.special is None else mask & ~batch.special.detach().cpu().numpy().astype(bool)


@dataclass(frozen=True)
class _Grid:
    """For each query and key of a batch: distance, whether tokens are the same, whether the key may be seen."""

    back: Int[np.ndarray, "queries keys"]
    same: Bool[np.ndarray, "rows queries keys"]
    open: Bool[np.ndarray, "rows queries keys"]


def _make_grid(batch: Batch, _: None) -> _Grid:
    ids, mask = token_ids(batch)
    places = np.arange(ids.shape[1])
    back = places[:, None] - places[None, :]
    seen = (back >= 0) & (places[:, None] > 0)
    return _Grid(back, ids[:, :, None] == ids[:, None, :], seen & mask[:, :, None] & mask[:, None, :])


_grid = remembered(_make_grid)


class OffsetTable:
    """The positional baseline: attention that depends on the distance between query and key alone.

    Args:
        weights: for each distance from 0; a query divides them by their sum over the keys that it can see.
            Distances beyond the table count as the last one in it.
    """

    kind = "offset-table"
    version = 1

    def __init__(self, weights: Float[np.ndarray, " distances"]) -> None:
        if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any():
            raise BadInput(
                "an offset table that is empty or not finite", "a weight of 0 or more per distance"
            )
        self.weights = weights

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> OffsetTable:
        """The table that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            return cls(np.asarray(tensor_of(executable, "weights", shelf).numpy(), dtype=np.float64))

    def executable(self, shelf: Shelf) -> Executable:
        """As stored: the weights on the shelf."""
        return Executable(
            kind=self.kind,
            version=self.version,
            parameters={},
            tensors={"weights": shelf.put(torch.from_numpy(self.weights))},
        )

    def grid(self, positions: int) -> Float[np.ndarray, "queries keys"]:
        """The weights of every query on every key, in a row of so many positions."""
        back = np.arange(positions)[:, None] - np.arange(positions)[None, :]
        weights = np.where(back >= 0, self.weights[np.clip(back, 0, len(self.weights) - 1)], 0.0)
        total = weights.sum(axis=1, keepdims=True)
        return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))

    def attention(self, batch: Batch) -> Float[np.ndarray, "rows queries keys"]:
        """The predicted weights at real positions; every query's sum to 1.

        Raises:
            BadInput: the batch holds no tokens.
        """
        _, mask = token_ids(batch)
        return np.asarray(self.grid(mask.shape[1])[None] * (mask[:, :, None] & mask[:, None, :]))
