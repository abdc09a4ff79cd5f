"""What single latents do to a model's outputs: each is taken out where it fires, on held-out text.

Effects are kept by group of documents, so that an interval over documents can be made of anything computed from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.sample import Sample

GROUPS, LEAST = 10, 12
"""Groups of documents, and latents that there must be."""
FIRES = 5
"""Positions at which a latent must fire to be asked what it does."""


@dataclass(frozen=True)
class Effects:
    """What latents do, by group of documents.

    Attributes:
        latents: which.
        sums: change of the outputs where each fires, summed.
        counts: at how many positions.
        documents: that the groups are made of.
    """

    latents: Int[Tensor, " m"]
    sums: Float[Tensor, "groups m outputs"]
    counts: Float[Tensor, "groups m"]
    documents: int

    @property
    def mean(self) -> Float[Tensor, "m outputs"]:
        """Over all positions."""
        return self.without()

    def without(self, groups: list[int] | None = None) -> Float[Tensor, "m outputs"]:
        """Over all positions but those of some groups."""
        kept = [g for g in range(len(self.sums)) if g not in (groups or [])]
        return self.sums[kept].sum(dim=0) / self.counts[kept].sum(dim=0).clamp(min=1.0)[:, None]

    @property
    def reliability(self) -> float:
        """Correlation over pairs of latents of how alike they are on two halves of the documents."""
        every = list(range(len(self.sums)))
        pairs = [upper(cosines(self.without(half))) for half in (every[::2], every[1::2])]
        return float(torch.corrcoef(torch.stack(pairs))[0, 1].nan_to_num())


def measure_effects(case: Case, seed: Seed) -> Effects:
    """Take out what latents write, one at a time, where they fire, on some held-out windows.

    Outputs are logits less their mean where the model predicts, so that what changes all alike, and no prediction, does
    not count; and what it gives elsewhere.

    Raises:
        TooLittleData: fewer than `LEAST` latents fire at `FIRES` positions there.
    """
    dictionary, effort = case.dictionary, case.effort
    held = case.sample.held[case.part]
    at = seed.child("windows").numpy().permutation(len(held))[: effort.windows]
    part = Sample(
        {case.part: tuple(held[i] for i in sorted(at.tolist()))}, case.sample.digest, case.sample.unit
    )
    sites = tuple(dict.fromkeys((*dictionary.reads, *dictionary.writes)))
    batches = []
    with torch.no_grad():
        for batch in part.batches(case.part, effort.rows):
            clean = case.model.run(batch, capture=sites)
            x = {s: clean.batch.flat(clean[s]).flatten(1) for s in dictionary.reads}
            batches.append((clean, dictionary.encode(x)))
    firing = sum(codes.firing().cpu() for _, codes in batches)
    assert isinstance(firing, Tensor)
    alive = (firing >= FIRES).nonzero().flatten()
    if len(alive) < LEAST:
        raise TooLittleData(
            f"{len(alive)} latents that fire at {FIRES} positions of {len(held)} windows", f"{LEAST}"
        )
    order = torch.from_numpy(seed.child("latents").numpy().permutation(len(alive)))[: effort.latents]
    latents = alive[order].sort().values
    units = sorted({row.unit for b in part.held[case.part] for row in b.rows})
    groups = min(GROUPS, len(units))
    group = {unit: i % groups for i, unit in enumerate(units)}
    sums: Tensor | None = None
    counts = torch.zeros((groups, len(latents)), dtype=torch.float64)
    with torch.no_grad():
        for clean, codes in batches:
            kept = torch.tensor([group[u] for u in clean.batch.flat_units.tolist()])
            before = _outputs(clean.output, clean.batch, case.predicts)
            for number, latent in enumerate(latents.tolist()):
                code = codes.columns([latent])[:, 0]
                fires = (code != 0).nonzero().flatten()
                if not len(fires):
                    continue
                edits = _without(case, clean, code, latent)
                after = _outputs(case.model.run(clean.batch, edits=edits).output, clean.batch, case.predicts)
                change = (before[fires] - after[fires]).cpu().double()
                if sums is None:
                    sums = torch.zeros((groups, len(latents), change.shape[1]), dtype=torch.float64)
                sums[:, number].index_add_(0, kept[fires.cpu()], change)
                counts[:, number] += torch.bincount(kept[fires.cpu()], minlength=groups)
    assert sums is not None  # latents were chosen because they fire
    return Effects(latents, sums, counts, len(units))


def _without(case: Case, clean: Any, code: Tensor, latent: int) -> list[Any]:
    """Edits that take out what one latent writes, at every site."""
    from prosect.model.edits import patch

    edits = []
    scored = clean.batch.scored
    for site in case.dictionary.writes:
        value = clean[site].clone()
        row = case.dictionary.decoder(site)[latent]
        flat = clean.batch.flat(value)
        left = flat - (code[:, None].to(row) * row).to(flat).reshape(flat.shape)
        if scored is None:
            value = left
        else:
            value[scored.to(value.device)] = left
        edits.append(patch(site, value))
    return edits


def _outputs(output: Tensor, batch: Any, predicts: bool) -> Tensor:
    flat: Tensor = batch.flat(output).flatten(1)
    flat = flat.double()
    return flat - flat.mean(dim=1, keepdim=True) if predicts else flat


def cosines(rows: Tensor) -> Tensor:
    """Cosines of rows of length 1 less their mean: what all have in common makes no two of them alike."""
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    own = torch.nn.functional.normalize(unit - unit.mean(dim=0), dim=1)
    return own @ own.T


def upper(square: Tensor) -> Tensor:
    rows, columns = torch.triu_indices(len(square), len(square), 1)
    return square[rows, columns]
