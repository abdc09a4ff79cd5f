"""Crosscoders over sites and over models: which features are shared and which exclusive, against planted ones."""

import pytest
import torch

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.data.source import TableSource
from prosect.decompose.activations import harvest
from prosect.decompose.beside import Beside
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.objectives import L1, BatchTopK
from prosect.decompose.quality import recovery
from prosect.decompose.recipe import Recipe
from prosect.decompose.sharing import present, relative_norms
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream

D, EACH = 16, 8
KIND = torch.arange(3 * EACH) // EACH
"""0 for features of both models, 1 for those of the first alone, 2 for those of the second alone."""


def planted(n=16_000):
    generator = Seed(2).child("planted").torch()
    directions = []
    for absent in (2, 1):
        drawn = torch.randn(3 * EACH, D, generator=generator)
        drawn /= drawn.norm(dim=1, keepdim=True)
        drawn[absent == KIND] = 0
        directions.append(drawn)
    on = torch.rand(n, 3 * EACH, generator=generator) < 0.06
    s = on * (0.5 + torch.rand(n, 3 * EACH, generator=generator))
    # the second model's activations are 50 times as large, which must not make features its own
    return directions, {"a/resid_post.2": s @ directions[0], "b/resid_post.2": 50 * s @ directions[1]}


def f1(found, truth):
    hit = float((found & truth).sum())
    return 2 * hit / float(found.sum() + truth.sum())


@pytest.mark.parametrize("objective", [BatchTopK(1), L1(0.25)], ids=lambda o: o.name)
def test_relative_norms_tell_shared_from_exclusive_features(objective):
    (a, b), data = planted()
    made = Dictionary(tuple(data), 3 * EACH, objective, recipe=Recipe(batch=200, rate=2e-2))
    made.fit(ArrayStream(data).shuffled(Seed(0), epochs=5))
    shares = relative_norms(made)
    assert torch.allclose(shares.sum(dim=1), torch.ones(3 * EACH))
    joint = torch.cat([made.decoder(site) / made.facts_["scales"][site] for site in made.writes], dim=1)
    match = recovery(joint, torch.cat([a, b], dim=1))
    assert match.matched > 0.85
    there = present(shares)[match.match]
    for kind, pattern in ((0, [True, True]), (1, [True, False]), (2, [False, True])):
        found = (there == torch.tensor(pattern)).all(dim=1)
        assert f1(found, kind == KIND) > 0.85
    raw = relative_norms(made, dict.fromkeys(made.writes, 1.0))
    assert raw[:, 1].mean() > 0.6 > shares[:, 1].mean()  # without scales the larger model would own them
    assert made.component(0).reads == tuple(data)


def test_shares_and_presence_are_what_they_say():
    decoder = torch.tensor([[3.0, 4, 5], [0, 0, 2], [0, 0, 0], [8, 6, 1]])
    made = Dictionary(("a", "b"), 4, TopK(1)).with_weights(
        Weights(torch.zeros(4, 3), torch.zeros(4), torch.zeros(3), decoder, torch.zeros(3)), {"a": 2, "b": 1}
    )
    with pytest.raises(BadInput, match="no scales"):
        relative_norms(made)
    with pytest.raises(UnknownName, match="b"):
        relative_norms(made, {"a": 1.0})
    shares = relative_norms(made, {"a": 1.0, "b": 1.0})
    assert torch.allclose(shares, torch.tensor([[0.5, 0.5], [0, 1], [0, 0], [10 / 11, 1 / 11]]))
    assert present(shares).tolist() == [[True, True], [False, True], [False, False], [True, False]]
    assert present(shares, 0.05).tolist()[3] == [True, True]
    scaled = relative_norms(made, {"a": 10.0, "b": 1.0})
    assert torch.allclose(scaled[0], torch.tensor([1 / 11, 10 / 11]))
    for margin in (0.0, 0.5):
        with pytest.raises(BadInput, match="margin"):
            present(shares, margin)


class Multiplying:
    """A model whose sites hold its input times a number."""

    def __init__(self, by):
        self.by, self.seen = by, []

    @property
    def digest(self):
        return digest({"by": self.by})

    def run(self, batch, capture=(), **_):
        self.seen.append(capture)
        return dict.fromkeys(capture, self.by * batch.tensors["x"])


def test_models_side_by_side_are_harvested_as_one_and_stay_aligned(tmp_path):
    x = torch.randn(60, 3, generator=Seed(0).torch())
    source = TableSource(lambda part: {"x": x}, {"explore": len(x)}, digest("data"))
    models = {"base": Multiplying(1.0), "tuned": Multiplying(3.0)}
    both = Beside(models)
    sites = ("tuned/hidden", "base/hidden", "base/other")
    kept = harvest(both, source, "explore", sites, tmp_path / "kept", rows=16)
    assert models["base"].seen[0] == ("hidden", "other")  # one pass of each model
    assert models["tuned"].seen[0] == ("hidden",)
    rows = 0
    for block in kept.shuffled(Seed(1), epochs=2).blocks():
        assert torch.equal(block["tuned/hidden"], 3 * block["base/hidden"])
        rows += len(block["base/other"])
    assert rows == 120
    assert both.digest != Beside({"base": models["tuned"], "tuned": models["base"]}).digest
    for site in ("hidden", "other/hidden"):
        with pytest.raises(UnknownName, match="model of site"):
            both.run(None, capture=(site,))
    for bad in ({}, {"a/b": models["base"]}, {"": models["base"]}):
        with pytest.raises(BadInput, match="without /"):
            Beside(bad)
