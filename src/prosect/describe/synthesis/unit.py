"""What an input is made for: one number of each row, read at a site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData, Unsupported
from prosect.data.batch import Batch
from prosect.model.model import Model
from prosect.model.trace import Trace


@dataclass(frozen=True, eq=False)
class Unit:
    """One number of each row.

    Attributes:
        site: where; of one head, by its name.
        index: which entry of the last axis; of the channels (mean over space) where a module gives maps.
        direction: read along this vector instead.
        position: for sites with positions, which real one, negatives from the end.
    """

    site: str
    index: int | None = None
    direction: Float[Tensor, " width"] | None = None
    position: int = -1

    def __post_init__(self) -> None:
        if (self.index is None) == (self.direction is None):
            raise BadInput(f"a unit at {self.site} without one of the two", "either an index or a direction")

    @property
    def words(self) -> str:
        """For people."""
        what = "a direction" if self.index is None else f"unit {self.index}"
        return f"{what} of {self.site}"

    def capture(self, model: Model) -> str:
        """The site to read: heads are slices of the whole, which gradients need."""
        return str(model.sites.site(self.site).whole)

    def everywhere(self, model: Model, trace: Trace) -> Float[Tensor, rows * positions]:
        """The number at every position of every row; (rows,) where there are none.

        Raises:
            Unsupported: an attention pattern.
            BadInput: an index that is not there.
            ShapeMismatch: a direction of another width.
        """
        site = model.sites.site(self.site)
        info = model.sites.info(self.site)
        if info.layout == "pattern":
            raise Unsupported(f"a unit of {self.site}", "a site with one vector for each position")
        x = trace[str(site.whole)]
        if site.head is not None:
            x = x.select(2, site.head)
        elif info.heads is not None:
            raise Unsupported(f"a unit of {self.site}, which has heads", f"one head, such as {self.site}.h0")
        mask = trace.batch.mask
        placed = mask is not None and x.ndim == 3 and x.shape[:2] == mask.shape
        axis = -1 if placed or x.ndim == 2 else 1
        width = x.shape[axis]
        if self.direction is not None:
            if self.direction.shape[0] != width:
                raise ShapeMismatch(
                    f"a direction of width {self.direction.shape[0]} at {self.site}", f"{width}"
                )
            x = x.movedim(axis, -1) @ self.direction.to(x.device, x.dtype)
        else:
            index = int(self.index or 0)
            if not 0 <= index < width:
                raise BadInput(f"unit {index} of {self.site}", f"from 0 to {width - 1}")
            x = x.select(axis, index)
        return x if placed else x.reshape(len(x), -1).mean(dim=1)

    def value(self, model: Model, trace: Trace) -> Float[Tensor, " rows"]:
        """The number of each row, at its position.

        Raises:
            BadInput: a position that some row does not have.
        """
        x = self.everywhere(model, trace)
        if x.ndim == 1 or trace.batch.mask is None:
            return x
        lengths = trace.batch.mask.sum(dim=1)
        at = lengths + self.position if self.position < 0 else torch.full_like(lengths, self.position)
        if bool(((at < 0) | (at >= lengths)).any()):
            raise BadInput(f"position {self.position} of a unit", f"one within {int(lengths.min())} tokens")
        return x[torch.arange(len(x), device=x.device), at]

    def measure(self, model: Model, batch: Batch) -> Float[Tensor, " rows"]:
        """The number of each row of a batch, float64."""
        trace = model.run(batch, [self.capture(model)], stop_early=True)
        return self.value(model, trace).double()


@dataclass(frozen=True)
class Example:
    """The row of some data that activates a unit most.

    Attributes:
        activation: there.
        document: of the row.
        position: on the axis of positions; -1 for rows without.
        tokens: up to and including the position; empty for rows without tokens.
        looked: positions looked at (rows, for inputs without positions).
        size: mean length of the rows' inputs, for inputs that are numbers; None for tokens.
    """

    activation: float
    document: str
    position: int
    tokens: tuple[int, ...]
    looked: int
    size: float | None = None


def best_example(model: Model, unit: Unit, examples: Iterable[Batch]) -> Example:
    """The best example of some data, at any scored position.

    Raises:
        TooLittleData: there is no scored position.
    """
    best: Example | None = None
    looked, total, rows = 0, 0.0, 0
    for given in examples:
        batch = model.batch(given)
        trace = model.run(batch, [unit.capture(model)], stop_early=True)
        x = unit.everywhere(model, trace).double()
        looked += batch.count if x.ndim > 1 else len(x)
        numbers = [t for t in batch.tensors.values() if t.is_floating_point()]
        if numbers:
            total, rows = total + float(numbers[0].flatten(1).double().norm(dim=1).sum()), rows + len(batch)
        if x.ndim > 1 and batch.scored is not None:
            x = x.masked_fill(~batch.scored, -torch.inf)
        if x.numel() == 0 or not bool(torch.isfinite(x).any()):
            continue
        row, position = divmod(int(x.argmax()), x[0].numel())
        if best is None or float(x.max()) > best.activation:
            at = position if x.ndim > 1 else -1
            tokens: tuple[int, ...] = ()
            if "input_ids" in batch.tensors:
                tokens = tuple(batch.tensors["input_ids"][row, : at + 1].tolist())
            best = Example(float(x.max()), batch.rows[row].document, at, tokens, 0)
    if best is None:
        raise TooLittleData("examples without a scored position", "at least one", "more data")
    size = total / rows if rows else None
    return Example(best.activation, best.document, best.position, best.tokens, looked, size)
