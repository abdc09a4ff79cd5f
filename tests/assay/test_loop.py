"""The loop itself, with studies that claim what they are told: who is asked what, and what is opened how often."""

import pytest

from prosect.assay.loop import conduct, sealed_copy
from prosect.assay.opened import Opened
from prosect.assay.spec import Spec
from prosect.assay.study import Shown
from prosect.assay.work import Planned
from prosect.core.exhibits import SiteCell
from prosect.core.records import Evidence, Family, Hypothesis, Opening
from prosect.core.verdicts import verdicts
from prosect.store.ledger import read
from prosect.validate.predict import KIND, METRIC
from subjects import claim, constant_rule, control, plan, planted_subject, token_rule


class Scripted:
    """A study that claims a planted rule, right or wrong, and refines what failed with the right one."""

    def __init__(self, name, subject, neurons, controls, variable, *, wrong=False):
        self.name, self.subject, self.neurons, self.controls = name, subject, neurons, controls
        self.variable, self.wrong = variable, wrong
        self.asked = []

    def explore(self):
        pass

    def planned(self, parts):
        return Planned("")

    def draft(self, round, fold, found):
        self.asked.append(dict(found))
        failed = [v for v in found.values() if v.overall == "refuted"]
        if round > 1 and not failed:
            return []
        rule = (
            constant_rule() if self.wrong and round == 1 else token_rule(self.variable.parameters["current"])
        )
        controls = [self.controls.component(i) for i in range(2)]
        rivals = [
            control("random-direction", 0.1, components=controls, descriptions=[rule, rule]),
            control("for show", 0.0, decides=False, descriptions=[constant_rule()]),
        ]
        tests = [plan(name="predicts", kind=KIND, metric=METRIC, rivals=rivals, unit="cluster", fold=fold)]
        parent = failed[-1].hypothesis.id if failed else None
        component = self.neurons.component(self.variable.index)
        return [
            claim(
                self.subject,
                component,
                cause=rule,
                tests=tests,
                round=round,
                parent=parent,
                explainer=self.name,
            )
        ]

    def check(self, hypothesis):
        assert hypothesis.explainer == self.name  # no study is asked about another's claim
        return

    def show(self, found, seen):
        cell = SiteCell(layer=0, place=self.name, components=1, examined=1)
        return Shown(map=[cell], metrics={f"{self.name} pictures": float(len(seen.scatters))})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    subject, truth, neurons, controls = planted_subject()
    sort = [v for v in truth.variables if v.parameters.get("sort") == "token"]
    studies = [
        Scripted("first", subject, neurons, controls, sort[0]),
        Scripted("second", subject, neurons, controls, sort[0], wrong=True),
    ]
    spec = Spec(target="organism:planted", studies=("latents",))
    made = conduct(
        spec,
        tmp_path_factory.mktemp("loop") / "run",
        lambda spec, folder: Opened(studies, model="a network", data="its text"),
        quiet=True,
    )
    return studies, list(read(made.path / "ledger.jsonl"))


def of(records, kind):
    return [r for r in records if isinstance(r, kind)]


def test_a_fold_is_opened_once_for_all_studies_of_a_model(run):
    _, records = run
    folds = [o.fold for o in of(records, Opening)]
    assert folds == ["validate.0", "validate.1", "sealed"]
    assert [len(f.hypotheses) for f in of(records, Family)] == [2, 1]


def test_a_study_hears_of_its_own_claims_alone(run):
    studies, _ = run
    for study in studies:
        assert [len(found) for found in study.asked] == [0, 1]
        assert all(v.hypothesis.explainer == study.name for found in study.asked for v in found.values())


def test_a_refuted_claim_is_refined_and_both_stay(run):
    _, records = run
    found = list(verdicts(records).values())
    assert [v.overall for v in found] == ["supported", "refuted", "supported"]
    assert found[2].hypothesis.parent == found[1].hypothesis.id


def test_sealed_figures_belong_to_the_registered_claim(run):
    """A sealed copy is a way to measure: no hypothesis of its own, and only what decides is measured again."""
    _, records = run
    registered = {h.id: h for h in of(records, Hypothesis)}
    sealed = [e for e in of(records, Evidence) if e.test.endswith("@sealed")]
    supported = [h for h, v in verdicts(records).items() if v.overall == "supported"]
    assert [e.hypothesis for e in sealed] == supported
    assert all([c.rival for c in e.comparisons] == ["random-direction"] for e in sealed)
    copy = sealed_copy(registered[supported[0]])
    assert copy.id not in registered
    assert {p.fold for p in copy.tests} == {"sealed"}
    assert copy.description == registered[supported[0]].description
