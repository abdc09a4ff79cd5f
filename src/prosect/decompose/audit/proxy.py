"""L4: sparse and yet not interpretable: a concept's latent falls silent where others write the concept instead.

The number is the share of a concept that latents other than its best one write, at positions where it is present, by the
rule of SAEBench (`..evaluation.absorption`). Several latents for one concept (splitting) and holes that more special
latents fill (absorption) both show in it; a figure gives absorption by itself, as SAEBench has it, where latents that
each raise F1 by .03 belong to the concept. None of it means anything for concepts that no few latents carry: those are
counted, and left to L8. The instrument is shown what it must find: codes made by hand for the same concepts on the same
activations, whole, and with half of each concept moved to a latent of its own. Chance is what is read when all other
latents fire as they do at other positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import TooLittleData, Unsupported
from prosect.core.exhibits import Figure
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.curve import described_by_sparsity
from prosect.decompose.audit.lines import Line, exact
from prosect.decompose.audit.wanted import Wanted, rows_of
from prosect.decompose.contract import Codes
from prosect.decompose.evaluation.absorption import absorption
from prosect.decompose.evaluation.description import description_length
from prosect.decompose.evaluation.logistic import logistic
from prosect.decompose.evaluation.probing import parts_of, sparse_probe
from prosect.decompose.evaluation.seeds import over_seeds
from prosect.decompose.quality import measure
from prosect.decompose.streams import first

CONTROLS = {
    "absent": "a latent written by hand for each concept, whole",
    "present": "the same, half of each concept moved to another latent",
    "null": "all latents but the concept's own taken from other positions",
}
PARTS = (1, 2, 3, 4, 5)
CARRIED = 0.5
"""How far from always saying yes to never being wrong a few latents must bring F1, to count as carrying a concept."""
DESCRIBED = 4096


def proxy(case: Case) -> Line:
    """L4."""
    wanted, seed = case.concepts, case.seed.child("L4")
    view = View.of(case, wanted)
    labels = {name: wanted.at(name) for name in wanted.labels}
    every = {name: view.absorbed(y, seed.child("null", name)) for name, y in labels.items()}
    own = {name: found for name, found in every.items() if found.carried >= CARRIED}
    if not own:
        raise TooLittleData(
            f"none of {len(every)} concepts carried by up to {max(PARTS)} latents",
            "one at least: what no latent carries cannot be absorbed, see L8",
        )
    hand = {name: view.by_hand(labels[name], seed.child("hand", name)) for name in own}
    unit, units = wanted.scored
    resamples = Resamples(units, INTERVAL_DRAWS, seed.child("resamples"))

    def mean(parts: list[tuple[Tensor, Tensor]]) -> Measured:
        sums = [
            np.stack(
                [
                    np.bincount(unit[at], weights=w, minlength=units)
                    for w in (np.ones(len(value)), value.numpy())
                ],
                axis=1,
            )
            for at, value in parts
        ]
        return resamples.measure(sums, Mean(-1.0, 1.0), weights=[1.0 / len(sums)] * len(sums)).measured

    worst = sorted(own.items(), key=lambda pair: -float((pair[1].fraction - pair[1].chance[0]).mean()))[:3]
    split = over_seeds([float(found.parts) for found in own.values()], "concept")
    figures = [
        Figure(
            name="latents that a concept is split into",
            measured=split,
            unit="latents",
            about="mean over concepts",
        ),
        Figure(
            name=f"concepts that at most {max(PARTS)} latents carry",
            measured=exact(float(len(own))),
            unit=f"of {len(every)}",
            about="their F1 half of the way or more from always saying yes to 1; the number is of these",
        ),
        *(
            Figure(
                name=f"written by others beyond chance: {name}",
                measured=mean([(found.at, found.fraction - found.chance[0])]),
                unit="share",
            )
            for name, found in worst
        ),
        Figure(
            name="absorbed, its own latents all those that raise F1 by .03",
            measured=mean([(f.at, f.beyond) for f in own.values()]),
            unit="share",
            about="SAEBench's rule, chance included",
        ),
        Figure(
            name="written by others, chance included",
            measured=mean([(f.at, f.fraction) for f in own.values()]),
            unit="share",
        ),
        Figure(
            name="written by others by chance",
            measured=mean([(f.at, f.chance[0]) for f in own.values()]),
            unit="share",
        ),
        Figure(
            name="absorption planted by hand",
            measured=exact(_planted(hand)),
            unit="share",
            about="to be read again",
        ),
        *_described(case),
        *described_by_sparsity(case),
    ]
    return Line(
        "L4",
        measured=mean([(f.at, f.fraction - f.chance[0]) for f in own.values()]),
        absent=mean([(f.at, f.whole) for f in hand.values()]),
        present=mean([(f.at, f.moved) for f in hand.values()]),
        null=mean([(f.at, f.chance[1] - f.chance[0]) for f in own.values()]),
        controls=CONTROLS,
        figures=tuple(figures),
        remarks=("a concept's best latent is the one whose mean code tells it best on other documents",),
    )


@dataclass(frozen=True)
class Absorbed:
    """One concept at the odd rows where it is.

    Attributes:
        at: their places among odd rows.
        fraction: share of it that latents other than its best write.
        chance: the same by chance, twice.
        beyond: share that latents other than its own parts write.
        parts: latents that it is split into.
        carried: how far a few latents bring F1 from always saying yes to 1.
    """

    at: Tensor
    fraction: Float[Tensor, " present"]
    chance: Float[Tensor, "2 present"]
    beyond: Float[Tensor, " present"]
    parts: int
    carried: float


@dataclass(frozen=True)
class ByHand:
    """One concept coded by hand: what is read where it is whole, where half is moved, and the share that was."""

    at: Tensor
    whole: Float[Tensor, " present"]
    moved: Float[Tensor, " present"]
    share: float


@dataclass(frozen=True)
class View:
    """What is written at the labelled positions, in their order, and the dictionary's codes there."""

    codes: Codes
    y: Float[Tensor, "n width"]
    x: Float[Tensor, "n width"]
    directions: Float[Tensor, "latents width"]

    @classmethod
    def of(cls, case: Case, wanted: Wanted) -> View:
        """Raises Unsupported where it writes nothing that its latents have a direction in."""
        dictionary = case.dictionary
        y = wanted.seen.beside(dictionary.writes)[wanted.order].double()
        if dictionary.skip:
            raise Unsupported(
                "absorption in a dictionary with a linear path around its latents",
                "one whose latents write all that is written",
            )
        offset = dictionary.offset_.detach().cpu().double()
        x = wanted.seen.beside(dictionary.reads)[wanted.order].double()
        return cls(wanted.ordered, y - offset, x, dictionary.decoder_.detach().cpu().double())

    def probe(self, label: Bool[Tensor, " n"]) -> Float[Tensor, " width"]:
        """The direction of a concept in what is written, from even rows."""
        scale = self.y[::2].std(dim=0).clamp(min=1e-12)
        weights, _ = logistic((self.y[::2] - self.y[::2].mean(dim=0)) / scale, label[::2])
        return weights / scale

    def absorbed(self, label: Bool[Tensor, " n"], seed: Seed) -> Absorbed:
        """What latents other than a concept's own say of it, on odd rows."""
        found = sparse_probe(self.codes, self.y, label, [k for k in PARTS if k <= self.codes.width])
        parts, main = parts_of(found.f1), found.latents.tolist()
        yes = 2.0 * float(label[1::2].double().mean()) / (1.0 + float(label[1::2].double().mean()))
        carried = (max(found.f1.values()) - yes) / max(1.0 - yes, 1e-12)
        at, rows = _present(label)
        probe, y, here = self.probe(label), self.y[rows], rows_of(self.codes, rows)
        drawn = torch.from_numpy(seed.numpy().integers(len(label), size=(2, len(rows))))

        def read(codes: Codes, own: Sequence[int]) -> Tensor:
            return absorption(codes, self.directions, y, probe, own).fraction

        chance = [read(beside(here, rows_of(self.codes, other), main[:1]), main[:1]) for other in drawn]
        return Absorbed(
            at, read(here, main[:1]), torch.stack(chance), read(here, main[:parts]), parts, carried
        )

    def by_hand(self, label: Bool[Tensor, " n"], seed: Seed) -> ByHand:
        """The same reading of codes in which the concept is one latent, and of codes in which half of it is moved."""
        probe = self.probe(label)
        unit = probe / probe.norm()
        other = torch.from_numpy(seed.child("other").numpy().standard_normal(len(unit)))
        other = other - (other @ unit) * unit
        child = (unit + other / other.norm()) / 2**0.5 if len(unit) > 1 else unit
        at, rows = _present(label)
        size = (self.y[rows] @ unit).clamp(min=0.0)
        moved = torch.from_numpy(seed.child("moved").numpy().random(len(rows))) < 0.5
        directions = torch.stack([unit, child])
        which = torch.zeros((len(rows), 1), dtype=torch.long)
        whole = absorption(Codes(which, size[:, None], 2), directions, self.y[rows], probe, [0]).fraction
        factor = torch.where(moved, 1.0 / float(child @ unit), 1.0)
        part = Codes(moved.long()[:, None], (size * factor)[:, None], 2)
        read = absorption(part, directions, self.y[rows], probe, [0]).fraction
        share = float((moved & (size > 0)).double().mean())
        return ByHand(at, whole, read, share)


def beside(own: Codes, others: Codes, main: Sequence[int]) -> Codes:
    """Some latents as they fire in one set of rows, all others as they fire in another."""
    kept = torch.zeros(own.width, dtype=torch.bool)
    kept[torch.tensor(list(main))] = True
    values = [
        torch.where(kept[own.indices], own.values, 0.0),
        torch.where(kept[others.indices], 0.0, others.values),
    ]
    return Codes(torch.cat([own.indices, others.indices], dim=1), torch.cat(values, dim=1), own.width)


def _present(label: Tensor) -> tuple[Tensor, Tensor]:
    """Odd rows where a concept is: their places among odd rows, and among all."""
    at = label[1::2].nonzero().flatten()
    return at, 2 * at + 1


def _planted(hand: dict[str, ByHand]) -> float:
    return float(np.mean([f.share for f in hand.values()]))


def _described(case: Case) -> list[Figure]:
    """Nats for a position at the error the dictionary has; none where it spans several sites."""
    name = "nats that describe a position"
    if len(case.dictionary.writes) != 1 or case.dictionary.skip:
        note = "not run: it spans several sites or has a linear path around its latents"
        return [Figure(name=name, measured=Measured(estimate=None, note=note), unit="nats")]
    stream = first(case.seen.stream, min(DESCRIBED, len(case.seen)))
    site = case.dictionary.writes[0]
    error = measure(case.dictionary, stream).fvu[site]
    if error is None or error >= 0.95:
        note = f"not run: it leaves {error or 1.0:.2f} of the variance unexplained"
        return [Figure(name=name, measured=Measured(estimate=None, note=note), unit="nats")]
    asked = min(0.99, error + 0.05 * (1.0 - error))
    found = description_length(case.dictionary, stream, asked)
    about = f"its share of the dictionary included, at {asked:.3f} of the variance unexplained"
    return [
        Figure(
            name=name,
            measured=Measured(
                estimate=found.per_position, n=found.positions, note="one description: no interval"
            ),
            unit="nats",
            about=about,
        )
    ]
