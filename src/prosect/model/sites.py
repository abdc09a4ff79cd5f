"""The grammar of site names: what can be said, whatever the model. What a model has is in `sitemap`.

    resid_post.3        a kind and a layer             z.5.h2        one head of it
    final_norm          a kind without a layer         path.a.b      the output of a module, by path
    path.a.b:in         its input                      path.a.b@1    its second call in one pass
    path.a.b?           a module that need not run (an expert)

TransformerLens names are read as well and written for exports. Where TransformerLens fires a hook of that
name on another tensor (before the rotary embedding, before a norm's gain), the name is not translated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from prosect.core.errors import BadInput

Layout = Literal["stream", "pattern", "module"]
"""How axes are read: (rows, positions, ...), (rows, heads, queries, keys), or whatever a module gives."""


@dataclass(frozen=True)
class Kind:
    """A kind of site.

    Attributes:
        name: as it is written.
        about: what the tensor is, in words.
        layered: whether it is addressed with a layer.
        heads: whether it has an axis of heads, so that ``.hN`` means something.
        layout: how its axes are read.
        interior: whether it lives inside the attention function rather than at a module's boundary.
    """

    name: str
    about: str
    layered: bool = True
    heads: bool = False
    layout: Layout = "stream"
    interior: bool = False


def _sublayer(name: str, about: str) -> tuple[Kind, ...]:
    """The three sites of a sublayer."""
    return (
        Kind(f"{name}_in", f"what {about} reads"),
        Kind(f"{name}_out", f"what {about} returns"),
        Kind(f"{name}_out_post", f"what {about} adds to the residual stream"),
    )


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("embeddings", "what the token embedding gives", layered=False),
        Kind("resid_pre", "residual stream entering the block"),
        Kind("attn_in", "what attention reads"),
        Kind(
            "q", "queries as the scores use them, after rotary embedding and norm", heads=True, interior=True
        ),
        Kind("k", "keys as the scores use them, after rotary embedding and norm", heads=True, interior=True),
        Kind("v", "values that attention mixes", heads=True, interior=True),
        Kind(
            "scores",
            "scaled, capped and masked scores; masked keys hold the dtype's minimum",
            heads=True,
            layout="pattern",
            interior=True,
        ),
        Kind(
            "probs",
            "attention probabilities, what the values are mixed by",
            heads=True,
            layout="pattern",
            interior=True,
        ),
        Kind("z", "what each head gives, before the output projection", heads=True),
        Kind("attn_out", "what the attention module returns"),
        Kind("attn_out_post", "what attention adds to the residual stream"),
        Kind("attn_sum", "stream plus what attention adds, where a norm on the stream follows (BERT)"),
        *_sublayer("attn2", "a second attention"),
        Kind("resid_cross", "residual stream between self-attention and attention to the encoder"),
        *_sublayer("cross_attn", "attention to the encoder"),
        Kind("cross_attn_sum", "stream plus what attention to the encoder adds, where a norm follows"),
        *_sublayer("mixer", "a mixer of positions other than softmax attention (state-space, recurrent)"),
        Kind("mixer_sum", "stream plus what a mixer adds, where a norm on the stream follows"),
        *_sublayer("mixer2", "a second mixer of positions"),
        Kind("resid_mid", "residual stream between attention and MLP"),
        Kind("mlp_in", "what the MLP reads"),
        Kind("mlp_act", "neurons after their activation function, what the down projection reads"),
        Kind("mlp_out", "what the MLP module returns"),
        Kind("mlp_out_post", "what the MLP adds to the residual stream"),
        *_sublayer("mlp2", "a second MLP, such as shared experts"),
        Kind("mlp_sum", "stream plus what the MLP adds, where a norm on the stream follows (BERT)"),
        Kind("resid_post", "residual stream leaving the block"),
        Kind(
            "final_norm", "the residual stream after the last norm, what the unembedding reads", layered=False
        ),
    )
}
MODULE = Kind("module", "what a module gives or is given", layered=False, layout="module")
SUBLAYERS = ("attn", "attn2", "cross_attn", "mixer", "mixer2", "mlp", "mlp2")
"""What a block can add to its stream; each has sites ``_in``, ``_out`` and ``_out_post``."""
INTERIOR = tuple(kind.name for kind in KINDS.values() if kind.interior)

_SUFFIX = re.compile(r"^(?P<body>.*?)(?::(?P<side>in|out))?(?:@(?P<call>\d+))?(?P<maybe>\?)?$")
_LAYERED = re.compile(r"^(?P<kind>[a-z_]+2?[a-z_]*)\.(?P<layer>\d+)(?:\.h(?P<head>\d+))?$")


@dataclass(frozen=True)
class Site:
    """A parsed name.

    Attributes:
        kind: a key of `KINDS`, or ``module`` for a module path.
        layer: from 0; None for kinds without one.
        head: from 0; None for all.
        path: the module path, for ``module``.
        side: which side of the module, for ``module``.
        call: which call of the pass, from 0; None where there must be exactly one.
        conditional: it need not fire.
    """

    kind: str
    layer: int | None = None
    head: int | None = None
    path: str = ""
    side: Literal["in", "out"] = "out"
    call: int | None = None
    conditional: bool = False

    @cached_property
    def base(self) -> str:
        """The name without head, call and ``?``: what a map of sites is keyed by."""
        if self.kind == MODULE.name:
            return f"{self.path}:in" if self.side == "in" else self.path
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"

    @cached_property
    def name(self) -> str:
        """As it is written."""
        head = "" if self.head is None else f".h{self.head}"
        call = "" if self.call is None else f"@{self.call}"
        return f"{self.base}{head}{call}{'?' if self.conditional else ''}"

    def __str__(self) -> str:
        return self.name

    @property
    def whole(self) -> Site:
        """The same site with all its heads."""
        return replace(self, head=None)


def parse(name: str) -> Site:
    """Read a name; anything that is not one of `KINDS` is a module path.

    Raises:
        BadInput: the name is empty.
    """
    found = _SUFFIX.match(name.strip())
    body = found["body"] if found else ""
    if not found or not body:
        raise BadInput(
            f"site {name!r}", "a name such as resid_post.3, or a module path", "model.sites.names()"
        )
    call = None if found["call"] is None else int(found["call"])
    maybe = found["maybe"] is not None
    layered = _LAYERED.match(body)
    if found["side"] is None:
        if layered and layered["kind"] in KINDS and KINDS[layered["kind"]].layered:
            head = None if layered["head"] is None else int(layered["head"])
            return Site(layered["kind"], int(layered["layer"]), head, call=call, conditional=maybe)
        if body in KINDS and not KINDS[body].layered:
            return Site(body, call=call, conditional=maybe)
    return as_path(body, "in" if found["side"] == "in" else "out", call, maybe)


def as_path(
    path: str, side: Literal["in", "out"] = "out", call: int | None = None, conditional: bool = False
) -> Site:
    """The site at a module's boundary."""
    return Site(MODULE.name, path=path, side=side, call=call, conditional=conditional)


Trait = Literal["rotary", "gain", "scaled"]
"""Properties of a model under which TransformerLens uses a name for another tensor: rotary embeddings or
query-key norms; norms with a gain; embeddings that the model scales after its embedding module."""


@dataclass(frozen=True)
class Alias:
    """What a TransformerLens name stands for here.

    Attributes:
        site: the canonical name, such as ``resid_pre.3``.
        unless: the trait of a model on which TransformerLens means another tensor by it.
        reason: why, and what to ask for instead.
    """

    site: str
    unless: Trait | Literal["always"] | None = None
    reason: str = ""

    def same(self, traits: frozenset[Trait]) -> bool:
        """Whether the two names mean one tensor on a model with these traits."""
        return self.unless is None or (self.unless != "always" and self.unless not in traits)


def _rotated(kind: str) -> Alias:
    reason = f"it fires before the rotary embedding or norm, and {kind} is after: attn.hook_rot_{kind} is the same tensor"
    return Alias(kind, "rotary", reason)


def _normed(kind: str) -> Alias:
    return Alias(kind, "gain", f"it fires before the gain of the norm, and {kind} is after it")


# In order of preference for writing.
_BLOCK: dict[str, Alias] = {
    "hook_resid_pre": Alias("resid_pre"),
    "hook_in": Alias("resid_pre"),
    "hook_resid_mid": Alias("resid_mid"),
    "hook_resid_post": Alias("resid_post"),
    "hook_out": Alias("resid_post"),
    "attn.hook_in": Alias("attn_in"),
    "ln1.hook_normalized": _normed("attn_in"),
    "hook_attn_in": Alias("attn_in", "always", "it fires on the stream before the norm: that is resid_pre"),
    "attn.hook_q": _rotated("q"),
    "attn.hook_rot_q": Alias("q"),
    "attn.hook_k": _rotated("k"),
    "attn.hook_rot_k": Alias("k"),
    "attn.hook_v": Alias("v"),
    "attn.hook_attn_scores": Alias("scores"),
    "attn.hook_pattern": Alias("probs"),
    "attn.hook_z": Alias("z"),
    "attn.hook_out": Alias("attn_out"),
    "hook_attn_out": Alias("attn_out_post"),
    "mlp.hook_in": Alias("mlp_in"),
    "ln2.hook_normalized": _normed("mlp_in"),
    "hook_mlp_in": Alias("mlp_in", "always", "it fires on the stream before the norm: that is resid_mid"),
    "mlp.hook_post": Alias("mlp_act"),
    "mlp.hook_out": Alias("mlp_out"),
    "hook_mlp_out": Alias("mlp_out_post"),
}
_GLOBAL: dict[str, Alias] = {
    "hook_embed": Alias("embeddings", "scaled", "it is after the scale of the embeddings, this is before it"),
    "unembed.hook_in": Alias("final_norm"),
    "ln_final.hook_normalized": _normed("final_norm"),
}
_BLOCK_NAME = re.compile(r"^blocks\.(?P<layer>\d+)\.(?P<rest>.+)$")


def from_transformerlens(name: str) -> Alias | None:
    """What a TransformerLens name stands for; None if it is none that is known."""
    if name in _GLOBAL:
        return _GLOBAL[name]
    found = _BLOCK_NAME.match(name)
    if found is None or found["rest"] not in _BLOCK:
        return None
    alias = _BLOCK[found["rest"]]
    return replace(alias, site=f"{alias.site}.{found['layer']}")


def to_transformerlens(site: Site, traits: frozenset[Trait]) -> str | None:
    """The TransformerLens name of a site on a model with these traits; None if it has none."""
    if site.head is not None or site.call is not None:
        return None
    table, prefix = (_GLOBAL, "") if site.layer is None else (_BLOCK, f"blocks.{site.layer}.")
    for name, alias in table.items():
        if alias.site == site.kind and alias.same(traits):
            return prefix + name
    return None
