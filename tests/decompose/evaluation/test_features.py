"""Dictionaries that find the planted features by one definition and miss them by another, by hand."""

import math

import numpy as np
import pytest
import torch

from known import Labelled, written
from prosect.bench.tasks.features import FeatureRecovery
from prosect.core.errors import Conflict, ShapeMismatch, TooLittleData, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.definitions import (
    DIRECTION,
    LATENT,
    LINE,
    SUBSPACE,
    VARIABLE,
    Definition,
    one_definition,
)
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.evaluation.circles import circles
from prosect.decompose.evaluation.detection import detect
from prosect.decompose.evaluation.features import Known, pooled, recovered
from prosect.decompose.linear import Heads, Pca
from prosect.decompose.quality import recovery
from prosect.decompose.sparsity import Threshold
from prosect.decompose.streams import ArrayStream

ALL = (DIRECTION, LINE, LATENT, SUBSPACE, VARIABLE)


def rng(name="test"):
    return Seed(0).child(name).torch()


ON = (torch.rand(2000, 6, generator=rng()) < 0.2) * (1 + torch.rand(2000, 6, generator=rng("s")))
BASIS = torch.linalg.qr(torch.randn(6, 6, generator=rng("b"))).Q
STREAM = Labelled(ON, BASIS)
KNOWN = Known(STREAM, BASIS)


def means(decomposition, known=KNOWN):
    found = {d.name: recovered(decomposition, known, d) for d in ALL}
    assert all(answer.definition.name == name for name, answer in found.items())
    return {name: answer.mean for name, answer in found.items()}


def test_what_is_perfect_is_so_by_every_definition():
    assert means(written(BASIS, BASIS, threshold=0.5)) == pytest.approx({d.name: 1.0 for d in ALL}, abs=1e-5)


def test_right_directions_that_fire_at_the_wrong_places():
    found = means(written(BASIS.roll(1, dims=0), BASIS, threshold=0.5))
    assert (found["direction"], found["subspace"]) == pytest.approx((1, 1))
    assert found["latent"] == pytest.approx(1)  # the right places, under another number
    assert found["causal variable"] == pytest.approx(-1, abs=1e-5)  # adds at a right angle to what is missing
    late = means(written(BASIS, BASIS, threshold=1.5))
    assert late["direction"] == pytest.approx(1)
    assert late["latent"] < 0.75
    assert late["causal variable"] < 0.95


def test_latents_that_fire_rightly_and_write_something_else():
    other = torch.linalg.qr(torch.randn(6, 6, generator=rng("other"))).Q
    found = means(written(BASIS, other, threshold=0.5))
    assert found["latent"] == 1
    assert found["direction"] == pytest.approx(float((BASIS @ other.T).max(dim=1).values.mean()), abs=1e-6)
    assert found["direction"] < 0.9
    assert found["causal variable"] < 0.6


def test_a_plane_with_turned_axes_is_found_as_a_subspace_alone():
    turned = BASIS.clone()
    turned[:2] = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) @ BASIS[:2] / math.sqrt(2)
    made = written(turned, turned, threshold=0.5)
    pairs = Known(STREAM, BASIS, groups=((0, 1), (2, 3), (4, 5)))
    assert recovered(made, pairs, SUBSPACE).mean == pytest.approx(1)
    assert recovered(made, pairs, DIRECTION).each[:2] == pytest.approx([math.sqrt(0.5)] * 2, abs=1e-6)
    alone = recovered(made, KNOWN, SUBSPACE)  # one dimension at a time: the squared cosine
    assert alone.each[:2] == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("scale", [0.0, 0.5, 0.8, 1.5])
def test_what_writes_too_little_exchanges_too_little(scale):
    made = written(BASIS, scale * BASIS, threshold=0.5)
    found = recovered(made, KNOWN, VARIABLE)
    assert found.each == pytest.approx(np.full(6, 1 - (1 - scale) ** 2), abs=1e-5)
    if scale:
        assert recovered(made, KNOWN, DIRECTION).mean == pytest.approx(1)


def test_an_exchange_counts_by_what_is_computed_from_it():
    """Computed from are the first three features alone; the dictionary has those three right."""
    other = BASIS.clone()
    other[3:] = 0
    seen = Known(STREAM, BASIS, then=lambda x: x @ BASIS[:3].double().T)
    each = recovered(written(BASIS, other, threshold=0.5), seen, VARIABLE).each
    assert each[:3] == pytest.approx([1.0] * 3, abs=1e-5)
    assert np.isnan(each[3:]).all()  # without effect there is nothing to have a share of
    blind = Known(STREAM, BASIS, then=lambda x: 0 * x)
    nothing = recovered(written(BASIS, other, threshold=0.5), blind, VARIABLE)
    with pytest.raises(TooLittleData, match="causal variable"):
        str(nothing)


def test_answers_of_two_definitions_are_never_merged():
    """The same data, the same dictionary, two definitions: two answers with their names, and no mean of them."""
    made = written(BASIS, BASIS, threshold=1.5)
    as_direction, as_latent = (recovered(made, KNOWN, d) for d in (DIRECTION, LATENT))
    assert as_direction.mean - as_latent.mean > 0.2
    assert "as direction" in str(as_direction)
    assert "as latent" in str(as_latent)
    with pytest.raises(Conflict, match=r"direction .* and latent") as refused:
        pooled([as_direction, as_latent])
    assert "keeping them apart" in str(refused.value)
    with pytest.raises(Conflict):  # a direction is not a line
        pooled([as_direction, recovered(made, KNOWN, LINE)])
    definition, mean = pooled([as_latent, recovered(written(BASIS, BASIS, threshold=1.2), KNOWN, LATENT)])
    assert definition is LATENT
    assert mean.low < as_latent.mean < mean.high


def test_results_elsewhere_carry_theirs():
    x = torch.randn(300, 3, generator=rng("x"))
    results = [
        recovery(BASIS, BASIS),
        detect(written(BASIS, BASIS, threshold=0.5), STREAM),
        circles(x, Seed(0), 2)[0],
    ]
    assert [r.definition for r in results] == [DIRECTION, LATENT, SUBSPACE]
    assert recovery(BASIS, -BASIS, signed=True).definition is LINE
    for a in results:
        for b in results:
            if a is not b:
                with pytest.raises(Conflict):
                    one_definition([a, b])
    stream = ArrayStream({"x": x, "z.0.h0": x})
    assert Pca("x").definition is DIRECTION
    assert written(BASIS, BASIS).definition is LATENT
    assert Heads(("z.0.h0",)).definition is SUBSPACE
    assert "each a direction" in Pca("x").fit(stream)._repr_html_()
    assert {m.feature for m in FeatureRecovery().metrics} == {"direction"}


def test_a_definition_of_your_own():
    ray = Definition("axis", "one number of the activation", "1 where a feature lies along it")

    def measure(decomposition, known):
        return (known.directions.abs().max(dim=1).values > 0.99).double().numpy()

    assert recovered(written(BASIS, BASIS), KNOWN, ray, measure).mean == 0
    assert (
        recovered(written(BASIS, BASIS), Known(Labelled(ON, torch.eye(6)), torch.eye(6)), ray, measure).mean
        == 1
    )
    with pytest.raises(UnknownName, match="axis"):
        recovered(written(BASIS, BASIS), KNOWN, ray)
    with pytest.raises(ShapeMismatch):
        recovered(written(BASIS, BASIS), KNOWN, ray, lambda d, k: np.zeros((2, 2)))


def test_what_a_definition_needs_is_asked_for():
    with pytest.raises(Unsupported):
        recovered(Heads(("x",)).fit(ArrayStream({"x": STREAM.x})), KNOWN, DIRECTION)
    transcoder = Dictionary("x", 6, Threshold(), "y").with_weights(
        Weights(BASIS, torch.zeros(6), torch.zeros(6), BASIS, torch.zeros(6)), {"x": 6, "y": 6}
    )
    with pytest.raises(Unsupported, match="reads and writes one site"):
        recovered(transcoder, KNOWN, VARIABLE)
    with pytest.raises(ShapeMismatch):
        Known(STREAM, BASIS[:3])
    with pytest.raises(TooLittleData):
        one_definition([])
