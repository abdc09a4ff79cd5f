"""The map of a model's sites: which names it has, what each is, where it physically lies, and which are refused.

A name is refused for one of two reasons, and says which: the architecture has no such tensor, or the
self-check measured that what lies there is not what the name means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markupsafe import Markup
from torch import nn

from prosect.core.errors import UnknownName, Unsupported
from prosect.core.markup import card
from prosect.model.sites import (
    KINDS,
    MODULE,
    Layout,
    Site,
    Trait,
    as_path,
    from_transformerlens,
    parse,
    to_transformerlens,
)

Side = Literal["in", "out", "q", "k", "v", "scores", "probs", "z"]


@dataclass(frozen=True)
class Place:
    """Where a tensor can be met while the model runs.

    Attributes:
        module: the module; the attention module for what lies inside attention.
        side: its input, its output, or a quantity of its attention function.
        through: an edit is written into the tensor itself, so that whoever else holds it sees the edit: the
            residual stream between attention and MLP is read by the MLP and by the skip around it.
    """

    module: nn.Module
    side: Side
    through: bool = False

    @property
    def inside(self) -> bool:
        """Whether it is met in the attention function rather than at a module's boundary."""
        return self.side not in ("in", "out")


@dataclass(frozen=True)
class SiteInfo:
    """What is known of a site.

    Attributes:
        name: canonical.
        kind: a key of `sites.KINDS`, or ``module``.
        about: what the tensor is, in words.
        layer: from 0; None where that means nothing.
        layout: how its axes are read.
        width: numbers on its last axis for each position (d_head for sites with heads); None if unknown or
            not constant, as for attention patterns.
        heads: how many heads it has; None for sites without.
        path: the module it lies at.
    """

    name: str
    kind: str
    about: str
    layer: int | None = None
    layout: Layout = "stream"
    width: int | None = None
    heads: int | None = None
    path: str = ""


@dataclass(frozen=True)
class Entry:
    """A site of the map.

    Attributes:
        place: where it lies.
        info: what is known of it.
        split: whether heads must be split off its last axis.
        factor: what the model multiplies the tensor there by before it is what the name means.
    """

    place: Place
    info: SiteInfo
    split: bool = False
    factor: float = 1.0


@dataclass(frozen=True)
class Wanted:
    """A site to read, all heads of it."""

    site: Site
    entry: Entry


class SiteMap:
    """Which sites a model has.

    Args:
        model: name of the architecture, for messages.
        root: the module that paths start from.
        entries: named sites.
        refused: named sites that this architecture does not have → why.
        widths: module path → width of its output, and ``path:in`` of its input, for those that ran when the
            model was opened.
        traits: on which TransformerLens names mean something else.
        layers: how many; None where that means nothing.
        starts: the first block of each stack: one, or those of an encoder and of a decoder.
    """

    def __init__(
        self,
        model: str,
        root: nn.Module,
        entries: Mapping[str, Entry],
        refused: Mapping[str, str] | None = None,
        widths: Mapping[str, int] | None = None,
        traits: Iterable[Trait] = (),
        layers: int | None = None,
        starts: tuple[int, ...] = (0,),
    ) -> None:
        self.model, self.layers, self.starts = model, layers, starts
        every = root.named_modules(remove_duplicate=False)  # a shared module has several paths
        self._modules = {path: module for path, module in every if path}
        self._entries = dict(entries)
        self._refused = dict(refused or {})
        self._widths = dict(widths or {})
        self._traits: frozenset[Trait] = frozenset(traits)
        self._known: dict[str, Site] = {}  # names resolved so far
        self._asked: dict[tuple[str, ...], dict[Place, list[Wanted]]] = {}  # and lists of them

    def names(self, paths: bool = False) -> tuple[str, ...]:
        """Canonical names in the order of the forward pass, layer by layer.

        Args:
            paths: list module paths too; a model without named sites lists them anyway.
        """
        named = tuple(name for name in self._entries if name not in self._refused)
        modules = tuple(path for path in self._modules if path in self._widths)
        return (*named, *modules) if paths or not named else named

    @property
    def refused(self) -> dict[str, str]:
        """Named sites that are not served → why."""
        return dict(self._refused)

    def refuse(self, name: str, why: str) -> None:
        """Serve ``name`` no more: what lies there is not what the name means."""
        self._refused[name] = why
        self._known.clear()
        self._asked.clear()

    def site(self, name: str) -> Site:
        """The parsed site that ``name`` stands for on this model.

        Raises:
            UnknownName: nothing has that name; the nearest that exist are in the message.
            Unsupported: the architecture does not have it, or it failed the self-check.
        """
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def wanted(self, names: Sequence[str]) -> Mapping[Place, Sequence[Wanted]]:
        """What is to be read where, for a list of names or one; each list is gathered once.

        Raises:
            UnknownName: nothing has that name.
            Unsupported: this model does not have it.
        """
        key = (names,) if isinstance(names, str) else tuple(names)
        if key not in self._asked:
            sites = [self.site(name) for name in key]
            whole = {site.whole.name: site.whole for site in sites}
            gathered: dict[Place, list[Wanted]] = {}
            for site in whole.values():
                entry = self.entry(site)
                gathered.setdefault(entry.place, []).append(Wanted(site, entry))
            self._asked[key] = gathered
        return self._asked[key]

    def _find(self, name: str) -> Site:
        alias = None if name in self._modules else from_transformerlens(name)
        if alias is not None and not alias.same(self._traits):
            raise Unsupported(
                f"the TransformerLens name {name!r} on {self.model}: {alias.reason}", "a name of one tensor"
            )
        site = parse(alias.site if alias is not None else name)
        if site.kind != MODULE.name and self._is_module(name, site):
            site = as_path(site.base, "out", site.call, site.conditional)
        if site.kind == MODULE.name:
            if site.path not in self._modules:
                raise self._unknown(name, site)
            return site
        if site.base in self._refused:
            raise Unsupported(
                f"site {name!r} on {self.model}: {self._refused[site.base]}", "a site that this model has"
            )
        entry = self._entries.get(site.base)
        if entry is None:
            raise self._unknown(name, site)
        self._check_head(name, site, entry.info)
        return site

    def resolve(self, name: str) -> str:
        """The canonical form of ``name``.

        Raises:
            UnknownName: nothing has that name.
            Unsupported: this model does not have it.
        """
        return str(self.site(name))

    def entry(self, site: Site) -> Entry:
        """Where a site found by `site` lies."""
        if site.kind != MODULE.name:
            return self._entries[site.base]
        module = self._modules[site.path]
        info = SiteInfo(
            site.base,
            MODULE.name,
            f"what {type(module).__name__} {'is given' if site.side == 'in' else 'gives'}",
            layout=MODULE.layout,
            width=self._widths.get(site.base),
            path=site.path,
        )
        return Entry(Place(module, site.side), info)

    def info(self, name: str) -> SiteInfo:
        """What is known of a site, by any of its names; for one head, without the axis of heads.

        Raises:
            UnknownName: nothing has that name.
            Unsupported: this model does not have it.
        """
        site = self.site(name)
        info = self.entry(site).info
        return info if site.head is None else replace(info, name=f"{info.name}.h{site.head}", heads=None)

    def alias(self, name: str) -> str | None:
        """The TransformerLens name of a site, for exports; None where there is none for the same tensor."""
        return to_transformerlens(self.site(name), self._traits)

    def __contains__(self, name: object) -> bool:
        try:
            self.site(str(name))
        except (UnknownName, Unsupported):
            return False
        return True

    def _is_module(self, name: str, site: Site) -> bool:
        """A module path that reads like a site's name, on a model that has no such site."""
        return (
            site.base not in self._entries and site.base not in self._refused and site.base in self._modules
        )

    def _check_head(self, name: str, site: Site, info: SiteInfo) -> None:
        if site.head is None:
            return
        if not KINDS[site.kind].heads or info.heads is None:
            raise Unsupported(f"head {site.head} of {info.name}, which has no heads", "a site with heads")
        if site.head >= info.heads:
            shared = site.kind in ("k", "v")
            hint = "grouped queries share keys and values: heads here are those of keys" if shared else ""
            known = [f"{info.name}.h{i}" for i in range(info.heads)]
            raise UnknownName("site", name, known, hint)

    def _unknown(self, name: str, site: Site) -> UnknownName:
        hint = "model.sites.names(paths=True)"
        if site.layer is not None and self.layers is not None and site.layer >= self.layers:
            hint = f"a layer from 0 to {self.layers - 1}"
        return UnknownName("site", name, [*self.names(paths=True), *self._modules], hint)

    def _repr_html_(self) -> Markup:
        kinds: dict[str, int] = {}
        for name in self.names():
            kind = parse(name).kind
            kinds[kind] = kinds.get(kind, 0) + 1
        rows: list[tuple[str, object]] = list(kinds.items())
        rows.append(("refused", ", ".join(self._refused) or "none"))
        return card(f"sites of {self.model}", rows)
