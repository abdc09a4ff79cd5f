"""How well an account of where a head gets things ranks its sources by what matters, measurable on any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.describe.executables import Stored
from prosect.describe.flow.cut import cut
from prosect.describe.flow.moved import Layer, destinations_of, look
from prosect.describe.flow.ranks import correlation, ranks
from prosect.model import Model
from prosect.model.sites import parse

Account = Literal["pattern", "flow", "nearness"]
BUDGET = 256.0
"""Megabytes of one pass of the sweep."""


@dataclass(frozen=True)
class FlowAgreement(Stored):
    """Rank correlation, over the sources of a row's last position, of an account with what taking each source out does
    to the prediction there.

    Where nothing depends on any source, or the account says the same of all, it is 0.

    Attributes:
        head: ``z.L.hN``, from whose z one source at a time is taken out.
        account: what ranks the sources: where a head of the layer looks (``pattern``), the length of what it moves
            (``flow``), or how near they are (``nearness``), which needs no network.
        told_by: whose pattern or flow; the head itself unless it is a control.
    """

    head: str
    account: Account
    told_by: str = ""

    kind = "flow-agreement"

    def __post_init__(self) -> None:
        if self.account not in get_args(Account):
            raise BadInput(f"the account {self.account!r}", f"one of {', '.join(get_args(Account))}")
        layer, _ = place(self.head)
        if self.told_by and place(self.told_by)[0] != layer:
            raise BadInput(f"{self.told_by} for {self.head}", "a head of the same layer")

    @classmethod
    def measure(
        cls, wanted: Sequence[FlowAgreement], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """One sweep for each layer, whatever ranks its sources; rows of a single position have none.

        Raises:
            Unsupported: attention cannot be read here, or is not linear behind its heads.
        """
        out = np.full((len(wanted), len(batch)), np.nan)
        rows = np.flatnonzero(batch.lengths > 1)
        if not len(rows):
            return out
        some = batch.select(rows.tolist())
        ends = last(some)
        at = destinations_of(some, ends, Seed(0))
        before = np.arange(int(batch.lengths.max()))[None, None] <= np.array(ends)[:, :, None]
        for number in dict.fromkeys(place(w.head)[0] for w in wanted):
            here = [i for i, w in enumerate(wanted) if place(w.head)[0] == number]
            heads = list(dict.fromkeys(place(wanted[i].head)[1] for i in here))
            layer = look(model, some, number, at)
            cuts = cut(model, some, layer, heads, at, "zero", None, BUDGET)
            effects = np.where(cuts.effect <= 2 * cuts.noise, 0.0, cuts.effect)
            for i in here:
                effect = effects[:, :, heads.index(place(wanted[i].head)[1])]
                shown = before[:, :, : effect.shape[-1]]
                out[i, rows] = _agreement(wanted[i]._told(layer), effect, shown)
        return out

    def _told(self, layer: Layer) -> Float[np.ndarray, "rows slots sources"]:
        _, head = place(self.told_by or self.head)
        if self.account == "nearness":
            rows, slots, _, sources = layer.pattern.shape
            return np.broadcast_to(np.arange(1.0, sources + 1), (rows, slots, sources))
        told = layer.pattern if self.account == "pattern" else layer.flow
        x = np.asarray(told[:, :, head].cpu().numpy(), dtype=float)
        return x if self.account == "pattern" else np.where(x <= np.finfo(np.float32).eps, 0.0, x)


def _agreement(
    told: Float[np.ndarray, "rows slots sources"],
    effect: Float[np.ndarray, "rows slots sources"],
    before: np.ndarray,
) -> Float[np.ndarray, " rows"]:
    """Mean over destinations."""
    return np.array(
        [
            np.mean([correlation(ranks(t[b]), ranks(e[b])) for t, e, b in zip(*row, strict=True)])
            for row in zip(told, effect, before, strict=True)
        ]
    )


def last(batch: Batch) -> list[list[int]]:
    """The last position of each row."""
    return [[int(n) - 1] for n in batch.lengths]


def place(head: str) -> tuple[int, int]:
    """Layer and head of a name such as ``z.1.h3``.

    Raises:
        BadInput: it is no such name.
    """
    site = parse(head)
    if site.kind != "z" or site.layer is None or site.head is None:
        raise BadInput(f"{head!r}, which is no head", "names such as z.1.h3")
    return site.layer, site.head
