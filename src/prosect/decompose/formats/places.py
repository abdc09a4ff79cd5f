"""Where a dictionary belongs: the names of sites here, and the names that other projects' files give them.

Two kinds of names occur there: TransformerLens hooks (``blocks.3.hook_resid_post``) and module paths
(``model.layers.3``). A hook that means one tensor on every model is translated. One whose tensor depends on
the model is kept as it is: the model it is used on translates it, or refuses it and says why.
"""

from __future__ import annotations

import re

from prosect.core.errors import BadInput
from prosect.model.sites import KINDS, MODULE, Trait, from_transformerlens, parse, to_transformerlens

ANY: frozenset[Trait] = frozenset({"rotary", "gain", "scaled"})
"""A model of which nothing is known: only names that mean the same tensor on every model are used."""

_BLOCK = re.compile(
    r"^(?:.*\.)?(?:layers|h|blocks)\.(?P<layer>\d+)(?:\.(?P<part>mlp|self_attn|attn|attention))?$"
)
_EMBEDDING = re.compile(r"^(?:.*\.)?(?:embed_tokens|embed_in|wte)$")


def from_hook(name: str, head: int | None = None) -> str | None:
    """The site that a file's ``hook_name`` means; None for one head of a hook that depends on the model.

    Args:
        name: a TransformerLens hook or a module path.
        head: which head of it, where it has heads.
    """
    alias = from_transformerlens(name)
    if alias is None:
        return from_module(name)
    headed = head is not None and KINDS[parse(alias.site).kind].heads
    if alias.unless is not None:
        return None if headed else name
    return f"{alias.site}.h{head}" if headed else alias.site


def from_module(path: str, side: str = "out") -> str:
    """The site at a module's input or output; the path itself where it is none that has a name.

    Args:
        path: as the module's parent names it, such as ``model.layers.3.mlp``; its root may be left out.
        side: ``in`` or ``out``.
    """
    if _EMBEDDING.match(path) and side == "out":
        return "embeddings"
    found = _BLOCK.match(path)
    if found is None:
        return f"{path}:in" if side == "in" else path
    layer = found["layer"]
    if found["part"] is None:
        return f"resid_pre.{layer}" if side == "in" else f"resid_post.{layer}"
    return f"{'mlp' if found['part'] == 'mlp' else 'attn'}_{side}.{layer}"


def to_hook(site: str) -> tuple[str, int | None]:
    """The name of a site in a file, and its head: a TransformerLens hook, or the name it has here."""
    parsed = parse(site)
    name = to_transformerlens(parsed.whole, ANY)
    return (name or str(parsed.whole)), parsed.head


def has_heads(site: str) -> bool:
    """Whether TransformerLens gives this site with an axis of heads."""
    alias = from_transformerlens(site)
    parsed = parse(site if alias is None else alias.site)
    return parsed.kind != MODULE.name and parsed.head is None and KINDS[parsed.kind].heads


_ON_STREAM = re.compile(r"^(resid_(pre|mid|post)|(attn|mlp)_out(_post)?)\.\d+$|^embeddings$|^hook_embed$")


def on_stream(site: str) -> bool:
    """Whether it is the residual stream, or what is added to it."""
    return _ON_STREAM.match(site) is not None


def site_or_asked(asked: tuple[str, ...] | None, said: str | None, what: str) -> tuple[str, ...]:
    """The sites that the user gave, or the one that a file names.

    Args:
        asked: by the user; None takes what the file says.
        said: by the file; None if it does not say.
        what: the file or folder, for messages.

    Raises:
        BadInput: neither says.
    """
    if asked is not None:
        return asked
    if said is None:
        raise BadInput(
            f"{what}, whose files do not say which site it belongs to",
            "a site",
            'sites="resid_post.3" (and targets=... for a transcoder)',
        )
    return (said,)
