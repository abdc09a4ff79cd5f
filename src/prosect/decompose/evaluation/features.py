"""How much of what is known did it find? One answer for each definition of a feature, and no sum of them.

A dictionary may point along every feature and fire at the wrong places, fire at the right places and write something
else, or span a plane with other axes than those that were meant. Each of these is a success by one definition and a
failure by another (Sharkey et al. 2025, "Open problems in mechanistic interpretability", on the missing definition of
a feature), so `recovered` answers under one definition, says which, and `pooled` refuses to average two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData, UnknownName, Unsupported
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.base import SEED
from prosect.decompose.contract import Codes, Decomposition
from prosect.decompose.definitions import (
    DIRECTION,
    LATENT,
    LINE,
    SUBSPACE,
    VARIABLE,
    Definition,
    one_definition,
)
from prosect.decompose.evaluation.detection import LabelledStream, detect
from prosect.decompose.evaluation.seeds import over_seeds
from prosect.decompose.quality import unit_rows

PAIRS = 256
"""Exchanges for each feature, half of them to a row without it and half to a row with it."""

ROUNDING = 1e-12
"""An effect this small beside what is computed, squared, is none."""


@dataclass(frozen=True)
class Known:
    """What made a stream of activations at one site.

    Args:
        stream: held-out activations with the strength of every feature in each row.
        directions: what a strength of 1 adds to the activations; their lengths count for causal variables.
        groups: features that are one subspace together; each alone where none are named.
        then: what is computed from the activations, on which exchanges have their effect; by default the
            activations themselves.
        seed: of the pairs of rows that exchange something.
    """

    stream: LabelledStream
    directions: Float[Tensor, "features width"]
    groups: tuple[tuple[int, ...], ...] = ()
    then: Callable[[Tensor], Tensor] = lambda x: x
    seed: Seed = SEED

    def __post_init__(self) -> None:
        if len(self.directions) != self.stream.features:
            raise ShapeMismatch(
                f"{len(self.directions)} directions", f"{self.stream.features}, as the stream labels"
            )


@dataclass(frozen=True)
class Answer:
    """What part of what is known was found, under one definition.

    Attributes:
        definition: what counted as a feature.
        of: the decomposition's name.
        each: for every feature, or for every group where features are subspaces; NaN where it could not be asked.
    """

    definition: Definition
    of: str
    each: Float[np.ndarray, " features"]

    @property
    def mean(self) -> float:
        """Mean over those that could be asked.

        Raises:
            TooLittleData: none could.
        """
        asked = self.each[~np.isnan(self.each)]
        if not len(asked):
            raise TooLittleData(
                f"no {self.definition} of which anything is known", "at least one", "more rows"
            )
        return float(asked.mean())

    def __str__(self) -> str:
        return f"{self.mean:.3f} as {self.definition} ({self.definition.alike})"


Measure = Callable[[Decomposition, Known], Float[np.ndarray, " features"]]
"""How much of each known feature a decomposition found."""


def recovered(
    decomposition: Decomposition, known: Known, definition: Definition, measure: Measure | None = None
) -> Answer:
    """How much of each known feature a decomposition found, under one definition.

    Args:
        decomposition: fitted; it reads and writes the one site of the stream.
        known: what made the activations.
        definition: what counts as a feature.
        measure: how, for a definition of your own.

    Raises:
        UnknownName: nothing says how a definition of that name is measured.
        Unsupported: the decomposition lacks what the definition needs, such as directions.
        ShapeMismatch: the measure does not give a row of numbers.
    """
    if measure is None:
        if definition not in MEASURES:
            raise UnknownName(
                "definition", definition.name, [d.name for d in MEASURES], "saying how: measure="
            )
        measure = MEASURES[definition]
    each = np.asarray(measure(decomposition, known), dtype=float)
    if each.ndim != 1:
        raise ShapeMismatch(f"answers of shape {each.shape}", "one number for each feature")
    return Answer(definition, decomposition.name, each)


def pooled(answers: Sequence[Answer]) -> tuple[Definition, Measured]:
    """The mean over independent runs, such as seeds, with its interval, and the definition they share.

    Raises:
        Conflict: they mean different things by a feature.
        TooLittleData: there is none.
    """
    return one_definition(answers), over_seeds([answer.mean for answer in answers])


def as_directions(decomposition: Decomposition, known: Known) -> Float[np.ndarray, " features"]:
    """The largest cosine of each feature with any component."""
    return np.asarray(_cosines(decomposition, known).max(dim=1).values.numpy())


def as_lines(decomposition: Decomposition, known: Known) -> Float[np.ndarray, " features"]:
    """The largest absolute cosine of each feature with any component."""
    return np.asarray(_cosines(decomposition, known).abs().max(dim=1).values.numpy())


def as_latents(decomposition: Decomposition, known: Known) -> Float[np.ndarray, " features"]:
    """The F1 of the component that fires most as the feature does, chosen and measured on different rows."""
    found = detect(decomposition, known.stream)
    return np.where(found.seen.numpy(), found.f1.double().numpy(), np.nan)


def as_subspaces(decomposition: Decomposition, known: Known) -> Float[np.ndarray, " groups"]:
    """How much of each group's span lies in that of as many components, taken greedily by what they add."""
    directions = unit_rows(decomposition.directions)
    out = []
    for group in known.groups or tuple((i,) for i in range(len(known.directions))):
        whole = _basis(known.directions[list(group)].detach().cpu().double())
        taken: list[int] = []
        left = whole
        for _ in range(len(whole)):
            share = (directions @ left.T).square().sum(dim=1)
            share[taken] = -1.0
            taken.append(int(share.argmax()))
            along = left @ directions[taken[-1]]
            if float(along.norm()) < 1e-9:
                break
            turn = torch.linalg.qr(along[:, None], mode="complete").Q[
                :, 1:
            ]  # what of the span is still missing
            left = turn.T @ left
        spanned = _basis(directions[taken])
        out.append(float((whole @ spanned.T).square().sum()) / len(whole))
    return np.array(out)


def as_variables(decomposition: Decomposition, known: Known) -> Float[np.ndarray, " features"]:
    """What part of the effect of exchanging a feature between inputs it has to exchange a component's code.

    The component is the one whose codes correlate most with the feature's strength on even rows. On odd rows, a row
    with the feature takes the value of one without, and the other way round: in truth, and by moving the activation
    along what the component writes by the difference of its codes. 1 − Σ‖effect missed‖² / Σ‖effect‖²: interchange
    interventions (Geiger et al. 2021, "Causal abstractions of neural networks"), graded by size.
    """
    if decomposition.reads != decomposition.writes or len(decomposition.reads) != 1:
        raise Unsupported(
            f"exchanging values by {decomposition.name}", "a decomposition that reads and writes one site"
        )
    site = decomposition.reads[0]
    x, codes, strengths = _held(decomposition, known, site)
    component = _most_alike(codes, strengths)
    written = decomposition.directions.detach().cpu().double()
    true = known.directions.detach().cpu().double()
    odd = torch.arange(1, len(x), 2)
    out = np.full(len(true), np.nan)
    for feature, latent in enumerate(component.tolist()):
        s = strengths[:, feature]
        with_it, without = odd[s[odd] != 0], odd[s[odd] == 0]
        n = min(PAIRS // 2, len(with_it), len(without))
        if not n:
            continue
        rng = known.seed.child("exchange", feature).numpy()
        pairs = torch.stack(
            [torch.from_numpy(rng.permutation(rows.numpy())[:n].copy()) for rows in (with_it, without)]
        )
        into, source = torch.cat([pairs, pairs.flip(0)], dim=1)
        codes_of = codes.columns([latent]).double()[:, 0]
        meant = x[into] + (s[source] - s[into])[:, None] * true[feature]
        made = x[into] + (codes_of[source] - codes_of[into])[:, None] * written[latent]
        before, right, got = (known.then(rows).double() for rows in (x[into], meant, made))
        effect = float((right - before).square().sum())
        if effect > ROUNDING * float(before.square().sum()):
            out[feature] = 1.0 - float((right - got).square().sum()) / effect
    return out


MEASURES: dict[Definition, Measure] = {
    DIRECTION: as_directions,
    LINE: as_lines,
    LATENT: as_latents,
    SUBSPACE: as_subspaces,
    VARIABLE: as_variables,
}


def _cosines(decomposition: Decomposition, known: Known) -> Float[Tensor, "features components"]:
    return unit_rows(known.directions) @ unit_rows(decomposition.directions).T


def _basis(rows: Float[Tensor, "n width"]) -> Float[Tensor, "rank width"]:
    """Orthonormal rows with the same span.

    Raises:
        BadInput: the span has no dimension.
    """
    _, sizes, axes = torch.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[0].clamp(min=1e-300)).sum())
    if not rank:
        raise BadInput("directions that are all zero", "a span of at least one dimension")
    basis: Tensor = axes[:rank]
    return basis


def _held(decomposition: Decomposition, known: Known, site: str) -> tuple[Tensor, Codes, Tensor]:
    """Activations, codes and strengths of all rows."""
    x, codes, strengths = [], [], []
    for block, indices, values in known.stream.labelled():
        x.append(block[site].detach().cpu().double())
        codes.append(decomposition.encode(block))
        strengths.append(Codes(indices, values, known.stream.features).dense().double())
    return torch.cat(x), Codes.joined(codes), torch.cat(strengths)


def _most_alike(codes: Codes, strengths: Float[Tensor, "n features"]) -> Tensor:
    """On even rows, the component whose codes correlate most with each feature's strength."""
    even = Codes(codes.indices[::2].cpu(), codes.values[::2].cpu().double(), codes.width)
    s = strengths[::2] - strengths[::2].mean(dim=0)
    s /= s.norm(dim=0).clamp(min=1e-300)
    z = even.dense()
    z -= z.mean(dim=0)
    z /= z.norm(dim=0).clamp(min=1e-300)
    chosen: Tensor = (s.T @ z).argmax(dim=1)
    return chosen
