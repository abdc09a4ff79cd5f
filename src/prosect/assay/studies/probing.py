"""Where a concept can be read off the stream: by a probe at each site, and by one over all of them together.

Probes are fitted on the first of two document sets of explore and looked at on the second. Claimed of each, and
measured on documents that nobody had seen: that it tells the concept right more often than the words alone do, than
always saying what is frequent, and than the same probe does on a control task. Claimed of all sites together: that
they tell it right more often than the site that does best alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prosect.assay import plans
from prosect.assay.explored import thinned, vocabulary
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.work import Extent, Planned, Work, extent, folds
from prosect.core.errors import Unsupported
from prosect.core.exhibits import Exhibit, Figure, FigureTable, SiteCell
from prosect.core.pictures import Curve, Series
from prosect.core.records import Component, Description, Executable, Hypothesis, Measured, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict
from prosect.data.batch import Batch
from prosect.describe.probes.concepts import Concept
from prosect.describe.probes.layers import LayerProbes, SiteReading, compare, gather
from prosect.describe.probes.linear import RIDGES, LinearProbe
from prosect.describe.probes.reading import ConceptReading, Which
from prosect.model.patching.nodes import nodes_of
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations

METHOD = "linear-probe@1"
ALL = "all together"
NEWTON = 8
"""Steps of Newton's method that a fit takes, about."""


class Probing:
    """The study of one concept at several sites.

    Args:
        spec: the run's; its ``probe`` table names the concept and the sites.
        run: where the probes and what they told are kept.
        subject: the model and its text.

    Raises:
        UnknownName: no such concept or site.
        Unsupported: a site without one vector for each position.
        BadInput: no site, or one twice.
    """

    name = "probing"

    def __init__(self, spec: Spec, run: RunFolder, subject: Subject) -> None:
        self.spec, self.run, self.subject = spec, run, subject
        self.seed = Seed(spec.seed).child("probing")
        nodes = nodes_of(subject.model, list(spec.probe.sites))
        self.sites = tuple(node.site if node.head is None else str(node) for node in nodes)
        for site in self.sites:
            if subject.model.sites.info(site).layout == "pattern":
                raise Unsupported(f"a probe at {site}", "a site with one vector for each position", "--site")
        self.concept = Concept(spec.probe.concept, vocabulary(subject.source))

    def explore(self) -> None:
        """Fit on the first document set of explore, look at the second."""
        tensors, self.seen = self.run.tensor_step("probing", {"study": self.name}, self._look)
        self.tensors = tensors

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """What is read together, by name: each site alone, then all of them if there are several."""
        alone: dict[str, tuple[str, ...]] = {s: (s,) for s in self.sites}
        return alone | ({ALL: self.sites} if len(self.sites) > 1 else {})

    def _look(self) -> tuple[dict[str, Tensor], Any]:
        batches, second = self._thinned()
        halves = []
        with self.subject.metered("explore"):
            for half in (False, True):
                mine = [b for b, s in zip(batches, second, strict=True) if s == half]
                halves.append(gather(self.subject.model, mine, self.sites, self.concept))
        found = compare(halves[0], halves[1], len(self.concept.vocabulary), self.seed)
        tensors = {
            "words": torch.from_numpy(found.table).to(torch.uint8),
            "task": torch.from_numpy(found.control_labels).to(torch.uint8),
        }
        entries = {}
        for number, name in enumerate(self.groups):
            r = self._of(found, name)
            entries[name] = _kept(r)
            tensors |= {f"own.{number}": r.probe.weights, f"control.{number}": r.control_probe.weights}
        return tensors, {
            "entries": entries,
            "best": found.best,
            "gain": found.gain.model_dump(mode="json"),
            "words": found.words.model_dump(mode="json"),
            "frequent": found.chance.model_dump(mode="json"),
            "rate": float(halves[0].y.mean()),
            "fitted": found.fitted,
            "heldout": found.heldout,
        }

    def _thinned(self) -> tuple[list[Batch], list[bool]]:
        return thinned(
            self.subject.source, self.spec.probe.tokens, self.seed.child("explore"), self.subject.rows
        )

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """One pass of explore and one of each fold, up to the last site; and the fits, two for each group of sites."""
        read, test = extent(self._thinned()[0]), folds(parts)
        infos = [self.subject.model.sites.info(s) for s in self.sites]
        widths = [(i.width or 1) * (i.heads or 1) for i in infos]
        layers = self.subject.model.n_layers or 0
        known = [i.layer for i in infos]
        share = 1.0 if not layers or None in known else (max(n for n in known if n is not None) + 1) / layers
        groups = [*widths, *([sum(widths)] if len(widths) > 1 else [])]
        fits = 2 * (len(RIDGES) + 1) * NEWTON * sum(2.0 * (read.positions / 2) * w * w for w in groups)
        return Planned(
            ", ".join(self.sites),
            (Work("explored text, and the fits", read.rows * share, read.length, flops=fits),),
            (Work("each fold", test.rows * share, test.length),),
            4 * read.positions * sum(widths),
        )

    @staticmethod
    def _of(found: LayerProbes, name: str) -> SiteReading:
        return found.together if name == ALL else found.alone[name]

    # -- claims ----------------------------------------------------------------------------------

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """One claim for every site and one for all together; none is chosen."""
        return [] if round > 1 else [self._claim(name, fold) for name in self.groups]

    def _component(self, name: str) -> Component:
        sites = self.groups[name]
        widths = [self.subject.model.sites.info(s) for s in sites]
        return Component(
            decomposition=f"probe@{'all' if name == ALL else name}",
            index=0,
            reads=sites,
            width=sum((i.width or 1) * (i.heads or 1) for i in widths),
        )

    def _reading(self, which: Which, name: str = "") -> Executable:
        probe, table = None, None
        if which in ("probe", "control"):
            kind = "own" if which == "probe" else "control"
            number, bias = list(self.groups).index(name), float(self.seen["entries"][name][f"{kind} bias"])
            probe = LinearProbe(self.groups[name], self.tensors[f"{kind}.{number}"], bias)
        if which == "frequent":
            table = torch.tensor([self.seen["rate"] > 0.5])
        elif which != "probe":
            table = self.tensors["words" if which == "words" else "task"].bool()
        return ConceptReading(self.concept, which, probe, table).executable(self.subject.shelf)

    def _claim(self, name: str, fold: str) -> Hypothesis:
        best = self.seen["best"]
        where = f"at {name}" if name != ALL else "in all sites together, better than in any alone"
        return Hypothesis(
            round=1,
            component=self._component(name),
            side="effect",
            description=Description(
                words=f"a line reads `{self.concept.name}` {where}", effect=self._reading("probe", name)
            ),
            explainer=METHOD,
            draw="all",
            tests=(
                plans.tells(
                    self.spec,
                    fold,
                    task=self._reading("control", name),
                    words=self._reading("words"),
                    frequent=self._reading("frequent"),
                    alone=self._reading("probe", best) if name == ALL else None,
                ),
            ),
            scope=self.subject.scope,
            explored={"accuracy": self.seen["entries"][name]["accuracy"]["estimate"]},
        )

    # -- what is shown -----------------------------------------------------------------------------

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """No organism says what its stream holds of these concepts."""
        return None

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """Accuracy along the sites beside its controls, and a table of all of it."""
        entries = self.seen["entries"]
        about = (
            f"explored: probes fitted to {self.seen['fitted']:,} positions of the first document set, told on "
            f"{self.seen['heldout']:,} of the second, where the concept holds at {self.seen['rate']:.0%}"
        )

        def series(label: str, role: Any, key: str) -> Series:
            shared = self.seen.get(key)
            measured = [shared if shared is not None else entries[s][key] for s in self.sites]
            return Series(name=label, role=role, measured=tuple(Measured.model_validate(m) for m in measured))

        curve = Curve(
            title=f"Where `{self.concept.name}` can be read",
            about=f"{about}; sites in order: {', '.join(self.sites)}",
            along="site",
            doses=tuple(float(i) for i in range(len(self.sites))),
            series=(
                series("probe at the site", "own", "accuracy"),
                series("control task", "control", "control"),
                series("words alone", "control", "words"),
                series("what is frequent", "control", "frequent"),
            ),
            unit="share told right",
        )
        rows = [
            Figure(name=f"{name}: {what}", measured=Measured.model_validate(e[key]), unit="share", about=said)
            for name, e in entries.items()
            for what, key, said in (
                ("accuracy", "accuracy", ""),
                ("selectivity", "selectivity", "minus a probe on labels that were drawn for each word"),
            )
        ]
        if ALL in entries:
            gain = Measured.model_validate(self.seen["gain"])
            rows.append(Figure(name=f"{ALL}, minus {self.seen['best']}", measured=gain, unit="share"))
        for what, key in (("words alone", "words"), ("what is frequent", "frequent")):
            rows.append(Figure(name=what, measured=Measured.model_validate(self.seen[key]), unit="share"))
        return Shown(
            exhibits=[self._exhibit(name) for name in self.groups],
            map=[
                SiteCell(
                    layer=self._layer((s,)), place=f"probes at {s.split('.')[0]}", components=1, examined=1
                )
                for s in self.sites
            ],
            pictures=(curve,),
            tables=(
                FigureTable(
                    title=f"What probes tell of `{self.concept.name}`", about=about, rows=tuple(rows)
                ),
            ),
            decisions=(
                f"{self.seen['best']} did best on the units that penalties were chosen on, so it is what all sites "
                "together are compared with",
            ),
            limits=("a probe says what can be read there, not what the network uses",),
        )

    def _exhibit(self, name: str) -> Exhibit:
        sites = self.groups[name]
        return Exhibit(
            component=self._component(name),
            kind="probe",
            site=", ".join(sites),
            layer=self._layer(sites),
            facts={"concept": self.concept.name, "sites": len(sites)},
            units_drawn="every site that was asked for, and all of them together",
        )

    def _layer(self, sites: tuple[str, ...]) -> int:
        layer = self.subject.model.sites.site(sites[0]).layer if len(sites) == 1 else None
        return -1 if layer is None else layer


def _kept(reading: SiteReading) -> dict[str, Any]:
    measured = {
        k: getattr(reading, k).model_dump(mode="json") for k in ("accuracy", "control", "selectivity")
    }
    return {**measured, "own bias": reading.probe.bias, "control bias": reading.control_probe.bias}
