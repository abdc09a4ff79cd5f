"""One root seed, named children.

Every random choice takes its generator from a path of names under the run's root seed, so adding a
step never shifts the numbers of another, and no global random state is read or written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Seed:
    """A node in the tree of seeds.

    Example:
        >>> Seed(0).child("dictionary").child("init").integer == Seed(0).child("dictionary", "init").integer
        True
    """

    root: int
    path: tuple[str, ...] = ()

    def child(self, *names: str | int) -> Seed:
        """The seed reached by following ``names`` from here."""
        return Seed(self.root, (*self.path, *(str(n) for n in names)))

    @property
    def integer(self) -> int:
        """A number in [0, 2**63) that depends on the root and on every name of the path."""
        text = "\x1f".join((str(self.root), *self.path)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

    def numpy(self) -> np.random.Generator:
        """A fresh NumPy generator; two calls give the same stream."""
        return np.random.default_rng(self.integer)

    def torch(self, device: str = "cpu") -> torch.Generator:
        """A fresh torch generator on ``device``; two calls give the same stream."""
        import torch

        generator = torch.Generator(device=device)
        generator.manual_seed(self.integer)
        return generator
