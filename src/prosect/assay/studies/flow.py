"""Whether heads get things from where they look: pattern, what is moved and what matters, side by side.

Claimed of every head: that its attention pattern ranks the sources of a destination by what taking each of them out
does to the prediction there, on text nobody had seen, better than their distance does and better than the patterns of other
heads of its layer do. A head that looks and moves nothing, or moves what nothing reads, fails it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prosect.assay import plans
from prosect.assay.explored import thinned, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, cell, folds, sample
from prosect.core.errors import Unsupported
from prosect.core.exhibits import Exhibit, SiteCell
from prosect.core.pictures import HeatMap, TokenMap, TokenValues
from prosect.core.records import Component, Description, Hypothesis, Measured, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.describe.flow.agreement import Account, FlowAgreement, last
from prosect.describe.flow.compare import ACCOUNTS, PAIRS, RULE, compare
from prosect.describe.flow.heads import Flow, HeadFlow
from prosect.model.edits import zero
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations

METHOD = "flow@1"
DRAWN = 3
"""Heads whose sources are shown token by token."""
ABOUT = {
    "pattern": "the probability that it puts on each source",
    "flow": "the length of what it moves from there",
    "patch": "what taking that out does to the output",
}


class FlowStudy:
    """The study of whether attention is a flow of information.

    Args:
        spec: the run's; its ``flow`` table says how much is looked at.
        run: where what was seen is kept.
        subject: the model and its text.

    Raises:
        Unsupported: attention cannot be read in any layer.
    """

    name = "flow"

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject) -> None:
        self.spec, self.run, self.subject = spec, run, subject
        self.seed = Seed(spec.seed).child("flow")
        sites = subject.model.sites
        self.layers = {
            layer: sites.info(f"z.{layer}").heads or 0
            for layer in range(subject.model.n_layers or 0)
            if f"probs.{layer}" in sites and f"z.{layer}" in sites
        }
        self.heads = [(layer, head) for layer, count in self.layers.items() for head in range(count)]
        if not self.heads:
            raise Unsupported(f"flow in {subject.model.name}", "a model whose attention can be read")

    def explore(self) -> None:
        """Pattern, flow and patch effect of every head on some rows of explored text."""
        self.seen = self.run.json_step("flow", {"study": self.name}, self._look)

    def _look(self) -> Any:
        batch = self._rows()
        with self.subject.metered("explore"):
            found = compare(
                self.subject.model,
                batch.to(self.subject.model.device),
                destinations=last(batch),
                seed=self.seed.child("compare").integer,
            )
        drawn = self.seed.child("shown").numpy().permutation(len(found.heads))[:DRAWN]
        return {
            "heads": [_plain(h) for h in found.heads],
            "documents": found.n,
            "noise": found.noise,
            "maps": [self._map(found, batch, int(i)).model_dump(mode="json") for i in sorted(drawn.tolist())],
        }

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """Every source of every head taken out, on explore a random vector as long beside it."""
        model, batch, test = self.subject.model, self._rows(), folds(parts)
        few = sample([batch]).to(model.device)
        at = [[p] for (p,) in last(few)]
        each = {
            layer: cell(model, [zero(f"z.{layer}.h0", positions=at)], few, at) / len(few)
            for layer in self.layers
        }
        sources = int(batch.lengths.max())
        longest = sources * test.length / (batch.count / len(batch))

        def rows(many: int | float, per_head: int | float) -> float:
            """Of each layer two passes, one without edits, and every cell."""
            cells = sum(per_head * self.layers[layer] * share for layer, share in each.items())
            return many * (3 * len(self.layers) + cells)

        return Planned(
            ", ".join(f"z.{layer}" for layer in self.layers),
            (Work(f"{len(self.heads)} heads", rows(len(batch), 1 + 2 * sources), batch.count / len(batch)),),
            (Work(f"{len(self.heads)} heads", rows(test.rows, 1 + longest), test.length),),
        )

    def _rows(self) -> Batch:
        """So many rows of explored text, drawn at random; those of one position are left out."""
        source = self.subject.source
        batches, _ = thinned(source, self.spec.describe.tokens, self.seed.child("explore"), self.subject.rows)
        places = [(b, i) for b in batches for i in range(len(b)) if b.lengths[i] > 1]
        order = self.seed.child("rows").numpy().permutation(len(places))[: self.spec.flow.rows]
        parts = [places[k][0].select([places[k][1]]) for k in sorted(order.tolist())]
        return Batch.joined(parts)

    def _map(self, found: Flow, batch: Batch, head: int) -> TokenMap:
        """Where one head looks, what it moves and what matters, at a destination of the first row."""
        words, at = vocabulary(self.subject.source).strings, found.destinations[0][0]
        tokens = tuple(words[t] for t in batch.tensors["input_ids"][0, : at + 1].tolist())
        texts = []
        for account in ACCOUNTS:
            x = found.values[account][head, 0, 0, : at + 1]
            top = float(x.max())
            values = tuple(float(v) for v in (x / top if top > 0 else np.zeros_like(x)))
            note = f"largest {top:.3g}" if top > 0 else "nothing"
            texts.append(
                TokenValues(tokens=tokens, values=values, source=f"{account}: {ABOUT[account]}", note=note)
            )
        return TokenMap(
            title=f"The sources of one position for head {found.heads[head].head}",
            about=(
                "the head and the text were drawn at random, the position is the last one shown; each line is shown "
                f"as shares of its largest. Over all rows: {found.heads[head].words}"
            ),
            texts=tuple(texts),
            unit="share of the largest",
        )

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """One claim for every head; all of them, so none is chosen."""
        if round > 1:
            return []
        return [self._claim(i, fold) for i in range(len(self.heads))]

    def _component(self, layer: int, head: int) -> Component:
        site = f"z.{layer}.h{head}"
        return Component(
            decomposition=f"flow@z.{layer}",
            index=head,
            reads=(site,),
            writes=(site,),
            width=self.subject.model.d_head or 1,
        )

    def _claim(self, number: int, fold: str) -> Hypothesis:
        layer, head = self.heads[number]
        name = f"z.{layer}.h{head}"

        def made(account: Account, told_by: str = "") -> Any:
            return FlowAgreement(name, account, told_by).executable()

        rest = [h for h in range(self.layers[layer]) if h != head]
        order = self.seed.child("others", layer, head).numpy().permutation(len(rest))
        others = [
            made("pattern", f"z.{layer}.h{rest[i]}")
            for i in sorted(order[: self.spec.flow.controls].tolist())
        ]
        seen = self.seen["heads"][number]
        return Hypothesis(
            round=1,
            component=self._component(layer, head),
            side="effect",
            description=Description(
                words="where it looks is what matters: its pattern ranks sources as taking them out does",
                effect=made("pattern"),
            ),
            explainer=METHOD,
            draw="all",
            tests=(
                plans.flows(self.spec, fold, nearness=made("nearness"), others=others, moved=made("flow")),
            ),
            scope=self.subject.scope,
            explored={"agreement": Measured.model_validate(seen["agreement"]["pattern~patch"]).estimate},
        )

    # -- what is shown -----------------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """No organism says what each source matters."""
        return None

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """How alike the accounts of every head are, some heads' sources, and a card for each head."""
        heads = self.seen["heads"]
        pairs = [f"{a}~{b}" for a, b in PAIRS]
        cells = [[Measured.model_validate(h["agreement"][pair]) for pair in pairs] for h in heads]
        picture = HeatMap(
            title="Whether three accounts of each head agree",
            about=(
                f"mean rank correlation over the sources of the last position of windows of {self.seen['documents']} explored "
                "documents, of where a head looks (pattern), the length of what it moves (flow) and what taking that "
                "out does (patch); 0 where one of them is nothing but rounding"
            ),
            rows=tuple(h["head"] for h in heads),
            columns=tuple(pairs),
            values=tuple(tuple(m.estimate for m in row) for row in cells),
            low=tuple(tuple(m.low for m in row) for row in cells),
            high=tuple(tuple(m.high for m in row) for row in cells),
            unit="rank correlation",
            n=self.seen["documents"],
            claimed=tuple((i, 1) for i in range(len(heads))),
        )
        exhibits = [
            Exhibit(
                component=self._component(layer, head),
                kind="head",
                site=h["head"],
                layer=layer,
                facts={
                    "explored": h["words"],
                    **{k: _number(h[k]) for k in ("peak", "flow", "patch", "control")},
                },
                units_drawn="every head whose attention can be read",
            )
            for (layer, head), h in zip(self.heads, heads, strict=True)
        ]
        disagree = sum(bool(h["disagreements"]) for h in heads)
        return Shown(
            exhibits=exhibits,
            map=[
                SiteCell(layer=layer, place="heads", components=count, examined=count)
                for layer, count in self.layers.items()
            ],
            pictures=(picture, *(TokenMap.model_validate(m) for m in self.seen["maps"])),
            decisions=(f"accounts disagree on explore for {disagree} of {len(heads)} heads: {RULE}",),
            limits=(
                "one source of one head is taken out at a time; what several carry together is not seen",
                "what is taken out grows with the probability on its source, so most heads that matter at all will agree "
                "with their pattern: the finding is a head that does not",
                f"effects up to {2 * self.seen['noise']:.1e} nats are rounding and count as 0",
            ),
        )


def _plain(head: HeadFlow) -> dict[str, Any]:
    measured = {k: getattr(head, k).model_dump(mode="json") for k in ("peak", "flow", "patch", "control")}
    agreement = {k: m.model_dump(mode="json") for k, m in head.agreement.items()}
    words = {"head": head.head, "words": head.words, "disagreements": list(head.disagreements)}
    return {**words, **measured, "agreement": agreement}


def _number(stored: Any) -> str:
    m = Measured.model_validate(stored)
    if m.estimate is None or m.low is None or m.high is None:
        return "none" if m.estimate is None else f"{m.estimate:.3g}"
    return f"{m.estimate:.3g} [{m.low:.3g}, {m.high:.3g}]"
