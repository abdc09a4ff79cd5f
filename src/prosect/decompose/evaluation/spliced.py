"""What a model loses when its activations are replaced by what a decomposition makes of them.

Loss recovered is (L_ablated - L_spliced) / (L_ablated - L_clean): 1 for a perfect reconstruction, 0 for one no better
than the ablation. It is given against zeros and against the mean, because zeros are often so bad that anything looks
good beside them. KL is from the clean model's predictions to those of the spliced one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import ShapeMismatch, TooLittleData, UnknownName
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.decompose.activations import Runs
from prosect.decompose.contract import ActivationStream, Decomposition
from prosect.decompose.streams import finite_blocks

Loss = Callable[[Tensor, Batch], Float[Tensor, "rows 2"]]
"""(main output, rows) → for each row, how many numbers its loss is a sum of, and that sum."""
BESIDE = ("zero", "mean", "noise")
"""What else is put in the place of activations: ablations, and random errors."""


@dataclass(frozen=True)
class Spliced:
    """A model with a decomposition in it; intervals are over independent units such as documents.

    Attributes:
        name: of the decomposition.
        losses: mean loss of the clean model, the spliced one, with zeros, with the mean, and with random errors as
            long as the reconstruction's own, at the same places.
        added: loss spliced minus clean.
        recovered: share of the loss recovered against ``zero`` and against ``mean``; no estimate where the
            ablation does not raise the loss.
        kl: nats from the clean predictions to those of each variant; empty where the output is no prediction.
        pathology: KL spliced over KL with random errors of the same length: above 1 where what is left out matters
            more than its size says (Gurnee 2024, "SAE reconstruction errors are (empirically) pathological"). None
            where there is no KL or no error.
    """

    name: str
    losses: Mapping[str, Measured]
    added: Measured
    recovered: Mapping[str, Measured]
    kl: Mapping[str, Measured]
    pathology: Measured | None = None


def splice(
    model: Runs,
    source: Source,
    part: str,
    decomposition: Decomposition,
    means: Mapping[str, Float[Tensor, " _"]],
    seed: Seed,
    rows: int = 16,
    loss: Loss | None = None,
    predicts: bool = True,
    beside: Sequence[str] = BESIDE,
) -> Spliced:
    """Replace what a decomposition writes, at all scored positions at once, and measure what that does.

    It encodes what the clean model has at the sites it reads, so several sites are replaced without one
    reconstruction being fed another. Positions that statistics leave out keep what they have.

    Args:
        model: such as a `prosect.model.Model`.
        source: where batches come from.
        part: held-out ones.
        decomposition: fitted on another part.
        means: of every site it writes, from the part it was fitted on (`site_means`).
        seed: of the resampling and of the random errors.
        rows: rows of a batch.
        loss: what to measure; None for the cross-entropy of the next token.
        predicts: whether the output holds logits along its last axis, so that KL means something.
        beside: which of `BESIDE` are run too; each costs a pass.

    Raises:
        TooLittleData: the part is empty.
        UnknownName: a mean is missing, or what is run beside is none of `BESIDE`.
    """
    for name in beside:
        if name not in BESIDE:
            raise UnknownName("variant", name, BESIDE)
    for site in decomposition.writes:
        if site not in means:
            raise UnknownName("mean of site", site, means, "site_means(stream)")
    measured = next_token if loss is None else loss
    variants = ("spliced", *beside)
    sums: dict[str, list[Tensor]] = {name: [] for name in ("clean", *variants)}
    divergence: dict[str, list[Tensor]] = {name: [] for name in variants}
    units: list[np.ndarray] = []
    sites = tuple(dict.fromkeys((*decomposition.reads, *decomposition.writes)))
    with torch.no_grad():
        for batch in source.batches(part, rows):
            clean = model.run(batch, capture=sites)
            units.append(batch.units)
            sums["clean"].append(measured(clean.output, clean.batch).cpu())
            generator = seed.child("noise", len(units)).torch()
            for name, values in _values(clean, decomposition, means, generator, variants).items():
                output = model.run(batch, edits=values).output
                sums[name].append(measured(output, clean.batch).cpu())
                if predicts:
                    divergence[name].append(_kl(clean.output, output, clean.batch).cpu())
    if not units:
        raise TooLittleData(f"no rows in {part}", "at least one")
    unit = np.unique(np.concatenate(units), return_inverse=True)[1]
    totals = {name: _by_unit(parts, unit) for name, parts in sums.items()}
    kls = {name: _by_unit(parts, unit) for name, parts in divergence.items() if parts}
    return _summary(decomposition.name, totals, kls, seed)


def site_means(stream: ActivationStream) -> dict[str, Float[Tensor, " _"]]:
    """The mean of every site of a stream, float64.

    Raises:
        TooLittleData: the stream is empty.
    """
    n, totals = 0, {site: torch.zeros(stream.widths[site], dtype=torch.float64) for site in stream.sites}
    for block in finite_blocks(stream, stream.sites):
        n += len(block[stream.sites[0]])
        for site in totals:
            totals[site] += block[site].to("cpu", torch.float64).sum(dim=0)
    if not n:
        raise TooLittleData("no positions to take means of", "at least one")
    return {site: total / n for site, total in totals.items()}


def next_token(output: Float[Tensor, "rows positions vocab"], batch: Batch) -> Float[Tensor, "rows 2"]:
    """How many tokens of each row are predicted, and the sum of their cross-entropies in nats."""
    ids = batch.tensors["input_ids"]
    real = torch.ones_like(ids, dtype=torch.bool) if batch.mask is None else batch.mask
    counted = (real[:, 1:] & real[:, :-1]).to(output.device)
    losses = F.cross_entropy(
        output[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten().to(output.device), reduction="none"
    ).view(counted.shape)
    return torch.stack([counted.double().sum(dim=1), (losses * counted).sum(dim=1)], dim=1)


@dataclass(frozen=True)
class Recovered:
    """(ablated - spliced) / (ablated - clean); sums are (clean, spliced, ablated). A statistic of `Resamples`."""

    low: float = -np.inf
    high: float = np.inf
    k: ClassVar[int] = 3

    def value(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
        return np.asarray((sums[..., 2] - sums[..., 1]) / _apart(sums))

    def gradient(self, sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
        apart = _apart(sums)
        ratio = (sums[..., 2] - sums[..., 1]) / apart
        return np.stack([ratio / apart, -1.0 / apart, (1.0 - ratio) / apart], axis=-1)

    def transform(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return value

    def slope(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return np.ones_like(value)

    def back(self, value: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        return value


def _apart(sums: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
    """The denominator, kept off zero: resamples of an ablation that hardly matters may cross it."""
    difference = np.asarray(sums[..., 2] - sums[..., 0])
    return np.where(np.abs(difference) < 1e-12, 1e-12, difference)


def _values(
    clean: Any,
    decomposition: Decomposition,
    means: Mapping[str, Tensor],
    generator: torch.Generator,
    variants: Sequence[str],
) -> dict[str, list[Any]]:
    """For each variant, the edits that put its values at the scored positions."""
    from prosect.model.edits import patch

    batch = clean.batch
    flat = {site: batch.flat(clean[site]) for site in (*decomposition.reads, *decomposition.writes)}
    laid = {site: x.reshape(len(x), -1) for site, x in flat.items()}
    made = decomposition.reconstruct({site: laid[site] for site in decomposition.reads})
    scored = batch.scored
    out: dict[str, list[Any]] = {}
    for name in variants:
        out[name] = []
        for site in decomposition.writes:
            x = laid[site]
            if name == "spliced":
                new = made[site].to(x)
            elif name == "noise":
                drawn = torch.randn(x.shape, generator=generator).to(x)
                far = (made[site].to(x) - x).norm(dim=1, keepdim=True)
                new = x + far * drawn / drawn.norm(dim=1, keepdim=True)
            else:
                mean = means[site].reshape(-1).to(x)
                if len(mean) != x.shape[1]:
                    raise ShapeMismatch(f"a mean of {len(mean)} numbers at {site}", f"{x.shape[1]}")
                new = torch.zeros_like(x) if name == "zero" else mean.expand_as(x)
            value = clean[site].clone()
            if scored is None:
                value = new.reshape(value.shape)
            else:
                value[scored.to(value.device)] = new.reshape(flat[site].shape)
            out[name].append(patch(site, value))
    return out


def _kl(clean: Tensor, other: Tensor, batch: Batch) -> Float[Tensor, "rows 2"]:
    """For each row, its real positions and the sum over them of KL(clean ‖ other)."""
    p, q = (torch.log_softmax(x.double(), dim=-1) for x in (clean, other))
    nats = (p.exp() * (p - q)).sum(dim=-1)
    if batch.mask is None:
        return torch.stack([torch.ones_like(nats), nats], dim=1)
    real = batch.mask.to(nats.device)
    return torch.stack([real.double().sum(dim=1), (nats * real).sum(dim=1)], dim=1)


def _by_unit(parts: list[Tensor], unit: np.ndarray) -> np.ndarray:
    rows = torch.cat(parts).double().numpy()
    out = np.zeros((int(unit.max()) + 1, rows.shape[1]))
    np.add.at(out, unit, rows)
    return out


def _summary(
    name: str, totals: Mapping[str, np.ndarray], kls: Mapping[str, np.ndarray], seed: Seed
) -> Spliced:
    units = len(totals["clean"])
    resamples = Resamples(units, INTERVAL_DRAWS, seed)
    clean, spliced = totals["clean"], totals["spliced"]
    recovered = {}
    for ablation in ("zero", "mean"):
        if ablation not in totals:
            continue
        ablated = totals[ablation]
        if ablated[:, 1].sum() <= clean[:, 1].sum():
            note = f"putting {ablation} there does not raise the loss: nothing to recover"
            recovered[ablation] = Measured(estimate=None, n=units, note=note)
            continue
        sums = np.stack([clean[:, 1], spliced[:, 1], ablated[:, 1]], axis=1)
        recovered[ablation] = resamples.measure([sums], Recovered()).measured
    added = np.stack([clean[:, 0], spliced[:, 1] - clean[:, 1]], axis=1)
    return Spliced(
        name=name,
        losses={key: resamples.measure([sums], Mean()).measured for key, sums in totals.items()},
        added=resamples.measure([added], Mean()).measured,
        recovered=recovered,
        kl={key: resamples.measure([sums], Mean(low=0.0)).measured for key, sums in kls.items()},
        pathology=_pathology(kls, resamples),
    )


def _pathology(kls: Mapping[str, np.ndarray], resamples: Resamples) -> Measured | None:
    """A ratio of two sums, of which the noise's takes the place of a count."""
    if "noise" not in kls or kls["noise"][:, 1].sum() <= 1e-9 * kls["noise"][:, 0].sum():
        return None
    sums = np.stack([kls["noise"][:, 1], kls["spliced"][:, 1]], axis=1)
    return resamples.measure([sums], Mean(low=0.0)).measured
