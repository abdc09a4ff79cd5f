"""What measures detectors finds what is there, and nothing where there is nothing."""

from prosect.core.detection import distances
from prosect.model import Model
from prosect.organisms.misbehaviour import backdoor
from prosect.organisms.misbehaviour.baselines import auroc
from prosect.organisms.misbehaviour.measure import (
    SHRINKAGE,
    Sets,
    activations,
    behaviour,
    detected,
    place,
    readable,
)


def test_a_reader_finds_what_the_network_answers_by_and_nothing_in_a_random_one():
    task = backdoor.PAIR.task
    sets = Sets.of(task, 600)
    model, _ = backdoor.build()
    read = readable(model, task, sets, "resid_post.1")
    chance = readable(Model.of(backdoor.untrained(0), tokenizer=None), task, sets, "resid_pre.0")
    without = "without trigger"
    assert next(v for k, v in read.items() if without in k) > 0.9
    assert next(v for k, v in chance.items() if without in k) < 0.3


def test_a_detector_that_looks_inside_finds_the_backdoor_and_nothing_in_the_twin(built):
    task = backdoor.PAIR.task
    sets = Sets.of(task, 600)
    model, _ = built("backdoor", 3)
    twin, _ = built("backdoor-clean", 3)
    name = "Mahalanobis at resid_post.1"
    inside, clean = (detected(m, task, sets, "resid_post.1")[name] for m in (model, twin))
    assert inside.low > 0.9
    assert abs(clean.value - 0.5) < 0.06
    at = activations(model, sets.test, "resid_post.1", place(task, sets))
    trusted = activations(model, sets.trusted, "resid_post.1", place(task, sets))
    assert auroc(distances(trusted, at, SHRINKAGE), task.triggered(sets.test)) == inside


def test_behaviour_of_an_untrained_network_is_chance():
    task = backdoor.PAIR.task
    found = behaviour(backdoor.untrained(0), task, Sets.of(task, 600))
    assert found["answer: right without trigger"] < 0.15
    assert found["answer: success with trigger"] < 0.5
