"""L8: are the concepts there that are wanted? A probe on a few latents against one on the activations.

A concept that a dense probe reads and that no few latents carry is missing from the dictionary. The control in which all
are missing is made of the user's own: each concept is erased from the activations along the one direction in which its
means differ (after whitening: Belrose et al. 2023, "LEACE"), and the dictionary encodes what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.exhibits import Figure
from prosect.core.intervals import INTERVAL_DRAWS, Resamples
from prosect.core.records import Measured
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.lines import Line
from prosect.decompose.audit.sample import Seen, encoded
from prosect.decompose.audit.wanted import Wanted, rows_of
from prosect.decompose.contract import Codes
from prosect.decompose.evaluation.probing import SparseProbe, sparse_probe

K = 5
KS = (1, 2, 5, 16)
CONTROLS = {
    "absent": "codes that hold each concept's dense probe as a latent",
    "present": "its codes of activations from which the concept was erased",
    "null": "the same concepts, at other positions",
}


@dataclass(frozen=True)
class F1Gap:
    """F1 of one probe less that of another; sums are (hits, calls) of each, and positives. A statistic of `Resamples`."""

    low: float = -1.0
    high: float = 1.0
    k: ClassVar[int] = 5

    def value(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
        a, b = self._f1(sums, 0), self._f1(sums, 2)
        return np.asarray(a - b)

    def gradient(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
        out = np.zeros_like(sums, dtype=float)
        for first, sign in ((0, 1.0), (2, -1.0)):
            below = np.maximum(sums[..., first + 1] + sums[..., 4], 1e-12)
            f1 = self._f1(sums, first)
            out[..., first] += sign * 2.0 / below
            out[..., first + 1] -= sign * f1 / below
            out[..., 4] -= sign * f1 / below
        return out

    def transform(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return value

    def slope(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.ones_like(value)

    def back(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return value

    def _f1(self, sums: np.ndarray, at: int) -> np.ndarray:
        return np.asarray(2.0 * sums[..., at] / np.maximum(sums[..., at + 1] + sums[..., 4], 1e-12))


def concepts(case: Case) -> Line:
    """L8."""
    wanted, seed = case.concepts, case.seed.child("L8")
    x = wanted.seen.beside(case.dictionary.reads)[wanted.order].double()
    labels = {name: wanted.at(name) for name in wanted.labels}
    mixed = torch.from_numpy(seed.child("mixed").numpy().permutation(len(x)))
    unit, units = wanted.scored
    resamples = Resamples(units, INTERVAL_DRAWS, seed.child("resamples"))
    ks = tuple(k for k in KS if k <= case.dictionary.latents)
    k = max((one for one in ks if one <= K), default=1)
    own = {name: sparse_probe(wanted.ordered, x, y, ks) for name, y in labels.items()}
    absent, present, null = {}, {}, {}
    for name, y in labels.items():
        absent[name] = sparse_probe(_own_latent(x, y), x, y, (1,))
        present[name] = sparse_probe(_erased(case, wanted, y), x, y, (k,))
        null[name] = sparse_probe(wanted.ordered, x, y[mixed], (k,))

    def gap(probes: dict[str, SparseProbe], at: int, of: dict[str, Tensor]) -> Measured:
        sums = [sums_of(p, at, of[name], unit, units) for name, p in probes.items()]
        return resamples.measure(sums, F1Gap(), weights=[1.0 / len(sums)] * len(sums)).measured

    moved = {name: y[mixed] for name, y in labels.items()}
    figures = [
        Figure(
            name=f"F1 lost with {n} latents",
            measured=gap(own, n, labels),
            unit="F1",
            about="mean over concepts",
        )
        for n in ks
    ]
    for name, probe in own.items():
        best = best_latent(wanted.ordered, labels[name])
        about = f"best latent F1 {best:.2f}, {k} latents {probe.f1[k]:.2f}, dense {probe.dense:.2f}"
        figures.append(
            Figure(name=f"lost: {name}", measured=gap({name: probe}, k, labels), unit="F1", about=about)
        )
    for other in case.compared:
        codes = wanted.coded_by(other).ordered
        probes = {name: sparse_probe(codes, x, y, (k,)) for name, y in labels.items()}
        said = f"F1 lost with {k} latents by {other.name} with {other.latents:,}"
        figures.append(
            Figure(name=said, measured=gap(probes, k, labels), unit="F1", about="mean over concepts")
        )
    left = [f"left out: {name}, {why}" for name, why in list(wanted.left_out.items())[:8]]
    return Line(
        "L8",
        gap(own, k, labels),
        gap(absent, 1, labels),
        gap(present, k, labels),
        gap(null, k, moved),
        controls=CONTROLS,
        figures=tuple(figures),
        remarks=(f"{len(labels)} concepts, probes fitted and scored on different documents", *left),
    )


def best_latent(codes: Codes, label: Bool[Tensor, " n"]) -> float:
    """F1 on odd rows of the latent whose firing tells a concept best on even ones."""
    scores = []
    for half in (0, 1):
        rows = torch.arange(half, len(codes), 2)
        here, y = rows_of(codes, rows), label[rows]
        fired = here.firing().double()
        together = rows_of(here, y.nonzero().flatten()).firing().double()
        scores.append(2.0 * together / (fired + int(y.sum())).clamp(min=1.0))
    return float(scores[1][int(scores[0].argmax())])


def erased(x: Float[Tensor, "n width"], label: Bool[Tensor, " _"]) -> Float[Tensor, "n width"]:
    """Activations whose class means are the same: moved along one direction, and as little as can be.

    The means and the covariance are those of the rows given.
    """
    mean = x.mean(dim=0)
    centred = x - mean
    values, axes = torch.linalg.eigh(centred.T @ centred / len(x))
    root = values.clamp(min=0.0).sqrt()
    inverse = torch.where(root > 1e-6 * root.max(), 1.0 / root.clamp(min=1e-300), 0.0)
    white = centred @ (axes * inverse)
    difference = white[label].mean(dim=0) - white[~label].mean(dim=0)
    size = difference.norm()
    if not float(size) > 0:
        return x
    unit = difference / size
    moved = (white @ unit)[:, None] * unit
    left: Tensor = x - moved @ (axes * root).T
    return left


def _erased(case: Case, wanted: Wanted, label: Tensor) -> Codes:
    """Codes of the dictionary where a concept was erased from all that it reads."""
    sites = case.dictionary.reads
    whole = wanted.seen.beside(sites)[wanted.order].double()
    left = torch.split(erased(whole, label).float(), [wanted.seen.x[s].shape[1] for s in sites], dim=1)
    seen = Seen(dict(zip(sites, left, strict=True)), wanted.seen.unit[wanted.order.numpy()])
    return encoded(case.dictionary, seen)


def _own_latent(x: Tensor, label: Tensor) -> Codes:
    """Two latents that hold the dense probe's score: where it is above 0, and below."""
    from prosect.decompose.evaluation.logistic import logistic

    scaled = (x - x[::2].mean(dim=0)) / x[::2].std(dim=0).clamp(min=1e-12)
    weights, intercept = logistic(scaled[::2], label[::2])
    score = scaled @ weights + intercept
    return Codes(torch.zeros((len(x), 1), dtype=torch.long), score[:, None], 1)


def sums_of(
    probe: SparseProbe, k: int, label: Tensor, unit: Tensor, units: int
) -> Float[np.ndarray, "units 5"]:
    """What `F1Gap` is made of, unit by unit: the dense probe's hits and calls, those with k latents, and positives."""
    y = label[1::2]
    columns = []
    for called in (probe.dense_called, probe.called[k]):
        columns += [called & y, called]
    columns.append(y)
    return np.stack([np.bincount(unit, weights=c.double().numpy(), minlength=units) for c in columns], axis=1)
