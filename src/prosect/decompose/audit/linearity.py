"""L3: is what is wanted there, but along no direction? Hidden units against a linear probe, and circles among latents.

Dictionaries, probes and steering all look for directions. Where hidden units read a concept much better, that is the
wrong place to look. Latents that lie near each other and whose writes go round a circle have tiled what is one feature
of two dimensions (Engels et al. 2024, "Not all language model features are one-dimensionally linear").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.exhibits import Figure
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.lines import Line, exact, line_of
from prosect.decompose.contract import Codes
from prosect.decompose.evaluation.circles import GAUSSIAN_RADIUS, LEAST, MIXTURE, circles
from prosect.decompose.evaluation.nonlinear import readout

CONTROLS = {
    "absent": "a concept planted along a direction of the same activations",
    "present": "a concept planted as a ring in their two widest directions",
    "null": "the same concepts, at other positions",
}
NEIGHBOURS, POINTS, COMPONENTS = 8, 600, 3
WIDEST, HIDDEN = 8, 128
"""Principal components that hidden units see, and how many units: a ring among two of very many is not found."""


def linearity(case: Case) -> Line:
    """L3."""
    wanted, seed = case.concepts, case.seed.child("L3")
    x = wanted.seen.beside(case.dictionary.reads)[wanted.order]
    view = _widest(x)
    plane = view[:, :2]
    ring = plane.square().sum(dim=1)
    labels = {name: wanted.at(name) for name in wanted.labels}
    mixed = torch.from_numpy(seed.child("mixed").numpy().permutation(len(x)))
    asked: dict[str, dict[str, Tensor]] = {
        "measured": labels,
        "absent": {
            "direction": plane[:, 0] > plane[:, 0].median(),
            "second": plane[:, 1] > plane[:, 1].median(),
        },
        "present": {"ring": ring > ring.median()},
        "null": {name: label[mixed] for name, label in labels.items()},
    }
    unit, units = wanted.scored
    found = {name: _gaps(x, view, each, unit, units, seed.child(name)) for name, each in asked.items()}
    own = found["measured"]
    per = sorted(((gap.estimate or 0.0, name, gap) for name, gap in own.each.items()), reverse=True)
    figures = [
        Figure(name=f"hidden units add: {name}", measured=gap, unit="accuracy", about=own.said[name])
        for _, name, gap in per[:4]
    ]
    around = round_ones(case, seed.child("circles"))
    figures += [
        Figure(
            name="groups of latents whose writes go round a circle",
            measured=exact(float(around.circular)),
            unit=f"of {around.searched}",
            about=f"{around.chance} with directions drawn at random; p ≤ .05 over all groups",
        ),
        Figure(
            name="latents that tile the fullest circle", measured=exact(float(around.tiling)), unit="latents"
        ),
    ]
    remarks = [f"{len(labels)} concepts, probes fitted and scored on different documents"]
    if around.more:
        remarks.append("some latents tile a circle: one feature of two dimensions is shown as several")
    remarks.append(
        f"hidden units see the {WIDEST} widest directions: what is nonlinear in others is not found"
    )
    means = {name: gaps.mean for name, gaps in found.items()}
    return line_of("L3", means, CONTROLS, tuple(figures), tuple(remarks))


@dataclass(frozen=True)
class _Gaps:
    mean: Measured
    each: dict[str, Measured]
    said: dict[str, str]


def _gaps(
    x: Tensor, view: Tensor, labels: dict[str, Bool[Tensor, " n"]], unit: Tensor, units: int, seed: Seed
) -> _Gaps:
    """Accuracy that hidden units add, mean over concepts and for each, over documents."""
    parts, each, said = [], {}, {}
    resamples = Resamples(units, INTERVAL_DRAWS, seed.child("resamples"))
    for name, y in labels.items():
        found = readout(x, y, seed.child("probe", name), hidden=HIDDEN, view=view)
        linear, beside = found.right.double().numpy()
        columns = [
            np.bincount(unit, weights=w, minlength=units) for w in (np.ones_like(linear), beside - linear)
        ]
        parts.append(np.stack(columns, axis=1))
        each[name] = resamples.measure(parts[-1:], Mean(-1.0, 1.0)).measured
        said[name] = f"{found.linear:.3f} to {found.hidden:.3f}, chance {found.chance:.3f}"
    mean = resamples.measure(parts, Mean(-1.0, 1.0), weights=[1.0 / len(parts)] * len(parts)).measured
    return _Gaps(mean, each, said)


def _widest(x: Float[Tensor, "n width"]) -> Float[Tensor, "n widest"]:
    """The widest principal components, each of variance 1, the widest first."""
    centred = (x - x.mean(dim=0)).double()
    _, axes = torch.linalg.eigh(centred.T @ centred)
    plane = centred @ axes[:, -WIDEST:].flip(1)
    scaled: Tensor = plane / plane.std(dim=0).clamp(min=1e-12)
    return scaled


@dataclass(frozen=True)
class Round:
    """Circles among latents.

    Attributes:
        searched: groups of neighbouring latents that fired often enough to be searched.
        circular: those whose writes go round a circle.
        chance: the same with their directions drawn at random: latents that exclude each other lie on rays, and
            rays can pass for a circle.
        tiling: latents of the fullest circular group.
    """

    searched: int
    circular: int
    chance: int
    tiling: int

    @property
    def more(self) -> bool:
        """Whether more groups are circular than with random directions (Fisher's exact test, p at most .05)."""
        from scipy.stats import fisher_exact

        table = [[n, self.searched - n] for n in (self.circular, self.chance)]
        return bool(self.searched) and float(fisher_exact(table, "greater").pvalue) <= 0.05


def round_ones(case: Case, seed: Seed) -> Round:
    """Search groups of latents with the nearest directions for circles in what they write together."""
    directions = case.dictionary.directions.cpu().double()
    groups = _groups(case.codes, directions, case.effort.clusters, seed)
    draws = 20 * (COMPONENTS * (COMPONENTS - 1) // 2) * max(len(groups), 1) - 1
    searched, chance, tiling = 0, 0, []
    for number, group in enumerate(groups):
        columns = case.codes.columns(group).double()
        rows = (columns != 0).any(dim=1).nonzero().flatten()
        if len(rows) < LEAST:
            continue
        drawn = rows[torch.from_numpy(seed.child("rows", number).numpy().permutation(len(rows))[:POINTS])]
        codes, own = columns[drawn], directions[group]
        other = torch.randn(own.shape, generator=seed.child("other", number).torch(), dtype=torch.float64)
        other = torch.nn.functional.normalize(other, dim=1) * own.norm(dim=1, keepdim=True)
        found = [goes_round(codes @ d, seed.child(number), draws, len(groups)) for d in (own, other)]
        searched, chance = searched + 1, chance + found[1]
        if found[0]:
            tiling.append(int((codes != 0).any(dim=0).sum()))
    return Round(searched, len(tiling), chance, max(tiling, default=0))


def goes_round(points: Float[Tensor, "n width"], seed: Seed, draws: int, groups: int) -> bool:
    """Whether some plane holds a circle, at p of .05 over all groups."""
    sizes = torch.linalg.svdvals(points - points.mean(dim=0))
    if int((sizes > 1e-6 * sizes[0]).sum()) < 2:
        return False
    return any(
        p.p * groups <= 0.05 and p.mixture < MIXTURE and p.radius < GAUSSIAN_RADIUS
        for p in circles(points, seed, COMPONENTS, draws)
    )


def _groups(codes: Codes, directions: Tensor, most: int, seed: Seed) -> list[list[int]]:
    """Latents drawn by how often they fire, each with its nearest neighbours among those that fire."""
    firing = codes.firing().double()
    alive = (firing > 0).nonzero().flatten()
    if len(alive) < 2:
        return []
    share = (firing[alive] / firing[alive].sum()).numpy()
    count = min(most, len(alive))
    drawn: Sequence[int] = (
        seed.child("groups").numpy().choice(len(alive), count, replace=False, p=share).tolist()
    )
    unit = torch.nn.functional.normalize(directions[alive], dim=1)
    near = (unit[drawn] @ unit.T).topk(min(NEIGHBOURS, len(alive)), dim=1).indices
    return [alive[row].tolist() for row in near]
