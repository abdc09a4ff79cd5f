"""The effect side of heads: does removing the head hurt the predictions its role is about?

The metric is the mean rise of the loss (nats) at positions to which the role applies when the head's output is
replaced by its mean over explore: of the next token or, where the subject says which output is right at each position, of that
one. The deciding rival is the same for other heads: a
head that attends to the right place and writes nothing does not matter, whatever its pattern looks like.

Several heads may be claimed to do one thing together, because heads that share a job stand in for each other when
one of them is removed; their rivals are random sets of as many others. Such a claim may be about repeated spans
alone: positions where what followed an earlier occurrence of the token does follow again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput
from prosect.core.intervals import Mean
from prosect.core.records import Evidence
from prosect.data.batch import Batch
from prosect.model import After, mean
from prosect.validate.attend import layer_and_head
from prosect.validate.subject import STATISTICAL, Captured, Subject, runnable
from prosect.validate.sums import UnitSums
from prosect.validate.tester import DrawCache, Item, compare

KIND = "head-matters"
METRIC = "rise of the loss without the head, where its role applies (nats)"


def next_token_loss(
    logits: Float[Tensor, "rows positions vocab"], batch: Batch
) -> Float[Tensor, "rows positions"]:
    """Loss in nats of predicting the following token at each position; 0 where nothing real follows."""
    ids = batch.tensors["input_ids"]
    logp = logits[:, :-1].float().log_softmax(dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    loss = torch.zeros(ids.shape, device=logp.device)
    loss[:, :-1] = -logp
    return loss * followed(batch)


def answer_loss(
    logits: Float[Tensor, "rows positions vocab"], wanted: Tensor
) -> Float[Tensor, "rows positions"]:
    """Loss in nats of the right output at each position; 0 where none is asked for.

    For a number it is that of a Gaussian of variance 1 around the first output, less its constant.
    """
    if wanted.is_floating_point():
        return (0.5 * (logits[..., 0].float() - wanted.float()).square()).nan_to_num(nan=0.0)
    logp = logits.float().log_softmax(dim=-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return -logp * (wanted >= 0)


def loss(
    logits: Float[Tensor, "rows positions vocab"], batch: Batch, subject: Subject
) -> tuple[Tensor, Tensor]:
    """Loss in nats at each position, and the positions at which something is asked."""
    if subject.answers is None:
        return next_token_loss(logits, batch), followed(batch)
    wanted = subject.answers(batch).to(logits.device)
    asked = ~wanted.isnan() if wanted.is_floating_point() else wanted >= 0
    return answer_loss(logits, wanted), asked


def followed(batch: Batch) -> Tensor:
    """Positions after which a real token follows."""
    if batch.mask is None:
        raise BadInput("inputs without positions", "text")
    out = batch.mask.clone()
    out[:, :-1] &= batch.mask[:, 1:]
    out[:, -1] = False
    return out


def comes_true(batch: Batch) -> Tensor:
    """Of each query and key, whether the key's token is the one that follows the query."""
    ids = batch.tensors["input_ids"]
    following = torch.full_like(ids, -1)
    following[:, :-1] = ids[:, 1:]
    return following[:, :, None] == ids[:, None, :]


Heads = tuple[tuple[int, int], ...]
"""Heads that are removed together, each as (layer, head)."""


def _set(heads: Any) -> Heads:
    return tuple((int(layer), int(head)) for layer, head in heads)


class Matters:
    """Mean-ablates every head that a plan is about or compares with, on one row of each unit."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        self.items, self.subject = list(items), subject
        self.units = subject.source.units[fold]
        self.roles: dict[str, tuple[Any, bool]] = {}
        self.heads: list[Heads] = []
        self.plan: list[tuple[int, str, list[list[int]]]] = []
        for item in self.items:
            effect = item.hypothesis.description.effect
            if effect is None:
                raise BadInput(f"hypothesis {item.hypothesis.id} without an effect side", "a role to test")
            asked = item.plan.parameters
            key = digest([effect, bool(asked.get("repeated"))])
            self.roles.setdefault(key, (runnable(effect, subject.shelf), bool(asked.get("repeated"))))
            if "heads" in asked:
                own = self._head(_set(asked["heads"]))
                rivals = [[self._head(_set(others)) for others in asked["others"]] for _ in item.plan.rivals]
            else:
                own = self._head((layer_and_head(item.hypothesis.component),))
                rivals = [[self._head((layer_and_head(c),)) for c in r.components] for r in item.plan.rivals]
            self.plan.append((own, key, rivals))
        self.per_unit = max((int(i.plan.parameters.get("rows", 1)) for i in self.items), default=1)
        limits = [int(i.plan.parameters.get("units", self.units)) for i in self.items]
        self.most = max(limits, default=self.units)
        self._seen = np.zeros(self.units, dtype=int)
        layers = sorted({layer for heads in self.heads for layer, _ in heads})
        self._begin = {layer: subject.model.before(f"z.{layer}") for layer in layers}
        keys = list(self.roles)
        self._place = {key: i for i, key in enumerate(keys)}
        self.sums = UnitSums(self.units, len(keys) * len(self.heads), 2)

    def _head(self, heads: Heads) -> int:
        if heads not in self.heads:
            self.heads.append(heads)
        return self.heads.index(heads)

    def sites(self) -> tuple[str, ...]:
        """Beside the outputs of the intact model, the streams from which passes without heads begin."""
        return tuple(dict.fromkeys(f"resid_post.{n}" for n in self._begin.values() if n is not None))

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Ablate every head on some rows of the batch."""
        picked: list[int] = []
        for i, unit in enumerate(batch.units.tolist()):
            known = self._seen[unit] > 0 or int((self._seen > 0).sum()) < self.most
            if known and self._seen[unit] < self.per_unit:
                self._seen[unit] += 1
                picked.append(i)
        if not picked:
            return
        some = batch.select(picked)
        base, asked = loss(output[torch.tensor(picked, device=output.device)], some, self.subject)
        counted = asked if some.scored is None else asked & some.scored
        rises = []
        for heads in self.heads:
            begin = self._begin[min(layer for layer, _ in heads)]
            after = None if begin is None else After(begin, trace[f"resid_post.{begin}"][picked])
            held = [
                mean(f"z.{layer}.h{head}", self.subject.means[f"z.{layer}"][head]) for layer, head in heads
            ]
            run = self.subject.model.run(some, edits=held, after=after)
            self.subject.spend(some, "validate")
            rises.append((loss(run.output, some, self.subject)[0] - base).double())
        rise = torch.stack(rises)  # (heads, rows, positions)
        if self.subject.null == STATISTICAL:  # which head was removed is forgotten, unit by unit
            for r, unit in enumerate(some.units.tolist()):
                order = self.subject.seed.child("null", "heads", unit).numpy().permutation(len(self.heads))
                rise[:, r] = rise[torch.from_numpy(order).to(rise.device), r]
        unit_of_row = some.units
        for key, (role, repeated) in self.roles.items():
            looked = torch.from_numpy(role.attention(some) > 0).to(counted.device)
            if repeated:
                looked &= comes_true(some)
            where = looked.any(dim=-1) & counted
            count = where.sum(dim=-1).cpu().numpy().astype(float)
            total = (rise * where).sum(dim=-1).cpu().numpy()
            for h in range(len(self.heads)):
                self.sums.add_means(self._place[key] * len(self.heads) + h, unit_of_row, count, total[h])

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item."""
        out = []
        for item, (own, key, rivals) in zip(self.items, self.plan, strict=True):
            at = self._place[key] * len(self.heads)
            pairs = [
                (rival, [self.sums.total[at + h] for h in members])
                for rival, members in zip(item.plan.rivals, rivals, strict=True)
            ]
            out.append(compare(item, self.sums.total[at + own], pairs, Mean(), draws))
        return out
