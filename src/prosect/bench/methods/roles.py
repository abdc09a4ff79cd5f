"""Role labels: from the loop's own explainer, and from the plainest thing that could work."""

from __future__ import annotations

import torch

from prosect.bench.given import Answer, Given
from prosect.bench.tasks.roles import CHOICES, NONE
from prosect.bench.tasks.tokens import batch_of
from prosect.core.errors import TooLittleData
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.role_explainer import RoleExplainer
from prosect.describe.roles import HeadRole

MOST = 0.5
"""Attention that a plain rule asks for."""


def explainer(given: Given, seed: Seed) -> Answer:
    """`RoleExplainer`'s first proposal, where it says that it found a role."""
    batch = batch_of(given.tensors)
    halves = [list(range(0, len(batch), 2)), list(range(1, len(batch), 2))]
    out = torch.zeros((given.about["layers"], given.about["heads"]), dtype=torch.long)
    for layer in range(given.about["layers"]):
        made = RoleExplainer(given.about["heads"])
        for second, rows in enumerate(halves):
            if rows:
                made.update(batch.select(rows), given.tensors[f"probs.{layer}"][rows], second=bool(second))
        for head in range(given.about["heads"]):
            try:
                best = made.explain(head, most=1)[0]
            except TooLittleData:
                continue
            said = None if best.description.cause is None else best.description.cause.parameters
            if best.found and said:
                out[layer, head] = _choice(str(said["role"]), int(said.get("offset") or 0))
    return {"role": out}


def mass(given: Given, seed: Seed) -> Answer:
    """The role on whose keys a head puts most of its attention, if that is over half of it."""
    return _heaviest(given, [n for n in CHOICES if n != NONE])


def positions(given: Given, seed: Seed) -> Answer:
    """The same with roles about places alone."""
    return _heaviest(given, ["previous", "first", *(n for n in CHOICES if n.startswith("offset"))])


def _heaviest(given: Given, names: list[str]) -> Answer:
    batch = batch_of(given.tensors)
    keys = {name: _keys(name, batch) for name in names}
    out = torch.zeros((given.about["layers"], given.about["heads"]), dtype=torch.long)
    for layer in range(given.about["layers"]):
        probs = given.tensors[f"probs.{layer}"].double()
        for head in range(given.about["heads"]):
            found = {}
            for name, named in keys.items():
                asked = named.any(dim=2)
                if bool(asked.any()):
                    found[name] = float((probs[:, head] * named).sum(dim=2)[asked].mean())
            best = max(found, key=lambda n: found[n], default=NONE)
            if found and found[best] > MOST:
                out[layer, head] = CHOICES.index(best)
    return {"role": out}


def _keys(name: str, batch: Batch) -> torch.Tensor:
    """(rows, queries, keys): what a role names, at scored queries beyond the first two."""
    kind, _, back = name.partition(" ")
    role = HeadRole(kind, offset=int(back)) if back else HeadRole(kind)
    named = torch.from_numpy(role.eligible(batch)).clone()
    scored = batch.scored
    assert scored is not None
    named &= scored[:, :, None]
    named[:, :2] = False
    return named


def _choice(role: str, offset: int) -> int:
    name = f"offset {offset}" if role == "offset" else role
    return CHOICES.index(name) if name in CHOICES else 0
