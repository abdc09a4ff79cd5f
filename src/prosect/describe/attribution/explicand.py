"""The thing that is explained: a number that a model gives for each row, as a function of what is put in at one place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, Unsupported
from prosect.data.batch import Batch
from prosect.describe.attribution.features import Features
from prosect.model import Model
from prosect.model.edits import patch
from prosect.model.sweep import Metric
from prosect.model.whole import rows_that_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 4
"""How much more a pass with gradients holds than one without, for each layer: what the way back reads."""


@dataclass
class Cost:
    """What was computed, counted in rows.

    Attributes:
        forwards: rows that went through the model.
        backwards: rows whose gradient was taken.
    """

    forwards: int = 0
    backwards: int = 0


class Explicand:
    """f(points) for the rows of a batch, in passes that fit a budget.

    Args:
        model: opened.
        batch: its rows.
        metric: (output, batch) → one number for each row.
        features: where points enter and how they are cut.
        present: which features are there in each row.
        budget_mb: memory that one pass may take, as estimated.
        cost: where to count; a new count by default.

    Attributes:
        x: (rows, *shape): what the model itself has at the place.
    """

    def __init__(
        self,
        model: Model,
        batch: Batch,
        metric: Metric,
        features: Features,
        present: Bool[Tensor, "rows features"],
        budget_mb: int | float = 512.0,
        cost: Cost | None = None,
    ) -> None:
        if not budget_mb > 0:
            raise BadInput(f"a budget of {budget_mb} MB", "more than 0")
        self.model, self.batch, self.metric = model, batch, metric
        self.features, self.present, self.budget_mb = features, present, budget_mb
        self.cost = Cost() if cost is None else cost
        self._fit = rows_that_fit(model, batch, budget_mb, False)
        self._fit_gradient = max(1, self._fit // (KEPT * (model.n_layers or 1)))
        if features.kind == "inputs":
            self.x: Float[Tensor, "rows ..."] = batch.tensors[features.place].detach()
        else:
            with torch.no_grad():
                self.x = model.run(batch, [features.place], stop_early=True)[features.place]

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def device(self) -> torch.device:
        """Where points are wanted."""
        return self.x.device

    def rows(self, chosen: Sequence[int]) -> Explicand:
        """The same for some rows, counted together with this one."""
        index = list(chosen)
        return Explicand(
            self.model,
            self.batch.select(index),
            self.metric,
            self.features,
            self.present[index],
            self.budget_mb,
            self.cost,
        )

    def again(self) -> Explicand:
        """The same, read anew from the model as it is now."""
        return self.rows(range(len(self)))

    def mix(
        self,
        keep: Bool[Tensor, "n features"],
        inside: Float[Tensor, "n ..."],
        outside: Float[Tensor, "n ..."],
    ) -> Float[Tensor, "n ..."]:
        """``inside`` at the features to keep, ``outside`` elsewhere."""
        return torch.where(self.features.spread(keep.to(inside.device)), inside, outside)

    def at(self, points: Float[Tensor, "n ..."], rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """f at points, (n, *shape), each in place of what its row has; float64 on the CPU.

        Raises:
            ShapeMismatch: the metric does not give one number for each row.
            NotFinite: it gives NaN or infinity, or the model does.
        """
        out = torch.empty(len(points), dtype=torch.float64)
        for start in range(0, len(points), self._fit):
            at = slice(start, start + self._fit)
            with torch.no_grad():
                out[at] = self._measured(points[at], rows[at], False).double().cpu()
        self.cost.forwards += len(points)
        return out

    def gradient(
        self, points: Float[Tensor, "n ..."], rows: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n ..."]]:
        """f and its gradient with respect to the points.

        Raises:
            BadInput: nothing connects the metric with the place.
            Unsupported: the model is quantised.
        """
        refuse_quantised(self.model)
        value = torch.empty(len(points), dtype=torch.float64)
        slope = torch.empty_like(points)
        for start in range(0, len(points), self._fit_gradient):
            at = slice(start, start + self._fit_gradient)
            leaf = points[at].detach().clone().requires_grad_(True)
            with torch.enable_grad():
                got = self._measured(leaf, rows[at], True)
            if not got.requires_grad:
                raise _unconnected(self.features.place)
            (found,) = torch.autograd.grad(got.sum(), leaf, allow_unused=True)
            if found is None:
                raise _unconnected(self.features.place)
            if not bool(torch.isfinite(found).all()):
                raise NotFinite(
                    f"NaN or infinity in the gradient at {self.features.place}", "finite gradients"
                )
            value[at], slope[at] = got.detach().double().cpu(), found
        self.cost.forwards += len(points)
        self.cost.backwards += len(points)
        return value, slope

    def itself(self) -> Float[Tensor, " rows"]:
        """f of every row as it is."""
        return self.at(self.x, torch.arange(len(self)))

    def _measured(self, points: Tensor, rows: Tensor, grad: bool) -> Tensor:
        part = self.batch.select(rows.tolist())
        if self.features.kind == "inputs":
            part = replace(part, tensors={**part.tensors, self.features.place: points})
            output = self.model.run(part, grad=grad).output
        else:
            output = self.model.run(part, edits=[patch(self.features.place, points)], grad=grad).output
        return one_each(self.metric(output, part), len(part))


def one_each(value: object, rows: int) -> Tensor:
    """What a metric gave, if it is one finite number for each row.

    Raises:
        ShapeMismatch: it is something else.
        NotFinite: NaN or infinity among them.
    """
    if not isinstance(value, Tensor) or tuple(value.shape) != (rows,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeMismatch(
            f"{got} from the metric", f"({rows},): one number for each row", "output[:, -1, token], say"
        )
    if not bool(torch.isfinite(value.detach()).all()):
        raise NotFinite("NaN or infinity from the metric", "finite numbers")
    return value


def refuse_quantised(model: Model) -> None:
    """Raise for a model whose weights are stored as small integers: its gradients are missing or approximate.

    Raises:
        Unsupported: the model says that it is quantised, or holds quantised tensors or modules.
    """
    module = model.module
    config = getattr(module, "config", None)
    found = ""
    if getattr(module, "is_quantized", False) or getattr(config, "quantization_config", None) is not None:
        found = "its configuration says so"
    for path, part in module.named_modules():
        kind = f"{type(part).__module__}.{type(part).__name__}"
        if ".quantized." in kind or kind.startswith("bitsandbytes."):
            found = found or f"{path or 'it'} is a {kind}"
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_quantized:
            found = found or f"{name} is {tensor.dtype}"
    if found:
        raise Unsupported(
            f"gradients through the quantised model {model.name} ({found})",
            "weights in floating point",
            "the unquantised checkpoint, or a method without gradients: occlusion, shapley, lime",
        )


def _unconnected(place: str) -> BadInput:
    return BadInput(
        f"a metric without gradient at {place}",
        "a metric that is a differentiable function of the output, and an output that depends on it",
        "a logit instead of an arg max; no .item(), .detach() or NumPy in the metric",
    )
