"""A sparse dictionary in the form it is trained in, and one step of training.

Activations are centred and brought to unit variance, so that rates and losses mean the same for every
model. Decoder rows keep norm 1: gradients are projected onto the sphere and rows renormalised after each
step, else sparsity could be bought with long rows. All that training carries from one step to the next is
in `Trainer.tensors`, and no random number is drawn after the start, so training can stop anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NotFinite
from prosect.decompose.contract import ActivationStream
from prosect.decompose.dictionary import Weights
from prosect.decompose.kernels import Picks, decode, picked
from prosect.decompose.streams import first

if TYPE_CHECKING:
    from prosect.decompose.dictionary import Dictionary

DEAD_AFTER = 10_000_000
"""Positions without firing after which a latent is dead, at most."""


class Scaling(NamedTuple):
    """How sites side by side are standardised: (x - centre) / scale, one scale for each site."""

    centre: Float[Tensor, " width"]
    scale: Float[Tensor, " width"]


class Trainer:
    """Weights, optimiser and counters of a training under way.

    Args:
        dictionary: what is trained, and how.
        widths: of every site it reads or writes.
        steps: of the whole training.

    Attributes:
        step: steps done.
        idle: positions since each latent last fired.
    """

    def __init__(self, dictionary: Dictionary, widths: Mapping[str, int], steps: int) -> None:
        self.dictionary, self.steps, self.step = dictionary, steps, 0
        self.recipe = recipe = dictionary.recipe
        self.reads = {site: widths[site] for site in dictionary.reads}
        self.writes = {site: widths[site] for site in dictionary.writes}
        device, latents = dictionary.device, dictionary.latents
        read, written = sum(self.reads.values()), sum(self.writes.values())
        self.encoder = torch.zeros((latents, read), device=device, requires_grad=True)
        self.bias = torch.zeros(latents, device=device, requires_grad=True)
        self.decoder = torch.zeros((latents, written), device=device, requires_grad=True)
        self.offset = torch.zeros(written, device=device, requires_grad=True)
        self.skip = torch.zeros((read if dictionary.skip else 0, written), device=device, requires_grad=True)
        self.idle = torch.zeros(latents, dtype=torch.long, device=device)
        self.history: list[dict[str, Json]] = []

        self.aux_latents = recipe.aux_latents or max(1, written // 2)
        self.dead_after = recipe.dead_after or max(1, min(DEAD_AFTER, steps * recipe.batch // 10))
        self.optimiser = torch.optim.Adam(list(self.parameters().values()), lr=0.0, fused=True)
        self._last: dict[str, Tensor] = {}

    def parameters(self) -> dict[str, Tensor]:
        """What is learned."""
        named = {"encoder": self.encoder, "bias": self.bias, "decoder": self.decoder, "offset": self.offset}
        return {**named, "skip": self.skip} if self.dictionary.skip else named

    def start(self, stream: ActivationStream) -> None:
        """Centre and scale from the stream's first rows, and random weights.

        Decoder rows are drawn uniformly from the sphere. A dictionary that writes what it reads begins with
        its encoder equal to its decoder; others with an encoder drawn likewise.

        Raises:
            BadInput: the activations at a site do not vary.
            NotFinite: one of them is NaN or infinite.
        """
        sample = first(stream, self.recipe.start_rows).arrays
        self.read, self.write = self._scaling(sample, self.reads), self._scaling(sample, self.writes)
        seed = self.dictionary.seed.child("dictionary", "start")
        with torch.no_grad():
            self.decoder.copy_(_on_sphere(self.decoder, seed.child("decoder").torch()))
            same = tuple(self.reads) == tuple(self.writes)
            self.encoder.copy_(
                self.decoder if same else _on_sphere(self.encoder, seed.child("encoder").torch())
            )

    def _scaling(self, sample: Mapping[str, Tensor], sites: Mapping[str, int]) -> Scaling:
        centres, scales = [], []
        for site, width in sites.items():
            x = sample[site].to("cpu", torch.float64)
            centre = geometric_median(x) if self.recipe.start == "geometric median" else x.mean(dim=0)
            scale = (x - centre).square().mean().sqrt()
            if not scale > 0:
                raise BadInput(
                    f"{len(x):,} equal activations at {site}", "activations that vary", "another site"
                )
            centres.append(centre)
            scales.append(scale.expand(width))
        device = self.dictionary.device
        return Scaling(torch.cat(centres).float().to(device), torch.cat(scales).float().to(device))

    def advance(self, batch: Mapping[str, Tensor]) -> None:
        """One training step on a batch of {site: (n, width)}."""
        x, y = self._standard(batch, self.reads, self.read), self._standard(batch, self.writes, self.write)
        with torch.no_grad():
            pre = torch.addmm(self.bias, x, self.encoder.T)
            picks = Picks(self.dictionary.sparsity.codes(pre, None).indices, self.dictionary.latents)
        codes = torch.relu(picked(picks, pre, self.encoder, self.bias, x))
        made = decode(picks, codes, self.decoder) + self.offset
        if self.dictionary.skip:
            made = made + x @ self.skip
        residual = y - made
        loss = residual.square().mean()
        dead = (self.idle >= self.dead_after).nonzero().squeeze(1)
        if len(dead) and self.recipe.aux:
            loss = loss + self.recipe.aux * auxiliary_loss(
                residual, x, pre, self.encoder, self.bias, self.decoder, dead, self.aux_latents
            )
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            gradient = self.decoder.grad
            assert gradient is not None  # the decoder is in every loss
            gradient -= (gradient * self.decoder).sum(dim=1, keepdim=True) * self.decoder
            rate = self.recipe.rate_for(self.dictionary.latents)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * self.recipe.schedule(self.step, self.steps)
            self.optimiser.step()
            self.decoder /= self.decoder.norm(dim=1, keepdim=True)

            fired = torch.bincount(
                picks.indices.reshape(-1), (codes > 0).reshape(-1).double(), len(self.idle)
            )
            self.idle += len(x)
            self.idle[fired > 0] = 0
            self.step += 1
        self._last = {"residual": residual.detach(), "y": y, "codes": codes.detach()}

    def note(self) -> str:
        """Measure the last batch, keep that in the history, and put it in words.

        Raises:
            NotFinite: training diverged.
        """
        residual, y, codes = self._last["residual"], self._last["y"], self._last["codes"]
        spread = (y - y.mean(dim=0)).square().sum(dtype=torch.float64)
        fvu = float(residual.square().sum(dtype=torch.float64) / spread)
        l0 = float((codes > 0).sum()) / len(codes)
        dead = float((self.idle >= self.dead_after).double().mean())
        if not torch.isfinite(residual).all():
            raise NotFinite(
                f"NaN or infinity at step {self.step} of training {self.dictionary.name}",
                "a loss that stays finite",
                f"a lower rate than {self.recipe.rate_for(self.dictionary.latents):.2g}",
            )
        self.history.append({"step": self.step, "l0": l0, "fvu": fvu, "dead": dead})
        return f"L0 {l0:.1f} FVU {fvu:.3f} dead {dead:.1%}"

    def weights(self) -> Weights:
        """The inference form: scales folded away, codes in units of the first site it writes.

        Multiplying all pre-activations by one positive number changes neither which are largest nor which
        are positive, so the function stays the same.
        """
        unit = self.write.scale[0]
        with torch.no_grad():
            return Weights(
                encoder=self.encoder * (unit / self.read.scale),
                bias=self.bias * unit,
                centre=self.read.centre.clone(),
                decoder=self.decoder * (self.write.scale / unit),
                offset=self.write.centre + self.write.scale * self.offset,
                skip=self.skip * self.write.scale / self.read.scale[:, None]
                if self.dictionary.skip
                else None,
            )

    def tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        out = {"idle": self.idle, **{name: p.detach() for name, p in self.parameters().items()}}
        for side, scaling in (("read", self.read), ("write", self.write)):
            out |= {f"{side}.centre": scaling.centre, f"{side}.scale": scaling.scale}
        for name, parameter in self.parameters().items():
            for moment, value in self.optimiser.state[parameter].items():
                out[f"adam.{name}.{moment}"] = value
        return out

    def restore(self, tensors: Mapping[str, Tensor], step: int, history: list[dict[str, Json]]) -> None:
        """Go on from what `tensors` gave after ``step`` steps."""
        device = self.dictionary.device
        with torch.no_grad():
            self.idle.copy_(tensors["idle"])
            for name, parameter in self.parameters().items():
                parameter.copy_(tensors[name])
                self.optimiser.state[parameter] = {
                    moment: tensors[f"adam.{name}.{moment}"].to(device)
                    for moment in ("step", "exp_avg", "exp_avg_sq")
                }
        self.read, self.write = (
            Scaling(tensors[f"{side}.centre"].to(device), tensors[f"{side}.scale"].to(device))
            for side in ("read", "write")
        )
        self.step, self.history = step, history

    def _standard(self, batch: Mapping[str, Tensor], sites: Mapping[str, int], scaling: Scaling) -> Tensor:
        x = torch.cat([batch[site].to(self.encoder) for site in sites], dim=1)
        return (x - scaling.centre) / scaling.scale


def auxiliary_loss(
    residual: Float[Tensor, "n d"],
    x: Float[Tensor, "n e"],
    pre: Float[Tensor, "n latents"],
    encoder: Float[Tensor, "latents e"],
    bias: Float[Tensor, " latents"],
    decoder: Float[Tensor, "latents d"],
    dead: Int[Tensor, " dead"],
    count: int,
) -> Float[Tensor, ""]:
    """How much of what is not explained the dead latents leave, had they fired: AuxK.

    The ``count`` dead latents with the largest pre-activations at each position reconstruct the residual,
    without the offset, which belongs to the main reconstruction. The residual is a constant here; the
    gradient reaches encoder, bias and decoder of dead latents alone. Divided by the residual's variance,
    so that it stays of one size while the main loss falls. Gao et al. 2024, appendix A.2.

    Args:
        residual: what the main reconstruction missed.
        x: what was encoded.
        pre: its pre-activations, made without gradients.
        encoder: rows of latents.
        bias: of latents.
        decoder: rows of latents.
        dead: which latents are dead; at least one.
        count: how many of them may take part at each position.
    """
    target = residual.detach()
    best = pre[:, dead].topk(min(count, len(dead)), dim=1, sorted=False).indices
    picks = Picks(dead[best], len(encoder))
    codes = torch.relu(picked(picks, pre, encoder, bias, x))
    missed = target - decode(picks, codes, decoder)
    spread = (target - target.mean(dim=0)).square().sum()
    return missed.square().sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny)


def geometric_median(
    x: Float[Tensor, "n width"], iterations: int = 100, tolerance: float = 1e-6
) -> Float[Tensor, " width"]:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration.

    It resists the few positions of huge norm that residual streams have, which a mean does not.

    Args:
        x: rows.
        iterations: at most this many.
        tolerance: it stops when a step is shorter than this share of the mean distance.
    """
    at: Tensor = x.mean(dim=0)
    for _ in range(iterations):
        distance = (x - at).norm(dim=1)
        typical = distance.mean()
        if not typical > 0:
            break
        weight = distance.clamp_min(float(typical) * 1e-9).reciprocal()
        before, at = at, weight @ x / weight.sum()
        if (at - before).norm() <= tolerance * typical:
            break
    return at


def _on_sphere(like: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of norm 1 in uniformly random directions, drawn on the CPU so that devices agree."""
    drawn: Tensor = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    drawn /= drawn.norm(dim=1, keepdim=True)
    return drawn.to(like)
