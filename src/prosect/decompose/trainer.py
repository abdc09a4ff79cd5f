"""A sparse dictionary in the form it is trained in, and one step of training.

Activations are centred and brought to unit variance, so that rates and losses mean the same for every
model. Decoder rows keep norm 1, over all sites written together: gradients are projected onto the sphere and
rows renormalised after each step, else sparsity could be bought with long rows. What differs between the ways
of training is in their `Objective`. All that training carries from one step to the next is in
`Trainer.tensors`, and what is drawn after the start is drawn from a seed of its step, so training can stop anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import NotFinite
from prosect.decompose.auxiliary import auxiliary
from prosect.decompose.contract import ActivationStream
from prosect.decompose.dictionary import Weights
from prosect.decompose.kernels import picked
from prosect.decompose.layers import Masks, cross_layer_masks
from prosect.decompose.objective import Step, mean_square
from prosect.decompose.products import products_for
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.resampling import redraw
from prosect.decompose.start import Scaling, on_sphere, scaling
from prosect.decompose.streams import batches, first

if TYPE_CHECKING:
    from prosect.decompose.dictionary import Dictionary

DEAD_AFTER = 10_000_000
"""Positions without firing after which a latent is dead, at most."""

CACHED = 2048
"""Latents whose rows are worked on at a time, so that they stay in the processor's cache in between."""


class Trainer:
    """Weights, optimiser and counters of a training under way.

    Args:
        dictionary: what is trained, and how.
        widths: of every site it reads or writes.
        steps: of the whole training.
        ranks: what the work is dealt to; where latents are, weights and counters are those of this rank's.

    Attributes:
        step: steps done.
        idle: positions since each latent last fired.
        products: what makes the products of a step, and in which precision; weights are float32 in any.

    Raises:
        BadInput: the work cannot be dealt evenly.
        Unsupported: the recipe asks for kernels that cannot run here.
    """

    def __init__(
        self, dictionary: Dictionary, widths: Mapping[str, int], steps: int, ranks: Ranks = ALONE
    ) -> None:
        ranks.check(dictionary.recipe.batch, dictionary.latents)
        self.dictionary, self.steps, self.step, self.ranks = dictionary, steps, 0, ranks
        self.recipe = recipe = dictionary.recipe
        self.products = products_for(recipe, dictionary.device)
        self.objective = dictionary.trained_by
        self.reads = {site: widths[site] for site in dictionary.reads}
        self.writes = {site: widths[site] for site in dictionary.writes}
        self.span = ranks.span(dictionary.latents)
        device, latents = dictionary.device, self.span.stop - self.span.start
        read, written = sum(self.reads.values()), sum(self.writes.values())
        self.encoder = torch.zeros((latents, read), device=device, requires_grad=True)
        self.bias = torch.zeros(latents, device=device, requires_grad=True)
        self.decoder = torch.zeros((latents, written), device=device, requires_grad=True)
        self.offset = torch.zeros(written, device=device, requires_grad=True)
        self.skip = torch.zeros((read if dictionary.skip else 0, written), device=device, requires_grad=True)
        self.extra = {
            name: p.to(device).requires_grad_() for name, p in self.objective.extra(latents).items()
        }
        self.state = self.objective.state()
        self.masks: Masks | None = None
        if dictionary.cross_layer:
            masks = cross_layer_masks(dictionary.latents, self.reads, self.writes)
            of_latents = (masks.encoder[self.span], masks.decoder[self.span])
            self.masks = Masks(*(m.to(device) for m in (*of_latents, masks.skip)))
        self.spans = tuple(dictionary.span(self.writes, site) for site in self.writes)
        self.idle = torch.zeros(latents, dtype=torch.long, device=device)
        self.history: list[dict[str, Json]] = []

        self.aux_latents = recipe.aux_latents or max(1, written // 2)
        self.dead_after = recipe.dead_after or max(1, min(DEAD_AFTER, steps * recipe.batch // 10))
        self.resample_at = {round(s * steps) for s in recipe.resamples(self.objective.auxk)}
        self.optimiser = torch.optim.Adam(list(self.parameters().values()), lr=0.0, fused=True)
        self._last: dict[str, Tensor] = {}

    def parameters(self) -> dict[str, Tensor]:
        """What is learned."""
        named = {"encoder": self.encoder, "bias": self.bias, "decoder": self.decoder, "offset": self.offset}
        return {**named, **self.extra, **({"skip": self.skip} if self.dictionary.skip else {})}

    @property
    def tied(self) -> bool:
        """Whether it writes what it reads."""
        return tuple(self.reads) == tuple(self.writes)

    def start(self, stream: ActivationStream) -> None:
        """Centre and scale from the stream's first rows, and random weights.

        Decoder rows are drawn uniformly from the sphere. A dictionary that writes what it reads begins with
        its encoder equal to its decoder; others with an encoder drawn likewise.

        Raises:
            BadInput: the activations at a site do not vary.
            NotFinite: one of them is NaN or infinite.
        """
        sample = first(stream, self.recipe.start_rows).arrays
        device = self.dictionary.device
        self.read = scaling(sample, self.reads, self.recipe).to(device)
        write = scaling(sample, self.writes, self.recipe).to(device)
        # a site whose error counts w times is one whose activations are √w times as large
        self.write = write._replace(scale=write.scale / self._site_weights().sqrt())
        seed = self.dictionary.seed.child("dictionary", "start")
        encoder, decoder = self.masks[:2] if self.masks else (None, None)
        begin = self.span.start
        with torch.no_grad():
            self.decoder.copy_(on_sphere(self.decoder, seed.child("decoder").torch(), decoder, begin))
            self.encoder.copy_(
                self.decoder
                if self.tied and self.masks is None
                else on_sphere(self.encoder, seed.child("encoder").torch(), encoder, begin)
            )
            self.ranks.alike(self.tensors())

    def _site_weights(self) -> Tensor:
        given = self.recipe.site_weights or {}
        weights = torch.tensor([float(given.get(site, 1.0)) for site in self.writes])
        widths = torch.tensor(list(self.writes.values()))
        return weights.repeat_interleave(widths).to(self.dictionary.device)

    def scales(self) -> dict[str, float]:
        """The scale of each site written: the root of the mean square of its centred activations."""
        scale = self.write.scale * self._site_weights().sqrt()
        return {site: float(scale[span][0]) for site, span in zip(self.writes, self.spans, strict=True)}

    def over(self, stream: ActivationStream) -> Iterator[None]:
        """Go through what is left of a stream, of which ranks take their shares; yields after each step."""
        sites, rows = tuple(dict.fromkeys((*self.reads, *self.writes))), self.recipe.batch
        for batch in batches(stream, sites, rows, skip=self.step * rows):
            self.advance(self.ranks.share(batch))
            yield

    def advance(self, batch: Mapping[str, Tensor]) -> None:
        """One training step on a batch of {site: (n, width)}; where positions are dealt, on this rank's share."""
        self._learn(
            self._standard(batch, self.reads, self.read), self._standard(batch, self.writes, self.write)
        )

    def _learn(self, x: Tensor, y: Tensor, error: Callable[[Tensor], Tensor] = mean_square) -> None:
        """One step on what is read and what should be written, in standard units."""
        learned = self.parameters()
        with torch.no_grad():
            chosen = self.objective.choose(x, self.encoder, self.bias, learned, self.ranks, self.products)
            picks, values = chosen
        outcome = self.objective.loss(
            Step(
                picks=picks,
                values=picked(picks, values, self.encoder, self.bias, x),
                target=y,
                decoder=self.decoder,
                offset=self.offset,
                around=x @ self.skip if self.dictionary.skip else None,
                learned=learned,
                state=self.state,
                spans=self.spans,
                progress=self.step / self.steps,
                ranks=self.ranks,
                error=error,
            )
        )
        codes, residual, loss = outcome
        missing = self._missing(residual)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._revive(x, missing.detach())
        with torch.no_grad():
            self._descend()
            fired = self.ranks.mean(picks.fired(codes).double())
            self.idle += self.ranks.positions(len(x))
            self.idle[fired > 0] = 0
            self.step += 1
            if self.step in self.resample_at:
                self._resample(self.ranks.gathered(x), self.ranks.gathered(missing))
        self._last = {"residual": residual.detach(), "y": y, "codes": codes.detach()}

    def _revive(self, x: Tensor, residual: Tensor) -> None:
        """Add the gradients of the auxiliary loss to the rows of dead latents, the only ones that have any."""
        dead = self._dead()
        every = self.ranks.before(len(dead))[1]
        if not (every and self.recipe.aux and self.objective.auxk):
            return
        named, count = (self.encoder, self.bias, self.decoder), min(self.aux_latents, every)
        encoder, bias, decoder = (p.detach()[dead] for p in named)
        made = auxiliary(residual, x, encoder, bias, decoder, count, self.ranks, self.products)
        _, *gradients = made
        for parameter, gradient in zip(named, gradients, strict=True):
            assert parameter.grad is not None  # every loss reaches encoder, bias and decoder
            parameter.grad[dead] += self.recipe.aux * gradient

    def _missing(self, residual: Tensor) -> Tensor:
        """What dead latents should learn to write."""
        return residual

    def _dead(self) -> Tensor:
        return (self.idle >= self.dead_after).nonzero().squeeze(1)

    def _descend(self) -> None:
        """Step along the gradient, on the sphere and inside the masks."""
        self.ranks.average({name: p.grad for name, p in self.parameters().items() if p.grad is not None})
        gradient = self.decoder.grad
        assert gradient is not None  # the decoder is in every loss
        if self.masks is not None:
            for parameter, mask in zip((self.encoder, self.decoder, self.skip), self.masks, strict=True):
                if parameter.grad is not None:
                    parameter.grad *= mask
        some = CACHED if gradient.device.type == "cpu" else max(1, len(gradient))
        for g, row in zip(torch.split(gradient, some), torch.split(self.decoder, some), strict=True):
            g.addcmul_(row, torch.linalg.vecdot(g, row)[:, None], value=-1)
        rate = self.recipe.rate_for(self.dictionary.latents)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * self.recipe.schedule(self.step, self.steps)
        self.optimiser.step()
        for row in torch.split(self.decoder, some):
            row /= row.norm(dim=1, keepdim=True)
        self.objective.settle(self.parameters())

    def _resample(self, x: Tensor, residual: Tensor) -> None:
        """Draw dead latents anew, and let the optimiser forget them."""
        made = redraw(
            self._dead(),
            x,
            residual,
            self.encoder,
            self.dictionary.seed.child("dictionary", "resample", self.step).torch(),
            self.tied,
            self.masks[:2] if self.masks else None,
            self.ranks,
        )
        self.encoder[made.latents], self.decoder[made.latents] = made.encoder, made.decoder
        fresh = {"bias": torch.zeros_like(self.bias), **self.objective.extra(len(self.idle))}
        for name, value in fresh.items():
            self.parameters()[name][made.latents] = value.to(self.bias)[made.latents]
        for name in ("encoder", "decoder", *fresh):
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimiser.state[self.parameters()[name]][moment][made.latents] = 0
        self.idle[made.latents] = 0

    def note(self) -> str:
        """Measure the last batch, keep that in the history, and put it in words.

        Raises:
            NotFinite: training diverged.
        """
        residual, y, codes = self._last["residual"], self._last["y"], self._last["codes"]
        ranks = self.ranks
        spread = ranks.mean((y - ranks.mean(y.mean(dim=0))).square().sum(dtype=torch.float64))
        fvu = float(ranks.mean(residual.square().sum(dtype=torch.float64)) / spread)
        l0 = float(ranks.total((codes > 0).count_nonzero().double())) / len(y)
        dead = float(ranks.total((self.idle >= self.dead_after).double().sum())) / self.dictionary.latents
        if float(ranks.total((~torch.isfinite(residual)).double().sum())) > 0:
            raise NotFinite(
                f"NaN or infinity at step {self.step} of training {self.dictionary.name}",
                "a loss that stays finite",
                f"a lower rate than {self.recipe.rate_for(self.dictionary.latents):.2g}",
            )
        self.history.append({"step": self.step, "l0": l0, "fvu": fvu, "dead": dead})
        return f"L0 {l0:.1f} FVU {fvu:.3f} dead {dead:.1%}"

    def weights(self) -> Weights:
        """The inference form: scales folded away, codes in units of the first site it writes.

        Multiplying all pre-activations, and their thresholds, by one positive number changes neither which
        are largest nor which are above, so the function stays the same. A threshold that is to be calibrated
        is 0 still.
        """
        unit = self.write.scale[0]
        with torch.no_grad():
            encoder, bias, threshold = self.objective.fold(self.encoder, self.bias, self.parameters())
            return Weights(
                encoder=encoder * (unit / self.read.scale),
                bias=bias * unit,
                centre=self.read.centre.clone(),
                decoder=self.decoder * (self.write.scale / unit),
                offset=self.write.centre + self.write.scale * self.offset,
                skip=self.skip * self.write.scale / self.read.scale[:, None]
                if self.dictionary.skip
                else None,
                threshold=None if threshold is None else threshold * unit,
            )

    def tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        out = {"idle": self.idle, **{name: p.detach() for name, p in self.parameters().items()}}
        for side, standard in (("read", self.read), ("write", self.write)):
            out |= {f"{side}.centre": standard.centre, f"{side}.scale": standard.scale}
        out |= {f"objective.{name}": value for name, value in self.state.items()}
        for name, parameter in self.parameters().items():
            for moment, value in self.optimiser.state[parameter].items():
                out[f"adam.{name}.{moment}"] = value
        return out

    def restore(self, tensors: Mapping[str, Tensor], step: int, history: list[dict[str, Json]]) -> None:
        """Go on from what `tensors` gave after ``step`` steps."""
        device = self.dictionary.device
        with torch.no_grad():
            self.idle.copy_(tensors["idle"])
            for name, value in self.state.items():
                value.copy_(tensors[f"objective.{name}"])
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
