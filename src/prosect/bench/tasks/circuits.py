"""Circuit recovery: which edges matter under an ablation, among all there are from a writer to a reader behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from prosect.bench.given import Answer, Given
from prosect.bench.subject import Subject
from prosect.bench.task import Case, Metric, Setup, array, expect
from prosect.core.detection import roc_area
from prosect.core.errors import BadInput
from prosect.core.truth import Truth
from prosect.data.batch import Batch

ROWS = 24
"""Sequences, at most."""
LOOKED_AT = 256
"""Sequences among which those of the commonest length are taken."""


@dataclass(frozen=True)
class CircuitRecovery:
    """The task ``circuits``; a case for each ablation that the truth is known for.

    Handed: ``input_ids`` (rows, positions), all of one length; ``other`` (rows,), the row that each takes values from
    under ``resample``; the network; ``about``: ``ablation`` (``zero``, ``mean``, ``mean-positional``, ``resample``) and
    ``edges``, pairs of a writer and a reader as `prosect.model.patching` names them.
    Given back: ``score`` (edges,), the higher the more the edge matters.
    """

    name: str = "circuits"
    methods: str = "circuits"
    version: int = 1
    metrics: tuple[Metric, ...] = (
        Metric("AUROC", "chance that an edge that matters is scored above one that does not, ties as halves"),
        Metric("F1", "of as many of the highest scores as there are edges that matter, ties as shares"),
    )

    def suits(self, truth: Truth) -> bool:
        """Whether it knows edges."""
        return any(truth.edges.values())

    def cases(self, subject: Subject, setup: Setup) -> Sequence[Case]:
        """One for each ablation under which some edges matter and some do not; none where no sequences are read."""
        from prosect.model.patching.edges import readers_of, writers_of

        model = subject.model
        if model is None or "input_ids" not in model.example.tensors:
            return ()
        edges = [(w.name, r.name) for w in writers_of(model) for r in readers_of(model) if r.after(w)]
        batch = _of_one_length(subject, min(ROWS, setup.rows))
        out = []
        for kind, matter in subject.truth.edges.items():
            unknown = sorted(set(matter) - set(edges))
            if unknown:
                raise BadInput(
                    f"the edge {unknown[0]} in the truth of {subject.name}", "edges that the model's map has"
                )
            label = np.array([e in set(matter) for e in edges])
            if not label.any() or label.all():
                continue
            given = Given(
                {"input_ids": batch.tensors["input_ids"], "other": torch.arange(len(batch)).roll(1)},
                {"ablation": kind, "edges": [list(e) for e in edges]},
                inputs={k: t[:2] for k, t in batch.tensors.items()},
                network=subject.network,
                seconds=setup.seconds,
            )
            out.append(Case(kind, given, {"label": label}))
        return out

    def check(self, given: Given, answer: Answer) -> None:
        """A finite score for every edge."""
        expect(answer, {"score": (len(given.about["edges"]),)})

    def score(self, case: Case, answer: Answer) -> dict[str, float]:
        """How well the scores order edges."""
        label, score = case.truth["label"], array(answer["score"])
        return {"AUROC": roc_area(score, label), "F1": top_share(score, label)}

    def oracle(self, case: Case) -> Answer:
        """The edges that matter."""
        return {"score": torch.from_numpy(case.truth["label"].astype(float))}

    def random(self, given: Given, rng: torch.Generator) -> Answer:
        """Any score."""
        return {"score": torch.rand(len(given.about["edges"]), generator=rng, dtype=torch.float64)}

    def floor(self, case: Case) -> float:
        """A half, whatever the edges."""
        return 0.5


def top_share(score: np.ndarray, label: np.ndarray) -> float:
    """Share of the highest scores, as many as are labelled, that are; where the last of them are tied, on average.

    With as many named as there are, precision, recall and F1 are the same.
    """
    k = int(label.sum())
    bar = np.sort(score)[::-1][k - 1]
    above, tied = score > bar, score == bar
    room = k - int(above.sum())
    return float((label[above].sum() + label[tied].mean() * room) / k)


def _of_one_length(subject: Subject, rows: int) -> Batch:
    """Sequences of the commonest length, the longer where two are as common."""
    batch = Batch.joined(list(subject.batches("explore", LOOKED_AT)))
    lengths, counts = np.unique(batch.lengths, return_counts=True)
    length = int(lengths[len(counts) - 1 - np.argmax(counts[::-1])])
    same = batch.select(np.flatnonzero(batch.lengths == length)[:rows].tolist())
    assert same.mask is not None
    cut = {k: t[:, :length] for k, t in same.tensors.items()}
    special = None if same.special is None else same.special[:, :length]
    return Batch(cut, same.mask[:, :length], same.rows, special)
