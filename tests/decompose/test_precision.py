"""Products in bfloat16: within its error of float32's, with the same latents chosen, and weights that are not rounded."""

import pytest
import torch

from prosect.core.errors import Conflict
from prosect.core.seeds import Seed
from prosect.decompose.auxiliary import auxiliary
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.kernels import Picks
from prosect.decompose.objectives import L1, BatchTopK, EachTopK, Gated, JumpReLU, Matryoshka
from prosect.decompose.products import PLAIN, Products
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

SHORT = Products(short=True)
HALF = 2.0**-8
"""Of what is rounded to bfloat16, at most so much is lost."""
SLACK = 1e-6
KINDS = [TopK(3), BatchTopK(3), Matryoshka(3), L1(0.3), Gated(0.3), JumpReLU(weight=0.02)]


def drawn(name, *shape):
    return torch.randn(shape, generator=Seed(0).child("precision", name).torch())


def rows(n, d=12):
    generator = Seed(0).child("rows").torch()
    s = (torch.rand(n, 20, generator=generator) < 0.15) * torch.rand(n, 20, generator=generator)
    return s @ torch.randn(20, d, generator=generator) + 3


def within(found, exact, bound):
    assert found.dtype == torch.float32
    assert ((found.double() - exact).abs() <= bound + SLACK * exact.abs().max()).all()
    assert not torch.allclose(found.double(), exact, rtol=1e-6, atol=1e-6)  # rounding did happen


def test_each_product_is_within_the_error_of_rounding_what_it_multiplies():
    n, width, k, d = 40, 30, 5, 64
    picks = Picks.fixed(torch.rand(n, width, generator=Seed(0).torch()).argsort(dim=1)[:, :k], width)
    values, table, x = drawn("values", n * k), drawn("table", width, d), drawn("x", n, d)
    dense = picks.dense(values.double())
    pairs = (2 * HALF + HALF**2) * (x.double().abs() @ table.double().abs().T)
    within(
        SHORT.over_positions(picks, values, table),
        dense @ table.double(),
        HALF * (dense.abs() @ table.double().abs()),
    )
    within(
        SHORT.over_latents(picks, values, x), dense.T @ x.double(), HALF * (dense.abs().T @ x.double().abs())
    )
    every = x.double() @ table.double().T
    within(SHORT.dots(picks, x, table), every.reshape(-1)[picks.places], pairs.reshape(-1)[picks.places])
    summed = pairs + HALF * (every.abs() + pairs)  # the dense one rounds what it gives, too
    within(SHORT.matmul(x, table.T), every, summed)
    bias = drawn("bias", width)
    within(SHORT.affine(bias, x, table), every + bias, summed)


@pytest.mark.parametrize("objective", [EachTopK(8), BatchTopK(8), Matryoshka(8)], ids=str)
@pytest.mark.parametrize("latents", [1024, 96])  # many enough to be screened, and not
def test_the_latents_chosen_are_those_of_float32(objective, latents):
    x, encoder, bias = drawn("x", 200, 24), drawn("encoder", latents, 24), 0.1 * drawn("bias", latents)
    chosen = []
    for products in (PLAIN, SHORT):
        picks, values = objective.choose(x, encoder, bias, {}, products=products)
        assert picks.products is products
        order = picks.places.argsort()
        chosen.append((picks.places[order], values[order]))
    (places, exact), (found, values) = chosen
    assert torch.equal(found, places)
    assert torch.allclose(values, exact, atol=1e-5)
    rounded = SHORT.affine(bias, x, encoder).topk(8, dim=1).indices.sort(dim=1).values
    assert not torch.equal(rounded, PLAIN.affine(bias, x, encoder).topk(8, dim=1).indices.sort(dim=1).values)


def test_the_auxiliary_loss_is_nearly_that_of_float32():
    x, residual = drawn("x", 200, 24), 0.3 * drawn("residual", 200, 24)
    encoder, decoder, bias = drawn("encoder", 30, 24), drawn("decoder", 30, 24), drawn("bias", 30)
    exact = auxiliary(residual, x, encoder, bias, decoder, 30)  # all of them: none is chosen otherwise
    found = auxiliary(residual, x, encoder, bias, decoder, 30, products=SHORT)
    for name in exact._fields:
        a, b = getattr(exact, name), getattr(found, name)
        assert b.dtype == torch.float32
        assert 0 < (a - b).norm() < 8 * HALF * a.norm(), name


def trained(sparsity, steps=60, latents=24, **recipe):
    x = rows(64 * steps)
    made = Dictionary("x", latents, sparsity, recipe=Recipe(batch=64, rate=1e-2, **recipe))
    trainer = Trainer(made, {"x": x.shape[1]}, steps)
    trainer.start(ArrayStream({"x": x}))
    for batch in x.split(64):
        trainer.advance({"x": batch})
        trainer.note()
    return trainer


@pytest.mark.parametrize("sparsity", KINDS, ids=str)
def test_a_training_ends_as_well_and_keeps_its_weights_in_full(sparsity):
    exact, short = (trained(sparsity, precision=precision) for precision in ("float32", "bfloat16"))
    first, last, other = exact.history[0], exact.history[-1], short.history[-1]
    assert last["fvu"] < 0.8 * first["fvu"]
    assert other["fvu"] == pytest.approx(last["fvu"], rel=0.05)
    assert other["l0"] == pytest.approx(last["l0"], rel=0.1)
    for name, kept in short.tensors().items():
        assert kept.dtype in (torch.float32, torch.float64, torch.long), name
    for name in ("encoder", "decoder"):
        weights, moment = short.parameters()[name], short.optimiser.state[short.parameters()[name]]["exp_avg"]
        for full in (weights.detach(), moment):
            assert not torch.equal(full, full.bfloat16().float()), name
    assert (short.decoder.norm(dim=1) - 1).abs().max() < 1e-6


def test_the_same_comes_of_it_again_and_it_is_not_float32s():
    a, b, exact = (trained(TopK(3), 5, precision=p) for p in ("bfloat16", "bfloat16", "float32"))
    assert torch.equal(a.decoder, b.decoder)
    assert not torch.equal(a.decoder, exact.decoder)


def test_a_fit_in_one_precision_is_not_gone_on_with_in_the_other(tmp_path):
    stream = ArrayStream({"x": rows(320)})
    Dictionary("x", 24, TopK(3), recipe=Recipe(batch=32)).fit(stream, tmp_path, 4)
    with pytest.raises(Conflict, match="precision"):
        Dictionary("x", 24, TopK(3), recipe=Recipe(batch=32, precision="bfloat16")).fit(stream, tmp_path, 4)


def test_saved_with_the_dictionary_and_read_again():
    made = Dictionary("x", 24, TopK(3), recipe=Recipe(batch=32, precision="bfloat16"))
    made.fit(ArrayStream({"x": rows(320)}))
    again = Dictionary.from_state(*made.state())
    assert again.recipe.precision == "bfloat16" and again.facts_["products"] == "torch in bfloat16"
