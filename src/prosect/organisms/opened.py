"""An organism opened for study: its network with its name, on the first of its own inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from prosect.core.truth import Truth
from prosect.data.source import Source

if TYPE_CHECKING:
    from prosect.model import Model


def opened(known: tuple[nn.Module, Truth], source: Source) -> tuple[Model, Truth]:
    """A network opened under its organism's name, and its truth as it came.

    Args:
        known: the network and its truth.
        source: of its inputs; the first of ``explore`` are what it is opened with.
    """
    module, truth = known
    return called(truth.organism, module, source), truth


def called(name: str, module: nn.Module, source: Source) -> Model:
    """A network opened as ``organism:NAME``; arguments as for `opened`."""
    from prosect.model import Model  # models stand beside organisms, not under them

    batch = next(source.batches("explore", rows=2))
    return Model.of(module, name=f"organism:{name}", inputs=dict(batch.tensors))
