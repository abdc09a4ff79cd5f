"""Level 1 for heads: does a head look where its role says?

The metric is the share of a head's attention that lands on the keys its role predicts, over the queries to
which the role applies. Rivals are other heads on the same keys, the same role read off another text
(shuffled text), the head's own mean attention by distance (which a claim about content must beat), and
attention spread evenly. Attention is not information flow: what the head writes is another test
(`prosect.validate.matters`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput
from prosect.core.intervals import Mean
from prosect.core.records import Component, Evidence, Executable
from prosect.data.batch import Batch
from prosect.validate.subject import STATISTICAL, Captured, Subject, partners, rekeyed, runnable
from prosect.validate.sums import UnitSums
from prosect.validate.tester import DrawCache, Item, compare

KIND = "attend"
METRIC = "share of attention on the keys the role predicts"
OTHER_HEADS, SHUFFLED, OFFSETS, UNIFORM = "other-heads", "shuffled-text", "offset-table", "uniform-attention"


def layer_and_head(component: Component) -> tuple[int, int]:
    """Where a head is, from the site it writes, ``z.L.hN``.

    Raises:
        BadInput: the component is not a head.
    """
    for site in component.writes or component.reads:
        parts = site.split(".")
        if len(parts) == 3 and parts[0] == "z" and parts[2].startswith("h"):
            return int(parts[1]), int(parts[2][1:])
    raise BadInput(f"component {component.name}", "a head, which reads or writes a site such as z.1.h0")


class Attend:
    """Attention mass on predicted keys, for every plan of a family and every rival."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        self.items, self.subject = list(items), subject
        self.units = subject.source.units[fold]
        self._roles: dict[str, Any] = {}
        self.quantities: list[tuple[str, str, tuple[int, int], str]] = []  # how, role, head, table
        self._number: dict[tuple[str, str, tuple[int, int], str], int] = {}
        self.layers: set[int] = set()
        self.plan: list[tuple[int, list[list[int]]]] = []
        for item in self.items:
            cause = item.hypothesis.description.cause
            if cause is None:
                raise BadInput(f"hypothesis {item.hypothesis.id} without a cause side", "a role to test")
            head = layer_and_head(item.hypothesis.component)
            role = self._role(cause)
            own = self._quantity("own", role, head)
            rivals: list[list[int]] = []
            for rival in item.plan.rivals:
                if rival.name == OTHER_HEADS:
                    members = [self._quantity("own", role, layer_and_head(c)) for c in rival.components]
                elif rival.name == OFFSETS:
                    members = [self._quantity("table", role, head, self._role(e)) for e in rival.descriptions]
                elif rival.name in (SHUFFLED, UNIFORM):
                    members = [self._quantity(rival.name, role, head)]
                elif rival.descriptions:  # the same head where another description says it looks
                    members = [self._quantity("own", self._role(e), head) for e in rival.descriptions]
                else:
                    raise BadInput(f"rival {rival.name!r} in an attention test", "one of this test's rivals")
                rivals.append(members)
            self.plan.append((own, rivals))
        self.sums = UnitSums(self.units, len(self.quantities), 2)

    def _role(self, executable: Executable) -> str:
        key = digest(executable)
        if key not in self._roles:
            self._roles[key] = runnable(executable, self.subject.shelf)
        return key

    def _quantity(self, how: str, role: str, head: tuple[int, int], table: str = "") -> int:
        key = (how, role, head, table)
        if key not in self._number:
            self._number[key] = len(self.quantities)
            self.quantities.append(key)
            self.layers.add(head[0])
        return self._number[key]

    def sites(self) -> tuple[str, ...]:
        """Attention probabilities of every layer that is measured."""
        return tuple(f"probs.{layer}" for layer in sorted(self.layers))

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Add one batch."""
        partner = torch.from_numpy(partners(batch, self.subject.seed.child("null")))
        queries = batch.scored
        if queries is None or batch.mask is None:
            raise BadInput("inputs without positions", "text, for attention")
        device = batch.mask.device
        predicted = {k: torch.from_numpy(r.attention(batch)).to(device) for k, r in self._roles.items()}
        keys = {key: p > 0 for key, p in predicted.items()}
        shuffled = {key: k[partner.to(k.device)] & batch.mask[:, None, :] for key, k in keys.items()}
        unit_of_row = batch.units
        for i, (how, role, (layer, head), table) in enumerate(self.quantities):
            eligible = shuffled[role] if how == SHUFFLED else keys[role]
            if how == UNIFORM:
                weights = _uniform(batch.mask)
            elif how == "table":
                weights = predicted[table]
            else:
                weights = trace[f"probs.{layer}"][:, head].float()
                if self.subject.null == STATISTICAL:
                    weights = rekeyed(weights, batch, self.subject.seed.child("null"))
            applies = eligible.any(dim=-1) & queries
            mass = (weights * eligible).sum(dim=-1).double() * applies
            count = applies.sum(dim=-1).cpu().numpy().astype(float)
            self.sums.add_means(i, unit_of_row, count, mass.sum(dim=-1).cpu().numpy())

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item."""
        out = []
        for item, (own, rivals) in zip(self.items, self.plan, strict=True):
            mine = self.sums.total[own]
            pairs = [
                (rival, [_aligned(self.sums.total[i], mine) for i in members])
                for rival, members in zip(item.plan.rivals, rivals, strict=True)
            ]
            fired = int((mine[:, 0] > 0).sum())
            out.append(compare(item, mine, pairs, Mean(low=0.0, high=1.0), draws, firing=fired))
        return out


def _uniform(mask: Bool[Tensor, "rows positions"]) -> Float[Tensor, "rows queries keys"]:
    """Attention spread evenly over the query and what comes before it."""
    n = mask.shape[1]
    causal = torch.tril(torch.ones(n, n, device=mask.device))
    return (causal / causal.sum(dim=-1, keepdim=True)).expand(mask.shape[0], n, n)


def _aligned(sums: Float[np.ndarray, "units 2"], own: Float[np.ndarray, "units 2"]) -> np.ndarray:
    """A rival's sums on the units that the component has."""
    return np.where(own[:, :1] > 0, sums, 0.0)
