"""What the decompositions of this room share: checks at the door, storage, and the notebook card.

Each is a dataclass. Its constructor's fields say what was asked for; its other fields, which end in an
underscore, are what was fitted. That is all there is to know about one, so storing it is generic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName, Unsupported
from prosect.core.markup import card
from prosect.core.seeds import Seed
from prosect.decompose.contract import ActivationStream, Codes, Decomposition

SEED = Seed(0)
"""Where randomness comes from unless told otherwise."""

Kind = TypeVar("Kind", bound="Fittable")


class Fittable(Decomposition):
    """A decomposition made of constructor fields and fitted fields.

    Subclasses are dataclasses and define `_fit`, `_encode`, `_decode` and `_directions`; what arrives there
    has been checked.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    widths_: dict[str, int]

    def _fit(self, stream: ActivationStream) -> None:
        raise NotImplementedError

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        raise NotImplementedError

    def _decode(self, codes: Codes) -> dict[str, Tensor]:
        raise NotImplementedError

    def _directions(self) -> Tensor:
        raise NotImplementedError

    @property
    def fitted(self) -> bool:
        """Whether `fit` has run."""
        return bool(getattr(self, "widths_", None))

    def fit(self: Kind, stream: ActivationStream) -> Kind:
        """Learn from ``stream``; returns self. See `Decomposition.fit`."""
        self.widths_ = {}
        widths = {site: stream.widths[site] for site in needed(self, stream)}
        self._fit(stream)
        self.widths_ = widths
        return self

    def encode(self, x: Mapping[str, Float[Tensor, "n _"]]) -> Codes:
        """The codes of ``x``. See `Decomposition.encode`."""
        self._require_fitted()
        check_inputs(self.name, x, {site: self.widths_[site] for site in self.reads})
        with torch.no_grad():
            return self._encode({site: at_least_single(x[site]) for site in self.reads})

    def decode(self, codes: Codes) -> dict[str, Float[Tensor, "n _"]]:
        """What ``codes`` stand for. See `Decomposition.decode`."""
        self._require("decode", "its codes do not determine activations")
        self._require_fitted()
        if codes.width != self.n_components:
            raise ShapeMismatch(
                f"codes of {codes.width} components for {self.name}", f"codes of its {self.n_components}"
            )
        with torch.no_grad():
            return self._decode(codes)

    @property
    def directions(self) -> Float[Tensor, "n_components width"]:
        """What each component writes. See `Decomposition.directions`."""
        self._require("directions", "its components have no one direction")
        self._require_fitted()
        return self._directions()

    def state(self) -> tuple[dict[str, Tensor], Json]:
        """Everything given and fitted. See `Decomposition.state`."""
        self._require_fitted()
        tensors: dict[str, Tensor] = {}
        fitted: dict[str, Json] = {}
        for f in fields(self):
            if not f.init:
                value, name = getattr(self, f.name), f.name.rstrip("_")
                if isinstance(value, Tensor):
                    tensors[name] = value
                else:
                    fitted[name] = plain(value)
        return tensors, {"given": self.asked(), "fitted": fitted}

    def asked(self) -> dict[str, Json]:
        """What was given to the constructor, as JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.init}

    @classmethod
    def from_state(cls: type[Kind], tensors: Mapping[str, Tensor], about: Json) -> Kind:
        """What `state` described.

        Raises:
            BadInput: something is missing or superfluous.
        """
        try:
            made = cls(**cls._given(about["given"]))
            fitted = {**about["fitted"], **tensors}
            for f in fields(cls):
                if not f.init:
                    setattr(made, f.name, fitted.pop(f.name.rstrip("_")))
            if fitted:
                raise KeyError(", ".join(fitted))
        except (KeyError, TypeError) as error:
            raise BadInput(
                f"a stored {cls.kind} that does not fit ({error})",
                "what its state() gave",
                "fitting it again",
            ) from error
        return made

    @classmethod
    def _given(cls, given: dict[str, Json]) -> dict[str, Any]:
        """Constructor arguments from what `asked` gave."""
        out = dict(given)
        for name in ("sites", "targets", "rates"):
            if isinstance(out.get(name), list):
                out[name] = tuple(out[name])
        if "seed" in out:
            out["seed"] = Seed(out["seed"]["root"], tuple(out["seed"]["path"]))
        return out

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise BadInput(f"{self.name}, which is not fitted", "a fitted decomposition", "fit(stream)")

    def _require(self, ability: str, why: str) -> None:
        if ability not in self.supports:
            raise Unsupported(f"{ability} of {self.name} ({why})", f"a decomposition that supports {ability}")

    def _facts(self) -> list[tuple[str, object]]:
        """Rows of the notebook card beyond those every decomposition has."""
        return []

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [("reads", ", ".join(self.reads))]
        if self.writes != self.reads:
            rows.append(("writes", ", ".join(self.writes)))
        if self.fitted:
            rows.append(("components", f"{self.n_components:,}, each a {self.definition}"))
            rows.extend(self._facts())
        rows.append(("supports", ", ".join(sorted(self.supports))))
        caveat = "Parts as proposed; what they do is not claimed here." if self.fitted else "Not fitted yet."
        return card(self.name, rows, caveat)


class OneSite(Fittable):
    """A decomposition of what is at one site; subclasses have a field ``site``."""

    site: str

    @property
    def name(self) -> str:
        """``kind@site``."""
        return f"{self.kind}@{self.site}"

    @property
    def reads(self) -> tuple[str, ...]:
        """The site."""
        return (self.site,)

    @property
    def writes(self) -> tuple[str, ...]:
        """The site."""
        return (self.site,)

    @property
    def width(self) -> int:
        """Width of the site.

        Raises:
            BadInput: not fitted yet.
        """
        self._require_fitted()
        return self.widths_[self.site]


def needed(decomposition: Decomposition, stream: ActivationStream) -> tuple[str, ...]:
    """The sites it reads or writes, each once.

    Raises:
        UnknownName: the stream lacks one of them.
    """
    sites = tuple(dict.fromkeys((*decomposition.reads, *decomposition.writes)))
    for site in sites:
        if site not in stream.sites:
            raise UnknownName("site", site, stream.sites, "harvesting it too")
    return sites


def check_inputs(name: str, x: Mapping[str, Tensor], widths: Mapping[str, int]) -> None:
    """Refuse activations that ``name`` cannot encode.

    Raises:
        UnknownName: a site is missing.
        ShapeMismatch: an activation is not (n, width), or sites disagree on n.
        NotFinite: an activation is NaN or infinite.
    """
    rows: int | None = None
    for site, width in widths.items():
        if site not in x:
            raise UnknownName("site", site, x, f"handing in what {name} reads")
        found = x[site]
        if found.ndim != 2 or found.shape[1] != width:
            raise ShapeMismatch(
                f"activations {tuple(found.shape)} at {site} for {name}",
                f"(positions, {width}), the width it was fitted on",
                "the model it was fitted on",
            )
        if rows is not None and len(found) != rows:
            raise ShapeMismatch(f"{len(found)} positions at {site}", f"{rows}, as at the other sites")
        rows = len(found)
        if not bool(torch.isfinite(found).all()):
            raise NotFinite(f"NaN or infinity at {site}", "finite activations")


def at_least_single(x: Tensor) -> Tensor:
    """Half precision as float32; anything wider as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def fixed_signs(directions: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
    """+1 or -1 for each row, such that times it the entry of largest magnitude is positive."""
    peak = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True)).squeeze(1)
    return torch.where(peak < 0, -1.0, 1.0).to(directions.dtype)
