"""Sparse dictionaries: one class for every kind of them, in the form used after training.

    z = sparsity(E (x - centre) + bias, threshold)        y ≈ D z + offset (+ S (x - centre))

x is what it reads, all sites side by side, and y what it writes. A sparse autoencoder reads and writes one
site, a transcoder reads one and writes another, a crosscoder reads and writes several, and a cross-layer
transcoder is one whose encoder and decoder are zero where a latent may not read or write. How it is
trained is in `prosect.decompose.train`; scales that training works in are folded away here, so codes are in
the units of what is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.base import SEED, Fittable, needed
from prosect.decompose.contract import ActivationStream, Codes
from prosect.decompose.exchange import Exchanged
from prosect.decompose.kernels import Picks, decode
from prosect.decompose.layers import check_layers, check_zeros, cross_layer_masks
from prosect.decompose.objective import Objective
from prosect.decompose.objectives import objective_for, objective_of
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.recipe import DEFAULT, Recipe
from prosect.decompose.sparsity import Sparsity, sparsity_of

CHUNK = 2**24
"""Pre-activations held at once while encoding (64 MiB)."""


@dataclass(frozen=True)
class Weights:
    """A trained dictionary's numbers; sites lie side by side in the order of its reads and writes.

    Attributes:
        encoder: a row for each latent.
        bias: added to the pre-activations.
        centre: subtracted from what is read.
        decoder: a row for each latent.
        offset: what is written where no latent fires.
        skip: the linear path around the latents, or None.
        threshold: what each latent's pre-activation must exceed, or None where nothing must.
    """

    encoder: Float[Tensor, "latents reads"]
    bias: Float[Tensor, " latents"]
    centre: Float[Tensor, " reads"]
    decoder: Float[Tensor, "latents writes"]
    offset: Float[Tensor, " writes"]
    skip: Float[Tensor, "reads writes"] | None = None
    threshold: Float[Tensor, " latents"] | None = None


@dataclass(eq=False)
class Dictionary(Exchanged, Fittable):
    """A sparse dictionary.

    Trained on one target, decoder rows have norm 1 and a code is how far its latent moves what is written.

    Args:
        sites: what it reads: a site or several.
        latents: how many.
        sparsity: which latents may fire. In its place may stand an objective (`prosect.decompose.objectives`),
            which says how training brings about which sparsity; without one, TopK is trained as such and
            other sparsities are for weights from elsewhere.
        targets: sites it writes; None for those it reads.
        skip: whether a linear path leads around the latents (skip transcoder; Paulo, Shabalin & Belrose
            2025, "Transcoders beat sparse autoencoders for interpretability").
        recipe: how it is trained.
        seed: of its start.
        device: where it is trained and kept.
        objective: the objective, where the sparsity it ends in is given too.
        cross_layer: whether sites are layers, of which each has an equal share of the latents, and a latent reads
            its layer and writes it and later ones (`prosect.decompose.layers`).

    Attributes:
        history_: L0, FVU and share of dead latents while it was trained.
        facts_: what is known of its training: ``l0`` on ``positions`` positions after it, ``target_l0``,
            the ``threshold`` where it was calibrated, whether that was on ``fresh`` activations,
            ``scales``, how large activations are at each site written, and ``products``, what made the products of
            training and in which precision. Empty for weights from elsewhere.
    """

    kind: ClassVar[str] = "topk"

    sites: str | tuple[str, ...]
    latents: int
    sparsity: Sparsity
    targets: str | tuple[str, ...] | None = None
    skip: bool = False
    recipe: Recipe = DEFAULT
    seed: Seed = SEED
    device: str = "cpu"
    objective: Objective | None = None
    cross_layer: bool = False
    widths_: dict[str, int] = field(init=False, repr=False)
    encoder_: Float[Tensor, "latents reads"] = field(init=False, repr=False)
    bias_: Float[Tensor, " latents"] = field(init=False, repr=False)
    centre_: Float[Tensor, " reads"] = field(init=False, repr=False)
    decoder_: Float[Tensor, "latents writes"] = field(init=False, repr=False)
    offset_: Float[Tensor, " writes"] = field(init=False, repr=False)
    skip_: Float[Tensor, "reads writes"] = field(init=False, repr=False)
    threshold_: Float[Tensor, " latents"] = field(init=False, repr=False)
    unit_: bool = field(init=False, repr=False)
    history_: list[dict[str, Json]] = field(init=False, repr=False)
    facts_: dict[str, Json] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.sites = _tuple(self.sites)
        if self.targets is not None:
            self.targets = None if _tuple(self.targets) == self.sites else _tuple(self.targets)
        for sites in (self.reads, self.writes):
            if not sites or len(set(sites)) != len(sites):
                raise BadInput(f"the sites {sites} for a dictionary", "at least one site, each once")
        if self.latents < 1:
            raise BadInput(f"{self.latents} latents", "at least 1")
        if isinstance(self.sparsity, Objective):
            self.objective, self.sparsity = self.sparsity, self.sparsity.after
        if self.objective is not None:
            self.objective.check(self.latents)
            if self.objective.after != self.sparsity:
                raise BadInput(f"{self.objective} ending in {self.sparsity}", f"{self.objective.after}")
        self.sparsity.check(self.latents)
        if isinstance(self.sparsity, Pursuit) and (self.targets is not None or self.skip):
            raise Unsupported(
                f"matching pursuit by a dictionary that reads {self.reads} and writes {self.writes}",
                "one that writes what it reads, without a skip: its codes are found from what is to be written",
            )
        if self.cross_layer:
            check_layers(self.latents, self.reads, self.writes)
        for site in self.recipe.site_weights or {}:
            if site not in self.writes:
                raise UnknownName("site to weigh", site, self.writes)

    @property
    def trained_by(self) -> Objective:
        """Its objective.

        Raises:
            Unsupported: it has none, and its sparsity does not imply one.
        """
        return objective_for(self.sparsity) if self.objective is None else self.objective

    @property
    def name(self) -> str:
        """``topk@site``, ``l1@read~written``: objective or else sparsity, and sites, joined by ``+``."""
        target = "" if self.targets is None else f"~{'+'.join(self.writes)}"
        how = self.sparsity.name if self.objective is None else self.objective.name
        return f"{how}@{'+'.join(self.reads)}{target}"

    @property
    def reads(self) -> tuple[str, ...]:
        """Sites it encodes."""
        return _tuple(self.sites)

    @property
    def writes(self) -> tuple[str, ...]:
        """Sites it decodes to."""
        return self.reads if self.targets is None else _tuple(self.targets)

    @property
    def n_components(self) -> int:
        """Its latents."""
        return self.latents

    @property
    def supports(self) -> frozenset[str]:
        """Directions have norm 1 where it was trained to write one site; over several, all together do."""
        unit = {"unit"} if self.fitted and self.unit_ else set()
        return frozenset({"decode", "directions", "nonnegative", "sparse", "streaming", *unit})

    def fit(
        self,
        stream: ActivationStream,
        workspace: Path | None = None,
        every: int = 500,
        fresh: ActivationStream | None = None,
        ranks: Ranks = ALONE,
    ) -> Dictionary:
        """Train on a stream, going through it once; returns self.

        Args:
            stream: activations at the sites it reads and writes; its epochs are the epochs of training.
            workspace: a folder for checkpoints: training that was killed goes on from the last one there
                and ends with the same bits. The folder belongs to this training; remove it afterwards.
            every: training steps between checkpoints.
            fresh: activations not trained on, from which thresholds are calibrated and L0 is measured; None
                takes the first ones of the stream.
            ranks: `Positions` of several processes, which all call this with the same stream; each has the whole
                dictionary afterwards.

        Raises:
            TooLittleData: the stream has less than one batch.
            NotFinite: an activation is NaN or infinite (site and block are named), or training diverged.
            Conflict: the workspace holds a checkpoint of another training, or of other ranks.
            Unsupported: its sparsity does not say how to train it, and it has no objective; or latents are dealt
                to ranks, for which there is `prosect.decompose.ranks.sharded.Sharded`.
        """
        from prosect.decompose.train import train

        self.widths_ = {}
        widths = {site: stream.widths[site] for site in needed(self, stream)}
        if fresh is not None:
            needed(self, fresh)
        if ranks.lasting is not ALONE:
            raise Unsupported(f"{self.name} with its latents dealt to ranks", "Positions", "Sharded.fit")
        weights, history, facts = train(self, stream, workspace, every, fresh, ranks)
        self.with_weights(weights, widths, history)
        self.facts_ = facts
        return self

    def with_weights(
        self, weights: Weights, widths: Mapping[str, int], history: list[dict[str, Json]] | None = None
    ) -> Dictionary:
        """Take these numbers instead of training; returns self.

        Args:
            weights: the numbers.
            widths: of every site it reads or writes.
            history: of the training they come from, if it is known.

        Raises:
            ShapeMismatch: they do not fit its latents and the widths.
            NotFinite: one of them is NaN or infinite.
            BadInput: it is cross-layer, and a latent reads another layer or writes an earlier one.
        """
        for site in (*self.reads, *self.writes):
            if site not in widths:
                raise UnknownName("site", site, widths)
        reads, writes = sum(widths[s] for s in self.reads), sum(widths[s] for s in self.writes)
        expected = {
            "encoder": (self.latents, reads),
            "bias": (self.latents,),
            "centre": (reads,),
            "decoder": (self.latents, writes),
            "offset": (writes,),
            "skip": (reads, writes) if self.skip else None,
            "threshold": (self.latents,) if self.sparsity.thresholded else None,
        }
        if weights.threshold is None and self.sparsity.thresholded:
            weights = replace(weights, threshold=torch.zeros_like(weights.bias))
        for name, shape in expected.items():
            value = getattr(weights, name)
            found = None if value is None else tuple(value.shape)
            if found != shape:
                raise ShapeMismatch(f"{name} {found} for {self.name}", f"{shape}")
            if value is not None and not bool(torch.isfinite(value).all()):
                raise NotFinite(f"NaN or infinity in the {name} of {self.name}", "finite numbers")
        if self.cross_layer:
            masks = cross_layer_masks(
                self.latents, {s: widths[s] for s in self.reads}, {s: widths[s] for s in self.writes}
            )
            check_zeros(self.name, masks, weights.encoder, weights.decoder, weights.skip)
        self.encoder_, self.bias_, self.centre_ = weights.encoder, weights.bias, weights.centre
        self.decoder_, self.offset_ = weights.decoder, weights.offset
        self.skip_ = weights.offset.new_zeros((0, writes)) if weights.skip is None else weights.skip
        self.threshold_ = weights.offset.new_zeros(0) if weights.threshold is None else weights.threshold
        norms = self.decoder_[:, : widths[self.writes[0]]].norm(dim=1)
        self.unit_ = bool((norms - 1).abs().max() < 1e-4)
        self.history_, self.facts_ = history or [], {}
        self.widths_ = {site: widths[site] for site in dict.fromkeys((*self.reads, *self.writes))}
        return self

    def encoded_by(self, sparsity: Sparsity) -> Dictionary:
        """The same dictionary with other codes: another k, or matching pursuit.

        Raises:
            BadInput: it is not fitted, or the sparsity makes no sense for its latents.
            Unsupported: matching pursuit, where it writes other sites than it reads; or thresholds, where it
                has none.
        """
        self._require_fitted()
        if sparsity.thresholded and not self.sparsity.thresholded:
            raise Unsupported(
                f"thresholds for {self.name}, which has none",
                "TopK or Pursuit",
                "training one that has thresholds",
            )
        made = replace(self, sparsity=sparsity, objective=None)
        weights = Weights(
            self.encoder_,
            self.bias_,
            self.centre_,
            self.decoder_,
            self.offset_,
            self.skip_ if self.skip else None,
            self.threshold_ if sparsity.thresholded else None,
        )
        return made.with_weights(weights, self.widths_)

    def encoder(self, site: str) -> Float[Tensor, "latents width"]:
        """What each latent reads at one site."""
        return self.encoder_[:, self._columns(self.reads, site)]

    def decoder(self, site: str) -> Float[Tensor, "latents width"]:
        """What each latent writes to one site for a code of 1."""
        return self.decoder_[:, self._columns(self.writes, site)]

    def reconstruct(
        self, x: Mapping[str, Float[Tensor, "n _"]], codes: Codes | None = None
    ) -> dict[str, Float[Tensor, "n _"]]:
        """What it makes of ``x``: the decoded codes, and what goes around them where there is a skip."""
        out = super().reconstruct(x, codes)
        if self.skip:
            around = (self._read(x) - self.centre_) @ self.skip_
            out = {site: out[site] + around[:, self._columns(self.writes, site)] for site in self.writes}
        return out

    def _read(self, x: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([x[site].to(self.encoder_) for site in self.reads], dim=1)

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        if isinstance(self.sparsity, Pursuit):
            whole = self._read(x) - self.offset_
            split = torch.split(whole, max(1, CHUNK // self.latents))
            return Codes.joined([self.sparsity.pursue(rows, self.decoder_) for rows in split])
        here = self._read(x) - self.centre_
        threshold = self.threshold_ if self.sparsity.thresholded else None
        parts = []
        for rows in torch.split(here, max(1, CHUNK // self.latents)):
            pre = torch.addmm(self.bias_, rows, self.encoder_.T)
            parts.append(self.sparsity.codes(pre, threshold))
        return Codes.joined(parts)

    def _decode(self, codes: Codes) -> dict[str, Tensor]:
        values = codes.values.to(self.decoder_)
        picks = Picks.fixed(codes.indices, self.latents)
        whole = decode(picks, values.reshape(-1), self.decoder_) + self.offset_
        return {site: whole[:, self._columns(self.writes, site)] for site in self.writes}

    def _directions(self) -> Tensor:
        return self.decoder(self.writes[0])

    def _columns(self, sites: tuple[str, ...], wanted: str) -> slice:
        self._require_fitted()
        return self.span({site: self.widths_[site] for site in sites}, wanted)

    @staticmethod
    def span(widths: Mapping[str, int], wanted: str) -> slice:
        """The columns of one site among several side by side.

        Raises:
            UnknownName: it is not among them.
        """
        start = 0
        for site, width in widths.items():
            if site == wanted:
                return slice(start, start + width)
            start += width
        raise UnknownName("site", wanted, widths)

    @classmethod
    def _given(cls, given: dict[str, Json]) -> dict[str, Any]:
        out = super()._given(given)
        recipe: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in given["recipe"].items()
        }
        out["recipe"], out["sparsity"] = Recipe(**recipe), sparsity_of(given["sparsity"])
        out["objective"] = objective_of(given.get("objective"))
        return out

    def asked(self) -> dict[str, Json]:
        """What was given to the constructor, as JSON."""
        named = {
            what: None if part is None else {"name": part.name, **plain(part)}
            for what, part in (("sparsity", self.sparsity), ("objective", self.objective))
        }
        return {**super().asked(), **named}

    def _facts(self) -> list[tuple[str, object]]:
        rows: list[tuple[str, object]] = [("sparsity", str(self.sparsity))]
        if self.objective is not None:
            rows.append(("trained by", str(self.objective)))
        if self.facts_:
            target = self.facts_["target_l0"]
            asked = "" if target is None else f" of {target:g} asked for"
            where = "activations not trained on" if self.facts_["fresh"] else "activations trained on"
            rows.append(("L0 after training", f"{self.facts_['l0']:.2f}{asked}, on {where}"))
        if self.history_:
            last = self.history_[-1]
            said = f"L0 {last['l0']:.1f}, FVU {last['fvu']:.3f}, dead {last['dead']:.1%}"
            rows.append(("at the end of training", said))
        return rows


def _tuple(sites: str | tuple[str, ...]) -> tuple[str, ...]:
    return (sites,) if isinstance(sites, str) else tuple(sites)
