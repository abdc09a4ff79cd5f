"""How a module is called: which tensors of a batch it takes, and in what state it is left.

A pass runs with dropout and the like switched off, whatever mode the module is in, and each submodule gets
its mode back. No global random state is read, and nothing about the module has changed afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from prosect.core.errors import BadInput
from prosect.data.batch import Batch

_FUSED = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)


@contextmanager
def settled(module: nn.Module, grad: bool = False) -> Iterator[None]:
    """``module`` in evaluation mode, with or without gradients, for as long as the block lasts."""
    training = _training(module)
    for m in training:
        m.training = False  # not .train(False): subclasses override it to do more
    try:
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.set_grad_enabled(grad):
                yield
        else:  # the usual case; leaving a mode that is not on would have its cost
            with torch.set_grad_enabled(grad):
                yield
    finally:
        for m in training:
            m.training = True


def _training(module: nn.Module) -> list[nn.Module]:
    """The submodules in training mode; one that is shared may be there twice.

    A plain walk: `nn.Module.modules` names every module on the way, which a pass of a small model would notice.
    """
    found: list[nn.Module] = []
    every: list[nn.Module | None] = [module]
    for m in every:  # which grows on the way
        if m is None:
            continue
        if m.training:
            found.append(m)
        if m._modules:
            every.extend(m._modules.values())
    return found


class Forward:
    """A module's forward: what it can be called with.

    Args:
        module: any module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        parameters = inspect.signature(module.forward).parameters
        self.names = tuple(
            name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        )
        self._known = frozenset(self.names)
        self.takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.fixed: dict[str, Any] = {"use_cache": False} if "use_cache" in self.names else {}

    @cached_property
    def looks_for_hooks(self) -> bool:
        """Whether some module in it takes a kernel for all it holds unless there are hooks inside."""
        return any(isinstance(m, _FUSED) for m in self.module.modules())

    @property
    def first(self) -> str:
        """The name of the first argument: what a bare tensor is passed as."""
        if not self.names:
            raise BadInput(
                "a module whose forward names no argument", "one that does", "inputs as a dict by keyword"
            )
        return self.names[0]

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments for one pass over ``batch``.

        The mask is passed as ``attention_mask`` where the module takes one and some position is padding.

        Raises:
            BadInput: the batch holds a tensor that the forward has no name for.
        """
        if not self.takes_any and not batch.tensors.keys() <= self._known:
            unknown = [name for name in batch.tensors if name not in self._known]
            raise BadInput(
                f"tensors {', '.join(unknown)} for {type(self.module).__name__}",
                f"some of {', '.join(self.names)}",
            )
        given: dict[str, Any] = {**self.fixed, **batch.tensors}
        takes_mask = "attention_mask" in self._known and "attention_mask" not in batch.tensors
        if takes_mask and batch.mask is not None and not bool(batch.mask.all()):
            given["attention_mask"] = batch.mask.long()
        return given

    def __call__(self, arguments: dict[str, Any]) -> Tensor | Any:
        """Call the module."""
        return self.module(**arguments)
