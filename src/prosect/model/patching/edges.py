"""Writers and readers of the residual stream, and what each writer writes differently in the other run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.data.batch import Batch
from prosect.model.patching.captures import captures
from prosect.model.patching.cells import Donor
from prosect.model.patching.nodes import Node, nodes_of
from prosect.model.patching.pairs import Direction, Pairs, Span

if TYPE_CHECKING:
    from prosect.model.model import Model

OUTPUT = "output"
Edge = tuple[str, str]
"""(writer, reader)."""


@dataclass(frozen=True)
class Writer:
    """Something that adds to the stream.

    Attributes:
        name: ``resid_pre.0`` (all that enters the first block), ``z.L.hN``, ``attn_out_post.L`` or
            ``mlp_out_post.L``.
        node: where it is patched.
        added: the site that holds what it adds, with what others add at the same place.
        order: when it writes: (layer, 0) for attention, (layer, 1) for an MLP.
    """

    name: str
    node: Node
    added: str
    order: tuple[int, int]


@dataclass(frozen=True)
class Reader:
    """Something that reads the stream.

    Attributes:
        name: ``q.L.hN``, ``k.L.hN``, ``v.L.hN``, ``mlp_in.L`` or ``output``.
        stream: the stream it reads, before its norm.
        node: what it makes of it; None for the output, which is everything behind the stream.
        order: it reads what was written before this.
    """

    name: str
    stream: str
    node: Node | None
    order: tuple[int, int]

    def after(self, writer: Writer) -> bool:
        """Whether it reads what ``writer`` wrote."""
        return writer.order < self.order


def last_stream(model: Model) -> str:
    """The stream that the last norm reads.

    Raises:
        Unsupported: a model without a residual stream.
    """
    name = f"resid_post.{(model.n_layers or 1) - 1}"
    if name not in model.sites:
        raise Unsupported(f"paths in {model.name}", "a model with a residual stream whose sites are named")
    return name


def writers_of(model: Model, names: Sequence[str] | None = None) -> tuple[Writer, ...]:
    """Writers by name; all of them without names: the first stream, every head, every MLP.

    Raises:
        BadInput: a site that is not a writer.
        UnknownName, Unsupported: a site that the model does not have.
    """
    last_stream(model)
    if names is None:
        names = ["resid_pre.0"]
        for layer in range(model.n_layers or 0):
            heads = f"z.{layer}" in model.sites
            if heads:
                names += [str(n) for n in nodes_of(model, f"z.{layer}", "head")]
            names += [s for s in (f"attn_out_post.{layer}",) if not heads and s in model.sites]
            names += [s for s in (f"mlp_out_post.{layer}",) if s in model.sites]
    return tuple(_writer(model, node) for name in names for node in nodes_of(model, name))


def _writer(model: Model, node: Node) -> Writer:
    site = model.sites.site(node.site)
    layer = site.layer if site.layer is not None else -1
    if node.unit is None and node.site == "resid_pre.0":
        return Writer(str(node), node, node.site, (-1, 0))
    if node.unit is None and site.kind == "z":
        return Writer(str(node), node, f"attn_out_post.{layer}", (layer, 0))
    if node.unit is None and site.kind in ("attn_out_post", "mlp_out_post"):
        return Writer(str(node), node, node.site, (layer, int(site.kind == "mlp_out_post")))
    raise BadInput(
        f"{node} as a writer", "resid_pre.0, z.L.hN, attn_out_post.L or mlp_out_post.L", "model.sites.names()"
    )


def readers_of(model: Model, names: Sequence[str] | None = None) -> tuple[Reader, ...]:
    """Readers by name; all of them without names: q, k and v of every head, every MLP, the output.

    Raises:
        BadInput: a site that is not a reader.
        UnknownName, Unsupported: a site that the model does not have.
    """
    last_stream(model)
    if names is None:
        names = []
        for layer in range(model.n_layers or 0):
            for kind in ("q", "k", "v"):
                if f"{kind}.{layer}" in model.sites:
                    names += [str(n) for n in nodes_of(model, f"{kind}.{layer}", "head")]
            names += [s for s in (f"mlp_in.{layer}",) if s in model.sites]
        names = [*names, OUTPUT]
    out: list[Reader] = []
    for name in names:
        if name == OUTPUT:
            out.append(Reader(OUTPUT, last_stream(model), None, (model.n_layers or 0, 0)))
        else:
            out.extend(_reader(model, node) for node in nodes_of(model, name))
    return tuple(out)


def _reader(model: Model, node: Node) -> Reader:
    site = model.sites.site(node.site)
    if site.layer is not None and node.unit is None:
        if site.kind in ("q", "k", "v"):
            return Reader(str(node), f"resid_pre.{site.layer}", node, (site.layer, 0))
        if site.kind == "mlp_in":
            between = f"resid_mid.{site.layer}"
            if between in model.sites:
                return Reader(str(node), between, node, (site.layer, 1))
            return Reader(str(node), f"resid_pre.{site.layer}", node, (site.layer, 0))
    raise BadInput(f"{node} as a reader", f"q.L.hN, k.L.hN, v.L.hN, mlp_in.L or {OUTPUT}")


class Differences:
    """What writers add in the other run, minus what they add in this one.

    What heads add differently is measured, by a pass with those heads patched and read off behind the output
    projection and any norm there, so that it is right whatever lies between heads and the stream. Several
    heads of a layer are patched together: behind a norm their contributions do not add up.

    Args:
        model: whose.
        base: rows of the run that is patched.
        donor: what the other run had, at the positions of this one.
        at: positions that count, for each row; None for all.
        writers: whose differences.

    Attributes:
        passes: how many it took so far.
    """

    def __init__(
        self,
        model: Model,
        base: Batch,
        donor: Donor,
        at: Sequence[Sequence[int]] | None,
        writers: Sequence[Writer],
    ) -> None:
        self.passes = 1
        self._model, self._base, self._donor, self._at = model, base, donor, at
        self._here = dict(model.run(base, list(dict.fromkeys(w.added for w in writers))).values)
        self._found: dict[frozenset[str], Float[Tensor, "rows positions d_model"]] = {}
        for writer in writers:
            if writer.node.site == writer.added:
                difference = donor.values[writer.added] - self._here[writer.added]
                self._found[frozenset([writer.name])] = _only(difference, at)
        heads = [w for w in writers if w.node.site != w.added]
        for added in dict.fromkeys(w.added for w in heads):
            self._measure(added, [[w] for w in heads if w.added == added])

    def __call__(self, *writers: Writer) -> Float[Tensor, "rows positions d_model"]:
        """What some writers add differently, all together."""
        groups: dict[str, list[Writer]] = {}
        for writer in dict.fromkeys(writers):
            groups.setdefault(writer.added, []).append(writer)
        parts = []
        for added, group in groups.items():
            key = frozenset(w.name for w in group)
            if key not in self._found:
                self._measure(added, [group])
            parts.append(self._found[key])
        return torch.stack(parts).sum(dim=0)

    def _measure(self, added: str, groups: Sequence[Sequence[Writer]]) -> None:
        lists = []
        for group in groups:
            edits = (w.node.edit(self._donor.values[w.node.site], self._at) for w in group)
            lists.append([e for e in edits if e is not None])
        found = captures(self._model, self._base, lists, [added])
        for group, got in zip(groups, found, strict=True):
            self._found[frozenset(w.name for w in group)] = got[added] - self._here[added]
        self.passes += len(groups)


def donors(
    model: Model, pairs: Pairs, direction: Direction, sites: Sequence[str], strangers: Sequence[int] | None
) -> list[Donor]:
    """The donor, and where there is a control, the same with each row given another's values."""
    donor = Donor.of(model, pairs, direction, list(dict.fromkeys(sites)))
    return [donor] if strangers is None else [donor, donor.from_rows(strangers)]


def where(span: Span, pairs: Pairs, direction: Direction) -> Sequence[Sequence[int]] | None:
    """The positions of a span in the run that is patched; None where it is every real position."""
    if span.label == "all" and pairs.complete:
        return None
    return pairs.in_base(span, direction)


def _only(x: Tensor, at: Sequence[Sequence[int]] | None) -> Tensor:
    """Zero but at these positions."""
    if at is None:
        return x
    out = torch.zeros_like(x)
    for row, positions in enumerate(at):
        out[row, list(positions)] = x[row, list(positions)]
    return out
