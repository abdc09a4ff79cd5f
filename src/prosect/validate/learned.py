"""Is a component's score beyond what untrained networks give?

A rule can truly predict a latent of an untrained network, so random weights do not make a claim false;
they make it unlearned. The same explainer is run on components of independently seeded untrained networks,
and the claim's score is ranked among all of theirs, pooled: p = (1 + how many reach it) / (1 + pool).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from prosect.core.intervals import Correlation
from prosect.core.proportions import rank_p
from prosect.core.records import Comparison, Evidence, Measured, Rival
from prosect.data.batch import Batch
from prosect.validate.predict import PredictActivations
from prosect.validate.subject import Captured, Subject
from prosect.validate.tester import DrawCache, Item

KIND = "learned"
METRIC = "rank of the correlation among those of untrained networks"
POOL = "untrained-networks"


class Learned:
    """Ranks claims among the pooled scores of untrained networks on the same fold."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        self.items, self.subject, self.fold = list(items), subject, fold
        own = [Item(i.hypothesis, i.plan.model_copy(update={"rivals": ()})) for i in self.items]
        self.own = PredictActivations(own, subject, fold)
        first = self.items[0]
        pool = next(r for r in first.plan.rivals if r.name == POOL)
        stand_in = Rival(
            name=POOL,
            role="control",
            decides=False,
            components=pool.components,
            descriptions=pool.descriptions,
        )
        plan = first.plan.model_copy(update={"rivals": (stand_in,)})
        self.pool = PredictActivations([Item(first.hypothesis, plan)], subject, fold)

    def sites(self) -> tuple[str, ...]:
        """What the claims' own components read."""
        return self.own.sites()

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Measure the claims, and every untrained network on the same inputs."""
        self.own.update(batch, trace, output)
        self.pool.update(batch, trace, output)

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item."""
        members = self.pool.rivals[0][0]
        scores = np.array([float(Correlation().value(self.pool.sums.total[i].sum(axis=0))) for i in members])
        out = []
        low, middle, high = (float(q) for q in np.quantile(scores, [0.025, 0.5, 0.975]))
        rival = Measured(
            estimate=middle,
            low=low,
            high=high,
            n=len(self.subject.untrained),
            method=f"median and 95 % range of {len(scores)} components of {len(self.subject.untrained)} networks",
        )
        for item, evidence in zip(self.items, self.own.finish(draws), strict=True):
            score = evidence.measured.estimate
            p = None if score is None else rank_p(score, scores)
            gap = Measured(
                estimate=None if score is None else score - high,
                n=len(self.subject.untrained),
                note="above the 97.5 % quantile of untrained networks",
            )
            decides = next(r.decides for r in item.plan.rivals if r.name == POOL)
            comparison = Comparison(
                rival=POOL, role="control", decides=decides, measured=rival, difference=gap, margin=0.0, p=p
            )
            ready = evidence.units >= item.plan.units_min and evidence.firing >= item.plan.firing_min
            out.append(
                evidence.model_copy(
                    update={
                        "test": item.plan.name,
                        "comparisons": (comparison,),
                        "p": p,
                        "enough": ready and p is not None,
                    }
                )
            )
        return out
