"""How good a decomposition is: sparsity, what it leaves unexplained, and whether it found known directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from markupsafe import Markup
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.markup import card
from prosect.decompose.base import needed
from prosect.decompose.contract import ActivationStream, Decomposition
from prosect.decompose.definitions import DIRECTION, LINE, Definition
from prosect.decompose.streams import finite_blocks


@dataclass(frozen=True)
class Quality:
    """What `measure` found.

    Attributes:
        name: of the decomposition.
        positions: how many were measured.
        l0: mean number of components present at a position.
        fvu: for each site written, the fraction of variance unexplained: squared error over squared
            distance from the mean; above 1 where the mean would do better, None where activations do not
            vary. Empty where the decomposition cannot decode.
        firing: share of positions at which each component is present.
        bias: for each site written, E‖x̂‖² / E⟨x, x̂⟩, by which reconstructions would have to be divided to fit
            best: below 1 where they are too small (Rajamanoharan et al. 2024, "Improving dictionary learning
            with gated sparse autoencoders", relative reconstruction bias). None where ⟨x, x̂⟩ is not above 0.
            A large mean of the activations hides what happens around it.
        l2_ratio: for each site written, the mean of ‖x̂‖ / ‖x‖ over positions where x is not 0.
    """

    name: str
    positions: int
    l0: float
    fvu: Mapping[str, float | None]
    firing: Float[Tensor, " n_components"]
    bias: Mapping[str, float | None] = field(default_factory=dict)
    l2_ratio: Mapping[str, float | None] = field(default_factory=dict)

    def dense(self, above: float = 0.1) -> float:
        """Share of components that are present at more than a share ``above`` of positions."""
        return float((self.firing > above).double().mean())

    @property
    def dead(self) -> float:
        """Share of components that are present nowhere."""
        return float((self.firing == 0).double().mean())

    def density(self, bins: int = 20) -> tuple[Float[Tensor, " edges"], Int[Tensor, " bins"]]:
        """Histogram of log10 firing rates of components that fire at all.

        Returns:
            Edges, evenly spaced from the rate of a single firing, 1 / positions, up to 1; and counts, which
            sum to the number of components that fire.
        """
        if bins < 1:
            raise BadInput(f"{bins} bins", "at least 1")
        lowest = -max(1.0, float(torch.tensor(float(self.positions)).log10()))
        edges = torch.linspace(lowest, 0.0, bins + 1, dtype=torch.float64)
        rates = self.firing[self.firing > 0].log10()
        place = torch.bucketize(rates, edges[1:-1].contiguous(), right=True)
        return edges, torch.bincount(place, minlength=bins)

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [
            ("positions", f"{self.positions:,}"),
            ("L0", f"{self.l0:.2f}"),
            ("dead", f"{self.dead:.1%} of {len(self.firing):,}"),
        ]
        rows += [(f"FVU at {s}", "undefined" if v is None else f"{v:.4f}") for s, v in self.fvu.items()]
        return card(self.name, rows, "How well it reconstructs; not whether its parts mean anything.")


def measure(decomposition: Decomposition, stream: ActivationStream) -> Quality:
    """Measure a fitted decomposition on a stream; it learns nothing from it.

    Args:
        decomposition: fitted.
        stream: activations at the sites it reads and writes, preferably ones it was not fitted on.

    Raises:
        TooLittleData: the stream is empty.
        NotFinite: an activation is NaN or infinite.
    """
    decodes = "decode" in decomposition.supports
    sites = needed(decomposition, stream)
    fired = torch.zeros(decomposition.n_components, dtype=torch.float64)
    spread = {site: Spread() for site in decomposition.writes}
    error = dict.fromkeys(decomposition.writes, 0.0)
    sizes = {site: Sizes() for site in decomposition.writes}
    n = 0
    for block in finite_blocks(stream, sites):
        n += len(block[sites[0]])
        codes = decomposition.encode(block)
        fired += codes.firing().cpu()
        if not decodes:
            continue
        for site, made in decomposition.reconstruct(block, codes).items():
            y = block[site].to("cpu", torch.float64)
            error[site] += float((y - made.to(y)).square().sum())
            spread[site].add(y)
            sizes[site].add(y, made.to(y))
    if not n:
        raise TooLittleData(f"no positions to measure {decomposition.name} on", "at least one")
    fvu = {s: error[s] / spread[s].total if spread[s].total > 0 else None for s in error} if decodes else {}
    bias = {s: size.bias for s, size in sizes.items()} if decodes else {}
    ratio = {s: size.ratio for s, size in sizes.items()} if decodes else {}
    return Quality(decomposition.name, n, float(fired.sum()) / n, fvu, fired / n, bias, ratio)


class Sizes:
    """Sums behind `Quality.bias` and `Quality.l2_ratio`."""

    def __init__(self) -> None:
        self._square = self._product = self._ratio = 0.0
        self._n = 0

    def add(self, rows: Float[Tensor, "n width"], made: Float[Tensor, "n width"]) -> None:
        """Take activations and their reconstructions (float64) into account."""
        self._square += float(made.square().sum())
        self._product += float((made * rows).sum())
        norms = rows.norm(dim=1)
        there = norms > 0
        self._ratio += float((made.norm(dim=1)[there] / norms[there]).sum())
        self._n += int(there.sum())

    @property
    def bias(self) -> float | None:
        """Relative reconstruction bias; None where it is not defined."""
        return self._square / self._product if self._product > 0 else None

    @property
    def ratio(self) -> float | None:
        """Mean ratio of norms; None without a row that is not 0."""
        return self._ratio / self._n if self._n else None


class Spread:
    """Sum of squared distances from the mean, over rows that come in blocks.

    Blocks are combined about their own means (Chan, Golub & LeVeque 1983), so that a large mean costs no
    digits.
    """

    def __init__(self) -> None:
        self.n, self.total = 0, 0.0
        self._mean: Tensor | None = None

    def add(self, rows: Float[Tensor, "n width"]) -> None:
        """Take more rows (float64) into account."""
        if not len(rows):
            return
        mean = rows.mean(dim=0)
        before = mean if self._mean is None else self._mean
        n = self.n + len(rows)
        shift = mean - before
        self.total += float((rows - mean).square().sum() + shift.square().sum() * (self.n * len(rows) / n))
        self._mean, self.n = before + shift * (len(rows) / n), n


@dataclass(frozen=True)
class Recovery:
    """How well a decomposition's directions match known ones.

    Attributes:
        features_to_latents: mean over features of the largest cosine with any component: was everything
            found?
        latents_to_features: mean over components of the largest cosine with any feature: is everything
            that was found real?
        matched: mean cosine of the best one-to-one matching (Hungarian), over the smaller side; with ``signed``
            the mean correlation coefficient (MCC) of O'Neill et al. 2024, "Compute optimal inference and
            provable amortisation gap in sparse autoencoders".
        uniqueness: share of components that are needed to name every feature nearest to some component:
            different nearest features over components; 1 where no two components say the same.
        match: the component matched to each feature, -1 for none.
        cosines: of each feature with its match, 0 for none.
        definition: what counted as a feature: a direction, or with ``signed`` a line.
    """

    features_to_latents: float
    latents_to_features: float
    matched: float
    uniqueness: float
    match: Int[Tensor, " features"]
    cosines: Float[Tensor, " features"]
    definition: Definition = DIRECTION


def recovery(
    directions: Float[Tensor, "components width"],
    features: Float[Tensor, "features _"],
    signed: bool = False,
) -> Recovery:
    """Compare directions that were found with those that are there.

    Mean max cosine in both directions, since either alone can be had cheaply: many components find every
    feature, and one good component is always real.

    Args:
        directions: what was found; a row of zeros has cosine 0 with everything.
        features: what is there.
        signed: whether a direction and its opposite count as the same, as they must for methods whose
            signs are arbitrary.

    Raises:
        ShapeMismatch: their widths differ.
        BadInput: there are none.
    """
    from scipy.optimize import linear_sum_assignment

    if directions.shape[1] != features.shape[1]:
        raise ShapeMismatch(
            f"directions of width {directions.shape[1]}", f"{features.shape[1]}, as the features have"
        )
    if not len(directions) or not len(features):
        raise BadInput(f"{len(directions)} directions and {len(features)} features", "at least one of each")
    cosines = unit_rows(features) @ unit_rows(directions).T
    if signed:
        cosines.abs_()
    # turned round in place: asked to maximise, SciPy would make a second matrix of that size, 2 GiB for 16k latents
    at_feature, at_latent = (torch.from_numpy(i) for i in linear_sum_assignment(cosines.neg_().numpy()))
    cosines.neg_()
    match = torch.full((len(features),), -1, dtype=torch.long)
    match[at_feature] = at_latent
    found = torch.zeros(len(features), dtype=torch.float64)
    found[at_feature] = cosines[at_feature, at_latent]
    return Recovery(
        features_to_latents=float(cosines.max(dim=1).values.mean()),
        latents_to_features=float(cosines.max(dim=0).values.mean()),
        matched=float(cosines[at_feature, at_latent].mean()),
        uniqueness=len(set(cosines.argmax(dim=0).tolist())) / len(directions),
        match=match,
        cosines=found,
        definition=LINE if signed else DIRECTION,
    )


def unit_rows(rows: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
    """Each row at length 1, in float64 on the CPU; a row of zeros stays."""
    x = rows.detach().to("cpu", torch.float64)
    norms = x.norm(dim=1, keepdim=True)
    return x / torch.where(norms > 0, norms, 1.0)
