"""A dictionary too large for one process: each rank has some of its latents, and all together are one dictionary.

Ranks look at the same positions. Each computes the pre-activations of its own latents; the largest of each are
put together and the largest of those fire, so the choice is exactly that of one process. What the shares write is
added up. A rank holds its share of encoder, decoder and optimiser; only saving brings the weights, without the
optimiser's moments, to the first one, in a file that is that of any dictionary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.schema import check_version
from prosect.decompose.base import at_least_single, check_inputs, needed
from prosect.decompose.contract import ActivationStream, Codes
from prosect.decompose.dictionary import CHUNK, Dictionary, Weights
from prosect.decompose.keep import save_decomposition
from prosect.decompose.kernels import Picks, decode
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.ranks.dealt import Latents
from prosect.decompose.ranks.firing import firing
from prosect.decompose.ranks.pursuing import pursued

OF_LATENTS = ("encoder", "bias", "decoder", "threshold")
"""The weights that are dealt; the others are the same on all ranks."""


@dataclass(frozen=True, eq=False)
class Sharded:
    """One rank's part of a dictionary; make it with `fit` or `load`, on all ranks alike.

    Attributes:
        asked: the dictionary, without its weights.
        ranks: what its latents are dealt to.
        weights: of the latents that are here.
        widths: of every site it reads or writes.
        history: see `Dictionary.history_`.
        facts: see `Dictionary.facts_`.
    """

    asked: Dictionary
    ranks: Latents
    weights: Weights
    widths: Mapping[str, int]
    history: list[dict[str, Json]]
    facts: dict[str, Json]

    @classmethod
    def fit(
        cls,
        dictionary: Dictionary,
        stream: ActivationStream,
        ranks: Latents,
        workspace: Path | None = None,
        every: int = 500,
        fresh: ActivationStream | None = None,
    ) -> Sharded:
        """Train it; every rank goes through the whole stream. See `Dictionary.fit`.

        Raises:
            BadInput: the latents cannot be dealt evenly.
            Conflict: the workspace holds another training's checkpoint, or that of other ranks.
            RankLost: another rank stopped.
        """
        from prosect.decompose.train import train

        widths = {site: stream.widths[site] for site in needed(dictionary, stream)}
        weights, history, facts = train(dictionary, stream, workspace, every, fresh, ranks)
        return cls(dictionary, ranks, weights, widths, history, facts)

    @classmethod
    def load(cls, path: Path, ranks: Latents) -> Sharded:
        """Read this rank's part of a dictionary's file, and no more.

        Raises:
            BadInput: the file is missing, damaged, or holds no dictionary; or its latents cannot be dealt evenly.
            NewerSchema: a later prosect wrote it.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.exists():
            raise BadInput(f"{path}, which does not exist", "a safetensors file")
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("prosect", "null"))
                if not isinstance(about, dict) or about.get("kind") != Dictionary.kind:
                    raise BadInput(f"{path}, which holds no dictionary", "a file that Sharded.save wrote")
                check_version(about["schema"], str(path))
                given = about["state"]["given"]
                dictionary = Dictionary(**Dictionary._given(given))
                ranks.check(dictionary.recipe.batch, dictionary.latents)
                here = ranks.span(dictionary.latents)
                read: dict[str, Tensor | None] = {}
                for f in fields(Weights):
                    part = file.get_slice(f.name)
                    dealt = f.name in OF_LATENTS and 0 not in part.get_shape()
                    read[f.name] = part[here] if dealt else part[:]
        except (SafetensorError, KeyError) as error:
            raise BadInput(f"{path}, which is not readable ({error})", "a file that was saved") from error
        read["skip"] = read["skip"] if dictionary.skip else None
        read["threshold"] = read["threshold"] if dictionary.sparsity.thresholded else None
        weights = Weights(**{n: None if t is None else t.to(dictionary.device) for n, t in read.items()})  # type: ignore[arg-type]
        fitted = about["state"]["fitted"]
        return cls(dictionary, ranks, weights, fitted["widths"], fitted["history"], fitted["facts"])

    def save(self, path: Path, model: str | None = None) -> None:
        """Write the whole dictionary as `save_decomposition` does: one file, the same as from one process.

        Ranks send their parts to the first, which needs room for the weights of all. Returns once the file is
        there.

        Args:
            path: the file.
            model: digest of the model it was fitted on.
        """
        whole = {f.name: self._whole(f.name) for f in fields(Weights)}
        if self.ranks.first:
            made = replace(self.asked).with_weights(Weights(**whole), self.widths, self.history)  # type: ignore[arg-type]
            made.facts_ = self.facts
            save_decomposition(path, made, model)
        self.ranks.wait()

    def _whole(self, name: str) -> Tensor | None:
        """All of a weight, on the first rank."""
        own: Tensor | None = getattr(self.weights, name)
        if own is None or name not in OF_LATENTS:
            return own
        parts = self.ranks.world.gather_first(own)
        return torch.cat(parts) if parts else None

    @property
    def name(self) -> str:
        """The dictionary's."""
        return self.asked.name

    @property
    def reads(self) -> tuple[str, ...]:
        """Sites it encodes."""
        return self.asked.reads

    @property
    def writes(self) -> tuple[str, ...]:
        """Sites it decodes to."""
        return self.asked.writes

    @property
    def here(self) -> slice:
        """Which of all latents this rank has."""
        return self.ranks.span(self.asked.latents)

    def encode(self, x: Mapping[str, Float[Tensor, "n _"]]) -> Codes:
        """The codes of ``x`` over all latents, the same on every rank; all ranks call it with the same ``x``.

        Raises:
            UnknownName, ShapeMismatch, NotFinite: see `Dictionary.encode`.
        """
        check_inputs(self.name, x, {site: self.widths[site] for site in self.reads})
        w, pursuit = self.weights, self.asked.sparsity
        at_once = max(1, CHUNK // len(w.bias))
        if isinstance(pursuit, Pursuit):
            left = torch.split(self._read(x) - w.offset, at_once)
            return Codes.joined([pursued(pursuit, some, w.decoder, self.ranks) for some in left])
        with torch.no_grad():
            rows = self._read(x) - w.centre
            parts = []
            for some in torch.split(rows, at_once):
                pre = torch.addmm(w.bias, some, w.encoder.T)
                parts.append(self._joined(*firing(self.asked.sparsity, pre, w.threshold, self.ranks)))
            return Codes.joined(parts)

    def _joined(self, picks: Picks, values: Tensor) -> Codes:
        """Every rank's latents that fire side by side, as few places in a row as the fullest needs."""
        fired = torch.bincount(picks.rows, minlength=picks.n)
        most = int(max(self.ranks.world.gather(fired.max()), default=fired.max()))
        place = torch.arange(len(picks.rows), device=fired.device) - picks.bags[picks.rows]
        own = values.new_zeros((picks.n, most))
        own[picks.rows, place] = values
        indices = picks.latents.new_zeros((picks.n, most))
        indices[picks.rows, place] = picks.latents + self.here.start
        every = torch.cat(self.ranks.world.gather(own), dim=1)
        latents = torch.cat(self.ranks.world.gather(indices), dim=1)
        present = every != 0
        kept = present.to(torch.uint8).topk(int(present.sum(dim=1).max()), dim=1).indices
        return Codes(latents.gather(1, kept), every.gather(1, kept), self.asked.latents)

    def decode(self, codes: Codes) -> dict[str, Float[Tensor, "n _"]]:
        """What ``codes``, of all latents, stand for; all ranks call it with the same ones.

        Raises:
            ShapeMismatch: they are of a dictionary with another number of latents.
        """
        if codes.width != self.asked.latents:
            raise ShapeMismatch(
                f"codes of {codes.width} components for {self.name}", f"codes of its {self.asked.latents}"
            )
        w, here = self.weights, self.here
        own = (codes.indices >= here.start) & (codes.indices < here.stop) & (codes.values != 0)
        rows, which = own.nonzero(as_tuple=True)
        picks = Picks(rows, codes.indices[rows, which] - here.start, len(codes), len(w.bias))
        with torch.no_grad():
            made = decode(picks, codes.values[rows, which].to(w.decoder), w.decoder)
            whole = self.ranks.whole(made) + w.offset
        return self._sites(whole)

    def reconstruct(
        self, x: Mapping[str, Float[Tensor, "n _"]], codes: Codes | None = None
    ) -> dict[str, Float[Tensor, "n _"]]:
        """What it makes of ``x``. See `Dictionary.reconstruct`."""
        out = self.decode(self.encode(x) if codes is None else codes)
        if self.weights.skip is None:
            return out
        around = self._sites((self._read(x) - self.weights.centre) @ self.weights.skip)
        return {site: out[site] + around[site] for site in self.writes}

    def _read(self, x: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([at_least_single(x[site]).to(self.weights.encoder) for site in self.reads], dim=1)

    def _sites(self, whole: Tensor) -> dict[str, Tensor]:
        written = {site: self.widths[site] for site in self.writes}
        return {site: whole[:, Dictionary.span(written, site)] for site in self.writes}
