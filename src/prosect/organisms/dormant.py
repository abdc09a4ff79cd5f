"""A direction that does nothing, another that is never used, and a mixture of both that looks like the mechanism.

The hidden layer is a random rotation of (x, 0, x, distractors), where x is the input that the first output gives
back. The output is 2·second + third (Makelov, Lange & Nanda 2024, "Is this the subspace you are looking for? An
interpretability illusion for subspace activation patching", their toy example, turned and widened):

- *disconnected*: tells x perfectly and nothing reads it;
- *dormant*: is read, with a weight of two, and never moves;
- *true*: tells x and is read.

Patching along the true direction carries x from one run into another. So does patching along (disconnected +
dormant)/√2, exactly as well, though neither half carries anything: the disconnected half tells the patch what to
write and the dormant half brings it where it has never been. Distractors are other inputs with other outputs, and as
many again that nothing reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth
from prosect.organisms.filled import filled
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import BLOCK, StreamedSource, parts

if TYPE_CHECKING:
    from prosect.model import Model

READ, UNREAD = 4, 4
"""Distractors that have an output of their own, and that have none."""
INPUTS, WIDTH, OUTPUTS = 1 + READ + UNREAD, 3 + READ + UNREAD, 1 + READ
NAMES = ("disconnected", "dormant", "true", "illusion")


class Dormant(nn.Module):
    """inputs (n, 9) → ``hidden`` (n, 11) → outputs (n, 5); output 0 is input 0, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(INPUTS, WIDTH, bias=False)
        self.readout = nn.Linear(WIDTH, OUTPUTS, bias=False)

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        return self.readout(self.hidden(inputs))  # type: ignore[no-any-return]


def network(seed: int = 0) -> tuple[Dormant, Truth]:
    """The network and its truth.

    The features at ``hidden`` are, in order, `NAMES` and the distractors, read ones first; the frequency of one
    that never moves is 0. Labels over them: ``carries`` (moves with an input), ``read`` (moves an output) and
    ``mechanism`` (both, along one and the same direction). Quantities: ``patch NAME``, the share of the way from
    one run's first output to another's that patching along that direction alone goes.
    """
    turn, write, read = plan(seed)
    with torch.device("meta"):
        module = Dormant()
    filled(module, {"hidden.weight": turn @ write, "readout.weight": read @ turn.T})
    straight = np.eye(WIDTH)
    straight = np.vstack([straight[:3], (straight[0] + straight[1]) / np.sqrt(2), straight[3:]])
    names = (*NAMES, *(f"distractor {i}" for i in range(READ + UNREAD)))
    moves = np.abs(straight @ write).max(axis=1) > 0
    acts = np.abs(straight @ read.T).max(axis=1) > 0
    labels = {
        "carries": moves,
        "read": acts,
        # a mixture both moves and acts, but in two halves of which neither does both
        "mechanism": moves & acts & (np.array(names) != "illusion"),
    }
    effects = {
        f"patch {n}": float((read[0] @ d) * (d @ write[:, 0])) for n, d in zip(names, straight, strict=True)
    }
    truth = Truth(
        organism="dormant",
        features=(FeatureDirections("hidden", straight @ turn.T, moves.astype(float), names),),
        labels=labels,
        quantities=effects,
        nulls={"other-input": "hidden layers are paired with other inputs: no direction carries one"},
        size=f"{INPUTS} inputs, {WIDTH} hidden units, {OUTPUTS} outputs",
    )
    return module, truth


def plan(
    seed: int = 0,
) -> tuple[
    Float[np.ndarray, "width width"], Float[np.ndarray, "width inputs"], Float[np.ndarray, "outputs width"]
]:
    """The rotation, and the weights before it: what every dimension is written by, and what reads it."""
    turn = np.linalg.qr(Seed(seed).child("dormant", "turn").numpy().standard_normal((WIDTH, WIDTH)))[0]
    write, read = np.zeros((WIDTH, INPUTS)), np.zeros((OUTPUTS, WIDTH))
    write[[0, 2], 0] = 1.0
    write[3:, 1:] = np.eye(READ + UNREAD)
    read[0, [1, 2]] = 2.0, 1.0
    read[1:, 3 : 3 + READ] = np.eye(READ)
    return turn, write, read


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A hidden layer in which patching a direction that carries nothing looks like patching the mechanism.

    Written down and turned at random (Makelov, Lange & Nanda 2024). Known: which direction is disconnected, which
    is dormant, which is the mechanism, and how far a patch along each, and along the illusory mixture, goes.
    """
    return opened(network(seed), source(seed))


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 4096,
    validate: int = 512,
    sealed: int = 512,
    shift: int = 512,
) -> StreamedSource:
    """Inputs ``inputs`` (n, 9), independent and standard normal; in ``shift`` of mean 1."""
    root = Seed(seed).child("dormant", "data")

    def make(part: str, block: int) -> Mapping[str, Tensor]:
        drawn = torch.randn(BLOCK, INPUTS, generator=root.child(part, block).torch())
        return {"inputs": drawn + (1.0 if part == "shift" else 0.0)}

    units = parts(explore, validate, folds, sealed, shift)
    return StreamedSource.of("dormant", seed, make, units)


def untrained(seed: int = 0) -> Dormant:
    """The model null: random weights of the same size, in which no direction is special."""
    return redrawn(network(0)[0], Seed(seed).child("dormant", "untrained"))
