"""What a method's process can reach, what it hands back, and what becomes of one that fails."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import benched
from prosect.bench.given import Given
from prosect.bench.handover import Order, put
from prosect.bench.isolation import Isolated, environment
from prosect.bench.plan import task_of
from prosect.bench.skeleton import blueprint, rebuilt, weights
from prosect.bench.subject import subject
from prosect.bench.task import Setup
from prosect.core.errors import Unsupported
from prosect.core.registries import BASELINES, METHODS
from prosect.organisms import induction


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that processes are started in."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def isolated(place):
    with pytest.MonkeyPatch.context() as patched, Isolated() as made:
        patched.setattr(tempfile, "tempdir", str(place))
        yield made


@pytest.fixture(scope="module")
def given():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    return Given({"activations": x}, {"count": 4, "active": 1.0}, seconds=20.0)


def ask(isolated, given, method):
    return isolated.run(given, Order(f"benched_methods:{method}", 7))


def test_an_answer_comes_back_with_its_cost(isolated, given):
    ran = ask(isolated, given, "axes")
    assert torch.equal(ran.answer["directions"], torch.eye(6)[:4]) and ran.reason == ""
    assert 0 <= ran.seconds < 5 and ran.passes == 0


def test_the_same_seed_gives_the_same_answer(isolated, given):
    first, second = (ask(isolated, given, "drawn").answer["directions"] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("raises", "RuntimeError: no such luck"),
        ("nothing", "gave back a NoneType"),
        ("dies", "killed by signal 9"),
        ("imports_a_builder", "prosect.organisms is withheld"),
        ("loads_an_organism", "is withheld"),
        ("not_there", "AttributeError"),
    ],
)
def test_what_fails_is_a_reason_and_the_next_one_runs(isolated, given, method, said):
    ran = ask(isolated, given, method)
    assert ran.answer is None and said in ran.reason
    assert ask(isolated, given, "axes").answer is not None


def test_one_that_is_past_its_time_is_ended(isolated, given):
    short = Given(given.tensors, given.about, seconds=0.5)
    assert "past its budget of 0.5 seconds" in ask(isolated, short, "sleeps").reason


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_the_bench_was_killed_no_method_goes_on(given, tmp_path):
    put(tmp_path, given, Order("benched_methods:says_who_it_is_and_sleeps", 0))
    command = f"exec 3<&0; {sys.executable} -m prosect.bench.worker <&3 & echo $!; wait"  # 0 is closed to what waits
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["sh", "-c", command], **pipes, text=True, env=environment()) as bench:
        worker = int(bench.stdout.readline())
        bench.stdin.write(json.dumps({"folder": str(tmp_path), "seconds": 60, "preload": []}) + "\n")
        bench.stdin.flush()
        assert soon((tmp_path / "who").exists, 60)
        method = int((tmp_path / "who").read_text())
        assert not ended(method)
        bench.kill()
        bench.stdin.close()  # as the end of a process does
        assert soon(lambda: ended(method) and ended(worker), 10)


def soon(holds, seconds):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def ended(process):
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_method_sees_its_data_and_nothing_else(isolated, given, monkeypatch):
    monkeypatch.setenv("PROSECT_SECRET", "1234")
    said = ask(isolated, given, "tells").reason
    assert "PROSECT_SECRET" not in said and "PROSECT_SECRET" not in environment()
    assert "'folder': ['given.safetensors', 'order.json']" in said
    assert "'about': {'active': 1.0, 'count': 4}" in said and "'arguments': ['" in said


def test_the_process_that_waits_has_no_organism_in_it(isolated, given, place, monkeypatch):
    """Though it has imported whatever methods use."""
    homes = sorted({f.__module__ for r in (METHODS, BASELINES) for f in map(r.get, r)})
    homes = [h for h in homes if h.startswith("prosect.bench.methods")]
    every = ["prosect.model", *homes, "benched_seen"]
    monkeypatch.setattr("prosect.bench.isolation.preloaded", lambda order, plan: every)
    assert ask(isolated, given, "axes").answer is not None
    seen = json.loads((place / "seen.json").read_text())
    assert set(every[:-1]) <= set(seen) and len(homes) > 4
    assert not [m for m in seen if m.startswith("prosect.organisms")]


def test_a_decoder_is_opened_and_run_where_its_builder_is_not(isolated, monkeypatch):
    """The network of a real organism, in the process of a method that opens it for study."""
    monkeypatch.setattr("prosect.bench.programs.OPERATIONS", 2)
    task = task_of("circuits")
    made = subject("random-program", 2)
    case = task.cases(made, Setup())[-1]
    ran = isolated.run(case.given, Order("prosect.bench.methods.edges:attribution", 0, made.withheld))
    assert ran.reason == "" and ran.passes > 2
    assert task.score(case, ran.answer)["AUROC"] > 0.8


def with_network(module, rows):
    return Given({"rows": rows}, {}, {"features": rows}, lambda: module, seconds=20.0)


def test_a_network_is_handed_over_and_its_builder_is_not(isolated):
    module, _ = benched.network(3)
    given = with_network(module, torch.rand(5, 4))
    withheld = ("benched", "benched_parts")
    ran = isolated.run(given, Order("benched_methods:outputs", 0, withheld))
    assert torch.equal(ran.answer["out"], module(given.tensors["rows"]).detach()) and ran.passes == 1
    cheated = isolated.run(given, Order("benched_methods:builder", 0, withheld))
    assert "benched.network is withheld" in cheated.reason
    cheated = isolated.run(given, Order("benched_methods:other_file", 0, withheld))
    assert "benched_parts.truth_of is withheld" in cheated.reason


@pytest.mark.parametrize(
    "module",
    [
        lambda: benched.network(1)[0],
        lambda: induction.network(0)[0],
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()),
        lambda: nn.LSTM(3, 4, batch_first=True),
        lambda: nn.Sequential(nn.MultiheadAttention(8, 2, bias=False), nn.LayerNorm(8)),
    ],
)
def test_a_network_built_again_is_the_same_network(module):
    made = module().eval()
    again = rebuilt(blueprint(made), {k: t.detach().clone() for k, t in weights(made).items()})
    assert str(again) == str(made) and not any(p.requires_grad for p in again.parameters())
    assert {k: tuple(t.shape) for k, t in weights(again).items()} == {
        k: tuple(t.shape) for k, t in weights(made).items()
    }
    for name, tensor in weights(made).items():
        assert torch.equal(weights(again)[name], tensor)


def test_what_cannot_be_written_down_is_refused_by_name():
    module = nn.Linear(2, 2)
    module.secret = object()
    with pytest.raises(Unsupported, match=r"Linear\.secret, a object"):
        blueprint(module)
