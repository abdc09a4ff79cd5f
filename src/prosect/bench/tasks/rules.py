"""Rules of neurons: the tokens each fires on, the tokens that must come before, or that it follows no such rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.bench.subject import Subject
from prosect.bench.task import Case, Metric, Setup, expect
from prosect.bench.tasks.tokens import handed
from prosect.core.errors import BadInput
from prosect.core.truth import Truth
from prosect.data.batch import Batch

GUESSED = 4
"""Tokens that a random rule names."""
GOOD = 0.5
"""A rule counts as found from this overlap on."""


@dataclass(frozen=True)
class TokenRules:
    """The task ``rules``.

    Handed: ``input_ids``, ``mask``, ``special`` (rows, positions); ``activations`` (scored positions, neurons), rows
    one after another; the network; ``about``: ``site``, ``vocabulary``.
    Given back: ``current`` and ``previous`` (neurons, vocabulary), booleans: the tokens that a neuron fires on, and
    those one of which must come before; no ``previous`` means any, no ``current`` no rule at all.
    """

    name: str = "rules"
    methods: str = "rules"
    version: int = 1
    metrics: tuple[Metric, ...] = (
        Metric(
            "overlap",
            "mean over neurons of the Jaccard overlap of the tokens; 1 for none where there is none",
        ),
        Metric("found", f"share of the neurons with a rule whose overlap is {GOOD:g} or more"),
        Metric("made up", "share of the neurons without a rule that are said to follow one", better="lower"),
    )

    def suits(self, truth: Truth) -> bool:
        """Whether it says what neurons fire on."""
        return any(v.kind == "token-rule" for v in truth.variables)

    def cases(self, subject: Subject, setup: Setup) -> Sequence[Case]:
        """One for every site with such neurons."""
        out = []
        assert subject.model is not None and subject.source is not None
        ruled = {v.site for v in subject.truth.variables if v.kind == "token-rule"}
        batch = Batch.joined(list(subject.batches("explore", max(2, setup.rows // 64))))
        vocabulary = getattr(subject.source, "vocabulary", ())
        for site in sorted(ruled):
            variables = [v for v in subject.truth.variables if v.site == site]
            held = batch.flat(subject.model.run(batch, capture=(site,))[site])
            shape = (held.shape[1], len(vocabulary))
            truth = {name: np.zeros(shape, dtype=bool) for name in ("current", "previous")}
            for v in variables:
                for name, marks in truth.items():
                    marks[v.index, list(v.parameters.get(name) or ())] = True
            given = Given(
                {**handed(batch), "activations": held.detach().float()},
                {"site": site, "vocabulary": list(vocabulary)},
                inputs={k: t[:2] for k, t in batch.tensors.items()},
                network=subject.network,
                seconds=setup.seconds,
            )
            out.append(Case(site if len(ruled) > 1 else "", given, truth))
        return out

    def check(self, given: Given, answer: Answer) -> None:
        """Booleans for every neuron and token."""
        shape = self._shape(given)
        expect(answer, {"current": shape, "previous": shape})
        if any(t.dtype != torch.bool for t in answer.values()):
            raise BadInput("marks that are no booleans", "dtype bool")

    def score(self, case: Case, answer: Answer) -> dict[str, float]:
        """Overlaps, and what was made up."""
        overlap = overlaps(case.truth, {k: t.numpy() for k, t in answer.items()})
        ruled = case.truth["current"].any(axis=1)
        return {
            "overlap": float(overlap.mean()),
            "found": float((overlap[ruled] >= GOOD).mean()),
            "made up": float(1.0 - overlap[~ruled].mean()) if (~ruled).any() else 0.0,
        }

    def oracle(self, case: Case) -> Answer:
        """The rules."""
        return {k: torch.from_numpy(v) for k, v in case.truth.items()}

    def random(self, given: Given, rng: torch.Generator) -> Answer:
        """For each neuron, with a probability of a half no rule, else `GUESSED` tokens, whatever came before."""
        neurons, tokens = self._shape(given)
        drawn = torch.rand((neurons, tokens), generator=rng).argsort(dim=1) < GUESSED
        some = torch.rand((neurons, 1), generator=rng) < 0.5
        return {"current": drawn & some, "previous": torch.zeros((neurons, tokens), dtype=torch.bool)}

    def floor(self, case: Case) -> float:
        """A half where there is no rule; where there is one that asks for nothing before, half of the mean overlap."""
        tokens = case.truth["current"].shape[1]
        sizes: list[int] = case.truth["current"].sum(axis=1).tolist()
        asks: list[bool] = (case.truth["previous"].sum(axis=1) > 0).tolist()
        each = [
            0.5 if n == 0 else 0.0 if before else 0.5 * mean_overlap(tokens, int(n), GUESSED)
            for n, before in zip(sizes, asks, strict=True)
        ]
        return float(np.mean(each))

    def claims(self, answer: Answer) -> Bool[np.ndarray, " n"]:
        """Neurons that are said to follow a rule."""
        return np.asarray(answer["current"].any(dim=1).numpy())

    def nothing(self, given: Given) -> Answer:
        """No neuron follows a rule."""
        none = torch.zeros(self._shape(given), dtype=torch.bool)
        return {"current": none, "previous": none.clone()}

    def silence(self, given: Given) -> float:
        """Share of neurons that a random answer says nothing of."""
        return 0.5

    def unlinked(self, given: Given, rng: torch.Generator) -> dict[str, Tensor]:
        """Activations moved along the text by a quarter of it or more: each keeps its course, and its tokens are others."""
        n = len(given.tensors["activations"])
        by = int(torch.randint(n // 4, n - n // 4, (1,), generator=rng))
        return {**given.tensors, "activations": given.tensors["activations"].roll(by, dims=0)}

    def _shape(self, given: Given) -> tuple[int, int]:
        return given.tensors["activations"].shape[1], len(given.about["vocabulary"])


def overlaps(truth: Mapping[str, np.ndarray], said: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each neuron, overlap of the tokens times overlap of those before.

    Where nothing has to come before, or nothing is there at all, saying so counts 1 and anything else 0.
    """
    out = np.ones(len(truth["current"]))
    for name in ("current", "previous"):
        both = (truth[name] & said[name]).sum(axis=1)
        either = (truth[name] | said[name]).sum(axis=1)
        out *= np.where(either == 0, 1.0, both / np.maximum(either, 1))
    return out


def mean_overlap(tokens: int, size: int, drawn: int) -> float:
    """Mean Jaccard overlap of a fixed set with one drawn at random, over the hypergeometric distribution."""
    from scipy.stats import hypergeom

    both = np.arange(min(size, drawn) + 1)
    return float((hypergeom(tokens, size, drawn).pmf(both) * both / (size + drawn - both)).sum())
