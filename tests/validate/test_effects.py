"""Effects: outputs raised and lowered, units silenced, parts replaced, ranks among untrained networks."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput
from prosect.core.records import Component, Executable, Rival
from prosect.core.seeds import Seed
from prosect.decompose.streams import ArrayStream
from prosect.decompose.units import Neurons
from prosect.validate import replace as level3
from prosect.validate.learned import POOL
from prosect.validate.raises import RANDOM, SHUFFLED, Removal, Remover, contrast, relabel
from prosect.validate.session import open_fold
from subjects import (
    claim,
    constant_rule,
    control,
    formula,
    heads_of,
    induction_subject,
    modular_subject,
    plan,
    planted_subject,
    role,
    subject_of,
    token_rule,
)


def sets(raised, lowered):
    return Executable(kind="output-sets", parameters={"raised": list(raised), "lowered": list(lowered)})


@pytest.fixture(scope="module")
def planted():
    return planted_subject()


def raises(subject, component, effect, controls, others):
    rivals = [
        control(RANDOM, 0.05, components=[c for c, _ in controls], descriptions=[e for _, e in controls]),
        control(SHUFFLED, 0.05, descriptions=others),
    ]
    tests = [plan(kind="raise-outputs", rivals=rivals, unit="cluster", parameters={"scale": 1.0, "rows": 60})]
    return claim(subject, component, effect=effect, tests=tests)


def test_planted_outputs_are_raised_and_those_of_a_silent_neuron_are_not(planted):
    subject, truth, neurons, controls = planted
    loud = [v for v in truth.variables if v.kind == "token-rule" and v.effect and v.effect["raises"]][:3]
    silent = next(v for v in truth.variables if v.parameters.get("sort") == "silent")
    own = [sets(v.effect["raises"], v.effect["lowers"]) for v in loud]
    flat = [(controls.component(i), sets([5, 6], [7, 8])) for i in range(3)]
    claims = [
        raises(subject, neurons.component(v.index), own[i], flat, [own[i - 1]]) for i, v in enumerate(loud)
    ]
    claims.append(raises(subject, neurons.component(silent.index), own[0], flat, [own[1]]))
    found = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    for v, e in zip(loud, found, strict=False):
        # nothing lies between these neurons and the logits, so removal changes them by weight × activation
        by = np.mean(v.effect["raises_by"]) - np.mean(v.effect["lowers_by"])
        assert e.measured.estimate == pytest.approx(by, rel=0.02)
        assert e.p < 0.01
    assert found[-1].measured.estimate == pytest.approx(0.0, abs=1e-4)
    assert found[-1].p == 1.0


def test_removal_is_local_to_where_the_component_is_active(planted):
    subject, truth, neurons, _ = planted
    v = next(v for v in truth.variables if v.parameters.get("sort") == "token")
    remover = Remover(subject, [neurons.component(v.index)], rows=5)
    batch = next(iter(subject.batches("validate.0")))
    trace = subject.model.run(batch, capture=remover.sites)
    done = remover.remove(batch, trace, trace.output, "validate")
    assert 0 < len(done) <= 5
    code = batch.unflat(batch.flat(trace["mlp_act.0"])[:, v.index])
    for _, removal in done:
        rows = [i for i, r in enumerate(batch.rows) if r.unit == removal.unit[0]]
        assert len(removal.size) in {int((code[i] > 0).sum()) for i in rows}
        assert torch.allclose(removal.change.mean(dim=1), torch.zeros(len(removal.size)), atol=1e-5)


def test_the_statistical_null_renames_outputs():
    subject, truth, neurons, controls = planted_subject(null="statistical")
    loud = [v for v in truth.variables if v.kind == "token-rule" and v.effect and v.effect["raises"]][:2]
    own = [sets(v.effect["raises"], v.effect["lowers"]) for v in loud]
    flat = [(controls.component(i), sets([5, 6], [7, 8])) for i in range(3)]
    c = raises(subject, neurons.component(loud[0].index), own[0], flat, [own[1]])
    e = open_fold([c], subject, "validate.0", Seed(0)).evidence[0]
    true = np.mean(loud[0].effect["raises_by"]) - np.mean(loud[0].effect["lowers_by"])
    assert abs(e.measured.estimate) < 0.6 * true


def test_a_missing_side_counts_as_nothing():
    change = torch.tensor([[1.0, 2.0, -3.0]])
    assert contrast(change, [0, 1], []).item() == 1.5
    assert contrast(change, [], [2]).item() == 3.0


def wave(v, amplitude=None):
    return Executable(
        kind="trigonometric-output",
        parameters={
            "p": 31,
            "k": v.effect["frequency"],
            "theta": v.effect["phase"],
            "amplitude": v.effect["amplitude"] if amplitude is None else amplitude,
            "cause": formula(v).parameters,
            "level": 1.0,
        },
    )


def test_silencing_a_unit_changes_outputs_as_its_wave_says():
    subject, truth, neurons = modular_subject()
    first, second = [v for v in truth.variables if v.kind == "trigonometric" and v.effect.get("amplitude")][
        :2
    ]
    tests = [plan(kind="change-outputs", rivals=[control("other-units", 0.2, descriptions=[wave(second)])])]
    claims = [
        claim(subject, neurons.component(first.index), effect=wave(first), tests=tests),
        claim(subject, neurons.component(first.index), effect=wave(first, amplitude=-1.0), tests=tests),
    ]
    right, flipped = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    assert right.measured.estimate > 0.99
    assert right.p < 0.01
    assert flipped.measured.estimate < -0.99
    assert flipped.p == 1.0


def composite(parts):
    return Executable(kind="composite", parameters={"parts": parts})


def replaces(subject, own, fit, unit="input"):
    rivals = [
        Rival(name=level3.ABLATED, role="control", margin=0.1),
        Rival(name=level3.INTACT, role="baseline", margin=-0.1),
        Rival(name=level3.FIT, role="baseline", margin=-0.1, descriptions=(fit,)),
        Rival(name=level3.FIT_SHIFT, role="baseline", margin=0.0, descriptions=(fit,)),
    ]
    layer = Component(decomposition="layer", index=0)
    return claim(subject, layer, cause=own, tests=[plan(kind="replace", rivals=rivals, level=3, unit=unit)])


def test_the_true_formulas_can_stand_in_for_a_whole_layer():
    subject, truth, _ = modular_subject()
    code = {v.index: formula(v).model_dump(mode="json") for v in truth.variables if v.kind == "trigonometric"}
    every = range(len(truth.variables))
    right = composite([{"site": "hidden", "index": j, "code": code.get(j)} for j in every])
    order = sorted(code)
    turned = dict(zip(order, [code[j] for j in [*order[1:], order[0]]], strict=True))
    wrong = composite([{"site": "hidden", "index": j, "code": turned.get(j)} for j in every])
    good, bad = open_fold(
        [replaces(subject, right, wrong), replaces(subject, wrong, right)], subject, "validate.0", Seed(0)
    ).evidence
    assert good.measured.estimate == 1.0
    assert good.p < 0.01
    assert bad.measured.estimate < 0.3
    assert bad.p == 1.0
    by = {c.rival: c for c in good.comparisons}
    assert by[level3.INTACT].measured.estimate == 1.0
    assert by[level3.ABLATED].measured.estimate < 0.2
    assert by[level3.FIT_SHIFT].difference.estimate > 0.5
    assert "on the shift 1.0000 are right" in good.note


def test_roles_can_stand_in_for_heads():
    subject, truth = induction_subject()
    names = {h: n for n in ("previous", "induction", "first") for h in heads_of(truth, n)}
    everywhere = [(layer, number) for layer in range(2) for number in range(4)]

    def parts(named):
        return composite(
            [
                {
                    "site": f"probs.{layer}",
                    "index": number,
                    "code": role(named[layer, number]).model_dump(mode="json")
                    if (layer, number) in named
                    else None,
                }
                for layer, number in everywhere
            ]
        )

    fit = parts(dict.fromkeys(names, "previous"))
    e = open_fold([replaces(subject, parts(names), fit, "cluster")], subject, "validate.0", Seed(0)).evidence[
        0
    ]
    assert e.measured.estimate > 0.98
    by = {c.rival: c for c in e.comparisons}
    assert by[level3.ABLATED].measured.estimate < 0.5
    assert by[level3.FIT].measured.estimate < 0.5


def test_replacement_needs_a_task_and_a_composite():
    subject, _, _ = modular_subject()
    c = replaces(subject, composite([]), composite([]))
    plain = c.model_copy(update={"description": c.description.model_copy(update={"cause": constant_rule()})})
    with pytest.raises(BadInput, match="composite"):
        open_fold([plain], subject, "validate.0", Seed(0))
    subject.task = None
    with pytest.raises(BadInput, match="right answers"):
        open_fold([c], subject, "validate.0", Seed(0))


def test_learned_ranks_a_claim_among_untrained_networks():
    from prosect.assay.untrained import untrained

    subject, truth, neurons, _ = planted_subject()
    site = "mlp_act.0"
    for number in range(3):
        fresh = untrained(subject.model, Seed(number))
        network = subject_of(fresh, subject.source)
        width = neurons.n_components
        network.decompositions[neurons.name] = Neurons(site).fit(ArrayStream({site: torch.zeros(1, width)}))
        subject.untrained = [*subject.untrained, network]
    v = next(v for v in truth.variables if v.parameters.get("sort") == "token")
    rule = token_rule(v.parameters["current"])
    pool = [
        (neurons.component(j).model_copy(update={"decomposition": f"untrained.{n}:{neurons.name}"}), rule)
        for n in range(3)
        for j in range(20)
    ]
    rival = control(POOL, 0.0, components=[c for c, _ in pool], descriptions=[r for _, r in pool])
    tests = [plan(kind="learned", rivals=[rival], level=None, draws=len(pool), unit="network")]
    claims = [
        claim(subject, neurons.component(v.index), cause=rule, tests=tests),
        claim(subject, neurons.component(v.index), cause=token_rule([1]), tests=tests),
    ]
    high, low = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    assert high.p == pytest.approx(1 / 61)
    assert low.p > 0.05
    assert high.comparisons[0].measured.n == 3


def test_each_named_output_is_measured_alone(planted):
    """The pictures beside a claim say how far every output it names fell, in the test's own metric."""
    subject, truth, neurons, controls = planted
    v = next(v for v in truth.variables if v.kind == "token-rule" and v.effect and v.effect["raises"])
    own, flat = sets(v.effect["raises"], v.effect["lowers"]), (controls.component(0), sets([5, 6], [7, 8]))
    c = raises(subject, neurons.component(v.index), own, [flat], [sets([9], [10])])
    falls = open_fold([c], subject, "validate.0", Seed(0)).seen.outputs[c.id]
    true = dict(
        zip(
            v.effect["raises"] + v.effect["lowers"],
            v.effect["raises_by"] + v.effect["lowers_by"],
            strict=True,
        )
    )
    assert set(falls) == set(true)
    for output, by in true.items():
        # logits are compared after their mean over all outputs is taken off, which these few hardly move
        assert falls[output].estimate == pytest.approx(by, abs=0.05 * max(map(abs, true.values())))
        assert falls[output].low <= falls[output].estimate <= falls[output].high
    assert min(falls[i].low for i in v.effect["raises"]) > 0


def test_renaming_is_anew_for_every_unit():
    """One renaming for all would leave a claim the same chance effect everywhere, and so something to find."""
    change = torch.arange(40.0).repeat(6, 1)
    removal = Removal(np.array([0, 0, 1, 1, 2, 2]), np.ones(6), change)
    mixed = relabel(removal, Seed(0))
    assert torch.equal(mixed.sort(dim=1).values, change)
    same = [
        bool(torch.equal(mixed[i], mixed[j])) for i, j in [(0, 1), (2, 3), (4, 5), (0, 2), (2, 4), (0, 4)]
    ]
    assert same == [True, True, True, False, False, False]
    assert torch.equal(mixed, relabel(removal, Seed(0)))
    assert torch.equal(removal.change, torch.arange(40.0).repeat(6, 1))  # what it was given stays
