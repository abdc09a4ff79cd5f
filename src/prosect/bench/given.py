"""What a method is handed, and all that it is handed: tensors, a few numbers, and sometimes the network.

The truth and the organism's seed are not in it. `prosect.bench.handover` writes it to a folder and reads it back in
the process that the method runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor, nn

from prosect.core.canonical import Json
from prosect.core.errors import Unsupported

if TYPE_CHECKING:
    from prosect.model import Model

Answer = Mapping[str, Tensor]
"""What a method gives back: named tensors; the task says which, and of what shape."""


@dataclass(frozen=True, eq=False)
class Given:
    """What a method is handed.

    Attributes:
        tensors: data, by name; the task says what they are.
        about: numbers and names that the task gives to all methods alike.
        inputs: tensors that the network's forward takes, a few rows, by keyword; empty without a network.
        network: makes the network; None where the task keeps it back.
        seconds: the time that the method has, from the start of its process.
    """

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Json] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    network: Callable[[], nn.Module] | None = None
    seconds: float = 60.0

    @cached_property
    def module(self) -> nn.Module:
        """The network, in eval mode.

        Raises:
            Unsupported: the task does not hand it over.
        """
        if self.network is None:
            raise Unsupported("the network", "a task that hands it over", "what is in `tensors`")
        return self.network()

    @cached_property
    def model(self) -> Model:
        """The network, opened for study.

        Raises:
            Unsupported: the task does not hand it over.
        """
        from prosect.model import Model

        return Model.of(self.module, name="network", inputs=dict(self.inputs), tokenizer=None, check=False)
