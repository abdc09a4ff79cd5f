"""A run killed at any moment and started again ends as one that was never killed."""

import json
import os
import signal
import time

import pytest

from killed import Killed
from prosect.assay.loop import conduct
from prosect.assay.opening import open_target
from prosect.assay.presets import resolve
from prosect.store import openings
from prosect.store import run as store_run
from prosect.store.ledger import Ledger
from prosect.store.run import RunFolder, head_file
from prosect.store.verify import verify
from tiny import HEADS, LATENTS, files, spawn

SPECS = {"heads": HEADS, "latents": LATENTS}
SAME = ("metrics.json", "ledger.jsonl", "findings.json", "report.html", "done.json")


class Killer:
    """Ends the process at a given one of the moments at which the run folder changes."""

    def __init__(self, monkeypatch):
        self.seen, self.at = [], None
        for owner, name in (
            (RunFolder, "json_step"),
            (RunFolder, "tensor_step"),
            (RunFolder, "finish"),
            (Ledger, "append"),
        ):
            monkeypatch.setattr(owner, name, self.after(name, getattr(owner, name)))

    def after(self, name, original):
        def wrapped(*args, **options):
            out = original(*args, **options)
            self.moment(f"after {name} {args[1] if name.endswith('step') else ''}".strip())
            return out

        return wrapped

    def moment(self, what):
        self.seen.append(what)
        if self.at == len(self.seen):
            raise Killed(what)


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")
    out = {}
    for name, text in SPECS.items():
        (folder / f"{name}.toml").write_text(text)
        out[name] = folder / f"{name}.toml"
    return out


@pytest.fixture(scope="module")
def whole(specs, tmp_path_factory):
    """Runs that nobody killed, by name of the spec."""
    made = {}

    def get(name):
        if name not in made:
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("PROSECT_HOME", str(tmp_path_factory.mktemp("home")))
                made[name] = go(specs[name], tmp_path_factory.mktemp("whole") / "run")
        return made[name]

    return get


def go(spec, out):
    return conduct(resolve(str(spec)), out, open_target, command="prosect run", quiet=True).path


def same(run, other):
    assert verify(run) == verify(other)
    assert head_file(run).read_bytes() == head_file(other).read_bytes()
    for name in SAME:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    for folder in ("artefacts", "exhibits", "tensors"):
        assert files(run / folder) == files(other / folder), folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_killed_at_every_moment_in_turn(specs, whole, tmp_path, monkeypatch, name):
    """Each start gets one moment further than the one before."""
    expected, out = whole(name), tmp_path / "run"
    killer = Killer(monkeypatch)
    starts, reached = 0, set()
    while True:
        killer.seen, starts = [], starts + 1
        killer.at = starts
        try:
            go(specs[name], out)
            break
        except Killed as killed:
            reached.add(str(killed).split()[1])
    assert reached == {"append", "finish", "json_step"} | {"tensor_step"}
    assert starts > 6
    same(out, expected)
    opened = (openings.home() / "openings.jsonl").read_text().splitlines()
    assert len(opened) == 1  # the sealed split counts as opened once, however often the run resumed


def test_killed_once_half_way(specs, whole, tmp_path, monkeypatch):
    killer = Killer(monkeypatch)
    killer.at = 3
    with pytest.raises(Killed):
        go(specs["latents"], tmp_path / "run")
    killer.at = None
    for path in (tmp_path / "run" / "artefacts").iterdir():
        path.unlink()  # steps that are gone are made again
    go(specs["latents"], tmp_path / "run")
    same(tmp_path / "run", whole("latents"))


def test_killed_while_any_file_is_written(specs, whole, tmp_path, monkeypatch):
    """Before a file takes its place: what it would have held is made again."""
    original, names = store_run.write_bytes, iter(range(1000))
    out = tmp_path / "run"

    def dying(path, data):
        if next(names) % 2 == 0:
            raise Killed(path.name)
        original(path, data)

    monkeypatch.setattr(store_run, "write_bytes", dying)
    for _ in range(20):
        try:
            go(specs["latents"], out)
            break
        except Killed:
            pass
    same(out, whole("latents"))


def test_killed_before_the_page_is_drawn(specs, whole, tmp_path, monkeypatch):
    from prosect.assay import loop

    with monkeypatch.context() as patched:
        patched.setattr(loop, "build_page", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            go(specs["latents"], tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()
    go(specs["latents"], tmp_path / "run")
    same(tmp_path / "run", whole("latents"))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_process_killed_for_good(specs, whole, tmp_path):
    """SIGKILL as soon as the ledger has its first lines."""
    out = tmp_path / "run"
    process = spawn("run", specs["latents"], "--out", out, "--quiet", "--json")
    deadline = time.monotonic() + 120
    while not (out / "ledger.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "done.json").exists()
    process = spawn("run", specs["latents"], "--out", out, "--quiet", "--json")
    printed, complained = process.communicate(timeout=300)
    assert process.returncode == 0, complained
    assert json.loads(printed)["head"] == verify(whole("latents")).hash
    for name in ("metrics.json", "ledger.jsonl"):
        assert (out / name).read_bytes() == (whole("latents") / name).read_bytes()
