"""What a place of the network carries of a contrast, as something that can be measured on any pair of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.contrasts import ContrastSource
from prosect.data.source import Source
from prosect.describe.executables import Stored
from prosect.model import Model
from prosect.model.patching.cells import Donor, cell_edit
from prosect.model.patching.nodes import Node, nodes_of
from prosect.model.patching.pairs import Pairs, Span

KIND = "patch-effect"


@dataclass(frozen=True)
class PatchEffect(Stored):
    """One place given what the other run had there; the effect is a share of the gap between the two runs.

    Attributes:
        node: a site, or a head or unit of one.
        position: of the clean row, from 0; negatives count from its end.
        way: ``noising`` puts the counterfactual's value into the clean run, ``denoising`` the other way round.
        gap: what the metric changes by from the run that is patched to the other, as explore saw it.
        sign: 1 for a claim that the patch moves the metric toward the other run, -1 for away from it.
        stranger: the control: the value comes from an unrelated row of the other run.
    """

    node: str
    position: int
    way: Literal["noising", "denoising"]
    gap: float
    sign: int = 1
    stranger: bool = False

    kind = KIND

    def __post_init__(self) -> None:
        if self.way not in ("noising", "denoising") or self.sign not in (1, -1) or not self.gap:
            raise BadInput(
                f"a patch effect with way {self.way!r}, sign {self.sign} and gap {self.gap}",
                "noising or denoising, 1 or -1, and a gap that is not 0",
            )

    @classmethod
    def measure(
        cls, wanted: Sequence[PatchEffect], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """The effects on each row, all patches of one direction in one sweep.

        Raises:
            BadInput: the source has no counterfactuals.
        """
        if not isinstance(source, ContrastSource):
            raise BadInput("inputs without counterfactuals", "pairs of inputs, as prosect patch reads them")
        pairs = Pairs.of(model, batch, source.counterfactual(batch))
        strangers = pairs.strangers(Seed(0).child("strangers", *(r.document for r in batch.rows)))
        out = np.full((len(wanted), len(batch)), np.nan)
        for way in dict.fromkeys(w.way for w in wanted):
            mine = [i for i, w in enumerate(wanted) if w.way == way]
            nodes: dict[str, Node] = {w.node: nodes_of(model, w.node)[0] for w in (wanted[i] for i in mine)}
            donor = Donor.of(model, pairs, way, list(dict.fromkeys(n.site for n in nodes.values())))
            foreign = donor.from_rows(strangers.tolist()) if strangers is not None else None
            edits: list[list[Any]] = [[]]
            spans = [_span(wanted[i].position, pairs) for i in mine]
            for i, span in zip(mine, spans, strict=True):
                given = foreign if wanted[i].stranger else donor
                edit = None if given is None else cell_edit(nodes[wanted[i].node], span, pairs, way, given)
                edits.append([] if edit is None else [edit])
            found = model.sweep(edits, pairs.base(way), source.metric, reads=[-1])
            for place, (i, span, listed) in enumerate(zip(mine, spans, edits[1:], strict=True), 1):
                assert span.at is not None
                applies = np.array([bool(at) for at in span.at]) & bool(listed)
                effect = wanted[i].sign * (found[place] - found[0]) / wanted[i].gap
                out[i] = np.where(applies, effect, np.nan)
        return out


def _span(position: int, pairs: Pairs) -> Span:
    """One position of every row that is long enough."""
    at = []
    for length in pairs.clean.lengths.tolist():
        here = position + length if position < 0 else position
        at.append((here,) if 0 <= here < length else ())
    return Span(str(position), tuple(at))
