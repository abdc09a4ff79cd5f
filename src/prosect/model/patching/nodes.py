"""What is patched: a site, one head of it, or one neuron."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from prosect.core.errors import BadInput, UnknownName, Unsupported
from prosect.model.edits import Edit, patch
from prosect.model.sites import KINDS, Layout

if TYPE_CHECKING:
    from prosect.model.model import Model

Each = Literal["site", "head", "unit"]
_UNIT = re.compile(r"^(?P<site>.+)\.n(?P<unit>\d+)$")


@dataclass(frozen=True)
class Node:
    """One thing to patch.

    Attributes:
        site: a whole site, by its canonical name.
        head: one head of it; None for all.
        unit: one entry of its last axis, such as a neuron; None for all.
        layout: how the site's axes are read.
    """

    site: str
    head: int | None = None
    unit: int | None = None
    layout: Layout = "stream"

    def __str__(self) -> str:
        head = "" if self.head is None else f".h{self.head}"
        return f"{self.site}{head}{'' if self.unit is None else f'.n{self.unit}'}"

    def edit(
        self,
        value: Tensor,
        at: Sequence[Sequence[int]] | None = None,
        keep: Sequence[bool] | None = None,
    ) -> Edit | None:
        """Put ``value``, the whole site's tensor for all rows, there.

        Args:
            value: what the site is to have; only the node's part of it is taken.
            at: positions for each row; rows without any are left alone. None for all positions.
            keep: rows to patch; None for all.

        Returns:
            None if nothing is left to patch.
        """
        rows = list(range(value.shape[0])) if keep is None else [i for i, k in enumerate(keep) if k]
        heads = None if self.head is None else [self.head]
        direction = None
        if self.unit is not None:
            direction = torch.zeros(value.shape[-1], dtype=torch.float64)
            direction[self.unit] = 1.0
        if at is None:
            some = None if keep is None else rows
            return None if not rows else patch(self.site, value, rows=some, heads=heads, direction=direction)
        rows = [row for row in rows if len(at[row])]
        if not rows:
            return None
        sets = {tuple(at[row]) for row in rows}
        same = len(sets) == 1
        return patch(
            self.site,
            value,
            rows=None if len(rows) == value.shape[0] else rows,
            positions=list(sets.pop()) if same else [list(at[row]) for row in rows],
            heads=heads,
            direction=direction,
        )


def nodes_of(model: Model, sites: str | Sequence[str], each: Each = "site") -> tuple[Node, ...]:
    """The nodes that names stand for, in the order given.

    Args:
        model: whose.
        sites: names of sites, heads (``z.1.h2``) and units (``mlp_act.0.n7``); a kind by itself, such as
            ``z``, stands for every layer that has it.
        each: whether a whole site is one node, or one for each head, or for each unit.

    Raises:
        UnknownName, Unsupported: a site, head or unit that the model does not have.
        BadInput: nothing to patch, or the same node twice.
    """
    out: list[Node] = []
    for name in [sites] if isinstance(sites, str) else sites:
        kind = name in KINDS and KINDS[name].layered
        layered = kind and name not in model.sites.names()  # a module of the user's may be called v
        served = [s for s in model.sites.names() if s.rpartition(".")[0] == name] if layered else [name]
        if not served:
            raise Unsupported(f"sites {name!r} in {model.name}", "a kind of site that the model has")
        for one in served:
            out.extend(_nodes(model, one, each))
    if not out:
        raise BadInput("no site to patch", "at least one")
    if len(set(out)) < len(out):
        twice = next(str(n) for n in out if out.count(n) > 1)
        raise BadInput(f"{twice} twice", "each site once")
    return tuple(out)


def _nodes(model: Model, name: str, each: Each) -> list[Node]:
    found = _UNIT.match(name)
    unit = None
    if found is not None and name not in model.sites:
        name, unit = found["site"], int(found["unit"])
    site = model.sites.site(name)
    info = model.sites.entry(site).info
    whole, layout = str(site.whole), info.layout
    if unit is not None or each == "unit":
        if info.heads is not None or layout == "pattern" or info.width is None:
            raise Unsupported(
                f"units of {whole}", "a site with one vector for each position, such as mlp_act.0"
            )
        if unit is not None and unit >= info.width:
            near = [f"{whole}.n{i}" for i in (0, info.width - 1)]
            raise UnknownName("unit", f"{whole}.n{unit}", near)
        return [Node(whole, None, u, layout) for u in ([unit] if unit is not None else range(info.width))]
    if site.head is not None:
        return [Node(whole, site.head, None, layout)]
    if each == "head":
        if info.heads is None:
            raise Unsupported(f"heads of {whole}", "a site with heads, such as z.0", 'each="site"')
        return [Node(whole, h, None, layout) for h in range(info.heads)]
    return [Node(whole, None, None, layout)]
