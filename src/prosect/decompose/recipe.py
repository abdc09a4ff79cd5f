"""How a dictionary is trained: every choice that changes the result, with its default and its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prosect.core.errors import BadInput

RESAMPLE = (0.2, 0.4, 0.6)
"""When dead latents are drawn anew unless told otherwise; late enough to know them, early enough to learn."""


@dataclass(frozen=True)
class Recipe:
    """The choices of training. None stands for a value that depends on the size of the work.

    Attributes:
        batch: positions in a training step.
        rate: Adam's learning rate at its height; None for 2e-4 / sqrt(latents / 16384), the scaling of
            Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 3.
        warmup: share of the steps over which the rate rises from 0.
        decay: share of the steps, the last ones, over which it falls to 0.
        aux: weight of the auxiliary loss, by which dead latents learn from what is not yet explained
            (Gao et al. 2024, appendix A.2).
        aux_latents: dead latents that take part for each position; None for half the written width.
        dead_after: positions without firing after which a latent counts as dead; None for 10 million or a
            tenth of the training, whichever is less.
        resample: shares of the training at which dead latents are drawn anew from what is reconstructed
            badly; None for 0.2, 0.4 and 0.6 where AuxK cannot bring them back, and never elsewhere.
        site_weights: how much the error at a site counts; 1 where none is given.
        start: around which point activations are centred.
        start_rows: positions that this point and the scale are estimated from.
        end_to_end: whether the error is not that of the activations but of what the model makes of them
            (`prosect.decompose.through`); the batch is then of at most as many positions.
        local: share of the training, the first, in which the error is that of the activations all the same, where
            it is end to end: a good start, since that error has more to say at each position.
        downstream: weight of the error of later layers' activations beside that of the predictions, where it is
            end to end.
        calibration_rows: positions on which L0 is measured after training, and before that thresholds are
            found where training leaves them open.
        precision: what products are made of. In bfloat16 activations, gradients and rows of weights are rounded
            where they are multiplied; weights, their optimiser's moments, codes and sums are float32 in both, and so
            is the choice of latents by the kinds that keep the largest.
        kernels: what makes the sparse products: torch, or Triton's kernels on a CUDA device. auto takes those where
            they can run.
    """

    batch: int = 2048
    rate: float | None = None
    warmup: float = 0.05
    decay: float = 0.2
    aux: float = 1 / 32
    aux_latents: int | None = None
    dead_after: int | None = None
    resample: tuple[float, ...] | None = None
    site_weights: Mapping[str, float] | None = None
    start: Literal["geometric median", "mean"] = "geometric median"
    start_rows: int = 16384
    calibration_rows: int = 16384
    end_to_end: bool = False
    local: float = 0.0
    downstream: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    kernels: Literal["auto", "torch", "triton"] = "auto"

    def __post_init__(self) -> None:
        positive: dict[str, float] = {"batch": self.batch, "start_rows": self.start_rows}
        positive |= {"calibration_rows": self.calibration_rows}
        positive |= {f"the weight of {site}": weight for site, weight in (self.site_weights or {}).items()}
        optional = {"rate": self.rate, "aux_latents": self.aux_latents, "dead_after": self.dead_after}
        positive |= {name: value for name, value in optional.items() if value is not None}
        for name, value in positive.items():
            if not value > 0:
                raise BadInput(f"{name} = {value}", "a number above 0")
        for name in ("aux", "downstream"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"{name} = {getattr(self, name)}", "a number of at least 0")
        if not isinstance(self.end_to_end, bool):
            raise BadInput(f"end_to_end = {self.end_to_end!r}", "true or false")
        if not 0 <= self.local < 1:
            raise BadInput(f"a share of {self.local} of the training", "a share from 0 to below 1")
        for name in ("downstream", "local"):
            if getattr(self, name) and not self.end_to_end:
                raise BadInput(
                    f"{name} = {getattr(self, name)} where training is not end to end", "0", "end_to_end=true"
                )
        if not (0 <= self.warmup <= 1 and 0 <= self.decay <= 1 and self.warmup + self.decay <= 1):
            raise BadInput(
                f"warmup {self.warmup} and decay {self.decay}", "shares of the steps that sum to at most 1"
            )
        if self.resample is not None:
            object.__setattr__(self, "resample", tuple(self.resample))
            if not all(0 < share < 1 for share in self.resample or ()):
                raise BadInput(f"resampling at {self.resample}", "shares of the training between 0 and 1")
        if self.start not in ("geometric median", "mean"):
            raise BadInput(f"start = {self.start!r}", "'geometric median' or 'mean'")
        if self.precision not in ("float32", "bfloat16"):
            raise BadInput(f"precision = {self.precision!r}", "'float32' or 'bfloat16'")
        if self.kernels not in ("auto", "torch", "triton"):
            raise BadInput(f"kernels = {self.kernels!r}", "'auto', 'torch' or 'triton'")

    def resamples(self, auxk: bool) -> tuple[float, ...]:
        """When dead latents are drawn anew, given whether AuxK can bring them back."""
        return (() if auxk else RESAMPLE) if self.resample is None else self.resample

    def rate_for(self, latents: int) -> float:
        """The learning rate at its height."""
        return float(2e-4 / (latents / 2**14) ** 0.5) if self.rate is None else self.rate

    def schedule(self, step: int, steps: int) -> float:
        """The share of the full rate at a step, counted from 0, of ``steps``."""
        rise = (step + 1) / (self.warmup * steps) if self.warmup else 1.0
        fall = (steps - step) / (self.decay * steps) if self.decay else 1.0
        return min(1.0, rise, fall)


DEFAULT = Recipe()
