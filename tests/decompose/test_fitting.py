"""A folder of fitted dictionaries: resumed to the same bits, finished once, refused to anything else."""

import errno
import functools
import json
import os

import pytest

from killed import Killed, killing
from prosect.core.errors import BadInput, Conflict, NewerSchema, NotFinite, TooLittleData
from prosect.core.progress import shown
from prosect.core.seeds import Seed
from prosect.decompose import fitting as module
from prosect.decompose import together
from prosect.decompose.activations import harvest
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.fit_record import RECORD, read_record
from prosect.decompose.fitting import WORK, Harvesting, fit_dictionaries
from prosect.decompose.keep import load_decomposition
from prosect.decompose.quality import measure
from prosect.decompose.ranks import checkpoints
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.trainer import Trainer
from prosect.store.lock import locked
from traced import SITES, Model, Text

RECIPE = Recipe(batch=16, rate=1e-2, dead_after=100, start_rows=60)
TOKENS = 240


@pytest.fixture(autouse=True, scope="module")
def _looked_up_once():
    """Git and the source are asked once, not for every fit."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "environment", functools.cache(module.environment))
        yield


def dictionaries(k=2):
    return {
        "first": Dictionary("resid_post.0", 8, TopK(k), recipe=RECIPE),
        "other": Dictionary("z.0", 6, TopK(1), recipe=RECIPE, seed=Seed(1)),
    }


def fitted(out, model=None, made=None, tokens=TOKENS, live=False, **options):
    how = options.pop("how", None) or Harvesting(live=live, rows=4, buffer=90)
    return fit_dictionaries(
        model or Model(), Text(), made or dictionaries(), out, tokens, harvesting=how, every=5, **options
    )


def kept(out):
    """Bytes of the dictionaries, and the record without how fast it was."""
    record = read_record(out)
    record.pop("speed", None)
    return {p.name: p.read_bytes() for p in sorted(out.glob("*.safetensors"))}, record


@pytest.fixture(scope="module", params=[False, True], ids=["harvested", "live"])
def whole(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "fit"
    fitted(out, live=request.param)
    return request.param, out


def test_what_is_kept_is_what_was_trained(whole):
    _, out = whole
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == [
        "first.safetensors",
        RECORD,
        "other.safetensors",
    ]
    record = read_record(out)
    assert record["complete"] and record["asked"]["model"] == "model" and record["asked"]["data"] == "text"
    assert {"torch", "prosect"} <= record["provenance"]["versions"].keys()
    assert record["speed"]["tokens per second"] > 0
    for entry in record["dictionaries"]:
        found = load_decomposition(out / entry["file"], "model")
        assert found.history_[-1]["step"] == TOKENS // 16
        assert 0 <= entry["FVU"][found.reads[0]] < 1 and entry["L0"] <= found.sparsity.k
    assert str(out.parent) not in (out / RECORD).read_text()


def test_the_figures_are_those_of_the_activations(tmp_path):
    """With no more tokens than there are, every position is seen and measured once."""
    everything = harvest(Model(), Text(), "explore", SITES, tmp_path / "a", rows=4)
    done = fitted(tmp_path / "fit", tokens=len(everything))
    for entry in done.record["dictionaries"]:
        quality = measure(done.dictionaries[entry["name"]], everything)
        assert entry["L0"] == pytest.approx(quality.l0)
        assert entry["FVU"] == pytest.approx(dict(quality.fvu))
        assert entry["dead"] == quality.dead


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        (Model, "run", 2),
        (Model, "run", 9),
        (Trainer, "start", 2),
        (Trainer, "advance", 18),
        (checkpoints, "save_tensors", 2),
        (module, "save_decomposition", 2),
        (module, "measure", 1),
        (module, "write_json", 2),
    ],
)
def test_killed_anywhere_it_ends_with_the_same_bits(tmp_path, monkeypatch, whole, owner, name, at):
    live, expected = whole
    killing(monkeypatch, owner, name, -at)
    with pytest.raises(Killed):
        fitted(tmp_path / "fit", live=live)
    monkeypatch.undo()
    assert fitted(tmp_path / "fit", live=live).fresh
    assert kept(tmp_path / "fit") == kept(expected)
    assert not (tmp_path / "fit" / WORK).exists()


def test_killed_again_and_again(tmp_path, monkeypatch, whole):
    live, expected = whole
    for _ in range(40):
        with monkeypatch.context() as patch:
            killing(patch, Trainer, "advance", -13)
            try:
                fitted(tmp_path / "fit", live=live)
                break
            except Killed:
                continue
    assert kept(tmp_path / "fit") == kept(expected)


def test_a_finished_folder_says_so_and_runs_nothing(whole, capsys):
    live, out = whole
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    model = Model(dies_at=0)
    with shown():
        again = fitted(out, model, live=live)
    assert not again.fresh and model.runs == 0
    assert "already done" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert set(again.dictionaries) == {"first", "other"} and again.dictionaries["first"].fitted


def test_a_dictionary_that_is_gone_is_made_again(tmp_path, whole):
    live, expected = whole
    fitted(tmp_path / "fit", live=live)
    (tmp_path / "fit" / "other.safetensors").unlink()
    assert fitted(tmp_path / "fit", live=live).fresh
    assert kept(tmp_path / "fit") == kept(expected)


def test_another_fit_in_the_same_folder_is_refused_with_what_differs(whole):
    live, out = whole
    before = kept(out)
    for options, named in (
        ({"tokens": 200}, "tokens: 240 → 200"),
        ({"made": dictionaries(k=3)}, r"dictionaries\.first\.sparsity\.k: 2 → 3"),
        ({"made": {"first": dictionaries()["first"]}}, r"dictionaries\.other.* → null"),
        ({"seed": Seed(9)}, r"seed\.root: 0 → 9"),
        ({"how": Harvesting(live=live, rows=3, buffer=90)}, r"activations\.rows: 4 → 3"),
    ):
        with pytest.raises(Conflict, match=named):
            fitted(out, live=live, **options)
    other = Model()
    other.digest = "another model"
    with pytest.raises(Conflict, match='model: "model" → "another model"'):
        fitted(out, other, live=live)
    assert kept(out) == before


def test_a_fit_begun_elsewhere_is_not_gone_on_with(tmp_path, monkeypatch):
    killing(monkeypatch, Trainer, "advance", -20)
    with pytest.raises(Killed):
        fitted(tmp_path / "fit")
    monkeypatch.undo()
    path = tmp_path / "fit" / RECORD
    record = json.loads(path.read_text())
    record["provenance"]["versions"]["torch"] = "0.1"
    path.write_text(json.dumps(record))
    with pytest.raises(Conflict, match=r"begun elsewhere \(versions\.torch"):
        fitted(tmp_path / "fit")
    path.write_text(json.dumps({**record, "schema": 99}))
    with pytest.raises(NewerSchema):
        fitted(tmp_path / "fit")
    path.write_text("{")
    with pytest.raises(BadInput, match="unreadable"):
        fitted(tmp_path / "fit")


def test_rounds_do_not_change_the_bits(tmp_path, whole):
    live, expected = whole
    most = max(together.training_bytes(d, dict.fromkeys(SITES, 4)) for d in dictionaries().values())
    fitted(tmp_path / "fit", live=live, memory=most)
    assert kept(tmp_path / "fit") == kept(expected)


def test_activations_kept_for_other_fits(tmp_path):
    how = Harvesting(rows=4, folder=tmp_path / "kept", dtype="float16")
    model = Model()
    fitted(tmp_path / "one", model, how=how)
    runs = model.runs
    fitted(tmp_path / "two", model, made=dictionaries(k=3), how=how)
    assert model.runs == runs + 1  # a batch to see that nothing is to be refused
    assert (tmp_path / "kept").exists()
    fitted(tmp_path / "three", model, tokens=64, how=how)  # fewer of them do too
    assert model.runs == runs + 2
    with pytest.raises(Conflict, match="dtype: "):
        fitted(tmp_path / "four", how=Harvesting(rows=4, folder=tmp_path / "kept"))


def test_what_cannot_be_fitted_is_refused_and_leaves_no_folder(tmp_path):
    out = tmp_path / "fit"
    with pytest.raises(BadInput, match="'int8'"):
        Harvesting(dtype="int8")
    for error, match, options in (
        (BadInput, "no dictionaries", {"made": {}}),
        (BadInput, "names of files", {"made": {"a/b": dictionaries()["first"]}}),
        (TooLittleData, "15 tokens", {"tokens": 15}),
        (BadInput, "GiB to be trained", {"memory": 100}),
        (KeyError, "resid", {"made": {"a": Dictionary("resid", 8, TopK(2), recipe=RECIPE)}}),
        (NotFinite, "resid_post", {"model": Model(bad_token=1)}),
    ):
        with pytest.raises(error, match=match):
            fit_dictionaries(
                options.get("model", Model()),
                Text(),
                options.get("made", dictionaries()),
                out,
                options.get("tokens", TOKENS),
                harvesting=options.get("how", Harvesting(rows=4)),
                memory=options.get("memory"),
            )
        assert not out.exists(), match
    with pytest.raises(TooLittleData, match="no documents in empty"):
        fitted(out, part="empty")
    assert not out.exists()
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    with pytest.raises(Conflict, match="other files"):
        fitted(out)
    assert [p.name for p in out.iterdir() if p.name != ".lock"] == ["letter.txt"]


def test_nan_in_the_middle_is_named_and_nothing_is_lost(tmp_path, whole):
    live, expected = whole
    with pytest.raises(NotFinite, match=r"positions of resid_post\.0 in batch \d"):
        fitted(tmp_path / "fit", Model(bad_token=Text().count // 2), live=live)
    fitted(tmp_path / "fit", live=live)
    assert kept(tmp_path / "fit") == kept(expected)


@pytest.mark.parametrize("at", [3, 5, 11])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, at):
    fitted(tmp_path / "whole")
    calls = []
    sync = os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match=r"a full disk.*resumes where it stopped"):
        fitted(tmp_path / "fit")
    monkeypatch.undo()
    fitted(tmp_path / "fit")
    assert kept(tmp_path / "fit") == kept(tmp_path / "whole")
    assert not list((tmp_path / "fit").rglob("*.part"))


def test_activations_that_the_disk_cannot_hold_are_refused_before_any_is_made(tmp_path, monkeypatch):
    class Usage:
        free = 100

    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: Usage)
    model = Model()
    with pytest.raises(BadInput, match=r"GiB of activations.*--live"):
        fitted(tmp_path / "fit", model)
    assert model.runs == 1
    assert fitted(tmp_path / "live", live=True).fresh


def test_a_damaged_shard_is_named(tmp_path, monkeypatch):
    killing(monkeypatch, Trainer, "advance", -20)
    with pytest.raises(Killed):
        fitted(tmp_path / "fit")
    monkeypatch.undo()
    shard = tmp_path / "fit" / WORK / "activations" / "000000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(BadInput, match=r"000000\.safetensors, which was changed.*deleting"):
        fitted(tmp_path / "fit")
    shard.unlink()
    fitted(tmp_path / "fit")
    fitted(tmp_path / "whole")
    assert kept(tmp_path / "fit") == kept(tmp_path / "whole")


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path / "fit"), pytest.raises(Conflict, match="another process"):
        fitted(tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


def test_training_on_a_device_is_fed_by_a_thread(tmp_path, monkeypatch):
    """There is no device here: that the model is elsewhere is pretended."""
    seen = []

    class Watched(module.LiveStream):
        def blocks(self):
            return self.enter(0)[1]

        def enter(self, skip):
            seen.append(self.ahead)
            return super().enter(skip)

    monkeypatch.setattr(module, "LiveStream", Watched)
    fitted(tmp_path / "here", live=True)
    assert set(seen) == {False}
    seen.clear()
    monkeypatch.setattr(module._Fit, "_elsewhere", lambda self: True)
    fitted(tmp_path / "there", live=True)
    assert set(seen) == {True}
    assert kept(tmp_path / "here") == kept(tmp_path / "there")
