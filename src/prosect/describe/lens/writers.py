"""Everything that wrote to the residual stream at one position of each row, and the proof that nothing is missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.lens.branch import INNER, Branch, Sublayer, branch
from prosect.model.forward import settled
from prosect.model.model import Model
from prosect.model.trace import Trace
from prosect.model.unembed import Acting, acting

SUBLAYERS: tuple[Sublayer, ...] = ("attn", "mlp")


@dataclass(frozen=True)
class Written:
    """A part of the stream.

    Attributes:
        name: what wrote it.
        x: (rows, d_model) what it wrote.
        branch: its last steps, where it is split further.
        heads: how many heads the branch's input has; None for neurons.
    """

    name: str
    x: Float[Tensor, "rows d_model"]
    branch: Branch | None = None
    heads: int | None = None


@dataclass(frozen=True)
class Writers:
    """The parts of one stream, and the norm that reads their sum.

    Attributes:
        parts: in the order of the network.
        stream: their sum, as the model has it.
        norm: the last norm, its scale held.
        notes: what could not be told apart.
    """

    parts: tuple[Written, ...]
    stream: Float[Tensor, "rows d_model"]
    norm: Acting
    notes: tuple[str, ...]

    def read(self, g: Float[Tensor, "rows d_model"]) -> tuple[list[str], list[Float[Tensor, " rows"]]]:
        """What a direction in the stream gets from every part, split as far as it goes."""
        names: list[str] = []
        columns: list[Tensor] = []
        for part in self.parts:
            whole = (part.x.double() * g).sum(dim=-1)
            if part.branch is None:
                names.append(part.name)
                columns.append(whole)
                continue
            direction, constant = part.branch.reads(g)
            shares = part.branch.inner.double() * direction
            kind, _, layer = part.name.partition(".")
            if part.heads is None:
                names += [part.name, f"{kind.removesuffix('_out')}_bias.{layer}"]
                columns += [shares.sum(dim=-1), constant]
                continue
            names += [f"z.{layer}.h{h}" for h in range(part.heads)] + [f"attn_bias.{layer}"]
            by_head = shares.reshape(len(shares), part.heads, -1).sum(dim=-1)
            columns += [*by_head.unbind(dim=1), constant]
        return names, columns

    def logits(self, uncapped: Callable[[Tensor], Tensor]) -> Float[Tensor, "rows vocab"]:
        """The model's own logits of this stream."""
        with torch.no_grad():
            return uncapped(self.stream[:, None, :])[:, 0]


def writers(model: Model, batch: Batch, at: Int[Tensor, " rows"], heads: bool) -> Writers:
    """Run ``batch`` and find what wrote to the stream at one position of each row.

    Args:
        model: a language model.
        batch: on the model's device.
        at: index of the position in each row.
        heads: split attention by head, and the biases of sublayers off.

    Raises:
        Unsupported: the named parts do not add up to the stream, or a sublayer cannot be split.
    """
    layers = range(model.n_layers or 0)
    last = f"resid_post.{len(layers) - 1}"
    inner = [f"{INNER[kind]}.{layer}" for layer in layers for kind in SUBLAYERS] if heads else []
    around = [f"{kind}.{i}" for i in layers for kind in ("resid_pre", "resid_mid", "resid_post")]
    added = [f"{kind}_out_post.{i}" for i in layers for kind in SUBLAYERS]
    trace = model.run(batch, [s for s in ("embeddings", *around, *added, *inner) if s in model.sites])
    rows = torch.arange(len(at), device=at.device)

    def pick(site: str) -> Tensor:
        return trace[site][rows, at].detach()

    parts, notes = _embeddings(model, trace, pick)
    for layer in layers:
        for name, x, note in _added(trace, pick, layer):
            notes += [note] if note else []
            kind = name.partition("_")[0]
            split, count = None, None
            site = f"z.{layer}" if kind == "attn" else f"mlp_act.{layer}"
            if kind == "attn" and heads:
                if site not in trace:
                    why = model.sites.refused.get(site, "this layer has no heads")
                    raise Unsupported(f"splitting {name} by head: {why}", "heads", "split='sublayers'")
                split = branch(model, trace, "attn", layer, at, x)
                count = model.sites.info(site).heads
            elif kind == "mlp" and heads:
                # only its bias is at stake here, so what cannot be split stays whole and is noted
                with suppress(Unsupported):
                    split = branch(model, trace, "mlp", layer, at, x) if site in trace else None
                if split is None:
                    notes.append(f"{name} holds its bias: no linear map from its neurons is known")
            parts.append(Written(name, x, split, count))
    stream = pick(last)
    total = torch.stack([p.x.double() for p in parts]).sum(dim=0)
    error = float((total - stream.double()).abs().max() / stream.double().abs().max().clamp(min=1e-30))
    if not error <= (1e-4 if model.dtype in (torch.float32, torch.float64) else 3e-2):
        raise Unsupported(
            f"the parts of the stream of {model.name}, which miss it by {error:.2g}",
            "a stream that is the sum of embedding, attention and MLP outputs",
        )
    norm = model._norm
    with settled(model.module):
        held = None if norm is None else acting(norm, stream, int(stream.shape[-1]))
    if held is None:
        raise Unsupported(f"the last norm of {model.name}, which has another form", "a LayerNorm or RMSNorm")
    return Writers(tuple(parts), stream, held, tuple(notes))


def mlp_branch(model: Model, batch: Batch, layer: int, at: Int[Tensor, " rows"]) -> Branch:
    """The last steps of one MLP, at one position of each row.

    Raises:
        Unsupported: this model has no neurons there, or something else than a norm or a factor follows them.
    """
    around = [
        f"{k}.{layer}" for k in ("resid_pre", "resid_mid", "resid_post", "attn_out_post", "mlp_out_post")
    ]
    trace = model.run(batch, [f"mlp_act.{layer}", *(s for s in around if s in model.sites)])
    rows = torch.arange(len(at), device=at.device)
    for name, x, _ in _added(trace, lambda site: trace[site][rows, at].detach(), layer):
        if name == f"mlp_out.{layer}":
            return branch(model, trace, "mlp", layer, at, x)
    raise Unsupported(f"neurons of block {layer} of {model.name}", "an MLP whose output is known")


def _added(trace: Trace, pick: Callable[[str], Tensor], layer: int) -> list[tuple[str, Tensor, str]]:
    """What a block added: (name, what, note). Sublayers that are no sites are read off the stream around them."""
    sites = {kind: f"{kind}_out_post.{layer}" for kind in SUBLAYERS}
    there = [kind for kind in SUBLAYERS if sites[kind] in trace]
    mid, pre, post = (f"resid_{where}.{layer}" for where in ("mid", "pre", "post"))
    if len(there) == len(SUBLAYERS):
        return [(f"{kind}_out.{layer}", pick(sites[kind]), "") for kind in SUBLAYERS]
    if mid in trace:
        note = f"block {layer}: what attention and MLP add is read off the stream between them"
        attention, mlp = pick(mid).double() - pick(pre).double(), pick(post).double() - pick(mid).double()
        return [(f"attn_out.{layer}", attention, note), (f"mlp_out.{layer}", mlp, "")]
    if pre not in trace or post not in trace:
        return []
    rest = pick(post).double() - pick(pre).double() - sum(pick(sites[kind]).double() for kind in there)
    out = [(f"{kind}_out.{layer}", pick(sites[kind]), "") for kind in there]
    if float(rest.abs().max()) <= 1e-5 * float(pick(post).abs().max()):
        return out
    named = f"block {layer}: {'the rest of it' if there else 'all of it'} is one part"
    return [*out, (f"block.{layer}", rest, named)]


def _embeddings(model: Model, trace: Trace, pick: Callable[[str], Tensor]) -> tuple[list[Written], list[str]]:
    """What enters the first block: token embedding and positions apart, where they are two."""
    whole = pick("resid_pre.0")
    if "embeddings" not in trace:
        return [Written("embeddings", whole)], ["embeddings hold positions: the model has no such site"]
    tokens = pick("embeddings")
    size = float((tokens.double() ** 2).sum())
    factor = float((tokens.double() * whole.double()).sum()) / size if size > 0 else 1.0
    gap = float((tokens.double() * factor - whole.double()).abs().max())
    if gap <= 1e-5 * float(whole.abs().max()):
        return [Written("embeddings", whole)], []
    if _positional(model):
        return [Written("embeddings", tokens), Written("positions", whole - tokens)], []
    return [Written("embeddings", whole)], ["embeddings hold whatever lies before the first block"]


def _positional(model: Model) -> bool:
    """Whether what is added to the token embedding depends on the position alone, seen on random tokens."""
    length = min(6, model.max_positions or 6)
    draw = Seed(0).child("positions").torch()
    made = torch.randint(model.vocab_size or 2, (4, length), generator=draw)
    trace = model.run(made, ["embeddings", "resid_pre.0"])
    added = trace["resid_pre.0"].double() - trace["embeddings"].double()
    spread = (added - added[:1]).abs().max()
    return bool(spread <= 1e-5 * trace["resid_pre.0"].double().abs().max())
