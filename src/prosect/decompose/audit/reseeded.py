"""L9, beside the eight: would another seed have found the same latents?"""

from __future__ import annotations

import torch

from prosect.core.exhibits import Figure
from prosect.core.records import Measured
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.lines import Line, exact, not_run
from prosect.decompose.audit.reconstruction import less
from prosect.decompose.evaluation.stability import SHARED, stability
from prosect.decompose.quality import recovery

CONTROLS = {
    "absent": "the same dictionary, its latents in another order",
    "present": "random directions, matched to it in the same way",
    "null": "likewise: what matching finds by chance",
}
DRAWS = 5


def reseeded(case: Case) -> Line:
    """L9. Two dictionaries give a number without an interval; three give one, over seeds."""
    own = case.dictionary
    if not case.others:
        return not_run("L9", "one dictionary was given: train and give at least one from another seed")
    alike = stability([own, *case.others], case.seed.child("L9"))
    chance = []
    for draw in range(DRAWS):
        g = case.seed.child("L9", "random", draw).torch()
        drawn = torch.randn(own.decoder_.shape, generator=g, dtype=torch.float64)
        chance.append(1.0 - float(recovery(drawn, own.decoder_).cosines.mean()))
    by_chance = Measured(
        estimate=sum(chance) / DRAWS,
        low=min(chance),
        high=max(chance),
        n=DRAWS,
        method="random dictionaries, range",
    )
    latents = alike.latents[0]
    figures = (
        Figure(name="mean cosine of matched latents (PW-MCC)", measured=alike.mcc, unit="cosine"),
        Figure(
            name="latents that two seeds have in common",
            measured=alike.shared,
            unit="share",
            about=f"what they read and what they write both at cosine {SHARED} or more",
        ),
        Figure(
            name="its latents that others find at .9 or more",
            measured=exact(float((latents >= 0.9).double().mean())),
            unit="share",
        ),
    )
    same = 1.0 - float(recovery(own.decoder_.flip(0), own.decoder_).cosines.mean())
    return Line(
        "L9",
        less(alike.mcc),
        exact(max(same, 0.0)),
        by_chance,
        by_chance,
        controls=CONTROLS,
        figures=figures,
        remarks=(f"{1 + len(case.others)} dictionaries that differ in their seeds",),
        unit="seed",
    )
