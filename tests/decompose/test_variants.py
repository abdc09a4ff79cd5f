"""Every kind of dictionary from stream to disk: planted features found, thresholds calibrated, killed and resumed."""

from functools import cache

import pytest
import torch

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.calibrate import threshold_for
from prosect.decompose.check import check_decomposition
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.keep import load_decomposition, save_decomposition
from prosect.decompose.linear import Pca, RandomDirections
from prosect.decompose.objectives import L1, BatchTopK, EachTopK, Gated, JumpReLU, Matryoshka
from prosect.decompose.quality import measure, recovery
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import Threshold, TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

FEATURES, D = 32, 16
EVERY = [
    EachTopK(2),
    BatchTopK(2),
    Matryoshka(2, (16, 32)),
    L1(0.4),
    L1(0.4, power=0.5),
    Gated(0.8),
    JumpReLU(weight=0.06),
    JumpReLU(target_l0=2.0),
]


def named(objective):
    return f"{objective.name}-{EVERY.index(objective)}"


@cache
def fitted(objective):
    """Trained on the first 8000 positions of the planted ones, calibrated on the rest."""
    _, x = planted()
    stream, fresh = ArrayStream({"x": x[:8_000]}), ArrayStream({"x": x[8_000:]})
    made = Dictionary("x", FEATURES, objective, recipe=Recipe(batch=200, rate=2e-2))
    return made.fit(stream.shuffled(Seed(1), epochs=6), fresh=fresh)


@cache
def planted(n=10_000):
    """Each of 32 features in 16 dimensions is on at 6 % of positions."""
    generator = Seed(0).child("planted").torch()
    features = torch.randn(FEATURES, D, generator=generator)
    features /= features.norm(dim=1, keepdim=True)
    on = torch.rand(n, FEATURES, generator=generator) < 0.06
    s = on * (0.5 + torch.rand(n, FEATURES, generator=generator))
    return features, s @ features + 0.3


@pytest.fixture(scope="module")
def floors():
    features, x = planted()
    stream = ArrayStream({"x": x})
    others = [(Pca("x"), True)] + [
        (RandomDirections.alike("x", FEATURES, 0.06, Seed(i)), False) for i in range(3)
    ]
    return [recovery(other.fit(stream).directions, features, signed) for other, signed in others]


@pytest.mark.parametrize("objective", EVERY, ids=named)
def test_it_finds_planted_features_better_than_pca_and_chance(objective, floors, tmp_path):
    (features, x), made = planted(), fitted(objective)
    fresh = ArrayStream({"x": x[8_000:]})
    found = recovery(made.directions, features)
    for floor in floors:
        assert found.features_to_latents > floor.features_to_latents + 0.2
        assert found.latents_to_features > floor.latents_to_features + 0.2
        assert found.matched > floor.matched + 0.15
    quality = measure(made, fresh)
    assert quality.fvu["x"] < 0.3
    assert 1 < quality.l0 < 4
    assert made.facts_["fresh"]
    assert made.facts_["target_l0"] == objective.target
    assert made.facts_["l0"] == pytest.approx(quality.l0, rel=0.15)  # half of the same positions
    save_decomposition(tmp_path / "it", made)
    back = load_decomposition(tmp_path / "it")
    for before, after in zip(made.state()[0].items(), back.state()[0].items(), strict=True):
        assert before[0] == after[0]
        assert torch.equal(before[1], after[1])
    assert back.state()[1] == made.state()[1]
    assert back.name == made.name == f"{objective.name}@x"
    assert torch.equal(back.encode({"x": x[:50]}).dense(), made.encode({"x": x[:50]}).dense())


STEPS = 24


def rows():
    generator = Seed(0).child("test").torch()
    s = (torch.rand(389, 12, generator=generator) < 0.2) * torch.rand(389, 12, generator=generator)
    return {site: s @ torch.randn(12, 8, generator=generator) for site in ("a", "b")}


def bits(made):
    tensors, about = made.state()
    return {name: t.numpy().tobytes() for name, t in tensors.items()}, about


SHAPES = {
    "one": {"sites": "a"},
    "crosscoder": {"sites": ("a", "b")},
    "skip": {"sites": "a", "targets": "b", "skip": True},
    "layers": {"sites": ("a", "b"), "targets": ("a", "b"), "cross_layer": True},
}


RESUMED = [(objective, "one") for objective in EVERY[1:]]
RESUMED += [(objective, shape) for objective in (BatchTopK(2), JumpReLU(weight=0.06)) for shape in SHAPES]


@pytest.mark.parametrize(("objective", "shape"), dict.fromkeys(RESUMED), ids=str)
def test_killed_at_any_step_it_ends_with_the_same_bits(objective, shape, tmp_path, monkeypatch):
    def dictionary():
        recipe = Recipe(batch=32, rate=1e-2, dead_after=40, resample=(0.3, 0.7))
        return Dictionary(latents=32, sparsity=objective, recipe=recipe, **SHAPES[shape])

    stream = ArrayStream(rows(), block=50).shuffled(Seed(0), epochs=2)
    whole = bits(dictionary().fit(stream))
    advance, count = Trainer.advance, [0]

    def dying(self, batch):
        advance(self, batch)
        count[0] += 1
        if count[0] in (9, 20):
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "advance", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            dictionary().fit(stream, tmp_path, 4)
    assert bits(dictionary().fit(stream, tmp_path, 4)) == whole


@pytest.mark.parametrize("objective", EVERY[1:], ids=named)
def test_it_keeps_the_contract_of_every_decomposition(objective):
    recipe = Recipe(batch=48, rate=3e-3)
    check_decomposition(lambda: Dictionary("a", 32, objective, "b", recipe=recipe), ArrayStream(rows()))


def test_the_threshold_is_where_a_sort_puts_it():
    generator = Seed(3).torch()
    pre = torch.randn(300, 40, generator=generator)
    for l0 in (0.1, 1.0, 3.7, 12.0):
        found = threshold_for(lambda: iter(pre.split(17)), 300, l0)
        assert int((pre > found).sum()) == int(l0 * 300)
        ordered = pre.reshape(-1).sort(descending=True).values
        assert ordered[int(l0 * 300) - 1] > found > ordered[int(l0 * 300)]
    assert threshold_for(lambda: iter(pre.split(17)), 300, 39.0) == 0.0  # fewer than that are positive
    assert not (pre > threshold_for(lambda: iter(pre.split(17)), 300, 0.0)).any()


def test_calibration_meets_its_target_where_a_running_mean_of_batches_would_not():
    """The rate never falls, so weights move until the end; k is met on activations not trained on."""
    _, x = planted()
    recipe = Recipe(batch=200, rate=2e-2, decay=0.0)
    made = Dictionary("x", FEATURES, BatchTopK(3), recipe=recipe)
    made.fit(ArrayStream({"x": x[:8_000]}), fresh=ArrayStream({"x": x[8_000:]}))
    assert made.facts_["l0"] == pytest.approx(3.0, rel=0.1)
    assert measure(made, ArrayStream({"x": x[8_000:]})).l0 == pytest.approx(3.0, rel=0.1)
    assert made.facts_["positions"] == 1000
    assert (made.threshold_ == made.facts_["threshold"]).all()
    assert made.facts_["threshold"] > 0
    assert isinstance(made.sparsity, Threshold)
    assert "L0 after training" in made._repr_html_()
    in_sample = Dictionary("x", FEATURES, BatchTopK(3), recipe=recipe).fit(ArrayStream({"x": x[:8_000]}))
    assert not in_sample.facts_["fresh"]
    assert torch.equal(in_sample.directions, made.directions)
    with pytest.raises(TooLittleData, match="calibrate"):
        Dictionary("x", FEATURES, BatchTopK(3), recipe=recipe).fit(
            ArrayStream({"x": x[:8_000]}), fresh=ArrayStream({"x": x[:1]})
        )


def test_a_jumprelus_target_is_met():
    _, x = planted()
    made = Dictionary("x", FEATURES, JumpReLU(target_l0=4.0), recipe=Recipe(batch=200, rate=2e-2))
    made.fit(ArrayStream({"x": x}).shuffled(Seed(0), epochs=2))
    assert made.facts_["l0"] == pytest.approx(4.0, rel=0.15)
    assert made.facts_["threshold"] is None  # each latent has learned its own


def test_matryoshkas_first_latents_reconstruct_more_than_batchtopks():
    _, x = planted()
    left = {}
    for objective in (BatchTopK(2), Matryoshka(2, (16, 32))):
        made = fitted(objective)
        codes = made.encode({"x": x}).dense()
        codes[:, 16:] = 0
        residual = x - codes @ made.decoder_ - made.offset_
        left[objective.name] = float(residual.square().sum() / (x - x.mean(0)).square().sum())
    assert left["matryoshka"] < left["batchtopk"] - 0.05


def test_annealing_fires_less_at_no_cost_in_error():
    _, x = planted()
    plain, annealed = (measure(fitted(L1(0.4, power=p)), ArrayStream({"x": x})) for p in (1.0, 0.5))
    assert annealed.l0 < plain.l0 - 0.2
    assert annealed.fvu["x"] < plain.fvu["x"] + 0.01


def test_gates_do_not_shrink_what_they_let_through():
    """The projection of reconstructions on activations: below 1 where codes are too small."""
    _, x = planted()
    kept = {}
    for objective in (L1(0.4), Gated(0.8)):
        here = x - x.mean(0)
        again = fitted(objective).reconstruct({"x": x})["x"] - x.mean(0)
        kept[objective.name] = float((here * again).sum() / here.square().sum())
    assert kept["gated"] > kept["l1"] + 0.05


def test_a_name_for_each_kind_and_no_training_without_one():
    made = Dictionary("x", 8, Gated(), "y")
    assert made.name == "gated@x~y"
    assert made.objective == Gated()
    assert made.sparsity == Threshold()
    assert made.trained_by == Gated()
    assert Dictionary("x", 8, TopK(2)).trained_by == EachTopK(2)
    with pytest.raises(Unsupported, match="objective"):
        _ = Dictionary("x", 8, Threshold()).trained_by
    with pytest.raises(BadInput, match="L1"):
        Dictionary("x", 8, TopK(2), objective=L1())
