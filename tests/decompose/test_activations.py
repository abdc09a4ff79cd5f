"""Harvesting and streaming: real positions only, bounded memory, the same bytes after a kill."""

import errno
import json
import os
import weakref
from pathlib import Path

import pytest
import torch

from prosect.core.errors import BadInput, Conflict, NotFinite, TooLittleData, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.decompose import activations
from prosect.decompose.activations import ShardStream, harvest, open_activations
from prosect.decompose.streams import ArrayStream, batches, first, whole
from prosect.store.shards import INDEX, Shards
from traced import SITES, Model, Text, everything


def harvested(folder, model=None, text=None, shard_bytes=2000, **options):
    options = {"rows": 4, "shard_bytes": shard_bytes, **options}
    return harvest(model or Model(), text or Text(), "explore", SITES, folder, **options)


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


def test_real_positions_come_back_in_the_order_of_the_text(tmp_path):
    text = Text()
    stream = harvested(tmp_path / "a", text=text)
    assert len(stream) == text.count
    assert stream.sites == SITES
    assert stream.widths == {"resid_post.0": 4, "z.0": 4}
    assert torch.equal(everything(stream)[:, 0], torch.arange(1.0, text.count + 1))
    assert torch.equal(everything(stream, "z.0"), everything(stream))
    again = open_activations(tmp_path / "a")
    assert again.digest == stream.digest
    assert torch.equal(everything(again), everything(stream))
    assert "resid_post.0" in repr(stream)


def test_shards_are_bounded_and_no_batch_is_lost_at_their_edges(tmp_path):
    per_row = 2 * 4 * 4
    for shard_bytes in (per_row, 7 * per_row, 50 * per_row + 3, 10**9):
        stream = harvested(tmp_path / str(shard_bytes), text=Text(6), shard_bytes=shard_bytes)
        rows = [s.rows for s in stream.shards.shards]
        assert set(rows[:-1]) <= {shard_bytes // per_row}
        assert sum(rows) == len(stream) == Text(6).count
        assert torch.equal(everything(stream)[:, 0], torch.arange(1.0, len(stream) + 1))


@pytest.mark.parametrize("dies_at", [0, 1, 3, 7, 9])
def test_a_killed_harvest_goes_on_to_the_same_bytes(tmp_path, dies_at):
    harvested(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        harvested(tmp_path / "killed", Model(dies_at=dies_at))
    with pytest.raises(BadInput, match="goes on where it stopped"):
        open_activations(tmp_path / "killed")
    rest = Model()
    harvested(tmp_path / "killed", rest)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert rest.runs <= 10 - dies_at + 2  # it does not run again what is on disk: two shards hold a batch


def test_killed_between_the_last_shard_and_the_mark_that_it_is_the_last(tmp_path, monkeypatch):
    harvested(tmp_path / "whole")
    monkeypatch.setattr(Shards, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        harvested(tmp_path / "killed")
    monkeypatch.undo()
    model = Model()
    harvested(tmp_path / "killed", model)
    assert model.runs == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_finished_harvest_is_not_run_again(tmp_path):
    harvested(tmp_path / "a")
    model = Model(dies_at=0)
    assert len(harvested(tmp_path / "a", model)) == Text().count


def test_a_damaged_shard_is_named_and_can_be_made_again(tmp_path):
    stream = harvested(tmp_path / "a")
    before = content(tmp_path / "a")
    path = tmp_path / "a" / "000002.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"000002\.safetensors, which was changed.*deleting"):
        everything(stream)
    path.unlink()
    harvested(tmp_path / "a")
    assert content(tmp_path / "a") == before


def test_a_limit_cuts_inside_a_batch(tmp_path):
    text = Text()
    stream = harvested(tmp_path / "a", text=text, limit=33)
    assert text.asked < 4  # what lies beyond is not even looked at
    assert torch.equal(everything(stream)[:, 0], torch.arange(1.0, 34.0))
    assert len(harvested(tmp_path / "b", limit=10**6)) == Text().count


def test_numbers_are_kept_as_asked(tmp_path):
    stream = harvested(tmp_path / "a", dtype=torch.float16)
    assert everything(stream).dtype == torch.float16
    assert everything(harvested(tmp_path / "b")).dtype == torch.float32


def test_numbers_too_large_for_half_precision_are_refused_by_site_and_batch(tmp_path):
    class Loud(Model):
        def run(self, batch, capture=(), **options):
            return {site: 1e5 * x for site, x in super().run(batch, capture, **options).items()}

    with pytest.raises(NotFinite, match=r"of resid_post\.0 in batch 0 of explore, too large for .*float16"):
        harvested(tmp_path / "a", Loud(), dtype=torch.float16)
    kept = harvested(tmp_path / "b", Loud(), dtype=torch.bfloat16)
    x = everything(harvested(tmp_path / "c", Loud()))
    assert everything(kept).dtype == torch.bfloat16
    assert torch.allclose(everything(kept).float(), x, rtol=2**-8)


def test_half_precision_takes_half_the_bytes(tmp_path):
    sizes = {}
    for dtype in (None, torch.float16):
        kept = harvested(tmp_path / str(dtype), dtype=dtype, shard_bytes=10**6)
        sizes[dtype] = sum(s.size for s in kept.shards.shards)
    assert 0.4 < sizes[torch.float16] / sizes[None] < 0.6


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_full_disk_in_the_middle_of_a_shard_loses_nothing(tmp_path, monkeypatch, at):
    harvested(tmp_path / "whole", shard_bytes=640)
    calls = []
    write = Path.write_bytes

    def full(self, data):
        calls.append(self)
        if len(calls) == at:
            write(self, data[: len(data) // 2])  # half of it fits
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BadInput, match=r"a full disk while writing .*resumes where it stopped"):
        harvested(tmp_path / "a", shard_bytes=640)
    monkeypatch.undo()
    assert not [p for p in (tmp_path / "a").iterdir() if p.name.endswith(".part")]
    model = Model()
    harvested(tmp_path / "a", model, shard_bytes=640)
    assert content(tmp_path / "a") == content(tmp_path / "whole")
    assert model.runs <= 10


def test_a_shard_cut_short_is_named(tmp_path):
    stream = harvested(tmp_path / "a")
    path = tmp_path / "a" / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BadInput, match=r"000001\.safetensors with .* bytes.*that were written"):
        everything(stream)


def test_what_is_not_finite_is_named_and_nothing_is_lost(tmp_path):
    bad = Text().count // 2
    with pytest.raises(NotFinite, match=r"1 of .* positions of resid_post\.0 in batch \d of explore"):
        harvested(tmp_path / "a", Model(bad_token=bad), shard_bytes=640)
    harvested(tmp_path / "a", shard_bytes=640)
    assert open_activations(tmp_path / "a")


def test_bad_requests_are_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / "a"
    for sites, error in (((), BadInput), (("z.0", "z.0"), BadInput), (("probs.0",), Unsupported)):
        with pytest.raises(error):
            harvest(Model(), Text(), "explore", sites, folder)
    with pytest.raises(BadInput, match="limit"):
        harvest(Model(), Text(), "explore", SITES, folder, limit=0)
    assert not folder.exists()
    with pytest.raises(TooLittleData, match="empty"):
        harvest(Model(), Text(), "empty", SITES, folder)
    with pytest.raises(UnknownName, match="part"):
        harvest(Model(), Text(), "sealed", SITES, tmp_path / "b")


def test_a_folder_of_other_activations_is_refused(tmp_path):
    harvested(tmp_path / "a")
    with pytest.raises(Conflict, match="rows: 4 → 8"):
        harvested(tmp_path / "a", rows=8)


def test_the_model_is_told_where_it_may_stop(tmp_path):
    model = Model()
    harvested(tmp_path / "a", model)
    assert model.options == {"finite": False, "stop_early": True}
    harvested(tmp_path / "b", model, stop_early=False)
    assert model.options["stop_early"] is False
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_inputs_without_positions_are_one_row_each(tmp_path):
    class Table(Text):
        def batches(self, part, rows=32):
            for start in (0, 3):
                yield Batch({"input_ids": torch.arange(start, start + 3)}, None, (Row(0),) * 3)

    stream = harvested(tmp_path / "a", text=Table())
    assert everything(stream)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_harvesting_writes_as_it_goes(tmp_path):
    """Memory cannot grow with the corpus if no batch is asked for before earlier ones are on disk."""
    text, folder = Text(400), tmp_path / "a"
    behind = []

    class Watching(Model):
        def run(self, batch, capture=(), **options):
            index = json.loads((folder / INDEX).read_bytes())
            seen = int(batch.tensors["input_ids"].max())
            behind.append(seen - sum(s["rows"] for s in index["shards"]))
            return super().run(batch, capture, **options)

    harvested(folder, Watching(), text)
    assert len(behind) == 100
    assert max(behind) <= 2000 // 32 + 2 * 4 * 11


def test_streaming_holds_a_few_shards_only(tmp_path, monkeypatch):
    stream = harvested(tmp_path / "a", shard_bytes=320)
    assert len(stream.shards) > 20
    alive, loads = weakref.WeakSet(), []
    load = Shards.load

    def watched(self, number):
        tensors = load(self, number)
        alive.update(tensors.values())
        loads.append(self.shards[number].rows)
        return tensors

    monkeypatch.setattr(Shards, "load", watched)
    given = 0
    for block in ShardStream(stream.shards, Seed(0), buffer=3, block=7).blocks():
        assert len(alive) <= 3 * len(SITES)
        assert sum(loads) - given <= 3 * 10  # rows read ahead: at most three shards of ten
        given += len(block["z.0"])
    assert given == sum(loads) == len(stream)


def test_shuffling_permutes_rows_alike_at_every_site_and_anew_in_each_epoch(tmp_path):
    plain = harvested(tmp_path / "a", shard_bytes=320)
    stream = plain.shuffled(Seed(5), epochs=3)
    n = len(plain)
    assert len(stream) == 3 * n
    x, z = everything(stream), everything(stream, "z.0")
    assert torch.equal(x, z)
    epochs = x[:, 0].reshape(3, n)
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, torch.arange(1.0, n + 1))
        correlation = torch.corrcoef(torch.stack([epoch, torch.arange(1.0, n + 1)]))[0, 1]
        assert abs(correlation) < 0.3  # documents do not follow one another as in the text
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


def test_a_seed_gives_the_same_order_each_time_and_another_one_another(tmp_path):
    plain = harvested(tmp_path / "a", shard_bytes=320)
    one, same, other = (plain.shuffled(Seed(i)) for i in (5, 5, 6))
    assert torch.equal(everything(one), everything(one))
    assert torch.equal(everything(one), everything(same))
    assert not torch.equal(everything(one), everything(other))
    assert one.digest == same.digest != other.digest
    assert one.digest != plain.digest
    assert one.digest != plain.shuffled(Seed(5), epochs=2).digest


def test_bad_streams_are_refused(tmp_path):
    plain = harvested(tmp_path / "a")
    for make in (
        lambda: plain.shuffled(Seed(0), epochs=0),
        lambda: ShardStream(plain.shards, buffer=0),
        lambda: ArrayStream({"x": torch.zeros(3, 2)}, epochs=0),
        lambda: ArrayStream({"x": torch.zeros(3, 2), "y": torch.zeros(2, 2)}),
        lambda: ArrayStream({"x": torch.zeros(0, 2)}),
        lambda: ArrayStream({}),
    ):
        with pytest.raises(BadInput):
            make()


def test_batches_are_the_rows_of_the_stream_wherever_it_is_entered():
    x = torch.arange(103.0)[:, None]
    for block in (1, 7, 10, 64, 500):
        stream = ArrayStream({"x": x}, block=block)
        for skip in (0, 10, 25, 103):
            found = [b["x"] for b in batches(stream, ("x",), 10, skip=skip)]
            assert [len(b) for b in found] == [10] * ((103 - skip) // 10)
            expected = x[skip : skip + 10 * len(found)]
            assert torch.equal(torch.cat([*found, x[:0]]), expected)


def test_the_first_rows_of_a_stream():
    stream = ArrayStream({"x": torch.arange(100.0)[:, None]}, block=8)
    assert torch.equal(first(stream, 13).arrays["x"][:, 0], torch.arange(13.0))
    assert len(first(stream, 1000)) == 100


def test_a_whole_array_within_its_budget_or_not_at_all():
    stream = ArrayStream({"x": torch.randn(100, 3)}, block=9)
    found = whole("ica@x", stream, "x", budget=100 * 3 * 8 * 2, copies=2)
    assert torch.equal(found, stream.arrays["x"].double())
    with pytest.raises(Unsupported, match=r"ica@x.*first\(stream, 99\)"):
        whole("ica@x", stream, "x", budget=100 * 3 * 8 * 2 - 1, copies=2)


def test_a_stream_with_nan_is_refused_by_site_and_block():
    x = torch.zeros(50, 2)
    x[33, 1] = float("inf")
    with pytest.raises(NotFinite, match="1 of 10 positions of x in block 3"):
        first(ArrayStream({"x": x}, block=10), 50)


def test_the_default_shard_is_64_mebibytes():
    assert activations.SHARD_BYTES == 64 * 2**20
