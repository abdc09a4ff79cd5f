"""Weights between latents: what a latent that writes to the residual stream adds to what a later one reads.

W[i, j] = decoder row of i · (the way through the stream) · encoder row of j does not depend on the input, because the
stream is a sum (Elhage et al. 2021, "A mathematical framework for transformer circuits", virtual weights; for
transcoders Dunefsky, Chlenski & Nanda 2024, "Transcoders find interpretable LLM feature circuits", section 3). On an
input, code × weight, over the scale of the norm in front of the reader, is what i adds to the pre-activation of j: all
latents, offset, error and the rest of the stream add up to it exactly. What goes by attention or through other MLPs is
another way and is not in it; `Route.ignored` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.data.batch import Batch
from prosect.decompose.contract import Codes
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.routes import Route
from prosect.model.model import Model


@dataclass(frozen=True)
class VirtualWeights:
    """Input-invariant weights from the latents of one dictionary to those of another.

    Attributes:
        first: name of the dictionary that writes.
        second: name of the one that reads.
        routes: the ways that are counted, one for each site written, all to one site.
        weights: what a code of 1 adds to each pre-activation; where a norm lies on the way, at a scale of 1.
    """

    first: str
    second: str
    routes: tuple[Route, ...]
    weights: Float[Tensor, "writers readers"]

    @property
    def ignored(self) -> tuple[str, ...]:
        """What lies between and is not counted."""
        return tuple(dict.fromkeys(name for route in self.routes for name in route.ignored))

    def strongest(self, n: int = 10) -> list[tuple[int, int, float]]:
        """The n weights of largest magnitude: (latent that writes, latent that reads, weight)."""
        flat = self.weights.flatten()
        order = flat.abs().argsort(descending=True, stable=True)[:n].tolist()
        width = self.weights.shape[1]
        return [(i // width, i % width, float(flat[i])) for i in order]

    def contributions(
        self, codes: Codes, latent: int, inverse: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n k"]:
        """What each code of each row adds to the pre-activation of one latent, in the order of ``codes.indices``.

        Args:
            codes: of the first dictionary.
            latent: of the second.
            inverse: one over the norm's scale in each row; None where no norm lies on the way.

        Raises:
            BadInput: a norm lies on the way and no scale is given, or there is no such latent.
            ShapeMismatch: the codes are of another dictionary, or scales are not one for each row.
        """
        if codes.width != len(self.weights):
            raise ShapeMismatch(
                f"codes of {codes.width} latents", f"{len(self.weights)}, as {self.first} has"
            )
        if not 0 <= latent < self.weights.shape[1]:
            raise BadInput(f"latent {latent} of {self.second}", f"0 to {self.weights.shape[1] - 1}")
        if inverse is None and any(route.scaled for route in self.routes):
            raise BadInput(
                f"codes without the scales of the norm before {self.routes[0].read}",
                "one over its scale in each row",
                "account(), which reads them off the model",
            )
        if inverse is not None and len(inverse) != len(codes):
            raise ShapeMismatch(f"{len(inverse)} scales for {len(codes)} rows", "one for each row")
        each = codes.values.cpu().double() * self.weights[codes.indices.cpu(), latent]
        return each if inverse is None else each * inverse.cpu().double()[:, None]


def virtual_weights(first: Dictionary, second: Dictionary, routes: Sequence[Route]) -> VirtualWeights:
    """Weights from the latents of ``first`` to those of ``second``; their biases are no part of them.

    Args:
        first: what writes, such as a transcoder of an early MLP.
        second: what reads, such as one of a later MLP.
        routes: from sites that ``first`` writes to one that ``second`` reads: `prosect.decompose.routes.route` finds one in
            a model, ``Route(write, read)`` is the bare stream.

    Raises:
        BadInput: no route, routes to several sites, or one that occurs twice.
        UnknownName: a site is not written, or not read.
        ShapeMismatch: widths at the two ends of a route differ.
    """
    reads = {route.read for route in routes}
    if len(reads) != 1 or len({route.write for route in routes}) != len(routes):
        raise BadInput(
            f"routes {', '.join(f'{r.write} to {r.read}' for r in routes) or 'of no site'}",
            "one for each site written, all to one site that is read",
        )
    encoder = second.encoder(reads.pop()).detach().cpu().double()
    total = torch.zeros(first.n_components, second.n_components, dtype=torch.float64)
    for route in routes:
        decoder = first.decoder(route.write).detach().cpu().double()
        if decoder.shape[1] != encoder.shape[1]:
            raise ShapeMismatch(
                f"{decoder.shape[1]} numbers at {route.write} and {encoder.shape[1]} at {route.read}",
                "two sites as wide as one stream",
            )
        total += route.carry(decoder) @ encoder.T
    return VirtualWeights(first.name, second.name, tuple(routes), total)


@dataclass(frozen=True)
class Account:
    """What the pre-activation of one latent is made of, position by position; everything adds up to it.

    Attributes:
        latent: of the second dictionary.
        codes: of the first, at the real positions of the batch.
        latents: what each of those codes adds, in the order of ``codes.indices``.
        offset: what the first dictionary writes without any latent.
        error: what it leaves out of what is written; a skip around its latents counts here.
        rest: everything else in the stream, what went by attention or other MLPs included.
        constant: the reader's own bias and centre, and the norm's bias.
        whole: the pre-activation, by the second dictionary's own encoder on what the model read.
    """

    latent: int
    codes: Codes
    latents: Float[Tensor, "n k"]
    offset: Float[Tensor, " n"]
    error: Float[Tensor, " n"]
    rest: Float[Tensor, " n"]
    constant: float
    whole: Float[Tensor, " n"]

    @property
    def total(self) -> Float[Tensor, " n"]:
        """The sum of the parts: ``whole``, but for rounding."""
        return self.latents.sum(dim=1) + self.offset + self.error + self.rest + self.constant


def account(
    model: Model, batch: Batch, first: Dictionary, second: Dictionary, virtual: VirtualWeights, latent: int
) -> Account:
    """Split the pre-activation of one latent on a batch of inputs.

    Args:
        model: that both dictionaries are of; it has a single stream for each position.
        batch: inputs.
        first, second: as for `virtual_weights`.
        virtual: their weights, by routes of this model.
        latent: of ``second``, which reads one site.

    Raises:
        BadInput: no such latent, ``second`` reads several sites, or a route is of no model.
    """
    read = virtual.routes[0].read
    if second.reads != (read,):
        raise BadInput(f"an account of {second.name}", f"a dictionary that reads {read} alone")
    if any(not route.stream for route in virtual.routes):
        raise BadInput("a route of no model", "one that route(model, write, read) found")
    writes = [route.write for route in virtual.routes]
    sites = tuple(dict.fromkeys((*first.reads, *writes, virtual.routes[0].stream, read)))
    with torch.no_grad():
        trace = model.run(batch, capture=sites, stop_early=True)
        held = {site: batch.flat(trace[site]).detach() for site in sites}
        codes = first.encode({site: held[site] for site in first.reads})
    route = virtual.routes[0]
    stream, seen = held[route.stream].cpu().double(), held[read].cpu().double()
    inverse = route.inverse(held[route.stream]).cpu()
    reader = second.encoder(read)[latent].detach().cpu().double()
    offset, error, rest = torch.zeros_like(stream[:1]), torch.zeros_like(stream), stream.clone()
    for one in virtual.routes:
        written = held[one.write].cpu().double()
        columns = first.span({s: first.widths_[s] for s in first.writes}, one.write)
        alone = first.offset_[columns].cpu().double()
        made = F.embedding_bag(
            codes.indices.cpu(),
            first.decoder(one.write).detach().cpu().double(),
            per_sample_weights=codes.values.cpu().double(),
            mode="sum",
        )
        offset = offset + one.factor * alone
        error = error + one.factor * (written - made - alone)
        rest = rest - one.factor * written

    def says(part: Tensor) -> Tensor:
        return inverse * (route.through(part) @ reader)

    bias = second.bias_[latent].cpu().double()
    here = bias - second.centre_.cpu().double() @ reader
    return Account(
        latent,
        codes,
        virtual.contributions(codes, latent, inverse),
        says(offset.expand_as(stream)),
        says(error),
        says(rest),
        float(here + route.shift(len(reader)) @ reader),
        seen @ reader + here,
    )
