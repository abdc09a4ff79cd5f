"""How often a concept is told right, as something that can be measured on any text: by a probe, or by less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.describe.executables import parameters_of, reading, tensor_of
from prosect.describe.probes.concepts import Concept
from prosect.describe.probes.linear import LinearProbe
from prosect.describe.vocabulary import Vocabulary
from prosect.model import Model
from prosect.store.shelf import Shelf

Which = Literal["probe", "control", "words", "frequent"]


@dataclass(frozen=True, eq=False)
class ConceptReading:
    """Share of a row's positions at which a concept is told right.

    Attributes:
        concept: what is told.
        which: a ``probe``; a ``control`` probe, told on labels that go with words; the ``words`` alone; or always
            what is most ``frequent``.
        probe: of a probe and of a control.
        table: (vocabulary,): the control's labels, or what the words tell; one value for what is most frequent.
    """

    concept: Concept
    which: Which
    probe: LinearProbe | None = None
    table: Bool[Tensor, " _"] | None = None

    kind = "concept-reading"
    version = 1

    def __post_init__(self) -> None:
        needs = {
            "probe": (True, False),
            "control": (True, True),
            "words": (False, True),
            "frequent": (False, True),
        }
        if needs.get(self.which) != (self.probe is not None, self.table is not None):
            raise BadInput(
                f"a reading by {self.which!r} {'with' if self.probe else 'without'} a probe and "
                f"{'with' if self.table is not None else 'without'} a table",
                "a probe, a control with its labels, or a table",
            )

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> ConceptReading:
        """What an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed; a tensor is not there.
            NewerSchema: a later prosect wrote it.
        """
        parameters, held = parameters_of(executable, cls.kind, cls.version), executable.tensors
        with reading(cls.kind):
            concept = Concept(str(parameters["concept"]), Vocabulary.load(held["vocabulary"], shelf))
            probe = None
            if "weights" in held:
                sites = tuple(str(s) for s in parameters["sites"])
                probe = LinearProbe(sites, tensor_of(executable, "weights", shelf), float(parameters["bias"]))
            table = tensor_of(executable, "table", shelf).bool() if "table" in held else None
            return cls(concept, parameters["which"], probe, table)

    def executable(self, shelf: Shelf) -> Executable:
        """As stored; weights, tables and the vocabulary go on the shelf."""
        parameters: dict[str, Json] = {"concept": self.concept.name, "which": self.which}
        tensors = {"vocabulary": self.concept.vocabulary.store(shelf)}
        if self.probe is not None:
            parameters |= {"sites": list(self.probe.sites), "bias": self.probe.bias}
            tensors["weights"] = shelf.put(self.probe.weights)
        if self.table is not None:
            tensors["table"] = shelf.put(self.table.to(torch.uint8))
        return Executable(kind=self.kind, version=self.version, parameters=parameters, tensors=tensors)

    @classmethod
    def measure(
        cls, wanted: Sequence[ConceptReading], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """One pass for all; a row in which nothing can be told has none."""
        sites = list(dict.fromkeys(s for w in wanted if w.probe is not None for s in w.probe.sites))
        x: dict[str, Tensor] = {}
        if sites:
            trace = model.run(batch, sites, stop_early=True)
            x = {s: batch.flat(trace[s]) for s in sites}
        scored = batch.scored
        assert scored is not None  # text has positions
        row = scored.nonzero()[:, 0].cpu().numpy()
        out = np.full((len(wanted), len(batch)), np.nan)
        for i, one in enumerate(wanted):
            labels, known = one.concept.labels(batch)
            said, asked = one._said(x, batch), one._asked(labels, batch)
            right = np.bincount(row, weights=(said == asked) & known, minlength=len(batch))
            counts = np.bincount(row, weights=known, minlength=len(batch))
            np.divide(right, counts, out=out[i], where=counts > 0)
        return out

    def _asked(self, labels: Bool[np.ndarray, " n"], batch: Batch) -> Bool[np.ndarray, " n"]:
        if self.which != "control":
            return labels
        assert self.table is not None
        return np.asarray(self.table.numpy()[self.concept.words(batch)])

    def _said(self, x: dict[str, Tensor], batch: Batch) -> Bool[np.ndarray, " n"]:
        if self.probe is not None:
            return self.probe.says(x)
        assert self.table is not None
        words = self.concept.words(batch)
        return np.asarray(
            self.table.numpy()[words] if self.which == "words" else np.full(len(words), bool(self.table))
        )
