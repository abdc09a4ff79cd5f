"""The way from a site that is written to one that is read, through the residual stream and nothing else.

A sublayer's output is added to the stream, perhaps times a constant, and a later sublayer reads the stream, perhaps
behind a norm. The norm's gain and centring are linear and are folded in; its scale depends on the input and is left
out of the weights. Nothing goes by a family's names: that the writes add up to the stream, and that one norm makes the
read of it, is checked on the model's example, and what does not hold is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import BadInput, Unsupported
from prosect.model.model import Model
from prosect.model.sites import SUBLAYERS, Site, parse
from prosect.model.trace import Trace
from prosect.model.unembed import Norm, acting, measure

PRECISION = 1e-4
"""How far a sum or a norm may miss what the model has, relative to it."""
READ = tuple(f"{sublayer}_in" for sublayer in SUBLAYERS)


@dataclass(frozen=True)
class Route:
    """From one site to another through the stream. Without more than its ends it is the bare stream.

    Attributes:
        write: where a part is written.
        read: where the stream is read.
        factor: what the model multiplies the part by before it adds it.
        stream: the stream that is read, before any norm; empty where no model was looked at.
        norm: what the norm between the stream and ``read`` does; None without one.
        ignored: what lies between and also hands on what was written, and is not counted.
    """

    write: str
    read: str
    factor: float = 1.0
    stream: str = ""
    norm: Norm | None = None
    ignored: tuple[str, ...] = ()
    module: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def scaled(self) -> bool:
        """Whether the norm on the way divides by a scale."""
        return self.norm is not None and self.norm.scaled

    def carry(self, rows: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """What a part of what is written is where it is read, at a norm scale of 1."""
        return self.through(self.factor * rows)

    def through(self, rows: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """What a part of the stream is where it is read, at a norm scale of 1."""
        if self.norm is None:
            return rows
        y = rows - rows.mean(dim=-1, keepdim=True) if self.norm.centred else rows
        return y * self.norm.gain

    def shift(self, width: int) -> Float[Tensor, " width"]:
        """What the norm adds to every position."""
        return torch.zeros(width, dtype=torch.float64) if self.norm is None else self.norm.bias

    def inverse(self, stream: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
        """One over the norm's scale at each position; 1 without a norm."""
        held = None if self.module is None else acting(self.module, stream, stream.shape[-1])
        return torch.ones(len(stream), dtype=torch.float64) if held is None else held.inverse[:, 0]


def route(model: Model, write: str, read: str) -> Route:
    """The way through a model's stream, checked on its example.

    Args:
        model: with named sites.
        write: what a sublayer adds (``mlp_out.0``), the embeddings, or the stream itself (``resid_post.0``).
        read: what a later sublayer reads (``mlp_in.1``), or the stream there.

    Raises:
        UnknownName: no such site.
        BadInput: the one is no write or the other no read of the stream, or the write comes after the read.
        Unsupported: a norm lies on what is written or on the stream itself, or what is read is no norm of the stream.
    """
    sites = model.sites
    write, read = sites.resolve(write), sites.resolve(read)
    source, target = parse(write), parse(read)
    added, landing = _landing(model, source)
    streams = [read] if target.kind.startswith("resid") else _before(model, target)
    between: dict[str, list[str]] = {}
    for stream in streams:
        if _time(parse(stream)) >= _time(parse(landing)):
            between[stream] = [
                name
                for name in sites.names()
                if _is_write(parse(name))
                and _time(parse(landing))
                < _time(parse(_landing(model, parse(name))[1]))
                <= _time(parse(stream))
            ]
    if not between:
        raise BadInput(f"a route from {write} to {read}", "a site that is read after the other is written")
    wanted = {write, added, landing, read, *between, *(w for names in between.values() for w in names)}
    norms = _norms(model, target) if target.kind in READ else {}
    ends = [end for path in norms for end in (path, f"{path}:in")]
    with torch.no_grad(), model.runner.meter.paused():
        trace = model.run(model.example, [*sorted(wanted), *ends])
    factor = _factor(trace, write, added)
    for stream, names in between.items():
        total = trace[landing].double() + sum(trace[name].double() for name in names)
        if _far(total, trace[stream]):
            raise Unsupported(
                f"a route from {write} to {read}: what is written does not add up to {stream}",
                "a stream that is a sum of what is written to it, with no norm on it",
            )
        if not _far(trace[read].double(), trace[stream]):
            return Route(write, read, factor, stream, None, tuple(names))
        for path, module in norms.items():
            given, gave = trace[f"{path}:in"], trace[path]
            if _same(given, trace[stream]) and _same(gave, trace[read]):
                norm = measure(module, given.shape[-1])
                if norm is not None:
                    return Route(write, read, factor, stream, norm, tuple(names), module)
    raise Unsupported(
        f"a route from {write} to {read}", "what is read to be the stream, or one norm of the stream"
    )


def _is_write(site: Site) -> bool:
    return site.kind.endswith("_out_post") and site.kind[: -len("_out_post")] in SUBLAYERS


def _landing(model: Model, site: Site) -> tuple[str, str]:
    """Where what a site writes is added to the stream: the tensor that is added, and the stream after it."""
    names = model.sites
    if site.kind.startswith("resid"):
        return site.name, site.name
    if site.kind == "embeddings" and "resid_pre.0" in names:
        return "resid_pre.0", "resid_pre.0"
    sublayer = site.kind.removesuffix("_post").removesuffix("_out")
    if site.layer is None or sublayer not in SUBLAYERS or "_out" not in site.kind:
        raise BadInput(
            f"{site.name} as what is written", "what a sublayer adds, such as mlp_out.0, or the stream"
        )
    added = f"{sublayer}_out_post.{site.layer}"
    after = f"resid_mid.{site.layer}"
    if sublayer.startswith("mlp") or after not in names:
        after = f"resid_post.{site.layer}"
    return added, after


def _before(model: Model, site: Site) -> list[str]:
    """The streams that a sublayer may read, the latest first."""
    if site.kind not in READ or site.layer is None:
        raise BadInput(
            f"{site.name} as what is read", "what a sublayer reads, such as mlp_in.1, or the stream"
        )
    names = [f"resid_{where}.{site.layer}" for where in ("mid", "pre")]
    return [name for name in names if name in model.sites]


def _time(site: Site) -> int:
    """Order along the stream; the end of a block is the beginning of the next."""
    return 3 * (site.layer or 0) + {"resid_pre": 0, "resid_mid": 1, "resid_post": 3}.get(site.kind, 0)


def _norms(model: Model, site: Site) -> dict[str, nn.Module]:
    """Modules of a layer whose every parameter is as wide as the stream, which a norm's are."""
    width, found = model.d_model, {}
    for path, module in model.module.named_modules():
        sizes = [tuple(p.shape) for p in module.parameters()]
        here = str(site.layer) in path.split(".") and not list(module.children())
        if here and sizes and all(size == (width,) for size in sizes):
            found[path] = module
    return found


def _factor(trace: Trace, write: str, added: str) -> float:
    """What the model multiplies what is written by."""
    if write == added:
        return 1.0
    given, got = trace[write].double(), trace[added].double()
    factor = float((given * got).sum() / (given * given).sum().clamp(min=1e-300))
    if _far(factor * given, got):
        raise Unsupported(
            f"{write} as what is added to the stream, since something else, such as a norm, follows it",
            added,
            f"a dictionary of {added}",
        )
    return 1.0 if abs(factor - 1) < PRECISION else factor


def _far(made: Tensor, there: Tensor) -> bool:
    return float((made - there.double()).norm()) > PRECISION * float(there.double().norm())


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and not _far(one.double(), other)
