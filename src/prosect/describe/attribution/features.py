"""What an attribution is over: tokens, positions of a stream, numbers of an input, or cells of a layer.

The values that a model is given at one place (embeddings, a site, an input tensor) are cut into features:
every number belongs to one. A gradient is added up over a feature's numbers; a perturbation replaces all of
them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, UnknownName, Unsupported
from prosect.data.batch import Batch
from prosect.model import Model

KINDS = ("tokens", "positions", "inputs", "cells")


@dataclass(frozen=True, eq=False)
class Features:
    """How the numbers at one place are cut into features.

    Attributes:
        kind: tokens (rows of the embedding), positions of another stream, numbers of an input tensor, or
            cells (places of a convolutional layer, all channels together).
        place: the site, or the name of the input tensor.
        shape: of one row's numbers there.
        assign: which feature each of them belongs to.
        grid: how features lie beside each other: (positions,), (height, width), or (count,).
        decided: what was chosen because the caller did not say.
    """

    kind: str
    place: str
    shape: tuple[int, ...]
    assign: Int[Tensor, "*shape"]
    grid: tuple[int, ...]
    decided: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many features a row has, padding included."""
        return int(self.assign.max()) + 1

    @property
    def words(self) -> str:
        """For people."""
        what = {
            "tokens": "input tokens (rows of the embedding)",
            "positions": f"positions of {self.place}",
            "inputs": f"features of the input {self.place}",
            "cells": f"cells of {self.place}",
        }
        return f"{self.count} {what[self.kind]}"

    def gather(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n features"]:
        """The sum of ``x``, (n, *shape), over the numbers of each feature, in float64."""
        flat = x.reshape(len(x), -1).double()
        out = flat.new_zeros(len(x), self.count)
        return out.index_add_(1, self.assign.reshape(-1).to(x.device), flat)

    def spread(self, x: Shaped[Tensor, "n features"]) -> Shaped[Tensor, "n ..."]:
        """The value of each number's feature: (n, features) → (n, *shape)."""
        return x[:, self.assign.to(x.device).reshape(-1)].reshape(len(x), *self.shape)


def choose(
    model: Model,
    batch: Batch,
    kind: str | None = None,
    site: str | None = None,
    groups: Tensor | None = None,
) -> tuple[Features, Bool[Tensor, "rows features"]]:
    """The features of a batch, and which of them are there in each row (padding is not).

    Args:
        model: opened.
        batch: its rows, as `Model.batch` gives them.
        kind: by default tokens where the batch has token ids, else inputs.
        site: for positions, any site with rows and positions; for cells, the path of a layer that gives
            (rows, channels, height, width); for inputs, the name of the tensor, by default
            the first that holds floating-point numbers.
        groups: for inputs, the number of the feature that each entry of a row belongs to, so that patches
            of an image can be features; by default every entry is one.

    Raises:
        UnknownName: no such kind, site or input.
        Unsupported: the model has no such place.
        BadInput: positions or cells without a site, groups where they mean nothing or with gaps.
        ShapeMismatch: groups of another shape than a row.
    """
    decided: tuple[str, ...] = ()
    if kind is None:
        kind = "tokens" if "input_ids" in batch.tensors else ("positions" if site else "inputs")
        decided = (f"features: {kind}, because the batch {_why(kind)}",)
    if kind not in KINDS:
        raise UnknownName("kind of features", kind, KINDS)
    if kind == "inputs":
        return _of_inputs(batch, site, groups, decided)
    if groups is not None:
        raise BadInput(f"groups for {kind}", "groups for the numbers of an input", "features='inputs'")
    if kind == "tokens":
        if site is not None and model.sites.resolve(site) != "embeddings":
            raise BadInput(f"tokens at {site}", "tokens, or positions at a site", "features='positions'")
        if "embeddings" not in model.sites.names():
            raise Unsupported(
                f"tokens as features of {model.name}, which names no site `embeddings`",
                "a model that does",
                "features='positions' with site= the path of its embedding module",
            )
        site = "embeddings"
    if site is None:
        raise BadInput(f"{kind} without a site", "site=, such as resid_pre.3 or the path of a layer")
    if kind == "cells":
        return _of_cells(model, batch, model.sites.resolve(site), decided)
    return _of_positions(model, batch, kind, model.sites.resolve(site), decided)


def _why(kind: str) -> str:
    return {
        "tokens": "has token ids",
        "positions": "has none and a site was named",
        "inputs": "has no token ids",
        "cells": "",
    }[kind]


def _of_positions(
    model: Model, batch: Batch, kind: str, site: str, decided: Sequence[str]
) -> tuple[Features, Bool[Tensor, "rows features"]]:
    with torch.no_grad():
        value = model.run(batch.select([0]), [site], stop_early=True)[site]
    if model.sites.info(site).layout == "pattern" or value.ndim < 3:
        raise Unsupported(
            f"positions of {site}, of shape {tuple(value.shape)}", "a site of rows, positions and numbers"
        )
    shape = tuple(value.shape[1:])
    per = torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    real = batch.mask
    if real is None or tuple(real.shape) != (len(batch), shape[0]):
        real = torch.ones(len(batch), shape[0], dtype=torch.bool)
    return Features(kind, site, shape, per, (shape[0],), tuple(decided)), real.cpu()


def _of_cells(
    model: Model, batch: Batch, site: str, decided: Sequence[str]
) -> tuple[Features, Bool[Tensor, "rows features"]]:
    with torch.no_grad():
        value = model.run(batch.select([0]), [site], stop_early=True)[site]
    if value.ndim != 4:
        raise Unsupported(
            f"cells of {site}, of shape {tuple(value.shape)}",
            "a layer that gives (rows, channels, height, width)",
        )
    channels, height, width = value.shape[1:]
    cell = torch.arange(height * width).reshape(1, height, width).expand(channels, height, width)
    made = Features("cells", site, (channels, height, width), cell, (height, width), tuple(decided))
    return made, torch.ones(len(batch), height * width, dtype=torch.bool)


def _of_inputs(
    batch: Batch, name: str | None, groups: Tensor | None, decided: Sequence[str]
) -> tuple[Features, Bool[Tensor, "rows features"]]:
    floating = [n for n, t in batch.tensors.items() if t.is_floating_point() and t.ndim > 1]
    if name is None:
        if not floating:
            raise Unsupported(
                f"inputs without floating-point numbers ({', '.join(batch.tensors)})",
                "a continuous input of shape (rows, ...)",
                "features='tokens', or 'positions' with site= the path of an embedding module",
            )
        name = floating[0]
        if len(floating) > 1:
            decided = (*decided, f"input: {name}, the first of {', '.join(floating)}")
    if name not in batch.tensors:
        raise UnknownName("input", name, batch.tensors)
    if name not in floating:
        raise Unsupported(
            f"the input {name}, {tuple(batch.tensors[name].shape)} of {batch.tensors[name].dtype}",
            "floating-point numbers of shape (rows, ...)",
        )
    value = batch.tensors[name]
    shape = tuple(value.shape[1:])
    each = torch.arange(value[0].numel()).reshape(shape)
    if groups is not None:
        each = _checked(groups, shape)
    grid = shape if groups is None else (int(each.max()) + 1,)
    made = Features("inputs", name, shape, each, grid, tuple(decided))
    there = torch.ones(len(batch), made.count, dtype=torch.bool)
    if batch.mask is not None and shape[:1] == tuple(batch.mask.shape[1:]):
        real = batch.mask.cpu().reshape(len(batch), -1, *[1] * (len(shape) - 1)).expand(-1, *shape)
        there = made.gather(real.double()) > 0
    return made, there


def _checked(groups: Tensor, shape: tuple[int, ...]) -> Tensor:
    if groups.is_floating_point() or tuple(groups.shape) != shape:
        raise ShapeMismatch(
            f"groups {tuple(groups.shape)} of {groups.dtype}", f"{shape} of whole numbers, as a row has"
        )
    found = sorted(set(groups.reshape(-1).tolist()))
    if found != list(range(len(found))):
        raise BadInput(f"groups numbered {found[:8]}", "0, 1, 2 ... without gaps")
    return groups.long().cpu()
