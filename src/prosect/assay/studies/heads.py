"""Attention heads: where they look, as roles, and whether removing them hurts what the role is about.

A role is claimed on two sides. The cause says where the head looks; the effect says that removing it hurts
predictions where the role applies. A head that looks at the right place and writes nothing passes the
first and fails the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prosect.assay import plans
from prosect.assay.explored import thinned, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.studies.keeping import kept, second_of
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, behind, folds, tested
from prosect.core.exhibits import AttentionExample, Exhibit, SiteCell
from prosect.core.progress import step
from prosect.core.records import Component, Description, Draw, Executable, Hypothesis, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.core.verdicts import Verdict
from prosect.describe.examples import attention_examples
from prosect.describe.role_explainer import RoleExplainer
from prosect.describe.roles import HeadRole
from prosect.store.run import RunFolder
from prosect.validate.replace import COMPOSITE, REPLACED
from prosect.validate.subject import STATISTICAL, Subject, rekeyed
from prosect.validate.tester import Illustrations
from prosect.validate.truth import check

CONTENT = frozenset({"duplicate", "induction"})
"""Roles that depend on the text: these must beat distance and shuffled text."""
COMPARED = 6
"""Other heads that each head is compared with."""
SETS = 4
"""Random sets of other heads that heads claimed to work together are compared with."""


class Heads:
    """The study of every attention head of a language model.

    Args:
        spec: the run's.
        run: where its steps are kept.
        subject: the model and its data.
        truth: of the organism, used only to check claims after they were tested.
        scripted: claim of one head, on purpose, the role that explore thinks least of, to see it fail.
        replacement: claim too that the network still works with every head replaced by its role.
    """

    name = "heads"

    def __init__(
        self,
        spec: Spec,
        run: RunFolder,
        subject: Subject,
        truth: Truth | None = None,
        scripted: bool = False,
        replacement: bool = False,
    ) -> None:
        self.spec, self.run, self.subject, self.truth = spec, run, subject, truth
        self.scripted, self.replacement = scripted, replacement
        self.seed = Seed(spec.seed).child("heads")
        names = set(subject.model.sites.names())
        layers = range(subject.model.n_layers or 0)
        self.layers = [layer for layer in layers if f"probs.{layer}" in names]
        self.heads = subject.model.n_heads or 0
        self.all = [(layer, head) for layer in self.layers for head in range(self.heads)]

    def component(self, layer: int, head: int) -> Component:
        """The record of one head."""
        width = self.subject.model.d_head or 1
        site = f"z.{layer}.h{head}"
        return Component(
            decomposition=f"heads@z.{layer}", index=head, reads=(site,), writes=(site,), width=width
        )

    # -- explore ---------------------------------------------------------------------------------

    def explore(self) -> None:
        """Attention by role and distance, mean outputs, and examples, from explored text."""
        tensors, self.seen = self.run.tensor_step("heads", {"seed": self.seed.integer}, self._look)
        for layer in self.layers:
            self.subject.means[f"z.{layer}"] = tensors[f"z.{layer}"].to(self.subject.model.device)

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """A third of what others explore; each head taken out of a row of some units of each fold.

        Which heads are claimed about, and so compared, explore decides: this is as though it were all of them.
        """
        explore, opened = parts["explore"], tested(parts)
        units, most = self.subject.source.units, self.spec.validate_.effect_rows
        share = min(1.0, self.spec.describe.tokens / 3 / max(explore.positions, 1))
        each = sum(self.heads * behind(self.subject.model, f"z.{layer}") for layer in self.layers)
        removed = sum(min(most, units[part]) for part in opened)
        work = [Work("heads taken out", removed * each, folds(parts).length)]
        if self.spec.describe.heads == "best" and "validate.1" in opened:  # in round 2
            again = [min(most, units[part]) for part in opened if part in ("validate.1", "sealed")]
            work.append(Work("heads taken out together", (1 + SETS) * sum(again), folds(parts).length))
        if self.replacement:
            first, shift = tested(parts, rounds=1), parts.get("shift", Extent(0, 0))
            whole = REPLACED * folds(first).rows + len(first) * (1.0 + REPLACED) * shift.rows
            work.append(Work("every head replaced", whole, folds(parts).length))
        looked = Work("looking at heads", explore.rows * share, explore.length)
        return Planned(f"probs and z of {len(self.layers)} layers", (looked,), work, most=True)

    def _look(self) -> tuple[dict[str, Tensor], Any]:
        batches, second = thinned(
            self.subject.source, self.spec.describe.tokens // 3, self.seed.child("explore"), self.subject.rows
        )
        explainers = {layer: RoleExplainer(self.heads) for layer in self.layers}
        totals = {layer: torch.zeros(0) for layer in self.layers}
        count = 0
        sites = [s for layer in self.layers for s in (f"probs.{layer}", f"z.{layer}")]
        some: dict[tuple[int, int], list[tuple[Any, Tensor]]] = {h: [] for h in self.all}
        with step("looking at heads", sum(b.count for b in batches), "positions") as shown:
            for number, (batch, is_second) in enumerate(zip(batches, second, strict=True)):
                moved = batch.to(self.subject.model.device)
                with self.subject.metered("explore"):
                    trace = self.subject.model.run(moved, capture=tuple(sites))
                self.subject.spend(batch, "explore")
                for layer in self.layers:
                    probs = trace[f"probs.{layer}"]
                    if self.subject.null == STATISTICAL:
                        probs = rekeyed(probs, batch, self.subject.seed.child("null"))
                    explainers[layer].update(batch, probs, second=is_second)
                    z = moved.flat(trace[f"z.{layer}"]).double().sum(dim=0).cpu()
                    totals[layer] = z if not totals[layer].numel() else totals[layer] + z
                    if number < 4:
                        for head in range(self.heads):
                            some[layer, head].append((batch, probs[:, head].cpu()))
                count += batch.count
                shown.advance(batch.count)
        means = {f"z.{layer}": (t / max(count, 1)).float() for layer, t in totals.items()}
        words = vocabulary(self.subject.source)
        found = []
        for layer, head in self.all:
            explainer = explainers[layer]
            proposals = explainer.explain(head, most=8)
            best = HeadRole.read(proposals[0].executable.parameters) if proposals[0].found else None
            examples = attention_examples(
                some[layer, head], words, self.seed.child("examples", layer, head), role=best
            )
            found.append(
                {
                    "proposals": [kept(p) for p in proposals],
                    "offsets": explainer.offset_table(head)
                    .executable(self.subject.shelf)
                    .model_dump(mode="json"),
                    "examples": [e.model_dump(mode="json") for e in examples.shown],
                    "population": examples.population,
                }
            )
        return means, found

    @cached_property
    def _found(self) -> dict[tuple[int, int], Any]:
        return dict(zip(self.all, self.seen, strict=True))

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """Roles as the spec asks in round 1; afterwards the next best role of heads whose role failed."""
        out: list[Hypothesis] = []
        for layer, head in self.all:
            for proposal, draw, parents in self._wanted(round, layer, head, found):
                first = not any(h.component == self.component(layer, head) for h in out)
                out += self._claims(layer, head, proposal, draw, fold, parents, effect=first)
        if round == 1 and self.replacement:
            out.append(self._replaced(fold))
        if round == 2 and self.spec.describe.heads == "best":
            out += self._together(fold, found)
        return out

    def _together(self, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """That the heads which round 1 found to look where induction would also do its work, taken together.

        One by one such heads can stand in for each other, so that removing any one of them shows little.
        """
        names = {self.component(*h).name: h for h in self.all}
        heads = [
            names[v.hypothesis.component.name]
            for v in found.values()
            if v.overall == "supported"
            and v.hypothesis.side == "cause"
            and v.hypothesis.component.name in names
            and _role_of(v.hypothesis.description) == "induction"
        ]
        rest = [h for h in self.all if h not in heads]
        if not heads or len(rest) < len(heads):
            return []
        rng = self.seed.child("sets").numpy()
        others = [sorted(rest[i] for i in rng.permutation(len(rest))[: len(heads)]) for _ in range(SETS)]
        sites = tuple(f"z.{layer}.h{head}" for layer, head in heads)
        words = " and ".join(f"{layer}.{head}" for layer, head in heads)
        return [
            Hypothesis(
                round=2,
                component=Component(
                    decomposition="induction heads", index=0, reads=sites, writes=sites, width=len(heads)
                ),
                side="effect",
                description=Description(
                    words=f"removing heads {words} together hurts predictions on repeated spans",
                    effect=HeadRole("induction").executable(),
                    about={"heads": [list(h) for h in heads]},
                ),
                explainer=RoleExplainer.method,
                draw="all",
                tests=(plans.matters_together(self.spec, fold, heads=heads, others=others),),
                scope=self.subject.scope,
            )
        ]

    def _replaced(self, fold: str) -> Hypothesis:
        """Every head replaced at once: by its best role on explore, or its mean where it showed none."""
        parts, simple = [], []
        for layer, head in self.all:
            proposals = self._found[layer, head]["proposals"]
            best = proposals[0] if proposals[0]["found"] else None
            offset = next((p for p in proposals if _role(p) == "offset"), None)
            place = {"site": f"probs.{layer}", "index": head}
            parts.append({**place, "code": best["description"]["cause"] if best else None})
            simple.append({**place, "code": offset["description"]["cause"] if best and offset else None})
        described = sum(p["code"] is not None for p in parts)
        plan = plans.replaces(
            self.spec, fold, "cluster", fit=Executable(kind=COMPOSITE, parameters={"parts": simple})
        )
        sites = tuple(f"probs.{layer}" for layer in self.layers)
        return Hypothesis(
            round=1,
            component=Component(
                decomposition="attention", index=0, reads=sites, writes=sites, width=len(parts)
            ),
            side="cause",
            description=Description(
                words=f"where every head looks is what its role says; {len(parts) - described} of {len(parts)} "
                "heads have none and may be held at their means",
                cause=Executable(kind=COMPOSITE, parameters={"parts": parts}),
                about={
                    "described": described,
                    "of": len(parts),
                    "the simple fit": "one fixed distance a head",
                },
            ),
            explainer="replacement@1",
            draw="all",
            tests=(plan,),
            scope=self.subject.scope,
        )

    def _wanted(
        self, round: int, layer: int, head: int, found: Mapping[str, Verdict]
    ) -> list[tuple[Any, Draw, dict[str, str | None]]]:
        """(proposal, how it was drawn, parent of each side) of the roles to claim for one head."""
        proposals = self._found[layer, head]["proposals"]
        none: dict[str, str | None] = {"cause": None, "effect": None}
        if round == 1:
            if self.scripted and (layer, head) == self._misled:
                return [(proposals[-1], "scripted", none)]
            if self.spec.describe.heads == "all":
                return [(p, "all", none) for p in proposals]
            return [(p, "all", none) for p in proposals[:1] if p["found"]]
        name = self.component(layer, head).name
        mine = [v for v in found.values() if v.hypothesis.component.name == name]
        if any(v.hypothesis.side == "cause" and v.overall == "supported" for v in mine):
            return []  # where it looks is settled; one lineage, one claim at a time
        last = {s: [v for v in mine if v.hypothesis.side == s] for s in ("cause", "effect")}
        newest = last["cause"][-1] if last["cause"] else None
        if newest is None or newest.overall not in ("refuted", "inconclusive"):
            return []
        if self.spec.describe.heads == "all" and newest.hypothesis.draw != "scripted":
            return []  # every role was claimed already
        tried = {_role_of(v.hypothesis.description) for v in mine}
        rest = [p for p in proposals if p["found"] and _role(p) not in tried]
        if not rest:
            return []
        parents: dict[str, str | None] = {s: v[-1].hypothesis.id if v else None for s, v in last.items()}
        return [(rest[0], "refined", parents)]

    @cached_property
    def _misled(self) -> tuple[int, int] | None:
        """The first head for which explore found a role: it is the one to be wrong about."""
        return next((h for h in self.all if self._found[h]["proposals"][0]["found"]), None)

    def _claims(
        self,
        layer: int,
        head: int,
        proposal: Any,
        draw: Draw,
        fold: str,
        parents: Mapping[str, str | None],
        *,
        effect: bool,
    ) -> list[Hypothesis]:
        """The cause of one role, and its effect too for the first role claimed of a head."""
        component = self.component(layer, head)
        described = Description.model_validate(proposal["description"])
        assert described.cause is not None
        role = HeadRole.read(described.cause.parameters)
        others = self._others(layer, head)
        seen = self._found[layer, head]
        attends = plans.attends(
            self.spec,
            fold,
            others=others,
            offsets=Executable.model_validate(seen["offsets"]),
            content=role.role in CONTENT,
            second=second_of(proposal),
        )
        shared: dict[str, Any] = {
            "round": 1,
            "component": component,
            "draw": draw,
            "scope": self.subject.scope,
            "explainer": RoleExplainer.method,
        }
        about = {k: v for k, v in described.about.items() if k != "roles"}
        cause = Description(words=f"looks at {role.words}", cause=described.cause, about=about)
        claims = [
            Hypothesis(
                **shared,
                side="cause",
                description=cause,
                tests=(attends,),
                parent=parents["cause"],
                explored=proposal["explored"],
            )
        ]
        if effect:
            words = f"removing it hurts predictions where it should look at {role.words}"
            claims.append(
                Hypothesis(
                    **shared,
                    side="effect",
                    description=Description(words=words, effect=described.cause, about=about),
                    tests=(plans.matters_where(self.spec, fold, others=others),),
                    parent=parents["effect"],
                )
            )
        return claims

    def _others(self, layer: int, head: int) -> list[Component]:
        """Other heads of the model, drawn at random, for this head to be compared with."""
        rest = [h for h in self.all if h != (layer, head)]
        order = self.seed.child("others", layer, head).numpy().permutation(len(rest))[:COMPARED]
        return [self.component(*rest[i]) for i in sorted(order.tolist())]

    # -- truth and what is shown -------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """Against the organism's truth, where there is one."""
        if self.truth is None or not hypothesis.component.decomposition.startswith("heads@"):
            return None
        return check(hypothesis, self.truth)

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """A card for every head that has a claim, and the map of heads."""
        claimed = {v.hypothesis.component.name for v in found.values()}
        exhibits = []
        for layer, head in self.all:
            component = self.component(layer, head)
            if component.name not in claimed:
                continue
            entry = self._found[layer, head]
            exhibits.append(
                Exhibit(
                    component=component,
                    kind="head",
                    site=f"z.{layer}.h{head}",
                    layer=layer,
                    attention=tuple(AttentionExample.model_validate(e) for e in entry["examples"]),
                    facts={"nearest role on explore": _role(entry["proposals"][0])},
                    agreement=entry["proposals"][0]["description"]["about"].get("agreement"),
                    units_drawn=entry["population"],
                )
            )
        cells = [
            SiteCell(
                layer=layer,
                place="heads",
                components=self.heads,
                examined=sum(self.component(layer, h).name in claimed for h in range(self.heads)),
            )
            for layer in self.layers
        ]
        rest = len(self.all) - sum(c.examined for c in cells)
        decisions = (
            "every role of every head was claimed"
            if self.spec.describe.heads == "all"
            else f"each head's best role on explore was claimed; {rest} of {len(self.all)} heads showed none",
        )
        return Shown(exhibits=exhibits, map=cells, decisions=decisions)


def _role(proposal: Any) -> str:
    parameters = proposal["description"]["cause"]["parameters"]
    return str(parameters["role"])


def _role_of(description: Description) -> str:
    side = description.cause or description.effect
    return str(side.parameters["role"]) if side is not None else ""
