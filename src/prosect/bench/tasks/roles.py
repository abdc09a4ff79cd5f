"""Role labels: where every head looks, among roles that are listed, or nowhere in particular."""

from __future__ import annotations

from collections.abc import Sequence
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

NONE = "none"
FARTHEST = 8
CHOICES = (
    NONE,
    "previous",
    "first",
    "duplicate",
    "induction",
    *(f"offset {d}" for d in range(2, FARTHEST + 1)),
)
"""The roles that there are; an offset role looks so many places back."""
ROWS = 64
"""Sequences, at most: attention is square."""


@dataclass(frozen=True)
class RoleLabels:
    """The task ``roles``.

    Handed: ``input_ids``, ``mask``, ``special`` (rows, positions); ``probs.L`` (rows, heads, queries, keys) for every
    layer; the network; ``about``: ``layers``, ``heads``, ``choices``.
    Given back: ``role`` (layers, heads), the number of a choice.
    """

    name: str = "roles"
    methods: str = "roles"
    version: int = 1
    metrics: tuple[Metric, ...] = (
        Metric("accuracy", "share of heads whose role is named"),
        Metric("macro F1", "mean over the roles that occur of the F1 of naming them"),
    )

    def suits(self, truth: Truth) -> bool:
        """Whether it says what heads do."""
        return any(v.kind == "head-role" for v in truth.variables)

    def cases(self, subject: Subject, setup: Setup) -> Sequence[Case]:
        """One."""
        model = subject.model
        assert model is not None and model.n_layers and model.n_heads
        batch = Batch.joined(list(subject.batches("explore", min(ROWS, setup.rows))))
        sites = [f"probs.{i}" for i in range(model.n_layers)]
        trace = model.run(batch, capture=sites)
        roles = np.full((model.n_layers, model.n_heads), -1)
        for v in subject.truth.variables:
            if v.kind == "head-role":
                _, layer, head = v.site.split(".")
                offset = v.parameters.get("offset")
                name = f"offset {offset}" if v.parameters["role"] == "offset" else str(v.parameters["role"])
                roles[int(layer), int(head[1:])] = CHOICES.index(name)
        given = Given(
            {**handed(batch), **{s: trace[s].detach().float() for s in sites}},
            {"layers": model.n_layers, "heads": model.n_heads, "choices": list(CHOICES)},
            inputs={k: t[:2] for k, t in batch.tensors.items()},
            network=subject.network,
            seconds=setup.seconds,
        )
        return (Case("", given, {"role": roles}),)

    def check(self, given: Given, answer: Answer) -> None:
        """A choice for every head."""
        expect(answer, {"role": (given.about["layers"], given.about["heads"])})
        role = answer["role"]
        if role.is_floating_point() or not bool(((role >= 0) & (role < len(CHOICES))).all()):
            raise BadInput(f"roles {role.tolist()}", f"whole numbers from 0 to {len(CHOICES) - 1}")

    def score(self, case: Case, answer: Answer) -> dict[str, float]:
        """Over the heads whose role is known."""
        truth, said = case.truth["role"], answer["role"].numpy()
        known = truth >= 0
        truth, said = truth[known], said[known]
        f1 = []
        for role in np.unique(truth):
            both = np.count_nonzero((truth == role) & (said == role))
            f1.append(2.0 * both / (np.count_nonzero(truth == role) + np.count_nonzero(said == role)))
        return {"accuracy": float((truth == said).mean()), "macro F1": float(np.mean(f1))}

    def oracle(self, case: Case) -> Answer:
        """The roles."""
        return {"role": torch.from_numpy(np.maximum(case.truth["role"], 0))}

    def random(self, given: Given, rng: torch.Generator) -> Answer:
        """Any role, all alike."""
        shape = (given.about["layers"], given.about["heads"])
        return {"role": torch.randint(len(CHOICES), shape, generator=rng)}

    def floor(self, case: Case) -> float:
        """One in as many as there are choices."""
        return 1.0 / len(CHOICES)

    def claims(self, answer: Answer) -> Bool[np.ndarray, " n"]:
        """Heads that are said to have a role."""
        return np.asarray(answer["role"].numpy().ravel() != CHOICES.index(NONE))

    def nothing(self, given: Given) -> Answer:
        """No head has a role."""
        return {"role": torch.zeros((given.about["layers"], given.about["heads"]), dtype=torch.long)}

    def silence(self, given: Given) -> float:
        """Share of components that a random answer says nothing of."""
        return 1.0 / len(CHOICES)

    def unlinked(self, given: Given, rng: torch.Generator) -> dict[str, Tensor]:
        """Every query's attention dealt anew, at random, over the keys that it can see: no role of place or token holds.

        Another sequence's attention would not do, since roles about places would still be true.
        """
        out = dict(given.tensors)
        for name in [n for n in out if n.startswith("probs.")]:
            probs = out[name]
            hidden = torch.ones(probs.shape[-2:], dtype=torch.bool).triu(1)
            order = torch.rand(probs.shape, generator=rng).masked_fill(hidden, 2.0).argsort(dim=-1)
            out[name] = probs.gather(-1, order)
        return out
