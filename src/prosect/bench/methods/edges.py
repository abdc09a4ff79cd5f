"""Circuit recovery: edges scored by ablating each one, by gradients, by what reaches the reader, and by weights.

All but the last rest on the same thing: what a reader makes of its stream when one writer's contribution to it is
replaced, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.core.errors import Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.model import Model
from prosect.model.edits import Edit, patch
from prosect.model.patching.captures import captures
from prosect.model.patching.cells import Donor
from prosect.model.patching.edges import Differences, Reader, Writer, readers_of, writers_of
from prosect.model.patching.gradients import Graph
from prosect.model.patching.metrics import Metric, by_row


def exact(given: Given, seed: Seed) -> Answer:
    """Every edge ablated by itself: root mean square change of the logits."""
    made = _Edges.of(given)
    clean = made.model.run(made.batch).output
    assert clean is not None
    before = clean.detach()

    def changed(output: Tensor, rows: Batch, which: list[int]) -> Tensor:
        return (output - before[which]).square().flatten(1).mean(dim=1).sqrt()

    edits = [[made.edit(reader, value)] for _, reader, value in made.changes()]
    scores = made.model.sweep(edits, made.batch, by_row(made.batch, changed))
    return {"score": torch.from_numpy(scores.mean(axis=1))}


def attribution(given: Given, seed: Seed) -> Answer:
    """The change of what the reader makes of its stream, times the gradient of the margin of what is predicted there.

    Edge attribution patching (Syed, Rager & Conmy 2023), exact up to the reader.
    """
    made = _Edges.of(given)
    sites = list(dict.fromkeys(made.site(r) for r in made.readers))
    graph = Graph(made.model, made.batch, _margin(made.model, made.batch), sites)
    gradients = graph.gradients()
    out = []
    for _, reader, value in made.changes():
        site = made.site(reader)
        product = _part(reader, (value - made.own[site]) * gradients[site])
        out.append(float(product.flatten(1).sum(dim=1).abs().mean()))
    return {"score": torch.tensor(out, dtype=torch.float64)}


def magnitude(given: Given, seed: Seed) -> Answer:
    """How far what the reader makes of its stream moves, as a share of what it was; what follows is not looked at."""
    made = _Edges.of(given)
    out = []
    for _, reader, value in made.changes():
        own = _part(reader, made.own[made.site(reader)])
        moved = _part(reader, value) - own
        out.append(float(moved.norm() / own.norm().clamp(min=1e-12)))
    return {"score": torch.tensor(out, dtype=torch.float64)}


def weights(given: Given, seed: Seed) -> Answer:
    """Norm of the reader's weights times the writer's, as a share of the product of their norms; no input is run."""
    config = getattr(given.module, "config", None)
    own = {k: p.detach() for k, p in given.module.named_parameters()}
    if config is None or "model.embed_positions.weight" not in own:
        raise Unsupported("weights of this network", "a decoder whose projections have the usual names")
    width = config.head_dim

    def written(name: str) -> Tensor:
        if name == "resid_pre.0":
            return torch.cat([own["model.embed_tokens.weight"], own["model.embed_positions.weight"]]).T
        layer = name.split(".")[1]
        if name.startswith("mlp_out_post"):
            return own[f"model.layers.{layer}.mlp.down_proj.weight"]
        head = int(name.rpartition("h")[2])
        return own[f"model.layers.{layer}.self_attn.o_proj.weight"][:, head * width : (head + 1) * width]

    def read(name: str) -> Tensor:
        if name == "output":
            return own["lm_head.weight"]
        kind, layer, *rest = name.split(".")
        if kind == "mlp_in":
            return own[f"model.layers.{layer}.mlp.up_proj.weight"]
        head = int(rest[0][1:])
        return own[f"model.layers.{layer}.self_attn.{kind}_proj.weight"][head * width : (head + 1) * width]

    out = []
    for writer, reader in given.about["edges"]:
        w, r = written(writer).double(), read(reader).double()
        out.append(float((r @ w).norm() / (r.norm() * w.norm()).clamp(min=1e-12)))
    return {"score": torch.tensor(out, dtype=torch.float64)}


@dataclass(frozen=True, eq=False)
class _Edges:
    """The edges asked about, and what replaces what along each."""

    model: Model
    batch: Batch
    pairs: list[tuple[Writer, Reader]]
    own: dict[str, Tensor]
    difference: Callable[..., Tensor]

    @classmethod
    def of(cls, given: Given) -> _Edges:
        model, ids = given.model, given.tensors["input_ids"]
        rows = tuple(Row(unit=i, document=str(i)) for i in range(len(ids)))
        mask = torch.ones_like(ids, dtype=torch.bool)
        batch = Batch({"input_ids": ids, "attention_mask": mask.long()}, mask, rows)
        named = {w.name: w for w in writers_of(model)}, {r.name: r for r in readers_of(model)}
        pairs = [(named[0][w], named[1][r]) for w, r in given.about["edges"]]
        writers = list(dict.fromkeys(w for w, _ in pairs))
        readers = list(dict.fromkeys(r for _, r in pairs))
        sites = [*(w.node.site for w in writers), *(r.stream for r in readers)]
        sites += [r.node.site for r in readers if r.node is not None]
        trace = model.run(batch, list(dict.fromkeys(sites)))
        own = {name: trace[name].detach() for name in trace}
        replace = _REPLACED[given.about["ablation"]]
        donor = Donor(
            {s: replace(own[s], given.tensors["other"]) for s in dict.fromkeys(w.node.site for w in writers)}
        )
        return cls(model, batch, pairs, own, Differences(model, batch, donor, None, writers))

    @property
    def readers(self) -> list[Reader]:
        return list(dict.fromkeys(r for _, r in self.pairs))

    def site(self, reader: Reader) -> str:
        """Where what a reader makes of its stream is found."""
        return reader.stream if reader.node is None else reader.node.site

    def changes(self) -> list[tuple[Writer, Reader, Tensor]]:
        """For every edge, in order, the reader's site when only that edge is ablated."""
        streams = {(w.name, r.stream): self.own[r.stream] + self.difference(w) for w, r in self.pairs}
        found: dict[tuple[str, str], dict[str, Tensor]] = {}
        for stream in dict.fromkeys(s for _, s in streams):
            keys = [k for k in streams if k[1] == stream]
            sites = sorted({r.node.site for _, r in self.pairs if r.stream == stream and r.node is not None})
            if sites:
                lists = [[patch(stream, streams[k])] for k in keys]
                found |= zip(keys, captures(self.model, self.batch, lists, sites), strict=True)
        return [
            (w, r, streams[w.name, r.stream] if r.node is None else found[w.name, r.stream][r.node.site])
            for w, r in self.pairs
        ]

    def edit(self, reader: Reader, value: Tensor) -> Edit:
        """What the reader made of it, put there."""
        made = patch(reader.stream, value) if reader.node is None else reader.node.edit(value)
        assert made is not None
        return made


def _zero(x: Tensor, other: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _mean(x: Tensor, other: Tensor) -> Tensor:
    return x.mean(dim=(0, 1), keepdim=True).expand_as(x).contiguous()


def _positional(x: Tensor, other: Tensor) -> Tensor:
    return x.mean(dim=0, keepdim=True).expand_as(x).contiguous()


def _resampled(x: Tensor, other: Tensor) -> Tensor:
    return x[other]


_REPLACED = {"zero": _zero, "mean": _mean, "mean-positional": _positional, "resample": _resampled}


def _margin(model: Model, batch: Batch) -> Metric:
    """Sum over positions of the largest logit's lead over the mean: it has a slope where probabilities have none."""
    clean = model.run(batch).output
    assert clean is not None
    best = clean.detach().argmax(dim=-1)

    def lead(output: Tensor, rows: Batch, which: list[int]) -> Tensor:
        chosen = output.gather(-1, best[which].unsqueeze(-1))[..., 0]
        return (chosen - output.mean(dim=-1)).sum(dim=1)

    return by_row(batch, lead)


def _part(reader: Reader, x: Tensor) -> Float[Tensor, "rows ..."]:
    """A reader's own part of its site (rows, positions, heads, width): its head, or all of it."""
    if reader.node is None or reader.node.head is None:
        return x
    return x[:, :, reader.node.head]
