"""Shards: rows come back as written, whatever killed the writer; damage is found and named."""

import json

import pytest
import torch

from prosect.core.errors import BadInput, Conflict, NewerSchema, ShapeMismatch, UnsafeFile
from prosect.store import shards as module
from prosect.store.shards import INDEX, Shards

ABOUT = {"what": "test", "sites": ["x"]}


def rows(start, n=5):
    return {"x": torch.arange(start, start + n, dtype=torch.float32)[:, None].repeat(1, 3)}


def written(folder, count=3, finish=True):
    shards = Shards.begin(folder, ABOUT)
    for i in range(len(shards), count):
        shards.append(rows(5 * i))
    if finish:
        shards.finish()
    return shards


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_rows_come_back_in_order(tmp_path):
    made = written(tmp_path / "s")
    found = Shards.open(tmp_path / "s")
    assert found.about == ABOUT
    assert found.rows == 15
    assert torch.equal(torch.cat([found.load(i)["x"] for i in range(len(found))]), rows(0, 15)["x"])
    assert found.digest == made.digest
    assert {s.size for s in found.shards} == {(tmp_path / "s" / "000000.safetensors").stat().st_size}


def test_the_digest_sees_rows_and_what_they_are(tmp_path):
    one = written(tmp_path / "a")
    other = Shards.begin(tmp_path / "b", ABOUT)
    other.append(rows(1))
    renamed = Shards.begin(tmp_path / "c", {**ABOUT, "part": "explore"})
    for i in range(3):
        renamed.append(rows(5 * i))
    assert len({one.digest, other.digest, renamed.digest}) == 3


def test_an_interrupted_writer_goes_on_to_the_same_bytes(tmp_path):
    written(tmp_path / "whole")
    for done in range(4):
        folder = tmp_path / f"stopped-{done}"
        written(folder, done, finish=False)
        with pytest.raises(BadInput, match=f"only {5 * done} rows"):
            Shards.open(folder)
        written(folder)
        assert content(folder) == content(tmp_path / "whole")


@pytest.mark.parametrize("where", ["file", "index"])
def test_killed_while_writing_it_names_complete_shards_only(tmp_path, monkeypatch, where):
    written(tmp_path / "whole")
    folder = tmp_path / "killed"
    shards = written(folder, 2, finish=False)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_bytes" if where == "file" else "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        shards.append(rows(10))
    monkeypatch.undo()
    assert len(json.loads((folder / INDEX).read_bytes())["shards"]) == 2
    written(folder)
    assert content(folder) == content(tmp_path / "whole")


def test_a_shard_cut_short_is_named(tmp_path):
    shards = written(tmp_path / "s")
    path = tmp_path / "s" / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    shards.load(0)
    with pytest.raises(BadInput, match=r"000001\.safetensors with .* bytes.*deleting 000001"):
        shards.load(1)


@pytest.mark.parametrize("at", [3, 20, -1])
def test_a_flipped_bit_is_found(tmp_path, at):
    shards = written(tmp_path / "s")
    path = tmp_path / "s" / "000002.safetensors"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"000002\.safetensors, which was changed"):
        shards.load(2)


def test_deleting_the_damaged_shard_mends_the_folder(tmp_path):
    written(tmp_path / "whole")
    written(tmp_path / "s")
    (tmp_path / "s" / "000001.safetensors").unlink()
    with pytest.raises(BadInput, match="is gone"):
        Shards.open(tmp_path / "s").load(1)
    again = Shards.begin(tmp_path / "s", ABOUT)
    assert len(again) == 1
    assert not again.complete
    written(tmp_path / "s")
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_rows_of_something_else_are_refused(tmp_path):
    written(tmp_path / "s")
    before = content(tmp_path / "s")
    with pytest.raises(Conflict, match=r"what: \"test\" → \"other\""):
        Shards.begin(tmp_path / "s", {**ABOUT, "what": "other"})
    assert content(tmp_path / "s") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(Conflict, match="other files"):
        Shards.begin(tmp_path / "mine", ABOUT)


def test_an_index_that_is_none_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"holds no index\.json"):
        Shards.open(tmp_path)
    for bad in ("{", "[]", "{}", '{"schema":1,"shards":[{"file":"x"}],"about":0,"complete":true}'):
        (tmp_path / INDEX).write_text(bad)
        with pytest.raises(BadInput, match="unreadable"):
            Shards.open(tmp_path)
    (tmp_path / INDEX).write_text('{"schema":99}')
    with pytest.raises(NewerSchema):
        Shards.open(tmp_path)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    shards = written(tmp_path / "s")
    index = tmp_path / "s" / INDEX
    index.write_text(index.read_text().replace("000000.safetensors", "../secret.safetensors"))
    (tmp_path / "secret.safetensors").write_bytes((tmp_path / "s" / "000000.safetensors").read_bytes())
    shards = Shards.open(tmp_path / "s")
    with pytest.raises(UnsafeFile):
        shards.load(0)
    with pytest.raises(UnsafeFile):
        Shards.begin(tmp_path / "s", ABOUT)


def test_shards_without_rows_or_with_uneven_ones_are_refused(tmp_path):
    shards = Shards.begin(tmp_path / "s", ABOUT)
    for bad in ({}, {"x": torch.zeros(0, 2)}, {"x": torch.zeros(2, 2), "y": torch.zeros(3, 2)}):
        with pytest.raises(ShapeMismatch):
            shards.append(bad)
    assert [p.name for p in (tmp_path / "s").iterdir()] == [INDEX]


def test_shapes_are_read_without_the_rows(tmp_path, monkeypatch):
    found = written(tmp_path / "s")
    monkeypatch.setattr(Shards, "load", None)
    assert found.shapes(0) == {"x": (5, 3)}
    path = tmp_path / "s" / "000000.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadInput, match=r"000000\.safetensors, which is unreadable.*deleting"):
        found.shapes(0)
    path.unlink()
    with pytest.raises(BadInput, match="which is gone"):
        found.shapes(0)
