"""Steering with a dose curve: what adding more and more of a direction does, what else it does, beside random ones.

A direction added to the stream (Turner et al. 2023, "Activation Addition"; Rimsky et al. 2024) does something at
almost any strength that is large enough, and so does a random direction. A curve over strengths says where the
effect is in proportion to the dose, where it saturates, and what it costs elsewhere; random directions of the same
length say how much of it is due to the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.averages import Averages, Wanted
from prosect.describe.doses import Dose, DoseCurve
from prosect.describe.linear_range import line_of
from prosect.model.edits import Edit, Where, steer
from prosect.model.inputs import Inputs
from prosect.model.model import Model

Metric = Callable[[Tensor, Batch], Tensor]
"""(output for some rows, those rows) → one number for each."""

TOLERANCE = 0.1
"""How far a curve may leave its line, as a share of what the line says, and still be called linear."""
CONTROL = "random directions of the same length at the same places"


def dose_curve(
    model: Model,
    inputs: Inputs,
    site: str,
    direction: Float[Tensor, " width"],
    metric: Metric,
    strengths: Sequence[float] = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0),
    *,
    others: Inputs | None = None,
    where: Where | None = None,
    controls: int = 4,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> DoseCurve:
    """Steer rows at every strength, and with random directions beside it.

    Args:
        model: what is steered.
        inputs: the rows.
        site: where the direction is added; of one head, by its name.
        direction: as it is; its length counts.
        metric: of the output, one number for each row.
        strengths: factors on the direction; 0 is added to them.
        others: inputs on which steering should change nothing, for the side effect; the same rows by default,
            where part of the effect is wanted.
        where: positions and heads, as for `edits.steer`; the side effect is measured under the same.
        controls: random directions, each at every strength.
        tolerance: what still counts as linear.
        seed: of the random directions and the intervals.
        budget_mb: of one pass of the sweep.

    Raises:
        UnknownName: no such site.
        ShapeMismatch: a direction of another width, a metric that does not give one number for each row.
        BadInput: no strength but 0, a direction of length 0, no control.
        NotFinite: a strength, the direction or the metric is.
        Unsupported: the site has no single vector for each position, or the outputs are not logits.
        TooLittleData: no scored position on the other inputs.
    """
    batch, root = model.batch(inputs), Seed(seed).child("dose")
    aside = batch if others is None else model.batch(others)
    scale = _strengths(strengths)
    if controls < 1 or not tolerance > 0:
        raise BadInput(f"{controls} controls and a tolerance of {tolerance}", "at least 1, and above 0")
    vector = _fitting(model, site, direction)
    directions = [vector, *(_random(vector, root.child("control", i)) for i in range(controls))]
    places: Where = Where() if where is None else where
    if places.get("rows") is not None:
        raise BadInput("rows of a dose curve", "all rows steered alike", "a batch of those rows")
    edits: list[list[Edit]] = [[]]
    at: list[tuple[int, int]] = []
    for d, one in enumerate(directions):
        for s, strength in enumerate(scale):
            if strength:
                edits.append([steer(site, one, strength, **places)])
                at.append((d, s))
    main = model.sweep(edits, batch, metric, budget_mb)
    numbered = replace(aside, rows=tuple(Row(unit=i) for i in range(len(aside))))
    beside = model.sweep(edits, numbered, _moved(model, numbered), budget_mb)
    weight = _counts(aside)
    value = np.zeros((len(directions), len(scale), len(batch)))
    side = np.zeros((len(directions), len(scale), len(aside)))
    value[:, scale.index(0.0)], side[:, scale.index(0.0)] = main[0], 0.0
    for k, (d, s) in enumerate(at, start=1):
        value[d, s], side[d, s] = main[k], beside[k]
    doses = _doses(scale, value, side, weight, batch.units, aside.units, root)
    slope, linear = line_of(np.array(scale), value[0], batch.units, tolerance, root)
    return DoseCurve(
        model.name,
        model.digest,
        model.sites.resolve(site),
        float(vector.double().norm()),
        _stream(model, batch, site),
        doses,
        slope,
        linear,
        tolerance,
        controls,
        CONTROL,
        "the steered rows themselves" if others is None else f"{len(aside)} other rows",
        len(set(batch.units.tolist())),
        seed,
        value[0],
    )


def _strengths(given: Sequence[float]) -> list[float]:
    found = sorted({0.0, *(float(s) for s in given)})
    if not all(math.isfinite(s) for s in found):
        raise NotFinite(f"strengths {list(given)}", "finite numbers")
    if len(found) < 2:
        raise BadInput(f"strengths {list(given)}", "at least one that is not 0")
    return found


def _fitting(model: Model, site: str, direction: Tensor) -> Tensor:
    info = model.sites.info(site)
    if info.layout == "pattern":
        raise Unsupported(f"a direction at {site}", "a site with one vector for each position")
    if info.width is not None and direction.shape[-1] != info.width:
        raise ShapeMismatch(f"a direction of width {direction.shape[-1]} at {site}", f"{info.width}")
    if not bool(torch.isfinite(direction).all()):
        raise NotFinite("NaN or infinity in the direction", "finite numbers")
    if not bool(direction.any()):
        raise BadInput("a direction of length zero", "a vector with a length")
    return direction.detach().to(model.device, model.dtype)


def _random(like: Tensor, seed: Seed) -> Tensor:
    """A vector of the same length in a uniformly drawn direction."""
    drawn = torch.randn(like.shape, generator=seed.torch(), dtype=torch.float64)
    scaled: Tensor = drawn * (float(like.double().norm()) / drawn.norm())
    return scaled.to(like.device, like.dtype)


def _moved(model: Model, numbered: Batch) -> Metric:
    """KL(as it is ‖ steered) of each row, nats, mean over scored positions (the row itself where it has none)."""
    output = model.run(numbered).output
    if not output.is_floating_point() or output.shape[-1] < 2:
        raise Unsupported(
            f"the side effect on outputs {tuple(output.shape)}", "logits, by which KL is measured"
        )
    base = output.float().log_softmax(dim=-1)

    def metric(changed: Tensor, rows: Batch) -> Tensor:
        before = base[torch.from_numpy(rows.units).to(changed.device)]
        after = changed.float().log_softmax(dim=-1)
        each = (before.exp() * (before - after)).sum(dim=-1, dtype=torch.float64).clamp(min=0.0)
        if rows.scored is None or each.ndim < 2:
            return each.reshape(len(rows), -1).mean(dim=1)
        return (each * rows.scored).sum(dim=1) / rows.scored.sum(dim=1).clamp(min=1)

    return metric


def _counts(batch: Batch) -> Int[np.ndarray, " rows"]:
    counts = np.ones(len(batch), dtype=int) if batch.scored is None else batch.scored.sum(dim=1).cpu().numpy()
    if not counts.any():
        raise TooLittleData("no scored position to measure the side effect on", "at least one", "longer rows")
    return np.asarray(counts)


def _stream(model: Model, batch: Batch, site: str) -> float:
    trace = model.run(batch, [site], stop_early=True)
    x = trace[site]
    flat = batch.flat(x) if model.sites.info(site).layout == "stream" else x
    return float(flat.double().norm(dim=-1).mean())


def _doses(
    scale: list[float],
    value: Float[np.ndarray, "directions doses rows"],
    side: Float[np.ndarray, "directions doses others"],
    weight: Int[np.ndarray, " others"],
    units: Int[np.ndarray, " rows"],
    aside: Int[np.ndarray, " others"],
    seed: Seed,
) -> tuple[Dose, ...]:
    sums, beside = Averages(), Averages()
    zero = scale.index(0.0)
    scored = np.repeat(np.arange(len(weight)), weight)
    for s in range(len(scale)):
        sums.add((s, "metric"), value[0, s], units)
        for d in range(len(value)):
            sums.add((s, d), value[d, s] - value[d, zero], units)
            beside.add((s, d), side[d, s][scored], aside[scored])
    random = range(1, len(value))
    wanted, others = {}, {}
    for s in range(len(scale)):
        drawn = tuple((s, d) for d in random)
        wanted[f"{s} metric"] = Wanted(((s, "metric"),))
        wanted[f"{s} change"], wanted[f"{s} control"] = Wanted(((s, 0),)), Wanted(drawn)
        wanted[f"{s} beyond"] = Wanted(((s, 0),), drawn)
        others[f"{s} side"], others[f"{s} random"] = Wanted(((s, 0),)), Wanted(drawn)
    found = sums.measure(wanted, seed.child("intervals"))
    found |= beside.measure(others, seed.child("side"))
    change = (value[1:] - value[1:, zero : zero + 1]).mean(axis=-1)
    return tuple(
        Dose(
            strength,
            found[f"{s} metric"],
            found[f"{s} change"],
            found[f"{s} control"],
            found[f"{s} beyond"],
            float(change[:, s].std(ddof=1)) if len(change) > 1 else None,
            found[f"{s} side"],
            found[f"{s} random"],
        )
        for s, strength in enumerate(scale)
    )
