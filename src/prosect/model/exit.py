"""Passes that end where their output is read: what follows the last block is computed at those positions alone.

Final norm and unembedding treat every position by itself, and with many outputs they are a good part of a pass. So
the stream that leaves the last block is cut down to the positions that are read, which the rest of the model sees
as rows of one position each. Whether a model can be left like this is proved on its own example before it is done.
Where it cannot, the output is computed everywhere and read afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool
from torch import Tensor, nn

from prosect.core.errors import ProsectError
from prosect.model.boundary import main_output, with_main_output
from prosect.model.check import relative
from prosect.model.proof import bar
from prosect.model.sites import Site

if TYPE_CHECKING:
    from prosect.model.model import Model


def last_of(model: Model) -> nn.Module | None:
    """The block after which a pass can be cut down; None where the example did not prove it."""
    mask = model.example.mask
    if not model.n_layers or mask is None:
        return None
    where = mask.clone()
    where[:, ::2] = False
    try:
        place = model.sites.entry(model.sites.site(f"resid_post.{model.n_layers - 1}")).place
        whole = model.run(model.example, finite=False).output
        if place.side != "out" or whole is None or whole.shape[:2] != mask.shape or not where.any():
            return None
        with cut(place.module, where):
            some = model.run(model.example, finite=False).output
    except (ProsectError, RuntimeError, TypeError, ValueError, IndexError):
        return None  # whatever goes wrong on the example is a reason to compute all, not to fail
    expected = whole[where][:, None]
    same = some is not None and some.shape == expected.shape and relative(some, expected) <= bar(model)
    return place.module if same else None


def behind(site: Site, layers: int) -> bool:
    """Whether a site may lie at the end of the last block or behind it, where a cut pass has other rows."""
    return site.layer is None or (site.layer == layers - 1 and site.kind == "resid_post")


@contextmanager
def cut(block: nn.Module, where: Bool[Tensor, "rows positions"]) -> Iterator[None]:
    """The model with what leaves ``block`` cut down to some positions, for as long as this lasts."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        x = main_output(output)
        return None if x is None else with_main_output(output, x[where.to(x.device)][:, None])

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def taken(output: Tensor, where: Bool[Tensor, "rows positions"]) -> Tensor:
    """What is wanted of an output, whether or not the pass was cut down to it: (wanted, ...)."""
    wanted = where.to(output.device)
    return output[wanted] if output.shape[:2] == where.shape else output[:, 0]


def spread(wanted: Tensor, where: Bool[Tensor, "rows positions"]) -> Tensor:
    """One number for each position from what is wanted of an output, to look for NaN in the right rows; else 0."""
    out = wanted.new_zeros(where.shape)
    out[where.to(out.device)] = wanted.detach().flatten(1).sum(dim=1)
    return out
