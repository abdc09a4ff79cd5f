"""Training side by side: each dictionary's bits are those it has alone, whoever is beside it and whatever kills it."""

import pytest
import torch

from killed import Killed, killing
from prosect.core.errors import BadInput, Conflict, NewerSchema, NotFinite, TooLittleData, UnknownName
from prosect.core.progress import shown
from prosect.core.seeds import Seed
from prosect.decompose import together as module
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.objectives import L1, BatchTopK, JumpReLU
from prosect.decompose.ranks import checkpoints
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.together import batch_rows, rounds, train_together, training_bytes
from prosect.decompose.trainer import Trainer
from prosect.store.tensors import load_tensors, save_tensors

RECIPE = Recipe(batch=32, rate=1e-2, dead_after=100, start_rows=200)
STEPS = 24


def rows(n=389, d=8, seed=0):
    generator = Seed(seed).child("test").torch()
    s = (torch.rand(n, 12, generator=generator) < 0.2) * torch.rand(n, 12, generator=generator)
    return s @ torch.randn(12, d, generator=generator)


def stream(seed=0, **arrays):
    return ArrayStream({"x": rows(), "y": rows(d=5, seed=1), **arrays}, block=50).shuffled(
        Seed(seed), epochs=2
    )


def dictionaries():
    def one(sites="x", latents=16, k=2, seed=0, recipe=RECIPE, **options):
        return Dictionary(sites, latents, TopK(k), seed=Seed(seed), recipe=recipe, **options)

    return {
        "plain": one(),
        "wide": one(latents=24, k=3),
        "seed": one(seed=1),
        "early": one(recipe=Recipe(batch=32, rate=1e-2, start_rows=64)),
        "transcoder": one(targets="y", skip=True),
        "crosscoder": one(sites=("x", "y")),
        "batchtopk": Dictionary("x", 16, BatchTopK(2), recipe=RECIPE),
        "jumprelu": Dictionary("x", 16, JumpReLU(2.0), recipe=RECIPE),
        "l1": Dictionary("x", 16, L1(0.02), recipe=RECIPE),
    }


def bits(made):
    tensors, about = made.state()
    return {name: t.numpy().tobytes() for name, t in tensors.items()}, about


@pytest.fixture(scope="module")
def alone():
    return {name: bits(d.fit(stream())) for name, d in dictionaries().items()}


def test_each_ends_as_it_would_alone_after_one_pass(alone):
    passes = []

    class Watched(ArrayStream):
        def blocks(self):
            passes.append(0)
            for block in super().blocks():
                passes[-1] += len(block["x"])
                yield block

    made = dictionaries()
    over = stream()
    watched = Watched(over.arrays, over.seed, over.epochs, over.block)
    assert train_together(made, watched) == STEPS * 32
    assert {name: bits(d) for name, d in made.items()} == alone
    assert len(passes) == 3  # to start from, to train on, and to calibrate on
    assert passes[0] <= 250 and passes[1] <= len(over)


def test_order_and_company_do_not_matter(alone):
    made = dictionaries()
    train_together({name: made[name] for name in ("crosscoder", "plain")}, stream())
    assert bits(made["plain"]) == alone["plain"] and bits(made["crosscoder"]) == alone["crosscoder"]


@pytest.mark.parametrize(("at", "every"), [(1, 5), (7, 1), (75, 5), (9 * STEPS, 7)])
def test_killed_in_any_step_it_goes_on_to_the_same_bits(tmp_path, monkeypatch, alone, at, every):
    killing(monkeypatch, Trainer, "advance", -at)
    with pytest.raises(Killed):
        train_together(dictionaries(), stream(), tmp_path, every)
    monkeypatch.undo()
    steps = []
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda *given: steps.append(advance(*given)))
    made = dictionaries()
    train_together(made, stream(), tmp_path, every)
    assert {name: bits(d) for name, d in made.items()} == alone
    assert len(steps) <= 9 * STEPS - (at - 1) // (9 * every) * 9 * every


@pytest.mark.parametrize("at", [2, 11])
def test_killed_between_two_checkpoints_of_one_step_the_later_waits(tmp_path, monkeypatch, alone, at):
    killing(monkeypatch, checkpoints, "save_tensors", -at)
    with pytest.raises(Killed):
        train_together(dictionaries(), stream(), tmp_path, 5)
    monkeypatch.undo()
    written = {load_tensors(p)[1]["step"] for p in tmp_path.glob("*.safetensors")}
    assert written == ({5} if at == 2 else {5, 10})
    made = dictionaries()
    train_together(made, stream(), tmp_path, 5)
    assert {name: bits(d) for name, d in made.items()} == alone


def test_a_checkpoint_of_another_training_is_refused_and_the_difference_named(tmp_path, monkeypatch):
    killing(monkeypatch, Trainer, "advance", -90)
    with pytest.raises(Killed):
        train_together(dictionaries(), stream(), tmp_path, 5)
    monkeypatch.undo()
    for change, named in (
        ({"latents": 17}, r"dictionary\.latents: 16 → 17"),
        ({"sparsity": TopK(4)}, r"dictionary\.sparsity\.k: 2 → 4"),
        ({"recipe": Recipe(batch=32, rate=2e-2)}, r"recipe\.rate: 0\.01 → 0\.02"),
    ):
        asked = {"sites": "x", "latents": 16, "sparsity": TopK(2), "recipe": RECIPE, "seed": Seed(0)}
        with pytest.raises(Conflict, match=named):
            train_together({"plain": Dictionary(**{**asked, **change})}, stream(), tmp_path, 5)
    with pytest.raises(Conflict, match="stream: "):
        train_together(dictionaries(), stream(seed=1), tmp_path, 5)
    path = tmp_path / "plain.safetensors"
    (tmp_path / "wide.safetensors").replace(path)  # a checkpoint of another architecture in its place
    with pytest.raises(Conflict, match="latents: 24 → 16"):
        train_together(dictionaries(), stream(), tmp_path, 5)
    tensors, about = load_tensors(path)
    save_tensors(path, tensors, {**about, "schema": 99})
    with pytest.raises(NewerSchema):
        train_together(dictionaries(), stream(), tmp_path, 5)
    save_tensors(path, tensors, "something else")
    with pytest.raises(BadInput, match="no checkpoint"):
        train_together(dictionaries(), stream(), tmp_path, 5)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="deleting it"):
        train_together(dictionaries(), stream(), tmp_path, 5)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(BadInput, match="no dictionaries"):
        train_together({}, stream())
    made = dictionaries()
    made["other"] = Dictionary("x", 16, TopK(2), recipe=Recipe(batch=16))
    with pytest.raises(BadInput, match=r"\[16, 32\]"):
        batch_rows(made.values())
    with pytest.raises(TooLittleData, match="at least one batch"):
        train_together({"x": Dictionary("x", 16, TopK(2), recipe=Recipe(batch=1000))}, stream())
    with pytest.raises(BadInput, match="every 0 steps"):
        train_together(dictionaries(), stream(), every=0)
    with pytest.raises(UnknownName, match="'w'"):
        train_together({"w": Dictionary("w", 16, TopK(2), recipe=RECIPE)}, stream())
    bad = rows()
    bad[300, 2] = float("inf")
    with pytest.raises(NotFinite, match="positions of x in block"):
        train_together(dictionaries(), stream(x=bad))


def test_memory_says_how_many_at_once():
    made = dictionaries()
    widths = {"x": 8, "y": 5}
    each = {name: training_bytes(d, widths) for name, d in made.items()}
    assert rounds(made, widths, sum(each.values())) == [made]
    single = rounds(made, widths, max(each.values()))
    assert [d for r in single for d in r] == list(made)
    for memory in (max(each.values()), 2 * max(each.values()), sum(each.values()) // 2 + 1):
        for dealt in rounds(made, widths, memory):
            assert sum(each[name] for name in dealt) <= memory
    with pytest.raises(BadInput, match=r"wide, which needs .* GiB"):
        rounds(made, widths, each["wide"] - 1)


def test_what_training_holds_is_what_was_counted():
    """Weights, gradients and moments, counted one by one."""
    dictionary = Dictionary("x", 512, TopK(2), recipe=Recipe(batch=1, start_rows=50))
    trainer = Trainer(dictionary, {"x": 64}, 10)
    trainer.start(ArrayStream({"x": torch.randn(50, 64, generator=Seed(0).torch())}))
    trainer.advance({"x": torch.randn(1, 64, generator=Seed(1).torch())})
    held = [*trainer.parameters().values()]
    held += [p.grad for p in held if p.grad is not None]
    held += [t for name, t in trainer.tensors().items() if name.startswith("adam") and t.ndim]
    counted = sum(4 * t.numel() for t in held)
    assert counted <= training_bytes(dictionary, {"x": 64}) <= 1.05 * counted


def test_how_each_does_is_said_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with shown():
        train_together(dictionaries(), stream())
    said = capsys.readouterr().err
    assert "tokens/s" in said and "s left" in said
    for name in dictionaries():
        assert f"  {name}: L0 " in said
    assert "FVU" in said and "dead" in said
