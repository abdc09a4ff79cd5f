"""Beside L4: how well single latents are described by the concepts, against how many latents fire.

If sparsity stood for interpretability, the sparser of two dictionaries would be the one whose latents are described
better. An absorbing dictionary is sparser and described worse: each hole in a latent is one latent less that fires.
"""

from __future__ import annotations

import torch

from prosect.core.exhibits import Figure
from prosect.core.intervals import INTERVAL_DRAWS, Resamples
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.concepts import F1Gap, sums_of
from prosect.decompose.evaluation.probing import sparse_probe


def described_by_sparsity(case: Case) -> list[Figure]:
    """For the audited dictionary and each that it is compared with, one point of the curve, with its interval.

    A dictionary's score is the F1 of the best single latent for a concept, chosen on some documents and scored on
    others, mean over concepts; L0 is at the same positions.
    """
    wanted = case.concepts
    x = wanted.seen.beside(case.dictionary.reads)[wanted.order].double()
    labels = {name: wanted.at(name) for name in wanted.labels}
    unit, units = wanted.scored
    resamples = Resamples(units, INTERVAL_DRAWS, case.seed.child("L4", "curve"))
    points = []
    for dictionary in (case.dictionary, *case.compared):
        codes = (wanted if dictionary is case.dictionary else wanted.coded_by(dictionary)).ordered
        sums = []
        for y in labels.values():
            one = sums_of(sparse_probe(codes, x, y, (1,)), 1, y, unit, units)
            one[:, :2], one[:, 2:4] = one[:, 2:4].copy(), 0.0  # the latent's F1 less nothing
            sums.append(one)
        l0 = float((codes.values != 0).sum(dim=1).to(torch.float64).mean())
        found = resamples.measure(sums, F1Gap(), weights=[1.0 / len(sums)] * len(sums)).measured
        name = f"concepts told by one latent of {dictionary.name} with {dictionary.latents:,}, at L0 {l0:.2f}"
        points.append((l0, Figure(name=name, measured=found, unit="F1", about="mean over concepts")))
    return [figure for _, figure in sorted(points, key=lambda point: point[0])]
