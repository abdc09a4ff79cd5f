"""ICA, NMF and k-means: whole-array methods, fitted by scikit-learn in float64 under a memory budget.

Their components come in an order and with signs that do not depend on the optimiser's path: by the size of
what they contribute, the entry of largest magnitude positive where signs are free.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData
from prosect.core.progress import say
from prosect.core.seeds import Seed
from prosect.decompose.affine import Affine
from prosect.decompose.base import SEED, fixed_signs
from prosect.decompose.contract import ActivationStream, Codes
from prosect.decompose.moments import check_count
from prosect.decompose.streams import whole

BUDGET = 2**30
"""Bytes a whole-array method may use unless told otherwise."""


T = TypeVar("T")


def converging(name: str, work: Callable[[], T]) -> tuple[T, bool]:
    """The result of ``work``, and whether scikit-learn says it converged; says so where it did not."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    converged = True
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if not converged:
        say(f"{name} did not converge; its components are those it had reached")
    return result, converged


def enough(name: str, n: int, needed: int) -> None:
    """Raises TooLittleData under ``needed`` positions."""
    if n < needed:
        raise TooLittleData(f"{n} positions for {name}", f"at least {needed}", "more of them")


@dataclass(eq=False)
class Ica(Affine):
    """Independent components (FastICA, logcosh contrast); codes are signed.

    Hyvärinen & Oja 2000, "Independent component analysis: algorithms and applications", section 6.
    Directions have norm 1, codes are (x - mean) times the unmixing matrix, and with as many components as
    dimensions decoding gives the activations back. Components are ordered by the variance of their codes.

    Args:
        site: what it decomposes.
        components: how many, 1 to the site's width; None for the width.
        seed: of the starting point.
        iterations: at most this many; `converged_` says whether they were enough.
        tolerance: change of the unmixing matrix at which it stops.
        budget: bytes it may use.
    """

    kind: ClassVar[str] = "ica"
    supports = frozenset({"decode", "directions", "unit", "signed"})

    site: str
    components: int | None = None
    seed: Seed = SEED
    iterations: int = 500
    tolerance: float = 1e-4
    budget: int = BUDGET
    widths_: dict[str, int] = field(init=False, repr=False)
    mean_: Float[Tensor, " width"] = field(init=False, repr=False)
    unmixing_: Float[Tensor, "m width"] = field(init=False, repr=False)
    directions_: Float[Tensor, "m width"] = field(init=False, repr=False)
    converged_: bool = field(init=False, repr=False)

    @property
    def n_components(self) -> int:
        """How many there are."""
        self._require_fitted()
        return len(self.directions_)

    def _fit(self, stream: ActivationStream) -> None:
        from sklearn.decomposition import FastICA

        count = check_count(self.components, stream.widths[self.site], "independent components")
        x = whole(self.name, stream, self.site, self.budget, copies=5)
        enough(self.name, len(x), x.shape[1] + 1)
        method = FastICA(
            count,
            whiten="unit-variance",
            max_iter=self.iterations,
            tol=self.tolerance,
            random_state=random_state(self.seed.child(self.kind)),
        )
        _, self.converged_ = converging(self.name, lambda: method.fit(x.numpy()))
        self.mean_ = torch.from_numpy(method.mean_)
        mixing, unmixing = torch.from_numpy(method.mixing_).T, torch.from_numpy(method.components_)
        norms = mixing.norm(dim=1)
        order = norms.argsort(descending=True, stable=True)  # codes had variance 1, now they have norms²
        scale = (norms * fixed_signs(mixing))[order, None]
        self.directions_, self.unmixing_ = mixing[order] / scale, unmixing[order] * scale

    def _readers(self) -> Tensor:
        return self.unmixing_

    def _facts(self) -> list[tuple[str, object]]:
        return [("converged", "yes" if self.converged_ else "no")]


@dataclass(eq=False)
class Nmf(Affine):
    """Non-negative matrix factorisation; codes and parts are non-negative.

    Lee & Seung 1999, "Learning the parts of objects by non-negative matrix factorization", fitted by
    coordinate descent. Activations of both signs are split: the mean is subtracted and what is left is
    written as [x]₊ beside [-x]₊, of which the parts have norm 1. Codes are the non-negative least-squares
    solution for the fitted parts, and components are ordered by the size of their codes.

    Args:
        site: what it decomposes.
        components: how many parts.
        split: whether to subtract the mean and split signs; without it negative activations are refused.
        seed: of the starting point.
        iterations: at most this many sweeps; `converged_` says whether they were enough.
        budget: bytes it may use.
    """

    kind: ClassVar[str] = "nmf"
    supports = frozenset({"decode", "directions", "nonnegative"})

    site: str
    components: int
    split: bool = True
    seed: Seed = SEED
    iterations: int = 500
    budget: int = BUDGET
    widths_: dict[str, int] = field(init=False, repr=False)
    mean_: Float[Tensor, " width"] = field(init=False, repr=False)
    parts_: Float[Tensor, "m split"] = field(init=False, repr=False)
    converged_: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.components < 1:
            raise BadInput(f"{self.components} parts for nmf", "at least 1")

    @property
    def n_components(self) -> int:
        """How many parts."""
        return self.components

    def _fit(self, stream: ActivationStream) -> None:
        from sklearn.decomposition import NMF

        x = whole(self.name, stream, self.site, self.budget, copies=6 if self.split else 3)
        enough(self.name, len(x), 2)
        self.mean_ = x.mean(dim=0) if self.split else torch.zeros(x.shape[1], dtype=torch.float64)
        v = self._split(x).numpy()
        method = NMF(
            self.components,
            init="nndsvda" if self.components <= min(v.shape) else "random",
            max_iter=self.iterations,
            random_state=random_state(self.seed.child(self.kind)),
        )
        codes, self.converged_ = converging(self.name, lambda: method.fit_transform(v))
        parts = torch.from_numpy(method.components_)
        norms = parts.norm(dim=1).clamp_min(1e-300)
        size = torch.from_numpy(codes).square().mean(dim=0).sqrt() * norms
        self.parts_ = (parts / norms[:, None])[size.argsort(descending=True, stable=True)]

    def _split(self, x: Tensor) -> Tensor:
        here = x.to("cpu", torch.float64) - self.mean_
        if self.split:
            return torch.cat([here.clamp_min(0.0), (-here).clamp_min(0.0)], dim=1)
        if bool((here < 0).any()):
            raise BadInput(
                f"negative activations at {self.site} for nmf", "none below zero", "split=True, or pca"
            )
        return here

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        from sklearn.decomposition import non_negative_factorization

        here = x[self.site]
        if not len(here):
            return Codes.of_dense(here.new_zeros((0, self.components)))
        v = self._split(here).numpy()
        found, _ = converging(
            self.name,
            lambda: non_negative_factorization(
                v,
                H=self.parts_.numpy(),
                n_components=self.components,
                update_H=False,
                tol=1e-9,
                max_iter=10_000,
            ),
        )
        return Codes.of_dense(torch.from_numpy(found[0]).to(here))

    def _directions(self) -> Tensor:
        if not self.split:
            return self.parts_
        positive, negative = self.parts_.chunk(2, dim=1)
        return positive - negative

    def _facts(self) -> list[tuple[str, object]]:
        return [("converged", "yes" if self.converged_ else "no")]


@dataclass(eq=False)
class KMeans(Affine):
    """Cluster centres; each position has one component, the nearest centre, with code 1.

    Lloyd's algorithm from k-means++ starts, the best of a few. Centres are ordered by how many positions
    they take. Directions are the centres themselves, not of norm 1.

    Args:
        site: what it decomposes.
        components: how many centres.
        seed: of the starting points.
        starts: how many to try.
        budget: bytes it may use.
    """

    kind: ClassVar[str] = "kmeans"
    supports = frozenset({"decode", "directions", "nonnegative", "sparse"})

    site: str
    components: int
    seed: Seed = SEED
    starts: int = 4
    budget: int = BUDGET
    widths_: dict[str, int] = field(init=False, repr=False)
    centres_: Float[Tensor, "m width"] = field(init=False, repr=False)
    converged_: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.components < 1 or self.starts < 1:
            raise BadInput(f"{self.components} centres from {self.starts} starts", "at least 1 of each")

    @property
    def n_components(self) -> int:
        """How many centres."""
        return self.components

    def _fit(self, stream: ActivationStream) -> None:
        from sklearn.cluster import KMeans as Lloyd
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn's own

        x = whole(self.name, stream, self.site, self.budget, copies=3).numpy()
        enough(self.name, len(x), self.components)
        method = Lloyd(
            self.components, n_init=self.starts, random_state=random_state(self.seed.child(self.kind))
        )
        with threadpool_limits(1, "openmp"):  # threads add up partial sums in whatever order they finish
            _, self.converged_ = converging(self.name, lambda: method.fit(x))
        taken = torch.bincount(torch.from_numpy(method.labels_).long(), minlength=self.components)
        self.centres_ = torch.from_numpy(method.cluster_centers_)[taken.argsort(descending=True, stable=True)]

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        here = x[self.site]
        centres = self.centres_.to(here)
        middle = centres.mean(dim=0)  # distances about it, so that a large common mean costs no digits
        centres = centres - middle
        closeness = (here - middle) @ centres.T - centres.square().sum(dim=1) / 2
        nearest = closeness.argmax(dim=1, keepdim=True)
        return Codes(
            nearest, torch.ones(nearest.shape, dtype=here.dtype, device=here.device), self.components
        )

    def _directions(self) -> Tensor:
        return self.centres_


def random_state(seed: Seed) -> int:
    """A seed as scikit-learn wants it: a whole number under 2**32."""
    return seed.integer % 2**32


__all__ = ["Ica", "KMeans", "Nmf"]
