"""Where a concept can be read: at each site alone and at all of them together, on units that no probe was fitted to.

A representation that lies partly in one layer and partly in another is read by a probe on both and by none on either.
Beside every probe stand what the words alone tell, what is most frequent, and the same probe on a control task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from markupsafe import Markup
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.intervals import INTERVAL_DRAWS, Contrast, Mean, Resamples, Term
from prosect.core.markup import card
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.probes.concepts import Concept, by_word
from prosect.describe.probes.linear import LinearProbe, fit_probe

if TYPE_CHECKING:
    from prosect.data.batch import Batch
    from prosect.model import Model


@dataclass(frozen=True, eq=False)
class Rows:
    """Activations with what is to be read from them.

    Attributes:
        x: site → (n, width), float32.
        y: where the concept is.
        words: the word type of each row, from 0: what a control task labels.
        units: its independent unit.
    """

    x: Mapping[str, Float[Tensor, "_ _"]]
    y: Bool[np.ndarray, " _"]
    words: Int[np.ndarray, " _"]
    units: Int[np.ndarray, " _"]

    def __post_init__(self) -> None:
        sizes = {len(self.y), len(self.words), len(self.units), *(len(t) for t in self.x.values())}
        if len(sizes) > 1 or not self.x:
            raise ShapeMismatch(
                f"{', '.join(f'{s} {len(t)}' for s, t in self.x.items()) or 'no site'}, {len(self.y)} labels, "
                f"{len(self.words)} words, {len(self.units)} units",
                "as many of each, at least one site",
            )

    def some(self, at: Bool[np.ndarray, " n"]) -> Rows:
        """Those rows alone."""
        index = torch.from_numpy(np.flatnonzero(at))
        return Rows({s: t[index] for s, t in self.x.items()}, self.y[at], self.words[at], self.units[at])


@dataclass(frozen=True)
class SiteReading:
    """What a probe at one site, or at several, tells on held-out units.

    Attributes:
        accuracy: share of positions that it tells right.
        control: the same for a probe that was fitted to labels drawn for each word, told on such labels.
        selectivity: accuracy minus control, paired: what is read beyond which word stands there.
        probe, control_probe: the probes themselves.
    """

    accuracy: Measured
    control: Measured
    selectivity: Measured
    probe: LinearProbe = field(repr=False)
    control_probe: LinearProbe = field(repr=False)


@dataclass(frozen=True, eq=False)
class LayerProbes:
    """A concept read at several sites.

    Attributes:
        alone: of each site by itself.
        together: of all of them side by side.
        best: the site that did best on the units that penalties were chosen on.
        gain: accuracy of all together minus that of ``best``, paired.
        words: accuracy of a table that has seen which words the concept goes with.
        chance: of saying what is most frequent.
        table: what that table says of each word.
        control_labels: what the control task asks of each word.
        fitted, heldout: rows.
    """

    alone: Mapping[str, SiteReading]
    together: SiteReading
    best: str
    gain: Measured
    words: Measured
    chance: Measured
    table: Bool[np.ndarray, " vocabulary"]
    control_labels: Bool[np.ndarray, " vocabulary"]
    fitted: int
    heldout: int

    def _repr_html_(self) -> Markup:
        named = {**self.alone, "all together": self.together}
        rows: list[tuple[str, object]] = [(s, r.accuracy) for s, r in named.items()]
        rows += [
            ("together minus best alone", self.gain),
            ("words alone", self.words),
            ("chance", self.chance),
        ]
        return card("accuracy on held-out units", rows, "A probe says what can be read, not what is used.")


def probe_layers(
    model: Model,
    batches: Iterable[Batch],
    sites: Sequence[str],
    concept: Concept,
    *,
    heldout: float = 0.3,
    seed: int = 0,
) -> LayerProbes:
    """Fit linear probes for a concept at each site and at all together, and judge them on units held out.

    Args:
        model: opened.
        batches: text; units are told apart by their numbers, so batches of one part.
        sites: with one vector for each position.
        concept: what is to be read.
        heldout: share of the units that probes are judged on.
        seed: of the split, the control task and the intervals.

    Raises:
        BadInput: no site, a site twice, a share that leaves nothing.
        TooLittleData: a concept that is nowhere or everywhere, or too few units.
        UnknownName, Unsupported: a site that the model does not have.
    """
    if not 0 < heldout < 1:
        raise BadInput(f"heldout={heldout}", "a share between 0 and 1")
    rows = gather(model, batches, sites, concept)
    units = np.unique(rows.units)
    judged = Seed(seed).child("heldout").numpy().permutation(units)[: max(1, round(heldout * len(units)))]
    held = np.isin(rows.units, judged)
    return compare(rows.some(~held), rows.some(held), len(concept.vocabulary), Seed(seed))


def gather(model: Model, batches: Iterable[Batch], sites: Sequence[str], concept: Concept) -> Rows:
    """What is at some sites at every scored position where the concept can be told.

    Raises:
        BadInput: no site, or one twice.
        TooLittleData: nothing to read.
    """
    names = [model.sites.resolve(s) for s in sites]
    if not names or len(set(names)) < len(names):
        raise BadInput(f"sites {', '.join(sites) or 'none'}", "at least one, each once")
    x: dict[str, list[Tensor]] = {s: [] for s in names}
    y, words, units = [], [], []
    for batch in batches:
        moved = batch.to(model.device)
        trace = model.run(moved, names, stop_early=True)
        labels, known = concept.labels(batch)
        for s in names:
            flat = moved.flat(trace[s]).detach().to("cpu", torch.float32)
            x[s].append(flat.reshape(len(flat), -1)[torch.from_numpy(known)])
        y.append(labels[known])
        words.append(concept.words(batch)[known])
        units.append(batch.flat_units[known])
    if not y:
        raise TooLittleData("nothing to read", "some text")
    return Rows({s: torch.cat(t) for s, t in x.items()}, *(np.concatenate(p) for p in (y, words, units)))


def compare(fit: Rows, held: Rows, vocabulary: int, seed: Seed) -> LayerProbes:
    """Probes fitted to some rows and judged on others.

    Args:
        fit: rows to fit to.
        held: rows of other units to judge on.
        vocabulary: word types.
        seed: of the choice of penalties, the control task and the intervals.

    Raises:
        TooLittleData: a concept that is nowhere or everywhere among the rows to fit, or too few units.
    """
    if len(np.unique(held.units)) < 2:
        raise TooLittleData(
            f"{len(np.unique(held.units))} units to judge a probe on", "at least 2", "more text"
        )
    task = by_word(vocabulary, float(fit.y.mean()), seed.child("control"))
    sites = list(fit.x)
    probes = {}
    for wanted in (*([s] for s in sites), sites):
        own = fit_probe(fit.x, fit.y, fit.units, wanted, seed.child("probe"))
        control = fit_probe(fit.x, task[fit.words], fit.units, wanted, seed.child("probe"))
        probes[tuple(wanted)] = (own, control)
    best = max(sites, key=lambda s: probes[s,][0].inner)
    table = told_by_words(fit.y, fit.words, vocabulary)
    often = bool(fit.y.mean() > 0.5)
    right = [table[held.words] == held.y, np.full(len(held.y), often) == held.y]
    for own, control in probes.values():
        right += [own.says(held.x) == held.y, control.says(held.x) == task[held.words]]
    terms = [Term([_sums(r, held.units)]) for r in right]
    places = {key: 2 + 2 * i for i, key in enumerate(probes)}
    together, alone = places[tuple(sites)], places[best,]
    wanted_ = [Contrast(i) for i in range(len(terms))]
    wanted_ += [Contrast(i, i + 1) for i in places.values()] + [Contrast(together, alone)]
    draws = Resamples(len(np.unique(held.units)), INTERVAL_DRAWS, seed.child("interval"))
    found = [r.measured for r in draws.contrasts(terms, wanted_, Mean(0.0, 1.0))]
    readings = {
        key: SiteReading(found[i], found[i + 1], found[len(terms) + n], *probes[key])
        for n, (key, i) in enumerate(places.items())
    }
    return LayerProbes(
        {s: readings[s,] for s in sites},
        readings[tuple(sites)],
        best,
        found[-1],
        found[0],
        found[1],
        table,
        task,
        len(fit.y),
        len(held.y),
    )


def told_by_words(y: Bool[np.ndarray, " n"], words: Int[np.ndarray, " n"], vocabulary: int) -> np.ndarray:
    """For each word whether the concept goes with it more often than not; for words never seen, what is frequent."""
    seen = np.bincount(words, minlength=vocabulary)
    there = np.bincount(words, weights=y, minlength=vocabulary)
    return np.where(seen > 0, 2 * there > seen, y.mean() > 0.5)


def _sums(right: Bool[np.ndarray, " n"], units: Int[np.ndarray, " n"]) -> Float[np.ndarray, "units 2"]:
    unit, at = np.unique(units, return_inverse=True)
    counts = np.bincount(at, minlength=len(unit)).astype(float)
    return np.stack([counts, np.bincount(at, weights=right, minlength=len(unit))], axis=1)
