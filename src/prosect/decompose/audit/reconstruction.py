"""L1: how much worse the model gets when it is given reconstructions, and whether their errors are like random ones.

The share of the loss lost is 1 minus the loss recovered against the mean (`..evaluation.spliced`), because zeros are so
bad that anything looks good beside them. Beside it: nats, KL, error against random errors of the same length, and, where
a scaling curve is given, the compute with which a model as good as the spliced one is trained (Gao et al. 2024, "Scaling
and evaluating sparse autoencoders": the loss of a spliced model was that of one trained with a tenth of the compute).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from prosect.core.errors import BadInput, Unsupported
from prosect.core.exhibits import Figure
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.controls import lossless, shuffled
from prosect.decompose.audit.lines import Line, line_of, not_run
from prosect.decompose.contract import Decomposition
from prosect.decompose.evaluation.spliced import BESIDE, Spliced, splice

CONTROLS = {
    "absent": "the identity in its place",
    "present": "random directions, as many and as sparse",
    "null": "its reconstructions of other positions",
}


def reconstruction(case: Case) -> Line:
    """L1.

    The number falls back on the fraction of variance unexplained where there is no loss: inputs that are no
    tokens, and no loss given.
    """
    seed = case.seed.child("L1")
    four: dict[str, Decomposition] = {
        "measured": case.dictionary,
        "absent": lossless(case.dictionary),
        "present": case.random,
        "null": shuffled(case.dictionary, seed.child("shuffled")),
    }
    unexplained = {name: fvu(case, d) for name, d in four.items()}
    errors = Figure(
        name="variance unexplained", measured=unexplained["measured"], unit="share", about="on held-out text"
    )
    if case.loss is None and case.seen.tokens is None:
        remark = "there is no loss to splice against, so the number is the share of variance unexplained"
        return line_of("L1", unexplained, CONTROLS, (errors,), (remark,))
    found = {
        name: splice(
            case.runs,
            case.sample,
            case.part,
            d,
            case.means,
            seed,
            case.effort.rows,
            case.loss,
            case.predicts,
            BESIDE if name == "measured" else ("mean",),
        )
        for name, d in four.items()
    }
    own = found["measured"]
    figures = (errors, *_figures(own), *_compute(case, own))
    if own.recovered["mean"].estimate is None:
        return not_run("L1", own.recovered["mean"].note, figures)
    lost = {name: less(spliced.recovered["mean"]) for name, spliced in found.items()}
    return line_of("L1", lost, CONTROLS, figures, _remarks(own))


def less(measured: Measured) -> Measured:
    """1 minus a number."""
    if measured.estimate is None:
        return measured
    ends = {
        "low": None if measured.high is None else 1.0 - measured.high,
        "high": None if measured.low is None else 1.0 - measured.low,
    }
    return measured.model_copy(update={"estimate": 1.0 - measured.estimate, **ends})


def fvu(case: Case, decomposition: Decomposition) -> Measured:
    """Fraction of variance unexplained on held-out text, over documents; the mean over the sites it writes."""
    seen = case.seen
    error, spread = (np.zeros(len(seen)) for _ in range(2))
    made: dict[str, list[torch.Tensor]] = {site: [] for site in decomposition.writes}
    for start in range(0, len(seen), 4096):
        block = {site: seen.x[site][start : start + 4096] for site in decomposition.reads}
        for site, rows in decomposition.reconstruct(block).items():
            made[site].append(rows.cpu())
    for site in decomposition.writes:
        y = seen.x[site].double()
        own = (y - y.mean(dim=0)).square().sum(dim=1)
        total = float(own.sum())
        if not total > 0:
            raise Unsupported(f"the variance at {site}, which does not vary", "activations that do")
        error += (y - torch.cat(made[site]).double()).square().sum(dim=1).numpy() / total
        spread += own.numpy() / total
    sums = np.stack(
        [np.bincount(seen.unit, weights=w, minlength=seen.units) for w in (spread, error)], axis=1
    )
    resamples = Resamples(seen.units, INTERVAL_DRAWS, case.seed.child("L1", "fvu"))
    return resamples.measure([sums], Mean(low=0.0)).measured


def compute_equivalent(curve: Sequence[tuple[float, float]], loss: float) -> float:
    """The compute that reaches a loss, on a line between the measured models, both on logarithmic scales.

    Args:
        curve: (compute, loss) of at least two models of one family; more compute, lower loss.
        loss: between the highest and the lowest of them.

    Raises:
        BadInput: the curve does not fall, or the loss lies outside of it: it is not extrapolated.
    """
    points = sorted(curve)
    if len(points) < 2 or any(c <= 0 or x <= 0 for c, x in points):
        raise BadInput(
            f"a scaling curve of {len(points)} points", "at least two, of positive compute and loss"
        )
    losses = [x for _, x in points]
    if any(b >= a for a, b in pairwise(losses)):
        raise BadInput(f"losses {losses[:6]} with growing compute", "losses that fall")
    if not losses[-1] <= loss <= losses[0]:
        raise BadInput(
            f"a loss of {loss:.4g} beside a curve from {losses[0]:.4g} to {losses[-1]:.4g}",
            "a curve that reaches it: it is not extrapolated",
        )
    logs = np.log(np.array(points))
    return float(math.exp(np.interp(-math.log(loss), -logs[:, 1], logs[:, 0])))


def _figures(own: Spliced) -> tuple[Figure, ...]:
    out = [
        Figure(name="loss of the model", measured=own.losses["clean"], unit="nats"),
        Figure(name="loss added by splicing", measured=own.added, unit="nats"),
        Figure(name="loss recovered against zeros", measured=own.recovered["zero"], unit="share"),
        Figure(name="loss recovered against the mean", measured=own.recovered["mean"], unit="share"),
    ]
    if "spliced" in own.kl:
        out.append(
            Figure(name="KL from the model to the spliced one", measured=own.kl["spliced"], unit="nats")
        )
    if own.pathology is not None:
        about = "above 1: what is left out matters more than its size says"
        out.append(
            Figure(
                name="KL over that of random errors as long",
                measured=own.pathology,
                unit="ratio",
                about=about,
            )
        )
    return tuple(out)


def _compute(case: Case, own: Spliced) -> tuple[Figure, ...]:
    """Compute of a model as good as the spliced one, over that of one as good as the model."""
    name = "compute-equivalent of the spliced model"
    if not case.curve:
        nothing = Measured(estimate=None, note="not run: no scaling curve was given")
        return (Figure(name=name, measured=nothing, unit="share"),)
    clean, spliced = own.losses["clean"], own.losses["spliced"]
    try:
        whole = compute_equivalent(case.curve, clean.estimate or 0.0)
        ends = [
            None if x is None else compute_equivalent(case.curve, x) / whole
            for x in (spliced.estimate, spliced.high, spliced.low)
        ]
    except BadInput as error:
        return (Figure(name=name, measured=Measured(estimate=None, note=f"not run: {error}"), unit="share"),)
    measured = Measured(
        estimate=ends[0], low=ends[1], high=ends[2], n=spliced.n, method="from the loss's interval"
    )
    return (
        Figure(
            name=name, measured=measured, unit="share", about="of the compute behind the model's own loss"
        ),
    )


def _remarks(own: Spliced) -> tuple[str, ...]:
    p = own.pathology
    if p is None or p.low is None or p.high is None:
        return ()
    if p.low > 1:
        return ("the errors are structured: random ones of the same length do less harm",)
    if p.high < 1:
        return ("the errors do less harm than random ones of the same length",)
    return ("the errors do about as much harm as random ones of the same length",)
