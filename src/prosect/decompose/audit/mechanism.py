"""L7: do the weights say what the next latents will be? Predicted on held-out text, with nothing fitted.

A dictionary says which latents are there. Were it a description of the mechanism, its weights together with those of the
next dictionary would say what the next latents are: encode what it writes. A transcoder claims to be the computation
between two sites, so what it makes of its input must be what the module writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from prosect.core.errors import Unsupported
from prosect.core.exhibits import Figure
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.controls import shuffled
from prosect.decompose.audit.lines import Line, line_of, not_run
from prosect.decompose.audit.reconstruction import fvu
from prosect.decompose.dictionary import Dictionary

ROWS = 512
Reads = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Activations of some rows → what the later dictionary is given to encode."""


def mechanism(case: Case) -> Line:
    """L7.

    Raises:
        Unsupported: the later dictionary does not read what this one writes, nor the same stream later.
    """
    own, following = case.dictionary, case.following
    if following is not None:
        return _to_next(case, following)
    if own.reads != own.writes:
        return _transcoded(case)
    return not_run(
        "L7",
        f"{own.name} is one dictionary of one place, and a mechanism has two ends: give a later one with --next, "
        "or a transcoder",
    )


def _to_next(case: Case, following: Dictionary) -> Line:
    own = case.dictionary
    given = _paths(case, own, following)
    mean = _mean(case, following)
    seed = case.seed.child("L7")
    order = torch.from_numpy(seed.child("order").numpy().permutation(len(case.seen)))

    def predicted(x: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        made = own.reconstruct({s: x[s] for s in own.reads})
        return {theirs: made[ours] for theirs, ours in given.items()}

    def as_is(x: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {s: x[s] for s in following.reads}

    def path(x: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {theirs: x[ours] for theirs, ours in given.items()}

    found = {
        "measured": unpredicted(case, following, predicted, mean),
        "absent": unpredicted(case, following, as_is, mean),
        "present": unpredicted(case, following, None, mean),
        "null": unpredicted(case, following, predicted, mean, order),
    }
    figures = []
    if own.reads == own.writes:
        figures.append(
            Figure(
                name="not predicted by the activations themselves, unchanged",
                measured=unpredicted(case, following, path, mean),
                unit="share",
                about="what no dictionary of the earlier site can do better on without what lies between",
            )
        )
    remarks = [
        f"latents of {following.name} from those of {own.name}, through weights alone: nothing is fitted"
    ]
    if own.reads == own.writes:
        remarks.append(
            "what lies between the two sites is left out, so this is what the stream carries along"
        )
    controls = {
        "absent": "the later dictionary on the real activations",
        "present": "every later latent at its mean",
        "null": "predicted from other positions",
    }
    return line_of("L7", found, controls, tuple(figures), tuple(remarks))


def _transcoded(case: Case) -> Line:
    """A transcoder by itself: what it makes of its input against what the module wrote."""
    own = case.dictionary
    written = {site: x.mean(dim=0) for site, x in case.explored.x.items()}
    constant = _constant(own, torch.cat([written[s] for s in own.writes]))
    return Line(
        "L7",
        measured=fvu(case, own),
        absent=_zero(case),
        present=fvu(case, constant),
        null=fvu(case, shuffled(own, case.seed.child("L7", "shuffled"))),
        controls={
            "absent": "what the module writes, exactly",
            "present": "its mean",
            "null": "predicted from other positions",
        },
        remarks=("a transcoder: the share of what the module writes that its latents do not compute",),
    )


def unpredicted(
    case: Case, following: Dictionary, reads: Reads | None, mean: Tensor, order: Tensor | None = None
) -> Measured:
    """Squared error of predicted latents over their squared distance from the mean, over documents.

    Latents count in units of what they write.

    Args:
        case: held-out activations.
        following: whose latents are predicted.
        reads: what it is given in place of what is there; None predicts the mean.
        mean: of its latents, where it was explored.
        order: positions from which each prediction is taken; None for its own.
    """
    seen = case.seen
    size = following.decoder_.detach().cpu().double().norm(dim=1)
    error, spread = (np.zeros(len(seen)) for _ in range(2))
    for start in range(0, len(seen), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(seen)))
        there = _codes(following, {s: seen.x[s][rows] for s in following.reads}) * size
        spread[start : start + ROWS] = (there - mean * size).square().sum(dim=1).numpy()
        at = rows if order is None else order[rows]
        if reads is None:
            made = (mean * size).expand_as(there)
        else:
            made = _codes(following, reads({s: x[at] for s, x in seen.x.items()})) * size
        error[start : start + ROWS] = (there - made).square().sum(dim=1).numpy()
    if not spread.sum() > 0:
        raise Unsupported(
            f"the latents of {following.name}, which never vary here", "a dictionary that fires"
        )
    sums = np.stack(
        [np.bincount(seen.unit, weights=w, minlength=seen.units) for w in (spread, error)], axis=1
    )
    resamples = Resamples(seen.units, INTERVAL_DRAWS, case.seed.child("L7", "resamples"))
    return resamples.measure([sums], Mean(low=0.0)).measured


def _paths(case: Case, own: Dictionary, following: Dictionary) -> dict[str, str]:
    """For each site that the later one reads, the site written here that stands for it.

    Raises:
        Unsupported: there is none for one of them.
    """
    out: dict[str, str] = {}
    for theirs in following.reads:
        if theirs in own.writes:
            out[theirs] = theirs
            continue
        stream = [s for s in own.writes if s.startswith("resid_") and theirs.startswith("resid_")]
        same = [s for s in stream if case.seen.x[s].shape[1] == case.seen.x[theirs].shape[1]]
        if own.reads != own.writes or not same:
            raise Unsupported(
                f"a prediction of {theirs} from what {own.name} writes",
                "a later dictionary that reads what it writes, or two of the residual stream",
            )
        out[theirs] = same[-1]
    return out


def _mean(case: Case, following: Dictionary) -> Tensor:
    total = torch.zeros(following.latents, dtype=torch.float64)
    explored = case.explored
    for start in range(0, len(explored), ROWS):
        rows = {s: explored.x[s][start : start + ROWS] for s in following.reads}
        total += _codes(following, rows).sum(dim=0)
    return total / len(explored)


def _codes(dictionary: Dictionary, x: Mapping[str, Tensor]) -> Tensor:
    return dictionary.encode(x).dense().cpu().double()


def _constant(like: Dictionary, value: Tensor) -> Dictionary:
    """One latent that never fires, and an offset: it always writes this."""
    from prosect.decompose.dictionary import Weights
    from prosect.decompose.sparsity import TopK

    reads = like.encoder_.shape[1]
    weights = Weights(
        torch.zeros(1, reads), torch.zeros(1), torch.zeros(reads), torch.zeros(1, len(value)), value
    )
    return Dictionary(like.reads, 1, TopK(1), like.writes).with_weights(weights, like.widths_)


def _zero(case: Case) -> Measured:
    from prosect.decompose.audit.controls import lossless

    return fvu(case, lossless(case.dictionary))
