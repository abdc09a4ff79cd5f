"""Matching pursuit against numpy written out, and what it must do whatever the dictionary."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.keep import load_decomposition, save_decomposition
from prosect.decompose.objectives import Pursued
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import Threshold, TopK
from prosect.decompose.streams import ArrayStream


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).torch())


def by_hand(x, decoder, k):
    """Mallat & Zhang's loop, one position and one round at a time, in float64."""
    codes = np.zeros((len(x), len(decoder)))
    norms = np.linalg.norm(decoder, axis=1)
    for row, at in enumerate(x.copy()):
        for _ in range(k):
            scores = np.array(
                [decoder[j] @ at / norms[j] if norms[j] else -np.inf for j in range(len(decoder))]
            )
            best = int(scores.argmax())
            if scores[best] <= 0:
                break
            step = scores[best] / norms[best]
            codes[row, best] += step
            at -= step * decoder[best]
    return codes


@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_it_is_the_loop_written_out(k):
    x, decoder = normal(40, 6).double(), normal(11, 6, seed=1).double() * 3
    decoder[4] = 0
    codes = Pursuit(k).pursue(x, decoder)
    assert np.allclose(codes.dense().numpy(), by_hand(x.numpy(), decoder.numpy(), k), atol=1e-9)
    assert (codes.values >= 0).all()
    assert codes.active.max() <= k
    for row, values in zip(codes.indices.tolist(), codes.values.tolist(), strict=True):
        there = [i for i, v in zip(row, values, strict=True) if v]
        assert len(there) == len(set(there))


def test_each_round_leaves_less():
    x, decoder = normal(40, 6), normal(20, 6, seed=1)
    left = [(x - Pursuit(k).pursue(x, decoder).dense() @ decoder).norm(dim=1) for k in range(1, 12)]
    for before, after in pairwise(left):
        assert (after <= before + 1e-5).all()
    assert (left[-1] < 0.5 * left[0]).float().mean() > 0.5


def test_over_orthogonal_latents_it_is_topk():
    basis = torch.linalg.qr(normal(8, 8)).Q
    x = normal(30, 8, seed=1)
    codes = Pursuit(3).pursue(x, basis).dense()
    assert torch.allclose(codes, TopK(3).codes(x @ basis.T, None).dense(), atol=1e-5)


def test_it_finds_sums_of_coherent_latents_that_an_encoder_confuses():
    """A direction between two others: the sum of those two looks like it to every encoder of one layer."""
    decoder = torch.eye(6)
    decoder = torch.cat([decoder, (decoder[:3] + decoder[3:]) / 2**0.5])
    x = 2 * decoder[6:] + decoder[[1, 2, 0]]
    made = Dictionary("x", 9, TopK(2)).with_weights(
        Weights(decoder, torch.zeros(9), torch.zeros(6), decoder, torch.zeros(6)), {"x": 6}
    )
    pursuing = made.encoded_by(Pursuit(2))
    assert torch.allclose(pursuing.reconstruct({"x": x})["x"], x, atol=1e-6)
    assert (made.reconstruct({"x": x})["x"] - x).norm() > 0.5


def test_a_dictionary_encodes_by_pursuit_around_its_offset(tmp_path):
    encoder, decoder, offset = normal(9, 5), normal(9, 5, seed=1), normal(5, seed=2)
    made = Dictionary("x", 9, Threshold()).with_weights(
        Weights(encoder, normal(9), normal(5), decoder, offset), {"x": 5}
    )
    pursuing = made.encoded_by(Pursuit(4))
    x = normal(20, 5, seed=3)
    expected = by_hand((x - offset).double().numpy(), decoder.double().numpy(), 4)
    codes = pursuing.encode({"x": x})
    assert np.allclose(codes.dense().numpy(), expected, atol=1e-4)
    assert torch.allclose(pursuing.decode(codes)["x"], codes.dense() @ decoder + offset, atol=1e-5)
    assert pursuing.name == "pursuit@x"
    assert made.name == "threshold@x"  # the first is as it was
    save_decomposition(tmp_path / "it", pursuing)
    again = load_decomposition(tmp_path / "it")
    assert torch.equal(again.encode({"x": x}).dense(), codes.dense())
    assert made.encoded_by(TopK(2)).encode({"x": x}).active.max() == 2


def test_it_is_refused_where_it_has_no_meaning():
    for make in (lambda: Dictionary("x", 4, Pursuit(0)), lambda: Dictionary("x", 4, Pursuit(5))):
        with pytest.raises(BadInput, match="rounds"):
            make()
    with pytest.raises(Unsupported, match="writes what it reads"):
        Dictionary("x", 4, Pursuit(2), "y")
    with pytest.raises(Unsupported, match="writes what it reads"):
        Dictionary("x", 4, Pursuit(2), skip=True)
    with pytest.raises(Unsupported, match="decoder"):
        Pursuit(2).codes(normal(3, 4), None)
    with pytest.raises(BadInput, match="not fitted"):
        Dictionary("x", 4, TopK(2)).encoded_by(Pursuit(2))
    w = Weights(normal(4, 3), normal(4), normal(3), normal(4, 3), normal(3))
    with pytest.raises(Unsupported, match="which has none"):
        Dictionary("x", 4, TopK(2)).with_weights(w, {"x": 3}).encoded_by(Threshold())


def test_a_dictionary_for_pursuit_is_trained_as_topk_and_encoded_by_pursuit():
    x = normal(256, 6)
    recipe = Recipe(batch=64, rate=3e-3)
    plain = Dictionary("x", 16, TopK(3), recipe=recipe).fit(ArrayStream({"x": x}))
    made = Dictionary("x", 16, Pursued(3), recipe=recipe).fit(ArrayStream({"x": x}))
    assert torch.equal(made.decoder_, plain.decoder_) and torch.equal(made.encoder_, plain.encoder_)
    assert made.sparsity == Pursuit(3) and made.name == "pursuit@x"
    expected = plain.encoded_by(Pursuit(3)).encode({"x": x})
    torch.testing.assert_close(made.encode({"x": x}).dense(), expected.dense())
    again = Dictionary.from_state(*made.state())
    torch.testing.assert_close(again.encode({"x": x}).dense(), expected.dense())
