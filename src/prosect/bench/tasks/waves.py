"""Closed-form quantities: the frequency and the two phases of every neuron of a network that adds modulo p."""

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
from prosect.core.errors import BadInput
from prosect.core.truth import Truth
from prosect.data.batch import Batch

SITE = "hidden"


@dataclass(frozen=True)
class Waves:
    """The task ``waves``.

    Handed: ``pairs`` (n, 2) of residues; ``activations`` (n, neurons), squares of a sum of two waves; the network;
    ``about``: ``modulus``.
    Given back: ``frequency`` (neurons,), from 1 to (p − 1)/2, or 0 for no single one; ``phases`` (neurons, 2) in radians,
    ignored where the frequency is 0.
    """

    name: str = "waves"
    methods: str = "waves"
    version: int = 1
    metrics: tuple[Metric, ...] = (
        Metric("accuracy", "share of neurons whose frequency, or lack of one, is right"),
        Metric("F1", "of naming the right frequency, over neurons that have one"),
        Metric(
            "phase error",
            "mean error of both phases in radians where the frequency is right",
            0.0,
            np.pi,
            "lower",
        ),
    )

    def suits(self, truth: Truth) -> bool:
        """Whether it knows waves."""
        return any(v.kind == "trigonometric" for v in truth.variables)

    def cases(self, subject: Subject, setup: Setup) -> Sequence[Case]:
        """One."""
        assert subject.model is not None and subject.source is not None
        batch = Batch.joined(list(subject.source.batches("explore", 4096)))
        held = subject.model.run(batch, capture=(SITE,))[SITE]
        n = held.shape[1]
        frequency, phases = np.zeros(n, dtype=np.int64), np.zeros((n, 2))
        for v in subject.truth.variables:
            if v.kind == "trigonometric":
                frequency[v.index] = v.parameters["frequency"]
                phases[v.index] = v.parameters["phase_a"], v.parameters["phase_b"]
        given = Given(
            {"pairs": batch.tensors["pairs"], "activations": held.detach().float()},
            {"modulus": int(subject.truth.quantities["modulus"])},
            inputs={k: t[:2] for k, t in batch.tensors.items()},
            network=subject.network,
            seconds=setup.seconds,
        )
        return (Case("", given, {"frequency": frequency, "phases": phases}),)

    def check(self, given: Given, answer: Answer) -> None:
        """Frequencies in range, finite phases."""
        n = given.tensors["activations"].shape[1]
        expect(answer, {"frequency": (n,), "phases": (n, 2)})
        k, most = answer["frequency"], (given.about["modulus"] - 1) // 2
        if k.is_floating_point() or not bool(((k >= 0) & (k <= most)).all()):
            raise BadInput("frequencies out of range", f"whole numbers from 0 to {most}")

    def score(self, case: Case, answer: Answer) -> dict[str, float]:
        """Frequencies, then the phases of those that are right."""
        truth, said = case.truth["frequency"], answer["frequency"].numpy()
        right = (truth == said) & (truth > 0)
        claimed, there = np.count_nonzero(said), np.count_nonzero(truth)
        error = np.pi / 3  # mean of that of phases drawn at random
        if right.any():
            error = float(
                phase_error(case.truth["phases"][right], answer["phases"].double().numpy()[right]).mean()
            )
        return {
            "accuracy": float((truth == said).mean()),
            "F1": float(2.0 * right.sum() / max(claimed + there, 1)),
            "phase error": error,
        }

    def oracle(self, case: Case) -> Answer:
        """The waves."""
        return {k: torch.from_numpy(v) for k, v in case.truth.items()}

    def random(self, given: Given, rng: torch.Generator) -> Answer:
        """Any frequency or none, all alike, and any phases."""
        n = given.tensors["activations"].shape[1]
        frequency = torch.randint(self._choices(given), (n,), generator=rng)
        return {"frequency": frequency, "phases": 2 * torch.pi * torch.rand((n, 2), generator=rng)}

    def floor(self, case: Case) -> float:
        """One in as many as there are frequencies, and none."""
        return 1.0 / self._choices(case.given)

    def claims(self, answer: Answer) -> Bool[np.ndarray, " n"]:
        """Neurons that are said to have a frequency."""
        return np.asarray(answer["frequency"].numpy() > 0)

    def nothing(self, given: Given) -> Answer:
        """No neuron has one."""
        n = given.tensors["activations"].shape[1]
        return {"frequency": torch.zeros(n, dtype=torch.long), "phases": torch.zeros(n, 2)}

    def silence(self, given: Given) -> float:
        """Share of neurons that a random answer says nothing of."""
        return 1.0 / self._choices(given)

    def unlinked(self, given: Given, rng: torch.Generator) -> dict[str, Tensor]:
        """Activations paired with other pairs."""
        order = torch.randperm(len(given.tensors["pairs"]), generator=rng)
        return {**given.tensors, "activations": given.tensors["activations"][order]}

    def _choices(self, given: Given) -> int:
        return (int(given.about["modulus"]) - 1) // 2 + 1


def phase_error(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Mean of both phases' errors, (n,); both turned by half a turn at once are the same square."""
    errors = [
        np.abs((truth - said - turn + np.pi) % (2 * np.pi) - np.pi).mean(axis=1) for turn in (0.0, np.pi)
    ]
    return np.asarray(np.minimum(*errors))
