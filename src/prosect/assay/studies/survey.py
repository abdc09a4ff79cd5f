"""What is there at a site, counted on explore: the decomposition, how often each component fires, and which are drawn.

Random directions stand beside the components: as many for each band of firing rates, so that every claim
can be held against directions that fire about as often as its component.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.assay.decomposing import fit
from prosect.assay.explored import Explored, explore, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.work import upto
from prosect.core.records import Component, Draw
from prosect.core.seeds import Seed
from prosect.decompose.contract import Decomposition
from prosect.decompose.random import RandomDirections
from prosect.decompose.streams import ArrayStream
from prosect.decompose.units import Neurons
from prosect.describe.vocabulary import Vocabulary
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject

BANDS = (1e-3, 2e-3, 4e-3, 8e-3, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5)
"""Firing rates of the random directions; each component is compared with the nearest band's."""


class Survey:
    """The components of one site, surveyed; made of steps of the run.

    Args:
        spec: the run's.
        run: where the steps are kept.
        subject: the model and its data; the decompositions are entered there.
        site: to decompose.
        seed: of the draw and the random directions.

    Attributes:
        decomposition: of the site.
        quality: its figures on explore.
        neurons: of the same layer, for comparison; None if they were not asked for or are not there.
        controls: random directions, ``spec.describe.controls`` for each band.
        bands: firing rate of each of them.
        rates: share of explored positions at which each component is active.
        drawn: components drawn at random from those active in enough units.
        chosen: the most active of the others.
        alive: how many are active in enough units.
        norm: mean norm at the site.
    """

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject, site: str, seed: Seed) -> None:
        self.spec, self.run, self.subject, self.site, self.seed = spec, run, subject, site, seed
        self.words: Vocabulary = vocabulary(subject.source)
        self.decomposition: Decomposition
        self.decomposition, self.quality = fit(spec, run, subject, site, "decomposition")
        subject.decompositions[self.decomposition.name] = self.decomposition
        self.neurons = self._neurons()
        tensors, about = run.tensor_step("survey", self.inputs, self._make)
        self.controls = RandomDirections.from_state(tensors, about["random"])
        subject.decompositions[self.controls.name] = self.controls
        self.bands: list[float] = [b for b in about["bands"] for _ in range(spec.describe.controls)]
        self.rates: list[float] = about["rates"]
        self.alive: int = about["alive"]
        self.drawn: list[int] = about["drawn"]
        self.chosen: list[int] = about["chosen"]
        self.drawn_neurons: list[int] = about["neurons"]
        self.norm: float = about["norm"]

    @property
    def inputs(self) -> dict[str, Any]:
        """What every step that follows depends on."""
        return {"study": "latents", "seed": self.seed.integer, "decomposition": self.decomposition.name}

    @cached_property
    def explored(self) -> Explored:
        """Explored text and activations; made when first needed, so that a resumed run may never need it."""
        tokens = self.spec.describe.tokens
        return explore(self.subject, self.words, self.captured, tokens, self.seed.child("explore"))

    @property
    def captured(self) -> tuple[str, ...]:
        """The sites that exploring reads."""
        sites = [self.site] if self.neurons is None else [self.site, *self.neurons.reads]
        return tuple(dict.fromkeys(sites))

    @cached_property
    def examined(self) -> list[tuple[Component, Draw]]:
        """What is described, and how each came to be: drawn and chosen components, then neurons."""
        out: list[tuple[Component, Draw]] = [(self.decomposition.component(i), "random") for i in self.drawn]
        out += [(self.decomposition.component(i), "chosen") for i in self.chosen]
        if self.neurons is not None:
            out += [(self.neurons.component(i), "random") for i in self.drawn_neurons]
        return out

    def _neurons(self) -> Neurons | None:
        site = f"mlp_act.{layer_of(self.site)}"
        if not self.spec.describe.neurons or site == self.site:
            return None
        if site not in self.subject.model.sites.names():
            return None
        width = self.subject.model.sites.info(site).width or 1
        neurons = Neurons(site).fit(ArrayStream({site: torch.zeros(1, width)}))
        self.subject.decompositions[neurons.name] = neurons
        return neurons

    def _make(self) -> tuple[dict[str, Tensor], Any]:
        seen = self.explored
        for batch in seen.batches:
            self.subject.spend(batch, "explore")
        self.subject.add("explore", sum(map(len, seen.batches)) * upto(self.subject.model, self.captured))
        rates, units = firing(self.decomposition, seen)
        enough = units >= self.spec.validate_.firing_min
        order = self.seed.child("draw").numpy().permutation(np.flatnonzero(enough))
        drawn = sorted(order[: self.spec.describe.components].tolist())
        taken = set(drawn)
        rest = [i for i in np.argsort(-rates, kind="stable").tolist() if enough[i] and i not in taken]
        neurons: list[int] = []
        if self.neurons is not None:
            mixed = self.seed.child("neurons").numpy().permutation(self.neurons.n_components)
            neurons = sorted(mixed[: self.spec.describe.neurons].tolist())
        x = seen.sites[self.site]
        bands = [b for b in BANDS if b * len(x) >= 2]
        each = tuple(b for b in bands for _ in range(self.spec.describe.controls))
        controls = RandomDirections(self.site, each, self.seed.child("random"))
        tensors, about = controls.fit(ArrayStream({self.site: x})).state()
        return tensors, {
            "random": about,
            "bands": bands,
            "rates": rates.tolist(),
            "alive": int(enough.sum()),
            "drawn": drawn,
            "chosen": rest[: self.spec.describe.chosen],
            "neurons": neurons,
            "norm": float(x.double().norm(dim=1).mean()),
        }

    def matched(self, components: Sequence[Component]) -> list[int]:
        """The random directions whose band is the nearest to some component's firing rate."""
        bands = sorted(set(self.bands))
        wanted = {bands[_closest(bands, self.rates[c.index])] for c in components}
        return [i for i, band in enumerate(self.bands) if band in wanted]


def _closest(bands: Sequence[float], rate: float) -> int:
    return int(np.argmin(np.abs(np.log(np.asarray(bands) / max(rate, 1e-6)))))


def firing(
    decomposition: Decomposition, seen: Explored
) -> tuple[Float[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """Share of positions, and number of units, in which each component is active."""
    n = decomposition.n_components
    count, units = np.zeros(n), [np.zeros(0, dtype=np.int64)]
    site = decomposition.reads[0]
    x = seen.sites[site]
    for start in range(0, len(x), 8192):
        codes = decomposition.encode({site: x[start : start + 8192]})
        active = (codes.values > 0).numpy()
        index = codes.indices.numpy()[active]
        rows = np.nonzero(active)[0]
        count += np.bincount(index, minlength=n)
        units.append(np.unique(seen.units[start + rows] * n + index))
    pairs = np.unique(np.concatenate(units))
    return count / max(len(x), 1), np.bincount(pairs % n, minlength=n)


def layer_of(site: str) -> int:
    """The layer in a site's name; -1 where there is none."""
    parts = site.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else -1
