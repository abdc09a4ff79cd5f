"""Each line of an audit leaves its control interval under its own fault, and stays inside without it."""

from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from faults import FAULTS, FEATURES, PARENTS, TRANSCODING, Setting, absorbing, case_of, made, network, trained
from prosect.core.errors import UnknownName
from prosect.decompose.audit.audit import audit
from prosect.decompose.audit.limitations import LIMITATIONS
from prosect.decompose.audit.reconstruction import reconstruction


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def line(setting, id):
    """One line of a setting, measured once for all tests."""
    return next(one for one in audit(case_of(setting), [id]) if one.id == id)


class Sound:
    """Lines of the dictionary without a fault, by id."""

    def __getitem__(self, id):
        return line(Setting(), id)


@pytest.fixture(scope="module")
def sound():
    return Sound()


def test_without_a_fault_every_line_that_runs_is_inside(sound):
    lines = [sound[id] for id in LIMITATIONS]
    assert [one.id for one in lines if one.word == "not run"] == ["L6", "L7"]
    assert {one.word for one in lines} == {"inside", "not run"}
    assert all(one.why for one in lines if one.word == "not run")
    units = {one.id: one.unit for one in lines if not one.why}
    assert units.pop("L9") == "seed" and "count" in units.pop("L2")
    assert set(units.values()) == {"independent input"}


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{f.line} {f.name}" for f in FAULTS])
def test_under_its_fault_a_line_is_outside(fault):
    before, after = line(fault.sound, fault.line), line(fault.faulty, fault.line)
    assert before.word == "inside", before
    assert after.word == "outside", after
    assert after.measured.low > before.measured.high


def test_L1_the_identity_loses_nothing_and_random_directions_much(sound):
    found = sound["L1"]
    assert found.absent.estimate == 0
    assert found.present.low > 0.5
    assert found.null.low > found.limit
    assert found.measured.estimate == pytest.approx(
        0, abs=1e-6
    )  # the dual basis reads every strength exactly


def test_L3_a_direction_leaves_no_gap_and_a_ring_does(sound):
    found = sound["L3"]
    assert found.absent.high < 0.03
    assert found.present.low > 0.2
    assert found.null.high < found.limit


def test_L4_reads_what_was_planted(sound):
    found = sound["L4"]
    planted = next(f for f in found.figures if f.name == "absorption planted by hand").measured.estimate
    assert found.absent.estimate == 0
    assert found.present.estimate == pytest.approx(planted, abs=1e-9)
    faulty = line(next(f for f in FAULTS if f.line == "L4").faulty, "L4")
    # two of six concepts are parents, and a child is beside each where not both of two are away
    beside = 1 - 0.7 ** len([c for c, p in PARENTS.items() if p == 0])
    assert faulty.measured.estimate == pytest.approx(2 / 6 * beside, abs=0.04)


def test_L4_absorption_makes_a_dictionary_sparser_and_its_latents_worse_described():
    """Two parents' latents fall silent where a child is: that much less fires, and that much of them is not told."""
    parts = network()
    case = replace(case_of(Setting()), compared=(absorbing(parts),))
    (found,) = (one for one in audit(case, ["L4"]) if one.id == "L4")
    sparser, whole = (f for f in found.figures if f.name.startswith("concepts told by one latent"))
    silent, plain = (float(f.name.rsplit(" ", 1)[1]) for f in (sparser, whole))
    assert plain - silent == pytest.approx(2 * 0.3 * (1 - 0.7**2), abs=0.05)
    assert whole.measured.estimate == pytest.approx(
        1.0, abs=0.02
    )  # each feature has a latent that is just it
    assert sparser.measured.high < whole.measured.low
    recall = 0.7**2  # of a parent, where it alone is told; the other four concepts are told as before
    assert sparser.measured.estimate == pytest.approx((4 + 2 * 2 * recall / (1 + recall)) / 6, abs=0.06)


def test_L5_three_worlds():
    none, everywhere, local = (line(Setting(function=f), "L5") for f in ("none", "global", "local"))
    assert none.word == "inside" and none.measured.low < 0 < none.measured.high
    assert everywhere.word == local.word == "outside"
    for found in (none, everywhere, local):
        assert found.absent.low < 0.02 < found.present.low
        assert found.null.estimate < 0.1


def test_L7_a_hand_built_mlp_is_explained_whole_and_the_next_latents_with_it():
    found = line(TRANSCODING, "L7")
    assert found.measured.estimate == pytest.approx(0, abs=1e-10)
    assert found.absent.estimate == 0
    assert found.present.estimate == pytest.approx(1, abs=0.01)
    assert found.null.low > 1

    def reader(parts):
        return made(torch.eye(FEATURES), torch.eye(FEATURES), "units", bar=0.0)

    pair = line(replace(TRANSCODING, following=reader), "L7")
    assert pair.measured.estimate == pytest.approx(0, abs=1e-8)
    assert pair.present.estimate == pytest.approx(1, abs=0.01)
    assert pair.word == "inside"


def test_L7_needs_two_ends():
    alone = line(Setting(), "L7")
    assert alone.word == "not run" and "--next" in alone.why

    def elsewhere(parts):
        return made(torch.eye(FEATURES), torch.eye(FEATURES), "units", bar=0.0)

    seventh = line(Setting(following=elsewhere), "L7")
    assert seventh.word == "not run" and "units" in seventh.why


def test_L8_a_dropped_concept_leaves_its_own_gap_and_no_other():
    fault = next(f for f in FAULTS if f.line == "L8")
    found = line(fault.faulty, "L8")
    lost = {f.name: f.measured for f in found.figures if f.name.startswith("lost: ")}
    for name, measured in lost.items():
        number = int(name.split()[-1])
        if number in (6, 7):
            assert measured.low > 0.3, name
        elif number in (8, 9):
            assert measured.high < 0.05, name


def test_L8_a_concept_that_was_not_in_the_training_data_leaves_a_gap_and_one_that_was_does_not():
    """The same training, on the same rows, without what two features add to them."""
    lost = {}
    for dropped in ((), (6, 7)):
        found = line(Setting(make=partial(trained, dropped=dropped), others=lambda parts: []), "L8")
        lost[dropped] = {f.name: f.measured for f in found.figures if f.name.startswith("lost: ")}
    before, after = lost[()], lost[6, 7]
    rise = {int(name.split()[-1]): after[name].estimate - before[name].estimate for name in before}
    assert after["lost: feature 6"].low > before["lost: feature 6"].high + 0.1
    assert (rise[6] + rise[7]) / 2 > 0.1
    assert sum(rise[i] for i in (0, 1, 8, 9)) / 4 < 0.05


def test_L9_the_same_latents_in_another_order_and_strangers(sound):
    assert sound["L9"].measured.estimate == pytest.approx(0, abs=1e-6)
    fault = next(f for f in FAULTS if f.line == "L9")
    found = line(fault.faulty, "L9")
    assert abs(found.measured.estimate - found.present.estimate) < 0.1


def test_no_loss_leaves_the_variance_unexplained():
    case = replace(case_of(Setting()), loss=None)
    found = reconstruction(case)
    assert found.word == "inside" and "variance" in found.remarks[0]


def test_concepts_that_are_not_there_leave_lines_that_say_so():
    case = replace(case_of(Setting()), wanted=None)
    lines = {one.id: one for one in audit(case, ["L3", "L4", "L8"])}
    assert all("--concepts" in lines[id].why for id in ("L3", "L4", "L8"))
    assert lines["L1"].why == "not asked for"
    with pytest.raises(UnknownName):
        audit(case, ["L10"])


def test_the_network_is_what_it_says():
    parts = network()
    assert torch.allclose(parts.directions @ parts.dual.T, torch.eye(24), atol=1e-4)
    assert torch.linalg.matrix_rank(parts.directions) == FEATURES
