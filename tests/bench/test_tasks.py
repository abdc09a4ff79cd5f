"""Every task: the oracle is right, random answers are at their floor, what cannot be scored is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from prosect.bench.methods import edges
from prosect.bench.plan import Asked, planned, task_of
from prosect.bench.skeleton import found
from prosect.bench.subject import subject
from prosect.bench.suites import AGAIN
from prosect.bench.task import Setup
from prosect.bench.tasks.circuits import top_share
from prosect.bench.tasks.features import largest_cosine
from prosect.bench.tasks.rules import mean_overlap
from prosect.bench.tasks.samples import rate_at
from prosect.bench.tasks.waves import phase_error
from prosect.core.canonical import digest_tensors
from prosect.core.errors import BadInput, Unsupported
from prosect.core.registries import BASELINES, METHODS, ORGANISMS, TASKS
from prosect.core.seeds import Seed

ON = {
    "features": "tiny",
    "circuits": "random-program",
    "roles": "induction",
    "rules": "planted",
    "waves": "modular",
    "samples": "tiny",
    "roles-null": "induction",
    "rules-null": "planted",
    "waves-null": "modular",
}
"""An organism for each task; untrained networks are `test_untrained`'s."""
SETUP = Setup(rows=2048)
DRAWS = 60


@pytest.fixture(scope="module")
def subjects():
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(ORGANISMS._where, "tiny", "benched:build")
        patched.setitem(ORGANISMS._about, "tiny", "for tests")
        patched.setattr("prosect.bench.programs.OPERATIONS", 2)  # a few edges, so that each can be ablated
        yield {name: subject(name, 1) for name in set(ON.values())}


@pytest.fixture(scope="module", params=ON)
def asked(request, subjects):
    task = task_of(request.param)
    organism = subjects[ON[request.param]]
    assert task.suits(organism.truth)
    return task, task.cases(organism, SETUP)


def test_every_task_is_tried_here():
    assert set(ON) | {f"{b}-untrained" for b in ("roles", "rules", "waves")} == set(TASKS)


def test_every_method_belongs_to_a_task():
    for name in itertools.chain(METHODS, BASELINES):
        assert name.partition("/")[0] in TASKS and callable(
            (METHODS if name in METHODS else BASELINES).get(name)
        )


def test_the_oracle_is_right(asked):
    task, cases = asked
    for case in cases:
        answer = task.oracle(case)
        task.check(case.given, answer)
        scores = task.score(case, answer)
        assert list(scores) == [m.name for m in task.metrics]
        for metric in task.metrics:
            best = metric.high if metric.better == "higher" else metric.low
            assert scores[metric.name] == pytest.approx(best, abs=1e-9), (case.name, metric.name)


def test_random_answers_are_at_their_floor(asked):
    task, cases = asked
    for case in cases:
        found = []
        for i in range(DRAWS):
            answer = task.random(case.given, Seed(i).child("random", case.name).torch())
            task.check(case.given, answer)
            found.append(task.score(case, answer)[task.metrics[0].name])
        error = np.std(found, ddof=1) / DRAWS**0.5
        assert abs(np.mean(found) - task.floor(case)) <= 4.5 * error + 1e-12, case.name
        assert 0 < task.floor(case) < 1


def test_what_cannot_be_scored_is_refused(asked):
    task, cases = asked
    good = task.oracle(cases[0])
    for name in good:
        for bad in ({}, {**good, name: good[name][:0]}, {**good, "more": good[name]}):
            with pytest.raises(BadInput):
                task.check(cases[0].given, bad)
    for name, tensor in good.items():
        if tensor.is_floating_point():
            with pytest.raises(BadInput, match="NaN or infinity"):
                task.check(cases[0].given, {**good, name: torch.full_like(tensor, float("nan"))})


def test_nothing_handed_over_tells_the_truth(asked):
    """No tensor of the truth is among what is given, nor the seed among the numbers."""
    _, cases = asked
    for case in cases:
        for secret in case.truth.values():
            for tensor in case.given.tensors.values():
                same = tuple(tensor.shape) == secret.shape and np.array_equal(tensor.numpy(), secret)
                assert not same
        assert "seed" not in str(case.given.about)


ANSWERS = {}


def run(method, case, which):
    """A method's answer to a case, once for all tests of this file; ``which`` tells the case from others."""
    if (method, which) not in ANSWERS:
        registry = METHODS if method in METHODS else BASELINES
        function = registry.get(method)
        where = found(f"{function.__module__}:{function.__qualname__}")
        ANSWERS[method, which] = where(case.given, Seed(0))
    return ANSWERS[method, which]


@pytest.mark.parametrize(
    "method",
    [m for m in (*METHODS, *BASELINES) if m.partition("/")[0] in ("circuits", "roles", "rules", "samples")],
)
def test_a_method_gives_what_its_task_asks(method, subjects):
    task = task_of(method.partition("/")[0])
    for case in task.cases(subjects[ON[task.name]], SETUP)[:1]:
        if method == "samples/confidence-everywhere":  # the tiny network has one output
            with pytest.raises(Unsupported, match="one output"):
                run(method, case, f"{task.name} {case.name}")
            return
        answer = run(method, case, f"{task.name} {case.name}")
        task.check(case.given, answer)
        task.score(case, answer)


def test_exact_ablation_orders_the_edges_of_a_program_perfectly(subjects):
    task = task_of("circuits")
    for case in task.cases(subjects["random-program"], SETUP)[:2]:
        assert task.score(case, run("circuits/exact", case, f"circuits {case.name}"))["AUROC"] > 0.99


def test_gradients_are_exact_where_the_output_reads(subjects):
    """The last reader is linear, so there the estimate is the change of the margin itself."""
    case = task_of("circuits").cases(subjects["random-program"], SETUP)[-1]
    scores = run("circuits/attribution", case, f"circuits {case.name}")["score"]
    made = edges._Edges.of(case.given)
    margin = edges._margin(made.model, made.batch)
    last = [(i, r, x) for i, (_, r, x) in enumerate(made.changes()) if r.name == "output"]
    lists = [[], *([made.edit(r, x)] for _, r, x in last)]
    clean, *patched = made.model.sweep(lists, made.batch, margin)
    changes = [float(abs(p - clean).mean()) for p in patched]
    assert len(last) > 2 and max(changes) > 0.1
    assert [float(scores[i]) for i, _, _ in last] == pytest.approx(changes, rel=1e-3, abs=1e-4)


def test_methods_that_are_right_where_the_truth_is_simple(subjects):
    for name, metric, least in (("roles", "accuracy", 0.99), ("rules", "overlap", 0.85)):
        (case,) = task_of(name).cases(subjects[ON[name]], SETUP)
        assert (
            task_of(name).score(case, run(f"{name}/explainer", case, f"{name} {case.name}"))[metric] >= least
        )
    (case,) = task_of("waves").cases(subjects["modular"], SETUP)
    scores = task_of("waves").score(case, run("waves/periodogram", case, "waves"))
    assert scores["accuracy"] > 0.98 and scores["phase error"] < 0.15


def test_poisoned_rows_of_the_tiny_network_stand_out(subjects):
    (case,) = task_of("samples").cases(subjects["tiny"], SETUP)
    assert case.name == "harmed"
    assert (
        task_of("samples").score(case, run("samples/mahalanobis", case, f"samples {case.name}"))["AUROC"]
        > 0.7
    )


def test_where_there_is_nothing_methods_mostly_say_nothing(subjects):
    for name in ("roles", "rules"):
        task = task_of(f"{name}-null")
        (case,) = task.cases(subjects[ON[name]], SETUP)
        assert task.score(case, run(f"{name}/explainer", case, task.name))["quiet"] > 0.8
        assert case.given.network is None


def test_untrained_networks_are_asked_about_where_there_are_any(subjects):
    task = task_of("waves-untrained")
    assert task.cases(replace(subjects["modular"], null=None), SETUP) == ()
    cases = task.cases(subjects["modular"], SETUP)
    assert len(cases) == 2 and cases[0].name != cases[1].name
    first, second = (c.given.tensors["activations"] for c in cases)
    assert first.shape == second.shape and not torch.allclose(first, second)
    assert task.score(cases[0], task.oracle(cases[0])) == {"quiet": 1.0}


@pytest.mark.parametrize(("n", "width"), [(1, 3), (4, 2), (20, 5), (50, 32)])
def test_the_largest_of_many_random_cosines(n, width):
    drawn = np.random.default_rng(0).standard_normal((4000, n, width))
    cosines = drawn[..., 0] / np.linalg.norm(drawn, axis=-1)
    largest = cosines.max(axis=1)
    assert abs(largest.mean() - largest_cosine(n, width)) < 4.5 * largest.std() / 4000**0.5


def test_the_largest_of_two_cosines_on_a_circle_by_hand():
    # of n uniform angles in [0, π] the smallest has density n (1 - a/π)^(n-1) / π
    a = np.linspace(0, np.pi, 200_001)
    by_hand = np.trapezoid(np.cos(a) * 2 * (1 - a / np.pi) / np.pi, a)
    assert largest_cosine(2, 2) == pytest.approx(by_hand, abs=1e-6)


def test_mean_overlap_of_a_random_set_by_enumeration():
    truth = {0, 1, 2}
    sets = list(itertools.combinations(range(7), 4))
    overlaps = [len(truth & set(s)) / len(truth | set(s)) for s in sets]
    assert mean_overlap(7, 3, 4) == pytest.approx(np.mean(overlaps))


def test_the_tail_by_trying_every_threshold():
    rng = np.random.default_rng(1)
    score, label = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    for allowed in (0.0, 0.1, 0.5):
        best = max(
            ((score[label] > t).mean() for t in score if (score[~label] > t).mean() <= allowed), default=0.0
        )
        assert rate_at(score, label, allowed) == pytest.approx(best)


def test_ties_at_the_edge_of_the_top_count_as_their_share():
    label = np.array([True, True, False, False, False])
    assert top_share(np.array([2.0, 1.0, 1.0, 1.0, 0.0]), label) == pytest.approx((1 + 1 / 3) / 2)
    assert top_share(np.zeros(5), label) == pytest.approx(2 / 5)


def test_phases_turned_together_by_half_a_turn_are_the_same():
    truth = np.array([[0.3, 5.0]])
    assert phase_error(truth, truth + np.pi) == pytest.approx(0.0, abs=1e-12)
    assert phase_error(truth, truth + 2 * np.pi) == pytest.approx(0.0, abs=1e-12)
    assert phase_error(truth, truth + np.array([[0.2, 0.0]])) == pytest.approx(0.1)
    said = np.random.default_rng(0).uniform(0, 2 * np.pi, (20_000, 2))
    assert phase_error(np.zeros((20_000, 2)), said).mean() == pytest.approx(np.pi / 3, abs=0.02)


def test_no_question_about_features_is_asked_twice():
    """Of the networks trained to be interpretable, which are many on one task; planned are all, less those that ask again."""
    asked = [i.organism for i in planned(Asked("full", tasks=("features",), seeds=1)).instances]
    names = [n for n in asked if n in {"topk-mlp", "solu-leak", "solu-clean", *AGAIN["features"]}]
    assert not set(names) & set(AGAIN["features"])
    task, digests = task_of("features"), {}
    for name in (*names, *AGAIN["features"]):
        for case in task.cases(subject(name, 1), Setup(rows=64)):
            digests.setdefault(digest_tensors(case.given.tensors), []).append(name)
    assert sorted(map(len, digests.values())) == [1, 1, 1 + len(AGAIN["features"])]


def test_an_organism_that_asks_again_is_asked_where_it_is_named():
    plan = planned(Asked("full", tasks=("features",), organisms=("solu-mlp",), seeds=1))
    assert [i.organism for i in plan.instances] == ["solu-mlp"]
