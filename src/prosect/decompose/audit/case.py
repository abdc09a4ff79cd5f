"""What every line of an audit looks at: a dictionary in its model, on text it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.activations import Runs
from prosect.decompose.audit.controls import random_dictionary
from prosect.decompose.audit.sample import Sample, Seen, encoded, see
from prosect.decompose.audit.wanted import Wanted
from prosect.decompose.contract import Codes
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.evaluation.spliced import Loss


@dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Attributes:
        latents: whose effects are measured, drawn at random from those that fire (L5).
        windows: on which their effects are measured.
        clusters: of latents that are searched for circles (L3).
        permutations: of a null.
        rows: windows in a pass of the model.
    """

    latents: int = 40
    windows: int = 32
    clusters: int = 12
    permutations: int = 200
    rows: int = 8


@dataclass(frozen=True)
class Case:
    """A dictionary and what it is audited on.

    Attributes:
        model: what it was trained on.
        dictionary: the one that is audited.
        sample: text, cut into ``part`` and ``learn``.
        seed: of every draw.
        part: held out; every number comes from it.
        learn: where means and thresholds of controls come from.
        wanted: concepts; None where there are none, and ``unwanted`` says why.
        unwanted: why there are no concepts.
        others: trained alike from other seeds.
        compared: of the same sites, of other widths or sparsities.
        following: a dictionary of a later site, for L7.
        curve: compute and loss of models of other sizes, for L1: (compute, loss in nats).
        training: what the record of its training says: ``tokens``, ``positions``, ``seconds training``.
        loss: what is measured in place of the cross-entropy of the next token; see `splice`.
        predicts: whether outputs are logits of a prediction.
        effort: how much is looked at.
    """

    model: Any
    dictionary: Dictionary
    sample: Sample
    seed: Seed
    part: str = "validate.0"
    learn: str = "explore"
    wanted: Wanted | None = None
    unwanted: str = "inputs are no tokens, and no labels were given"
    others: tuple[Dictionary, ...] = ()
    compared: tuple[Dictionary, ...] = ()
    following: Dictionary | None = None
    curve: tuple[tuple[float, float], ...] = ()
    training: Mapping[str, Json] = field(default_factory=dict)
    loss: Loss | None = None
    predicts: bool = True
    effort: Effort = field(default_factory=Effort)

    @property
    def runs(self) -> Runs:
        """The model, as what can be run."""
        found: Runs = self.model
        return found

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Every site that a dictionary of this case reads or writes."""
        every = (self.dictionary, *(() if self.following is None else (self.following,)))
        return tuple(dict.fromkeys(site for d in every for site in (*d.reads, *d.writes)))

    @cached_property
    def seen(self) -> Seen:
        """Held-out activations."""
        return see(self.runs, self.sample, self.part, self.sites, self.effort.rows)

    @cached_property
    def explored(self) -> Seen:
        """Activations of the text that may be learned from."""
        return see(self.runs, self.sample, self.learn, self.sites, self.effort.rows)

    @cached_property
    def codes(self) -> Codes:
        """The dictionary's codes of `seen`, on the CPU."""
        return encoded(self.dictionary, self.seen)

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """Mean activation at every site, from what may be learned from."""
        return {site: x.double().mean(dim=0) for site, x in self.explored.x.items()}

    @cached_property
    def random(self) -> Dictionary:
        """Random directions in the dictionary's place."""
        l0 = float(self.codes.active.double().mean())
        return random_dictionary(self.dictionary, self.explored, l0, self.seed.child("random"))

    @property
    def concepts(self) -> Wanted:
        """The concepts that are wanted.

        Raises:
            TooLittleData: there are none.
        """
        if self.wanted is None:
            raise TooLittleData("no concepts", "labels of some", f"--concepts ({self.unwanted})")
        return self.wanted
