"""Training a dictionary through its model: what counts is not the activations but what the model makes of them.

Braun et al. 2024, "Identifying functionally important features with end-to-end sparse dictionary learning": the
error is the KL divergence from the model's predictions to those it makes with the dictionary's reconstruction
in the place of its activations, with a weight on the error of later layers' activations if wanted
(their e2e + downstream). Activations that the model does not use then cost nothing, and no latents are spent on
them.

At first that is slow to learn from: there are a few numbers at each position to tell by, and not as many as
activations have. So a share of the training, the first, may go by the activations' own error (`Recipe.local`); a
short end is then enough (Karvonen 2025, "Revisiting end-to-end sparse autoencoder training: a short finetune is all
you need").

Gradients pass through the model into the reconstruction and from there into the dictionary. They are taken with
respect to the reconstruction alone, so the model's parameters receive none, whether they are frozen or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import ShapeMismatch, Unsupported
from prosect.data.batch import Batch
from prosect.decompose.activations import read
from prosect.decompose.base import at_least_single
from prosect.decompose.contract import ActivationStream
from prosect.decompose.live import LiveStream
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.start import scaling
from prosect.decompose.streams import first
from prosect.decompose.trainer import Trainer

if TYPE_CHECKING:
    from prosect.decompose.dictionary import Dictionary


@dataclass(frozen=True)
class Through:
    """A model in which what some sites hold can be replaced, and what that does.

    Attributes:
        model: what is run, such as a `prosect.model.Model`.
        spans: the columns of each site replaced, where sites lie side by side.
        later: sites whose activations should stay as they are too.
        downstream: the weight of their error.
    """

    model: Any
    spans: Mapping[str, slice]
    later: tuple[str, ...] = ()
    downstream: float = 0.0

    def divergence(
        self,
        clean: Any,
        made: Float[Tensor, "n writes"],
        scales: Mapping[str, Float[Tensor, " _"]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What is lost with ``made`` in the place of the activations, differentiable in ``made``.

        Args:
            clean: a trace of the model as it is, with the sites replaced and the later ones.
            made: what to put there at scored positions, in the model's units.
            scales: of the later sites: the root of the mean square of their centred activations.

        Returns:
            The KL divergence in nats, from the clean predictions to those made now, mean over scored positions;
            and the mean square error of the later sites in units of their scales, mean over sites (0 if there
            are none).
        """
        from prosect.model.edits import patch

        batch: Batch = clean.batch
        edits = [patch(site, _placed(clean[site], made[:, span], batch)) for site, span in self.spans.items()]
        spliced = self.model.run(batch, capture=self.later, edits=edits, grad=True)
        p, q = (
            torch.log_softmax(at_least_single(batch.flat(x)).flatten(1), dim=-1)
            for x in (clean.output.detach(), spliced.output)
        )
        nats = (p.exp() * (p - q)).sum(dim=-1).mean()
        if not self.later:
            return nats, nats.new_zeros(())
        errors = []
        for site in self.later:
            far = (batch.flat(spliced[site]) - batch.flat(clean[site])).flatten(1)
            errors.append((far / (scales or {}).get(site, 1.0)).square().mean())
        return nats, torch.stack(errors).mean()


class ThroughTrainer(Trainer):
    """A training through a model.

    Dead latents cannot learn from what the reconstruction misses, most of which may not matter. They learn to
    write what would lower the error: its negative gradient, as long as the residual is.

    Attributes:
        turn: the step from which on what counts is what the model makes of it.

    Args:
        dictionary: what is trained, and how; its recipe says ``end_to_end``.
        stream: the model and its inputs; every batch is a step.
        ranks: one process.

    Raises:
        Unsupported: activations without their model, an objective whose loss is more than an error and a penalty, several ranks, or a model
            of which it is not known what comes later.
    """

    def __init__(self, dictionary: Dictionary, stream: ActivationStream, ranks: Ranks = ALONE) -> None:
        if not isinstance(stream, LiveStream):
            raise Unsupported(
                "end-to-end training on activations alone", "a LiveStream, which has their model", "--live"
            )
        objective = dictionary.trained_by
        if objective.several:
            raise Unsupported(
                f"{objective.name} end to end, whose loss needs several reconstructions in each step",
                "one that needs one, such as topk, batchtopk, l1 or jumprelu",
            )
        if ranks.size > 1:
            raise Unsupported(f"end-to-end training by {ranks.size} ranks", "one process")
        self.inputs = by_step(stream, dictionary.recipe.batch)
        super().__init__(dictionary, stream.widths, sum(1 for _ in self.inputs.batches()), ranks)
        recipe = dictionary.recipe
        later = later_sites(stream.model, dictionary.writes) if recipe.downstream else ()
        spans = dict(zip(self.writes, self.spans, strict=True))
        self.through = Through(stream.model, spans, later, recipe.downstream)
        self.later: dict[str, Tensor] = {}
        self.turn = round(recipe.local * self.steps)
        self._pull = torch.zeros(0)
        self._losses: dict[str, float] = {}

    def over(self, stream: ActivationStream) -> Iterator[None]:
        """See `Trainer.over`; the model runs on the inputs."""
        for batch in islice(self.inputs.batches(), self.step, None):
            self.through_model(batch)
            yield

    def start(self, stream: ActivationStream) -> None:
        """See `Trainer.start`; later sites are scaled likewise."""
        sites = tuple(dict.fromkeys((*self.reads, *self.writes, *self.through.later)))
        sample = first(replace(self.inputs, sites=sites), self.recipe.start_rows)
        super().start(sample)
        for site in self.through.later:
            width = {site: sample.widths[site]}
            self.later[site] = scaling(sample.arrays, width, self.recipe).scale.to(self.dictionary.device)

    def through_model(self, batch: Batch) -> None:
        """One training step on a batch of the model's inputs."""
        own = tuple(dict.fromkeys((*self.reads, *self.writes)))
        if self.step < self.turn:
            self.advance(read(self.through.model, batch, own, f"the batch of step {self.step}"))
            return
        if self.step == self.turn:
            self.optimiser.state.clear()  # gradients of another error have another size
        with torch.no_grad():
            clean = self.through.model.run(batch, capture=(*own, *self.through.later))
        here: Batch = clean.batch
        flat = {site: here.flat(clean[site]).flatten(1) for site in own}
        y = self._standard(flat, self.writes, self.write)
        self._learn(self._standard(flat, self.reads, self.read), y, partial(self._error, clean, y))

    def _error(self, clean: Any, y: Tensor, residual: Tensor) -> Tensor:
        """What is lost, and its gradient as if it were that of the residual."""
        made = (y - residual).detach().requires_grad_()
        natural = made * self.write.scale + self.write.centre
        nats, far = self.through.divergence(clean, natural, self.later)
        loss = nats + self.through.downstream * far
        (gradient,) = torch.autograd.grad(loss, made)
        self._pull = -gradient
        self._losses = {"kl": float(nats.detach())}
        if self.through.later:
            self._losses["downstream"] = float(far.detach())
        slope = (residual * -gradient).sum()
        return loss.detach() + slope - slope.detach()

    def _missing(self, residual: Tensor) -> Tensor:
        if self.step < self.turn:
            return residual
        size = self._pull.norm()
        return self._pull * (residual.detach().norm() / size) if size > 0 else residual.detach()

    def note(self) -> str:
        """See `Trainer.note`; with the KL divergence in nats."""
        said = super().note()
        if not self._losses:
            return said
        self.history[-1] |= self._losses
        return f"{said} KL {self._losses['kl']:.3g}"

    def tensors(self) -> dict[str, Tensor]:
        """See `Trainer.tensors`."""
        return super().tensors() | {f"later.{site}": scale for site, scale in self.later.items()}

    def restore(self, tensors: Mapping[str, Tensor], step: int, history: list[dict[str, Json]]) -> None:
        """See `Trainer.restore`."""
        super().restore(tensors, step, history)
        device = self.dictionary.device
        self.later = {site: tensors[f"later.{site}"].to(device) for site in self.through.later}


def by_step(stream: LiveStream, positions: int) -> LiveStream:
    """The same inputs in batches of as many rows as have at most ``positions`` positions, and at least one."""
    longest = next(stream.batches()).mask
    width = 1 if longest is None else longest.shape[1]
    return replace(stream, rows=max(1, positions // width))


def later_sites(model: Any, writes: tuple[str, ...]) -> tuple[str, ...]:
    """The residual stream after each layer from the last of some sites on, without these themselves.

    Raises:
        Unsupported: the model has no numbered layers, or none is later.
    """
    layers = [model.sites.site(site).layer for site in writes] if hasattr(model, "sites") else []
    known = [int(layer) for layer in layers if layer is not None]
    count = getattr(model, "n_layers", None)
    if count is None or len(known) < len(writes):
        raise Unsupported(
            f"what is later than {', '.join(writes)} in a model without numbered layers there",
            "sites of numbered layers",
            "downstream=0",
        )
    later = tuple(f"resid_post.{layer}" for layer in range(max(known), count))
    later = tuple(site for site in later if site not in writes)
    if not later:
        raise Unsupported(f"layers later than {', '.join(writes)}", "a site before the last", "downstream=0")
    return later


def _placed(clean: Tensor, made: Float[Tensor, "n width"], batch: Batch) -> Tensor:
    """What a site holds, with ``made`` at scored positions."""
    scored = batch.scored
    new = made.to(clean.dtype)
    if scored is None:
        if new.numel() != clean.numel():
            raise ShapeMismatch(f"{tuple(new.shape)} to put in the place of {tuple(clean.shape)}", "as many")
        return new.reshape(clean.shape)
    value = clean.detach().clone()
    value[scored.to(value.device)] = new.reshape(-1, *clean.shape[2:])
    return value
