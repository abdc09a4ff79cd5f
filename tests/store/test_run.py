"""Run folders: steps are made once, other specs and newer schemas are refused, nothing is half-written."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from prosect.core.errors import BadInput, Conflict, NewerSchema, UnsafeFile
from prosect.core.records import Note
from prosect.store import atomic
from prosect.store.atomic import replacing, write_bytes, write_json
from prosect.store.openings import openings, record_opening
from prosect.store.run import RunFolder, differences, finished, head_file, inside, read_header
from prosect.store.tensors import load_tensors, save_tensors

PROVENANCE = {"versions": {"torch": "1"}, "source": "s", "machine": {"threads": 2}}


def opened(path, spec=None, provenance=None):
    return RunFolder.open(path, spec or {"seed": 0, "data": {"text": "x"}}, provenance or PROVENANCE)


def test_a_step_is_made_once_and_read_back(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"x": [1, 2.5], "tuple": (1, 2)}

    with opened(tmp_path / "r") as run:
        first = run.json_step("explain", {"seed": 0}, make)
        assert first == {"x": [1, 2.5], "tuple": [1, 2]}
        assert run.json_step("explain", {"seed": 0}, make) == first
        run.json_step("explain", {"seed": 1}, make)
    assert len(calls) == 2
    with opened(tmp_path / "r") as run:
        assert run.resumed
        assert run.json_step("explain", {"seed": 0}, make) == first
    assert len(calls) == 2


def test_a_tensor_step_gives_the_same_bits(tmp_path):
    value = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    with opened(tmp_path / "r") as run:
        tensors, about = run.tensor_step("fit", {}, lambda: ({"w": value.T}, {"loss": 0.1}))
        again, _ = run.tensor_step("fit", {}, lambda: pytest.fail("made twice"))
    assert torch.equal(tensors["w"], value.T)
    assert torch.equal(again["w"], value.T)
    assert about == {"loss": 0.1}


def test_another_spec_is_refused_by_name_and_nothing_changes(tmp_path):
    opened(tmp_path / "r").close()
    before = sorted(p.name for p in (tmp_path / "r").iterdir())
    with pytest.raises(Conflict, match="seed: 0 → 1"):
        opened(tmp_path / "r", {"seed": 1, "data": {"text": "x"}})
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == before


def test_other_code_may_not_finish_a_run_but_may_look_at_a_finished_one(tmp_path):
    opened(tmp_path / "r").close()
    other = {**PROVENANCE, "source": "t"}
    with pytest.raises(Conflict, match="source"):
        opened(tmp_path / "r", provenance=other)
    with opened(tmp_path / "r") as run:
        run.finish({"a": 1})
    opened(tmp_path / "r", provenance=other).close()
    assert finished(tmp_path / "r").count == 0
    assert json.loads((tmp_path / "r" / "metrics.json").read_text()) == {"a": 1}
    assert (tmp_path / "r" / "ledger.sqlite").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(Conflict, match="other files"):
        opened(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "x"


def test_two_processes_do_not_share_a_run(tmp_path):
    with opened(tmp_path / "r"), pytest.raises(Conflict, match="another process"):
        opened(tmp_path / "r")


def test_a_newer_run_is_refused(tmp_path):
    opened(tmp_path / "r").close()
    header = json.loads((tmp_path / "r" / "run.json").read_text())
    (tmp_path / "r" / "run.json").write_text(json.dumps({**header, "schema": 99}))
    for attempt in (lambda: opened(tmp_path / "r"), lambda: read_header(tmp_path / "r")):
        with pytest.raises(NewerSchema, match="99"):
            attempt()


def test_paths_outside_the_run_are_refused(tmp_path):
    run = tmp_path / "r"
    run.mkdir()
    assert inside(run, "artefacts/x.json") == run.resolve() / "artefacts/x.json"
    (run / "link").symlink_to(tmp_path)
    for name in ("../x", "/etc/passwd", "a/../../x", "link/secret"):
        with pytest.raises(UnsafeFile, match="inside the run folder"):
            inside(run, name)


def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(BadInput, match=r"full disk .* resumes where it stopped"):
        write_json(path, {"new": 1})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "x") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="cannot be written"):
        write_bytes(tmp_path / "x", b"1")


def test_tensors_are_never_pickles(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match="not readable as safetensors"):
        load_tensors(tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match="does not exist"):
        load_tensors(tmp_path / "y.safetensors")
    save_tensors(tmp_path / "z.safetensors", {"w": torch.ones(2)})
    data = (tmp_path / "z.safetensors").read_bytes()
    (tmp_path / "z.safetensors").write_bytes(data[:-3])
    with pytest.raises(BadInput, match="not readable"):
        load_tensors(tmp_path / "z.safetensors")


def test_openings_outlive_runs_and_count_each_once(monkeypatch, tmp_path):
    monkeypatch.setenv("PROSECT_HOME", str(tmp_path / "home"))
    assert record_opening("data", "run-a") == 0
    assert record_opening("data", "run-a") == 0
    assert record_opening("data", "run-b") == 1
    assert record_opening("data", "run-a") == 0
    assert record_opening("other", "run-b") == 0
    with (tmp_path / "home" / "openings.jsonl").open("ab") as file:
        file.write(b'{"data":"da')
    assert record_opening("data", "run-c") == 2
    assert openings("data") == ["run-a", "run-b", "run-c"]


def test_differences_name_the_keys():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 2}, "d": 3}) == [
        "a.b: 1 → 2",
        "c: 2 → null",
        "d: null → 3",
    ]
    assert differences({"a": 1}, {"a": 1}) == []


def test_no_path_of_this_machine_is_in_a_header(tmp_path):
    opened(tmp_path / "r").close()
    assert str(Path(tmp_path)) not in (tmp_path / "r" / "run.json").read_text()


def test_a_deleted_run_gives_way_to_a_new_one(tmp_path):
    with opened(tmp_path / "r") as run:
        run.append(Note(about="x", text="y"))
    shutil.rmtree(tmp_path / "r")
    assert head_file(tmp_path / "r").exists()
    with opened(tmp_path / "r") as run:
        assert not run.resumed and run.ledger.head.count == 0
