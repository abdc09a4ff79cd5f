"""Gradients of a metric at sites, or a reason why there are none.

A metric gives one number for each row from that row alone, so the gradient of their sum holds every row's own.
What cannot be differentiated is refused by name: a silent zero would read as "has no effect".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, Unsupported
from prosect.data.batch import Batch
from prosect.model.edits import Edit
from prosect.model.patching.metrics import Metric

if TYPE_CHECKING:
    from prosect.model.model import Model

FLAT, SMALL = 1e-4, 1e-2
"""Shares of the gap: a metric has no slope where, on every row, its slope along the change of the output gives less
than the first, and the size of its gradient times that of the change less than the second."""


class Graph:
    """One pass with its graph, to take gradients of the metric from, more than once if need be.

    Args:
        model: what is run.
        batch: the rows.
        metric: output and rows → (rows,).
        sites: where gradients are wanted.
        edits: made in the pass.
        also: other sites to hold in the graph, whose gradients can be dropped.

    Attributes:
        values: what the sites hold, detached.
        scores: (rows,): the metric.
        output: of the pass.

    Raises:
        Unsupported: a quantised model; a site that no gradient reaches.
        BadInput: a metric that cannot be differentiated.
        ShapeMismatch: a metric that does not give one number for each row.
        NotFinite: the metric, or a gradient, gave NaN or infinity.
    """

    def __init__(
        self,
        model: Model,
        batch: Batch,
        metric: Metric,
        sites: Sequence[str],
        edits: Sequence[Edit] = (),
        also: Sequence[str] = (),
    ) -> None:
        refuse_quantised(model)
        trace = model.run(batch, list(dict.fromkeys([*sites, *also])), edits, grad=True)
        self.sites = tuple(dict.fromkeys(sites))
        self._held = {name: trace[name] for name in trace}
        self.output = trace.output
        with torch.enable_grad():
            self._scores = checked_scores(metric(self.output, trace.batch), len(batch))
        self.scores = self._scores.detach()

    @property
    def values(self) -> dict[str, Tensor]:
        """What the sites hold."""
        return {name: self._held[name].detach() for name in self.sites}

    def gradients(self, drop: Sequence[str] = (), keep: bool = False) -> dict[str, Tensor]:
        """Of every row's metric by what the sites hold in that row.

        Args:
            drop: held sites through which no gradient is let.
            keep: whether gradients will be taken again.
        """
        handles = [_blocked(self._held[name]) for name in drop]
        try:
            found = torch.autograd.grad(
                self._scores.sum(),
                [self._held[name] for name in self.sites],
                retain_graph=keep,
                allow_unused=True,
            )
        finally:
            for handle in handles:
                handle.remove()
        out = {}
        for name, gradient in zip(self.sites, found, strict=True):
            if gradient is None:
                raise Unsupported(
                    f"gradients at {name}, which none reaches",
                    "operations with gradients behind it",
                    "noising",
                )
            if not bool(torch.isfinite(gradient).all()):
                raise NotFinite(f"NaN or infinity in the gradient at {name}", "finite gradients", "float32")
            out[name] = gradient
        return out

    def refuse_flat(self, other: Tensor, gap: Tensor) -> None:
        """A metric without slope here says nothing about effects: a divergence from this very run, above all.

        Args:
            other: output of the other run.
            gap: (rows,): metric of the other run minus that of this one.

        Raises:
            BadInput: on no row does the metric's slope account for any of the gap.
        """
        (slope,) = torch.autograd.grad(self._scores.sum(), self.output, retain_graph=True, allow_unused=True)
        if slope is None:
            raise BadInput("a metric that does not depend on the output", "one that does")
        rows = len(gap)
        slope, here = slope.double().reshape(rows, -1), self.output.detach().double().reshape(rows, -1)
        there = other.detach().double().reshape(rows, -1)
        size = slope.norm(dim=1)
        same = here.shape == there.shape
        if same:
            seen = slope != 0
            along = (slope * (there - here)).sum(dim=1).abs()
            bound = size * ((there - here) * seen).norm(dim=1)
        else:
            along = bound = size * (here.norm(dim=1) + there.norm(dim=1))
        gap = gap.double().abs().to(size.device)
        flat = (along <= FLAT * gap) & (bound <= SMALL * gap) & (gap > 0) | (size == 0)
        if bool(flat.all()):
            raise BadInput(
                f"a metric whose gradient is zero on the run that is patched (at most {float(size.max()):.1e}, where "
                f"the gap is {float(gap.max()):.3g})",
                "one with a slope there",
                "a difference of logits: a divergence from a run is flat at that run; or exact patching",
            )


def refuse_quantised(model: Model) -> None:
    """Quantised weights pass no gradient, or pass a wrong one.

    Raises:
        Unsupported: the model has some.
    """
    config = getattr(model.module, "config", None)
    found = getattr(config, "quantization_config", None) is not None
    name = "its configuration says so"
    for path, module in model.module.named_modules():
        kind = type(module)
        if ".quantized" in kind.__module__ or kind.__module__.startswith("bitsandbytes") or _packed(module):
            found, name = True, f"{path} is a {kind.__module__}.{kind.__name__}"
            break
    if found:
        raise Unsupported(
            f"gradients through {model.name}, which is quantised ({name})",
            "floating-point weights",
            "loading it unquantised, or exact patching, which needs no gradient",
        )


def _blocked(x: Tensor) -> Any:
    """Let no gradient through ``x`` until the handle is removed."""
    hook: Any = x.register_hook
    return hook(torch.zeros_like)


def _packed(module: nn.Module) -> bool:
    """Whether a module holds a matrix of whole numbers as a weight."""
    whole = (torch.int8, torch.uint8)
    return any(p.dtype in whole and p.ndim > 1 for p in module.parameters(recurse=False))


def checked_scores(scores: object, rows: int) -> Tensor:
    """What a metric gave, if it is one finite number for each row, with a gradient."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (rows,):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ShapeMismatch(f"{got} from the metric", f"({rows},): one number for each row")
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite("NaN or infinity from the metric", "finite numbers")
    if not scores.requires_grad:
        raise BadInput(
            "a metric without a gradient",
            "torch operations on the output, of which none breaks the graph",
            "leaving out argmax, detach, item and comparisons",
        )
    return scores
