"""PCA and SVD from streamed second moments: one pass in float64, memory that does not grow with the data.

The moments of blocks are combined about their own means (Chan, Golub & LeVeque 1983, "Algorithms for
computing the sample variance", section 3), so that a mean far larger than the spread, which residual
streams have, costs no digits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData
from prosect.decompose.affine import Affine
from prosect.decompose.base import fixed_signs
from prosect.decompose.contract import ActivationStream
from prosect.decompose.streams import finite_blocks


@dataclass
class Moments:
    """Count, mean and scatter about the mean of the rows seen so far, in float64.

    Attributes:
        n: rows.
        mean: (width,).
        scatter: sum of (x - mean)(x - mean)ᵀ, (width, width).
    """

    n: int
    mean: Float[Tensor, " width"]
    scatter: Float[Tensor, "width width"]

    @classmethod
    def none(cls, width: int) -> Moments:
        """Of no rows yet."""
        return cls(
            0, torch.zeros(width, dtype=torch.float64), torch.zeros((width, width), dtype=torch.float64)
        )

    @classmethod
    def of(cls, stream: ActivationStream, site: str) -> Moments:
        """Of a whole stream at one site.

        Raises:
            NotFinite: an activation is NaN or infinite.
        """
        total = cls.none(stream.widths[site])
        for block in finite_blocks(stream, (site,)):
            total.add(block[site])
        return total

    def add(self, rows: Float[Tensor, "n width"]) -> None:
        """Take more rows into account."""
        if not len(rows):
            return
        x = rows.to("cpu", torch.float64)
        mean = x.mean(dim=0)
        x = x - mean
        shift = mean - self.mean
        n = self.n + len(x)
        self.scatter += x.T @ x + torch.outer(shift, shift) * (self.n * len(x) / n)
        self.mean = self.mean + shift * (len(x) / n)
        self.n = n


def leading(
    matrix: Float[Tensor, "width width"], count: int
) -> tuple[Float[Tensor, " m"], Float[Tensor, "m width"]]:
    """The ``count`` largest eigenvalues of a positive semi-definite matrix, and their unit eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    directions = vectors.T.flip(0)[:count]
    directions = directions * fixed_signs(directions)[:, None]
    return values.flip(0)[:count].clamp_min(0.0), directions.contiguous()


def check_count(asked: int | None, width: int, what: str) -> int:
    """How many components: all where None was asked for.

    Raises:
        BadInput: more than the width, or less than one.
    """
    count = width if asked is None else asked
    if not 1 <= count <= width:
        raise BadInput(f"{count} {what} of {width} dimensions", f"1 to {width}")
    return count


@dataclass(eq=False)
class Pca(Affine):
    """Principal components: orthogonal directions of largest variance; codes are signed.

    Codes are (x - mean) · direction; with all components, decoding gives the activations back. Signs are
    fixed by making the entry of largest magnitude positive.

    Args:
        site: what it decomposes.
        components: how many to keep, 1 to the site's width; None keeps all.
    """

    kind: ClassVar[str] = "pca"
    supports = frozenset({"decode", "directions", "unit", "signed", "streaming"})

    site: str
    components: int | None = None
    widths_: dict[str, int] = field(init=False, repr=False)
    mean_: Float[Tensor, " width"] = field(init=False, repr=False)
    directions_: Float[Tensor, "m width"] = field(init=False, repr=False)
    variance_: Float[Tensor, " m"] = field(init=False, repr=False)
    total_variance_: float = field(init=False, repr=False)

    @property
    def n_components(self) -> int:
        """How many are kept."""
        self._require_fitted()
        return len(self.directions_)

    @property
    def explained_(self) -> Float[Tensor, " m"]:
        """Share of the variance along each component."""
        return self.variance_ / self.total_variance_ if self.total_variance_ else self.variance_

    def _fit(self, stream: ActivationStream) -> None:
        count = check_count(self.components, stream.widths[self.site], "principal components")
        moments = Moments.of(stream, self.site)
        if moments.n < 2:
            raise TooLittleData(f"{moments.n} positions for {self.name}", "at least 2")
        covariance = moments.scatter / (moments.n - 1)
        self.mean_ = moments.mean
        self.variance_, self.directions_ = leading(covariance, count)
        self.total_variance_ = float(covariance.trace())

    def _facts(self) -> list[tuple[str, object]]:
        return [("variance explained", f"{float(self.explained_.sum()):.1%}")]


@dataclass(eq=False)
class Svd(Affine):
    """Right singular vectors of the activations as they are, nothing subtracted; codes are signed.

    Singular values come from the second moment matrix, so those under about 1e-8 of the largest are
    rounding.

    Args:
        site: what it decomposes.
        components: how many to keep, 1 to the site's width; None keeps all.
    """

    kind: ClassVar[str] = "svd"
    supports = frozenset({"decode", "directions", "unit", "signed", "streaming"})

    site: str
    components: int | None = None
    widths_: dict[str, int] = field(init=False, repr=False)
    directions_: Float[Tensor, "m width"] = field(init=False, repr=False)
    singular_values_: Float[Tensor, " m"] = field(init=False, repr=False)

    @property
    def n_components(self) -> int:
        """How many are kept."""
        self._require_fitted()
        return len(self.directions_)

    def _fit(self, stream: ActivationStream) -> None:
        count = check_count(self.components, stream.widths[self.site], "singular vectors")
        moments = Moments.of(stream, self.site)
        if not moments.n:
            raise TooLittleData(f"no positions for {self.name}", "at least 1")
        second = moments.scatter + torch.outer(moments.mean, moments.mean) * moments.n
        squares, self.directions_ = leading(second, count)
        self.singular_values_ = squares.sqrt()
