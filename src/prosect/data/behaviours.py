"""Behaviours: what is to be explained, as inputs, counterfactual inputs, a metric and a shifted split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import ShapeMismatch
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row

Metric = Callable[[Tensor, "Pairs"], Float[Tensor, " rows"]]


@dataclass(frozen=True)
class Pairs:
    """Clean inputs beside counterfactual ones, row by row.

    Attributes:
        clean: inputs on which the behaviour shows.
        counterfactual: the same rows with what the behaviour depends on changed.
        targets: the token that the behaviour makes likely at each position; -1 where it says nothing.
    """

    clean: Batch
    counterfactual: Batch
    targets: Int[Tensor, "rows positions"]

    def __post_init__(self) -> None:
        mine, others = self.clean.lengths.tolist(), self.counterfactual.lengths.tolist()
        if len(mine) != len(others):
            raise ShapeMismatch(
                f"{len(mine)} clean rows and {len(others)} counterfactual ones", "one for each"
            )
        for row, (a, b) in enumerate(zip(mine, others, strict=True)):
            if a != b:
                raise ShapeMismatch(
                    f"a clean row {row} of {a} positions and a counterfactual one of {b}",
                    "pairs of the same length, so that positions correspond",
                    "texts that differ in single tokens",
                )
        shape = next(iter(self.clean.tensors.values())).shape[:2]
        if tuple(self.targets.shape) != tuple(shape):
            raise ShapeMismatch(f"targets of shape {tuple(self.targets.shape)}", f"{tuple(shape)}")

    @property
    def shown(self) -> Bool[Tensor, "rows positions"]:
        """Positions at which the behaviour shows."""
        return self.targets >= 0


@dataclass(frozen=True)
class Behaviour:
    """What is to be explained.

    Attributes:
        name: what to call it.
        about: one sentence.
        pairs: (part, number of rows) → pairs; parts are ``explore``, ``validate.N``, ``sealed``, ``shift``.
        metric: (logits, pairs) → one number for each row, higher where the behaviour is stronger.
        unit: of the metric.
    """

    name: str
    about: str
    pairs: Callable[[str, int], Pairs]
    metric: Metric
    unit: str

    def batches(self, part: str, rows: int, size: int = 32) -> Iterator[Pairs]:
        """``rows`` pairs of ``part``, ``size`` at a time; each batch has its own seed."""
        for start in range(0, rows, size):
            yield self.pairs(f"{part}/{start}", min(size, rows - start))


def target_log_probability(
    logits: Float[Tensor, "rows positions vocab"], pairs: Pairs
) -> Float[Tensor, " rows"]:
    """Mean log-probability (nats) of the target over the positions where the behaviour shows."""
    logp = logits.log_softmax(dim=-1).gather(-1, pairs.targets.clamp(min=0)[..., None])[..., 0]
    shown = pairs.shown.to(logp.device)
    return (logp * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)


def repeated_block(
    tokens: Int[Tensor, " choices"],
    *,
    length: int = 64,
    shifted: int = 24,
    bos: int | None = None,
    seed: int = 0,
) -> Behaviour:
    """Copying: a random block of tokens, then the same block again.

    At every position of the second copy the next token is known from the first. In the counterfactual the
    first copy is another block, so the second is unforeseeable. The shift has blocks of another length.

    Args:
        tokens: ids to draw from.
        length: of the block.
        shifted: length of the block under the shift.
        bos: token to put first, if any.
        seed: root of the draws.
    """

    def make(part: str, rows: int) -> Pairs:
        draw = Seed(seed).child("repeated-block", part).torch()
        n = shifted if part.startswith("shift") else length
        picked = [tokens[torch.randint(len(tokens), (rows, n), generator=draw)] for _ in range(2)]
        lead = [] if bos is None else [torch.full((rows, 1), bos)]
        clean = torch.cat([*lead, picked[0], picked[0]], dim=1)
        other = torch.cat([*lead, picked[1], picked[0]], dim=1)
        targets = torch.full_like(clean, -1)
        start = len(lead) + n
        targets[:, start:-1] = clean[:, start + 1 :]
        ids = tuple(Row(unit=i, document=f"{part} block {i}") for i in range(rows))
        mask = torch.ones_like(clean, dtype=torch.bool)
        special = torch.zeros_like(mask)
        special[:, : len(lead)] = True

        def batch(x: Tensor) -> Batch:
            return Batch({"input_ids": x, "attention_mask": mask.long()}, mask, ids, special)

        return Pairs(batch(clean), batch(other), targets)

    return Behaviour(
        name="repeated-block",
        about="the second copy of a random block is predicted from the first",
        pairs=make,
        metric=target_log_probability,
        unit="nats",
    )
