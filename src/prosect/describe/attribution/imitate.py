"""A readable model in place of the network: how well it imitates, on rows it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData
from prosect.core.intervals import INTERVAL_DRAWS, Contrast, Resamples, Term
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Cost, Explicand
from prosect.describe.attribution.features import choose
from prosect.describe.attribution.fidelity import Determination, sums
from prosect.describe.attribution.surrogates import KINDS, Surrogate, fit
from prosect.model import Model
from prosect.model.inputs import Inputs
from prosect.model.sweep import Metric


@dataclass(frozen=True, eq=False)
class Imitation:
    """A surrogate and its fidelity.

    Attributes:
        surrogate: the readable model.
        fidelity: R² of its predictions of the network's metric on held-out rows, with its interval over
            independent units.
        shuffled: control: the same for one fitted to the metric permuted over rows.
        rivals: the same for every other kind, fitted to the same rows.
        difference: fidelity minus each rival's, paired.
        fitted: rows it was fitted to.
        heldout: rows it was judged on; no independent unit is in both.
        place: the input that its features are numbers of.
        cost: rows that went through the model.
    """

    surrogate: Surrogate
    fidelity: Measured
    shuffled: Measured
    rivals: Mapping[str, Measured]
    difference: Mapping[str, Measured]
    fitted: int
    heldout: int
    place: str
    cost: Cost = field(repr=False)


def imitate(
    model: Model,
    batch: Inputs,
    metric: Metric,
    kind: str = "additive",
    *,
    site: str | None = None,
    groups: Tensor | None = None,
    heldout: float = 0.3,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> Imitation:
    """Fit a readable model to what a network gives.

    Args:
        model: opened.
        batch: rows with a continuous input; several hundred are not too many.
        metric: (output, batch) → one number for each row.
        kind: ``linear``, ``tree`` or ``additive``.
        site: name of the input tensor; by default the first that holds floating-point numbers.
        groups: which feature each number of a row belongs to; a feature is then the mean of its numbers.
        heldout: share of the independent units that it is judged on.
        seed: of the split and of ties.
        budget_mb: memory that one pass may take, as estimated.

    Raises:
        UnknownName: no such kind.
        BadInput: a share that leaves nothing to fit or nothing to judge on.
        TooLittleData: fewer than ten rows to fit, or fewer than two units to judge on.
        Unsupported: no continuous input.
    """
    if not 0 < heldout < 1:
        raise BadInput(f"heldout={heldout}", "a share between 0 and 1")
    rows = model.batch(batch)
    cut, present = choose(model, rows, "inputs", site, groups)
    explicand = Explicand(model, rows, metric, cut, present, budget_mb)
    y = explicand.itself().numpy()
    count = np.bincount(cut.assign.reshape(-1).numpy())
    x: Float[np.ndarray, "rows features"] = cut.gather(explicand.x).cpu().numpy() / count
    root = Seed(seed).child("imitate")
    unit = np.unique(rows.units)
    judged = root.child("split").numpy().permutation(unit)[: max(1, round(heldout * len(unit)))]
    test = np.isin(rows.units, judged)
    if len(judged) < 2:
        raise TooLittleData(f"{len(judged)} held-out units", "at least 2", "more rows")
    learn = np.flatnonzero(~test)
    order = root.child("shuffled").numpy().permutation(learn)
    kinds = [kind, *(k for k in KINDS if k != kind)]
    made = [fit(k, x[learn], y[learn], root.child(k)) for k in kinds]
    made.append(fit(kind, x[learn], y[order], root.child("null")))
    terms = [Term([sums(y[test], m.predict(x[test]), rows.units[test])]) for m in made]
    wanted = [Contrast(i) for i in range(len(made))] + [Contrast(0, i) for i in range(1, len(kinds))]
    draws = Resamples(len(judged), INTERVAL_DRAWS, root.child("interval"))
    found = [r.measured for r in draws.contrasts(terms, wanted, Determination())]
    return Imitation(
        made[0],
        found[0],
        found[len(kinds)],
        dict(zip(kinds[1:], found[1:], strict=False)),
        dict(zip(kinds[1:], found[len(made) :], strict=True)),
        len(learn),
        int(test.sum()),
        cut.place,
        explicand.cost,
    )
