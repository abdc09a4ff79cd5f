"""An organism on the bench: its network opened, its truth, its inputs, and its null.

Its inputs are found beside the registered builder (`prosect.organisms.found`); its null is its own network with every
weight drawn anew. Planted activations, which have no network, are subjects too (`WORLDS`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.bench.programs import PROGRAM, random_compiled
from prosect.core.canonical import digest_tensors
from prosect.core.errors import Unsupported
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.data.batch import Batch
from prosect.data.source import Source

if TYPE_CHECKING:
    from prosect.model import Model
    from prosect.organisms.synthetic import Planted


@dataclass(frozen=True, eq=False)
class Subject:
    """An organism, built.

    Attributes:
        name: as registered.
        truth: what is known of it.
        model: its network, opened; None for planted activations.
        source: its inputs; None for planted activations.
        null: seed → the same network with weights drawn anew; None for planted activations.
        planted: what made the activations, for those.
        withheld: the modules that build it.
    """

    name: str
    truth: Truth = field(repr=False)
    model: Model | None = None
    source: Source | None = None
    null: Callable[[int], nn.Module] | None = None
    planted: Planted | None = None
    withheld: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Of its weights, or of what made its activations."""
        if self.model is not None:
            return digest_tensors(self.model.module.state_dict())
        assert self.planted is not None
        return digest_tensors({"directions": self.planted.directions, "strength": self.planted.strength})

    def network(self) -> nn.Module:
        """Its network, to be handed over."""
        assert self.model is not None
        return self.model.module

    def batches(self, part: str, rows: int) -> Iterator[Batch]:
        """The first rows of a part, at most ``rows``, in batches."""
        if self.source is None:
            raise Unsupported(f"inputs of {self.name}", "an organism with a network")
        left = rows
        for batch in self.source.batches(part, min(rows, 64)):
            yield batch if len(batch) <= left else batch.select(list(range(left)))
            left -= len(batch)
            if left <= 0:
                return

    def activations(self, site: str, part: str, positions: int) -> Float[Tensor, "n width"]:
        """What the site holds at the first scored positions of a part."""
        found: list[Tensor] = []
        n = 0
        if self.planted is not None:
            for block in self.planted.stream(positions, part).blocks():
                found.append(block[site])
            return torch.cat(found)[:positions]
        assert self.source is not None and self.model is not None
        for batch in self.source.batches(part, 256):
            held = self.model.run(batch, capture=(site,))[site]
            found.append(batch.flat(held).detach().cpu().float())
            n += len(found[-1])
            if n >= positions:
                break
        return torch.cat(found)[:positions]


def subject(name: str, seed: int) -> Subject:
    """Build an organism, or draw a world.

    Raises:
        UnknownName: there is none of that name.
    """
    if name in WORLDS:
        return _world(name, seed)
    if name == PROGRAM:
        opened, known, rows = random_compiled(seed)
        return Subject(name, known, opened, rows, _redrawn(opened.module))
    from prosect.organisms.found import functions

    its = functions(name)
    model, truth = its.build(seed)
    plain = its.build.func if isinstance(its.build, partial) else its.build
    return Subject(
        name,
        truth,
        model,
        None if its.source is None else its.source(seed),
        _redrawn(model.module),
        None,
        tuple({str(plain.__module__), type(model.module).__module__}),
    )


def _redrawn(module: nn.Module) -> Callable[[int], nn.Module]:
    """Untrained networks of this very size; an organism's own `untrained` has that of its seed."""
    from prosect.organisms.redrawn import redrawn

    return lambda seed: redrawn(copy.deepcopy(module), Seed(seed))


def _world(name: str, seed: int) -> Subject:
    from prosect.organisms.synthetic import World, plant

    planted = plant(World(**WORLDS[name]), Seed(seed).child("bench", name))
    return Subject(name, planted.truth(), planted=planted, withheld=())


WORLDS: dict[str, dict[str, Any]] = {
    "world-plain": {
        "features": 96,
        "width": 32,
        "most": 0.2,
        "least": 0.01,
        "exponent": 0.75,
        "trees": 0,
        "rank": 0,
        "strengths": (1.0, 1.0),
        "noise": 0.02,
    },
    "world-trees": {
        "features": 128,
        "width": 32,
        "most": 0.2,
        "least": 0.005,
        "trees": 4,
        "branching": 3,
        "depth": 2,
        "rank": 8,
    },
}
"""Worlds of `prosect.organisms.synthetic` that are on the bench as organisms: name → its settings."""
