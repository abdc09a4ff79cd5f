"""Training over a stream: killed at any moment it ends with the same bits, and bad streams are refused."""

import pytest
import torch

from killed import Killed, killing
from prosect.core.errors import BadInput, Conflict, NewerSchema, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.ranks import checkpoints as module
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer
from prosect.store import atomic
from prosect.store.tensors import load_tensors, save_tensors

STEPS = 24


def rows(n=32 * 12 + 5, d=8):
    generator = Seed(0).child("test").torch()
    s = (torch.rand(n, 12, generator=generator) < 0.2) * torch.rand(n, 12, generator=generator)
    return s @ torch.randn(12, d, generator=generator)


def stream(block=50, seed=0):
    # two epochs of 389 rows: 24 batches of 32, whose edges agree with those of neither blocks nor epochs
    return ArrayStream({"x": rows()}, block=block).shuffled(Seed(seed), epochs=2)


def dictionary(**changes):
    asked = {"latents": 16, "sparsity": TopK(2), "recipe": Recipe(batch=32, rate=1e-2, dead_after=100)}
    return Dictionary("x", **{**asked, **changes})


def bits(made):
    tensors, about = made.state()
    return {name: t.numpy().tobytes() for name, t in tensors.items()}, about


@pytest.fixture
def whole():
    made = dictionary().fit(stream())
    assert made.history_[-1]["step"] == STEPS
    return bits(made)


@pytest.mark.parametrize("every", [1, 5, 7, 100])
@pytest.mark.parametrize("steps", [1, 6, 13, STEPS])
def test_killed_between_checkpoints_it_ends_with_the_same_bits(tmp_path, monkeypatch, whole, every, steps):
    killing(monkeypatch, Trainer, "advance", steps)
    with pytest.raises(Killed):
        dictionary().fit(stream(), tmp_path, every)
    monkeypatch.undo()
    done = []
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda *given: done.append(advance(*given)))
    assert bits(dictionary().fit(stream(), tmp_path, every)) == whole
    assert len(done) == STEPS - (steps - 1) // every * every  # what a checkpoint held is not done again


@pytest.mark.parametrize("at", [1, -1, 2, -2])
def test_killed_while_writing_a_checkpoint_it_ends_with_the_same_bits(tmp_path, monkeypatch, whole, at):
    killing(monkeypatch, module, "save_tensors", at)
    with pytest.raises(Killed):
        dictionary().fit(stream(), tmp_path, 5)
    monkeypatch.undo()
    assert bits(dictionary().fit(stream(), tmp_path, 5)) == whole


@pytest.mark.parametrize("at", [1, 2])
def test_killed_before_a_checkpoint_takes_its_place_the_one_before_holds(tmp_path, monkeypatch, whole, at):
    killing(monkeypatch, atomic.os, "fsync", 2 * at - 1)  # the file, then the folder, for each checkpoint
    with pytest.raises(Killed):
        dictionary().fit(stream(), tmp_path, 5)
    monkeypatch.undo()
    found = [p.name for p in tmp_path.iterdir()]
    assert found == ([] if at == 1 else ["checkpoint.safetensors"])
    assert bits(dictionary().fit(stream(), tmp_path, 5)) == whole


def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path, monkeypatch, whole):
    for _ in range(20):
        with monkeypatch.context() as patch:
            killing(patch, Trainer, "advance", 4)
            try:
                made = dictionary().fit(stream(), tmp_path, 3)
                break
            except Killed:
                continue
    assert bits(made) == whole


def test_how_the_stream_is_cut_into_blocks_does_not_matter(whole):
    assert bits(dictionary().fit(stream(block=389)))[0] == whole[0]


def test_another_seed_gives_another_dictionary(whole):
    assert bits(dictionary(seed=Seed(1)).fit(stream()))[0] != whole[0]
    assert bits(dictionary().fit(stream(seed=1)))[0] != whole[0]


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    killing(monkeypatch, Trainer, "advance", 8)
    with pytest.raises(Killed):
        dictionary().fit(stream(), tmp_path, 5)
    monkeypatch.undo()
    for other, over in (
        (dictionary(latents=17), stream()),
        (dictionary(sparsity=TopK(3)), stream()),
        (dictionary(recipe=Recipe(batch=32, rate=2e-2, dead_after=100)), stream()),
        (dictionary(seed=Seed(1)), stream()),
        (dictionary(), stream(seed=1)),
    ):
        with pytest.raises(Conflict, match="another training"):
            other.fit(over, tmp_path, 5)
    path = tmp_path / "checkpoint.safetensors"
    tensors, about = load_tensors(path)
    save_tensors(path, tensors, {**about, "schema": 99})
    with pytest.raises(NewerSchema):
        dictionary().fit(stream(), tmp_path, 5)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="deleting it"):
        dictionary().fit(stream(), tmp_path, 5)


def test_nan_in_the_stream_is_named_and_leaves_the_dictionary_unfitted():
    x = rows()
    x[200, 3] = float("nan")
    made = dictionary(recipe=Recipe(batch=32, start_rows=64))
    with pytest.raises(NotFinite, match="1 of 50 positions of x in block 4"):
        made.fit(ArrayStream({"x": x}, block=50))
    with pytest.raises(BadInput, match="not fitted"):
        made.encode({"x": rows()})


def test_a_refit_that_fails_does_not_leave_the_old_fit_behind():
    made = dictionary().fit(stream())
    x = rows()
    x[200, 3] = float("inf")
    with pytest.raises(NotFinite):
        made.fit(ArrayStream({"x": x}))
    with pytest.raises(BadInput, match="not fitted"):
        made.encode({"x": rows()})


def test_too_short_a_stream_is_refused():
    with pytest.raises(TooLittleData, match="at least one batch of 32"):
        dictionary().fit(ArrayStream({"x": rows(31)}))
    with pytest.raises(BadInput, match="every 0 steps"):
        dictionary().fit(stream(), every=0)


def test_a_stream_shorter_than_it_says_is_refused():
    class Short(ArrayStream):
        def __len__(self):
            return 1000

    with pytest.raises(ShapeMismatch, match="as many as it says"):
        dictionary().fit(Short({"x": rows()}))


def test_the_history_shows_learning():
    made = dictionary().fit(ArrayStream({"x": rows(4000)}).shuffled(Seed(0), epochs=3))
    steps = [point["step"] for point in made.history_]
    assert steps == sorted(set(steps))
    assert 100 <= len(steps) <= 400
    assert made.history_[-1]["fvu"] < made.history_[0]["fvu"] / 2
    assert all(point["l0"] <= 2 for point in made.history_)
    assert "FVU" in made._repr_html_()
