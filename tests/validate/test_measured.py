"""Effects measured row by row: estimates, rivals, rows where a measurement does not apply, and the null."""

import numpy as np
import pytest

from prosect.core.errors import BadInput, NotFinite
from prosect.core.records import Component, Executable
from prosect.core.registry import Registry
from prosect.core.seeds import Seed
from prosect.validate import subject as subjects_of
from prosect.validate.session import open_fold
from subjects import claim, control, plan, planted_subject, token_rule

calls = []


class Planned:
    """Measures a number that each row's unit determines."""

    def __init__(self, mean, spread, only):
        self.mean, self.spread, self.only = mean, spread, only

    @classmethod
    def of(cls, executable, shelf):
        return cls(*(executable.parameters[k] for k in ("mean", "spread", "only")))

    @classmethod
    def measure(cls, wanted, model, batch, source):
        calls.append(len(wanted))
        noise = np.array([Seed(unit).numpy().standard_normal() for unit in batch.units.tolist()])
        out = np.array([w.mean + w.spread * noise for w in wanted])
        for w, row in zip(wanted, out, strict=True):
            if w.only:
                row[batch.units % w.only != 0] = np.nan
        return out


@pytest.fixture
def kind(monkeypatch):
    monkeypatch.setattr(subjects_of, "DESCRIPTIONS", Registry("description kind"))
    subjects_of.DESCRIPTIONS.register("planned", f"{__name__}:Planned")
    subjects_of.DESCRIPTIONS.register("token-rule", "prosect.describe.rules:TokenRule")


def measured(subject, index, own, rival, **given):
    def made(mean, spread=1.0, only=0):
        return Executable(kind="planned", parameters={"mean": mean, "spread": spread, "only": only})

    rivals = [control("taken away", 0.1, descriptions=[made(*r) for r in rival])]
    tests = [plan(kind="measured-effect", rivals=rivals, unit="cluster", **given)]
    component = Component(
        decomposition="places", index=index, reads=("resid_pre.0",), writes=("resid_pre.0",)
    )
    return claim(subject, component, effect=made(*own), tests=tests)


def test_estimates_are_means_over_units_and_rivals_are_paired(kind):
    subject, *_ = planted_subject()
    claims = [
        measured(subject, 0, (2.0,), [(0.0,)]),
        measured(subject, 1, (0.05,), [(0.0,)]),
        measured(subject, 2, (2.0,), [(0.0,), (3.0,)]),
    ]
    calls.clear()
    true, small, mean = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    noise = np.mean([Seed(u).numpy().standard_normal() for u in range(subject.source.units["validate.0"])])
    assert true.measured.estimate == pytest.approx(2.0 + noise)
    assert true.comparisons[0].difference.estimate == pytest.approx(2.0)  # the noise is the same, and cancels
    assert true.p < 0.01 and small.p == 1.0
    assert mean.comparisons[0].difference.estimate == pytest.approx(0.5)
    assert set(calls) == {4}  # (2), (0), (.05) and (3), each measured once, all in one call


def test_rows_where_it_does_not_apply_do_not_count(kind):
    subject, *_ = planted_subject()
    e = open_fold([measured(subject, 0, (1.0, 1.0, 3), [(0.0,)])], subject, "validate.0", Seed(0)).evidence[0]
    units = [u for u in range(subject.source.units["validate.0"]) if u % 3 == 0]
    noise = np.mean([Seed(u).numpy().standard_normal() for u in units])
    assert e.units == len(units) and e.measured.estimate == pytest.approx(1.0 + noise)
    assert e.comparisons[0].difference.estimate == pytest.approx(1.0)


def test_under_the_null_nothing_stands_out(kind):
    subject, *_ = planted_subject(null="statistical")
    claims = [measured(subject, i, (1.0 * (i == 0), 0.3), [(0.0, 0.3)]) for i in range(6)]
    found = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    assert abs(found[0].comparisons[0].difference.estimate) < 0.5
    assert found[0].p > 0.001


def test_what_cannot_be_measured_is_refused(kind):
    subject, *_ = planted_subject()
    c = measured(subject, 0, (1.0,), [(0.0,)])
    rule = c.model_copy(update={"description": c.description.model_copy(update={"effect": token_rule([1])})})
    with pytest.raises(BadInput, match="measured row by row"):
        open_fold([rule], subject, "validate.0", Seed(0))
    endless = measured(subject, 0, (1e308, 1e308), [(0.0,)])
    with pytest.raises(NotFinite, match="infinity"), np.errstate(over="ignore"):
        open_fold([endless], subject, "validate.0", Seed(0))
