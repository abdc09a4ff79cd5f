"""Activations made while they are used: the same rows as on disk, from the seed alone, wherever entered."""

import threading

import pytest
import torch

from prosect.core.errors import BadInput, NotFinite, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.activations import harvest
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.live import LiveStream, Shuffles, in_advance
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream, Enterable, batches, finite_blocks, limited
from traced import SITES, Model, Text, everything


class Shuffling(Text):
    """A source that can go through its documents in another order, and says which it gave."""

    def __init__(self, documents=40):
        super().__init__(documents)
        self.orders = []

    def shuffled(self, part, seed):
        made = Text(0)
        order = seed.numpy().permutation(len(self.lengths))
        self.orders.append(tuple(order))
        given = list(Text(len(self.lengths)).batches(part, 1))
        made.batches = lambda part, rows=32: (given[i] for i in order)
        return made


def live(positions=None, **changes):
    text = changes.pop("text", None) or Text()
    model = changes.pop("model", None) or Model()
    options = {"seed": Seed(4), "rows": 4, "buffer": 60, "block": 17, **changes}
    return LiveStream(model, text, "explore", SITES, positions or text.count, **options)


def test_they_are_the_activations_that_harvesting_keeps(tmp_path):
    stream = live()
    kept = harvest(Model(), Text(), "explore", SITES, tmp_path / "a", rows=4)
    assert len(stream) == len(kept)
    assert stream.widths == kept.widths and stream.sites == kept.sites
    for site in SITES:
        x = everything(stream, site)
        assert torch.equal(x[x[:, 0].argsort()], everything(kept, site))
    assert "as they are used" in repr(stream)


@pytest.mark.parametrize("ahead", [False, True])
def test_the_arguments_determine_what_comes(ahead):
    once = everything(live(400, ahead=ahead))
    assert torch.equal(once, everything(live(400)))
    assert torch.equal(once, everything(live(400, block=999)))  # how it is cut does not matter
    for other in (live(400, seed=Seed(5)), live(400, buffer=61), live(400, rows=3)):
        assert not torch.equal(once, everything(other))
        assert other.digest != live(400).digest
    assert live(400, block=999, ahead=True).digest == live(400).digest


def test_neighbours_come_from_different_documents():
    x = everything(live(buffer=200))[:, 0]
    together = (x[1:] - x[:-1]).abs() == 1
    assert float(together.double().mean()) < 0.05


def test_it_goes_round_as_often_as_needed_and_stops_at_the_position():
    count = Text().count
    x = everything(live(2 * count + 7, buffer=count))[:, 0]
    assert len(x) == 2 * count + 7
    assert torch.equal(x[:count].sort().values, torch.arange(1.0, count + 1))
    model = Model()
    everything(live(5, model=model, buffer=10**6))
    assert model.runs == 1  # no more is run than is given


def test_documents_come_in_another_order_each_time_round():
    text = Shuffling()
    assert isinstance(text, Shuffles) and not isinstance(Text(), Shuffles)
    everything(live(2 * text.count, text=text, rows=1))
    assert len(set(text.orders)) == 2
    assert sorted(text.orders[0]) == list(range(40))


@pytest.mark.parametrize("skip", [0, 1, 16, 59, 60, 61, 130, 263, 399, 400])
def test_entered_anywhere_it_goes_on_with_the_same_rows_and_runs_little(skip):
    whole = everything(live(400))
    model = Model()
    stream = live(400, model=model)
    assert isinstance(stream, Enterable)
    passed, blocks = stream.enter(skip)
    assert passed <= skip
    rest = [block["resid_post.0"] for block in blocks]
    assert torch.equal(torch.cat([whole[:0], *rest]), whole[passed:])
    assert skip - passed < 60 + 4 * 11  # less than a buffer and the batch that filled it
    every = Model()
    everything(live(400, model=every))
    assert model.runs <= every.runs * (1 - passed / 400) + 1


def test_batches_do_not_depend_on_where_a_stream_is_entered(tmp_path):
    kept = harvest(Model(), Text(), "explore", SITES, tmp_path / "a", rows=4, shard_bytes=320)
    for stream in (
        live(400),
        kept.shuffled(Seed(1), epochs=3),
        limited(live(400), 333),
        ArrayStream({site: everything(kept, site) for site in SITES}),
    ):
        whole = [b["z.0"] for b in batches(stream, SITES, 16)]
        for skip in (0, 16, 64, 240):
            found = [b["z.0"] for b in batches(stream, SITES, 16, skip=skip)]
            assert len(found) == len(whole) - skip // 16
            assert all(torch.equal(a, b) for a, b in zip(found, whole[skip // 16 :], strict=True))


def test_shards_that_lie_before_are_not_read(tmp_path, monkeypatch):
    kept = harvest(Model(), Text(), "explore", SITES, tmp_path / "a", rows=4, shard_bytes=320)
    loads = []
    load = type(kept.shards).load
    monkeypatch.setattr(type(kept.shards), "load", lambda self, i: (loads.append(i), load(self, i))[1])
    stream = kept.shuffled(Seed(1), epochs=2)
    skip = len(stream) - 25
    assert sum(len(b["z.0"]) for b in finite_blocks(stream, SITES, skip)) == 25
    assert len(loads) <= 2 * 4  # groups of four shards of ten rows


def test_a_stream_cut_short():
    stream = live(400)
    cut = limited(stream, 123)
    assert len(cut) == 123 and cut.widths == stream.widths and cut.sites == stream.sites
    assert torch.equal(everything(cut), everything(stream)[:123])
    assert limited(stream, 400) is stream
    assert len({cut.digest, stream.digest, limited(stream, 124).digest}) == 3
    for wrong in (0, 401):
        with pytest.raises(TooLittleData):
            limited(stream, wrong)
    whole = ArrayStream({"x": torch.arange(50.0)[:, None]}, block=10)
    assert [len(b["x"]) for b in limited(whole, 20).blocks()] == [10, 10]


def test_a_cut_stream_makes_nothing_beyond():
    model = Model()
    everything(limited(live(400, model=model, buffer=1), 3))
    assert model.runs <= 2  # one of them to see how wide the sites are


@pytest.mark.parametrize("dies_at", [5, 9, 13])
def test_training_on_it_killed_and_resumed_gives_the_same_bits(tmp_path, dies_at):
    def dictionary():
        recipe = Recipe(batch=20, rate=1e-2, dead_after=100, start_rows=50)
        return Dictionary("resid_post.0", 8, TopK(2), recipe=recipe)

    whole = dictionary().fit(live(400))
    with pytest.raises(KeyboardInterrupt):
        dictionary().fit(live(400, model=Model(dies_at=dies_at)), tmp_path, every=3)
    again = dictionary().fit(live(400, ahead=True), tmp_path, every=3)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state()[0].values(), again.state()[0].values(), strict=True)
    )


def test_what_cannot_be_streamed_is_refused():
    for wrong in ({"positions": -1}, {"rows": 0}, {"buffer": 0}, {"block": 0}):
        with pytest.raises(BadInput):
            live(**{"positions": 10, **wrong})
    with pytest.raises(Unsupported):
        LiveStream(Model(), Text(), "explore", ("probs.0",), 10)
    with pytest.raises(TooLittleData, match="empty"):
        next(LiveStream(Model(), Text(), "empty", SITES, 10).blocks())
    with pytest.raises(NotFinite, match=r"resid_post\.0 in batch \d of explore, time 1 round"):
        everything(live(400, model=Model(bad_token=100)))


def test_nothing_goes_missing_when_made_in_advance():
    assert list(in_advance(iter(range(5)))) == list(range(5))
    assert list(in_advance(iter(()))) == []

    def failing():
        yield 1
        raise NotFinite("NaN", "numbers")

    found = []
    with pytest.raises(NotFinite):
        for item in in_advance(failing()):
            found.append(item)
    assert found == [1]


def test_one_item_is_made_ahead_and_no_thread_stays():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    before = threading.active_count()
    taken = in_advance(items())
    assert next(taken) == 0
    taken.close()
    assert len(made) <= 2
    assert threading.active_count() == before
