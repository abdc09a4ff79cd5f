"""Did superposition sneak through? Features that a network keeps in activations too small to be noticed.

A network with a sparse activation function is read by its largest activations. If each feature had a neuron, as many
activations as the input has features would say everything. So keep just those, put the rest to zero, and see what
the network has lost of each feature; then keep just the rest, and see what it still knows. A LayerNorm behind the
activation function makes the second possible: it gives an input without a large activation the same length as any
other (Elhage et al. 2022, "Softmax linear units", on what SoLU with a LayerNorm may hide).

It can be asked only where features are known: the planted ones of an organism, or labelled concepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.data.batch import Batch
from prosect.decompose.activations import Runs
from prosect.model.edits import replace

HALF = 0.5
"""A feature has sneaked through where at least half of what the network knows of it goes with the quiet activations
or is said by them alone, and no neuron by itself says half of what all of them say."""
PRESENT = 10
"""Fewer rows with a feature say nothing about it."""
RIDGE = 1e-3

Losses = Callable[[Tensor], Float[Tensor, "n features"]]
"""The model's main output → each feature's own loss in each row."""


@dataclass(frozen=True)
class Hidden:
    """What the quiet activations of a site carry, feature by feature.

    Attributes:
        lost: share of what the network knows of a feature that goes when only the loudest activations stay: 0 where
            they say it all, 1 where nothing is left, above 1 where what is left misleads.
        quiet: share that the rest says alone; below 0 where it misleads.
        alone: variance of the feature's strength that the best single neuron explains over what all do linearly,
            chosen and fitted on one half of the rows and measured on the other; 0 to 1.
        amplified: how much longer the norm behind the site makes rows with the feature, as a geometric mean; None
            without one.
        known: the loss of knowing nothing less the loss as it is: what the network knows of each feature. Shares
            of a feature it knows nothing of (``known`` not above 0) are NaN.
    """

    lost: Float[np.ndarray, " features"]
    quiet: Float[np.ndarray, " features"]
    alone: Float[np.ndarray, " features"]
    known: Float[np.ndarray, " features"]
    amplified: Float[np.ndarray, " features"] | None

    @property
    def sneaked(self) -> Bool[np.ndarray, " features"]:
        """Features kept in small activations of several neurons; False for those the network does not know."""
        return np.asarray((np.fmax(self.lost, self.quiet) >= HALF) & (self.alone < HALF))

    @property
    def share(self) -> float:
        """How much of all that the network knows is lost: `lost`, weighted by ``known``."""
        there = self.known > 0
        return float((self.lost[there] * self.known[there]).sum() / self.known[there].sum())


def hidden(
    model: Runs,
    site: str,
    batch: Batch,
    strengths: Float[Tensor, "n features"],
    losses: Losses,
    norm: str | None = None,
    nothing: Float[np.ndarray, " features"] | None = None,
) -> Hidden:
    """Test one site of a network for features in small activations.

    Args:
        model: opened for study; its main output is (n, ...).
        site: activations (n, neurons), after the activation function and before any norm.
        batch: inputs.
        strengths: of each feature in each of them; 0 where it is absent.
        losses: of each feature in each row, from the model's output.
        norm: the norm behind ``site``, if there is one.
        nothing: each feature's loss for one who knows nothing of the input; by default that of the network with
            every activation at its mean.

    Raises:
        ShapeMismatch: activations, strengths or losses are not one row for each input.
        TooLittleData: a feature is in fewer than 10 rows of either half.
        BadInput: the network knows nothing of any feature.
    """
    trace = model.run(batch, capture=(site,) if norm is None else (site, norm))
    act = trace[site].detach()
    if act.ndim != 2 or len(act) != len(strengths):
        raise ShapeMismatch(
            f"activations {tuple(act.shape)} at {site} and strengths {tuple(strengths.shape)}",
            "one row of each for each input",
        )
    on = strengths != 0
    halves = torch.arange(len(act)) % 2 == 0
    least = min(int(on[half].sum(dim=0).min()) for half in (halves, ~halves))
    if least < PRESENT:
        raise TooLittleData(
            f"a feature that is in {least} rows of a half", f"at least {PRESENT}", "more rows"
        )
    loud = loudest(act, on.sum(dim=1))

    def without(value: Tensor) -> Float[np.ndarray, " features"]:
        out = model.run(batch, edits=[replace(site, lambda _: value.to(act.dtype))]).output
        return _mean(losses(out), strengths)

    whole = _mean(losses(trace.output), strengths)
    if nothing is None:
        nothing = without(act.mean(dim=0, keepdim=True).expand_as(act).clone())
    known = nothing - whole
    if not (known > 0).any():
        raise BadInput(f"a network that does without {site}", "one that knows some feature by it")
    over = np.where(known > 0, known, np.nan)
    return Hidden(
        lost=(without(act * loud) - whole) / over,
        quiet=(nothing - without(act * ~loud)) / over,
        alone=alone(act if norm is None else trace[norm].detach(), act, strengths),
        known=known,
        amplified=None if norm is None else _amplified(act, trace[norm].detach(), on),
    )


def loudest(act: Float[Tensor, "n neurons"], keep: Tensor) -> Bool[Tensor, "n neurons"]:
    """The ``keep`` (n,) activations of each row that are largest in magnitude; of equal ones the first."""
    rank = act.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < keep[:, None]


def alone(
    everything: Float[Tensor, "n width"],
    neurons: Float[Tensor, "n neurons"],
    strengths: Float[Tensor, "n features"],
) -> Float[np.ndarray, " features"]:
    """What the best neuron says of each feature over what a linear readout of ``everything`` says; 0 to 1.

    Both are chosen or fitted on the even rows and measured on the odd ones as squared correlations.
    """
    fit = torch.arange(len(strengths)) % 2 == 0
    s = strengths.double()
    r2 = _squared(neurons[fit].double(), s[fit])
    best = r2.argmax(dim=0)
    single = _squared(neurons[~fit].double(), s[~fit])[best, torch.arange(s.shape[1])]
    x = everything.double()
    x = torch.cat([(x - x[fit].mean(dim=0)), torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    gram = x[fit].T @ x[fit]
    ridge = RIDGE * gram.diagonal()[:-1].mean() * torch.eye(len(gram), dtype=x.dtype)
    readout = torch.linalg.solve(gram + ridge, x[fit].T @ s[fit])
    together = _squared(x[~fit] @ readout, s[~fit]).diagonal()
    return (single / torch.maximum(single, together).clamp(min=1e-12)).numpy()


def _squared(x: Float[Tensor, "n a"], y: Float[Tensor, "n b"]) -> Float[Tensor, "a b"]:
    """Squared correlations; 0 for a constant."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    spread = x.square().sum(dim=0)[:, None] * y.square().sum(dim=0)
    return torch.where(spread > 0, (x.T @ y).square() / spread.clamp(min=1e-300), 0.0)


def _mean(
    each: Float[Tensor, "_ _"], strengths: Float[Tensor, "n features"]
) -> Float[np.ndarray, " features"]:
    if each.shape != strengths.shape:
        raise ShapeMismatch(f"losses {tuple(each.shape)}", f"{tuple(strengths.shape)}, one for each feature")
    return np.asarray(each.detach().double().mean(dim=0).numpy())


def _amplified(
    before: Float[Tensor, "n neurons"], after: Float[Tensor, "n neurons"], on: Bool[Tensor, "n features"]
) -> Float[np.ndarray, " features"]:
    ratio = (after.double().norm(dim=1) / before.double().norm(dim=1).clamp(min=1e-12)).log()
    weight = on.double()
    return np.asarray((weight.T @ ratio / weight.sum(dim=0)).exp().numpy())
