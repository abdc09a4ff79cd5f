"""Nearness as a description: it is the reading's KL with the sign turned, row by row."""

import numpy as np
import pytest
import torch

from decoders import opened, text
from prosect.core.errors import BadInput
from prosect.data.source import TableSource
from prosect.describe.lens.lens import LogitLens
from prosect.describe.lens.nearness import LensNearness
from prosect.describe.lens.reading import read
from prosect.describe.lens.tuned import Translator
from prosect.store.shelf import Shelf

NOWHERE = TableSource(lambda part: {}, {}, "")
"""What is measured looks at the batch alone."""


def nearness(model, batch, *wanted):
    return LensNearness.measure(wanted, model, batch, NOWHERE)


def test_it_is_the_kl_of_the_reading_row_by_row():
    model, batch = opened("llama"), text(1, rows=6)
    found = nearness(model, batch, *(LensNearness(f"resid_post.{i}", "logit") for i in range(model.n_layers)))
    for i in range(model.n_layers):
        for row in range(len(batch)):
            kl = read(model, [batch.select([row])], LogitLens(), sites=[f"resid_post.{i}"]).layers[0].kl
            assert found[i, row] == pytest.approx(-kl.estimate, abs=1e-5)
    assert (
        found[-1] == pytest.approx(0.0, abs=1e-5) and found[0].max() < 0
    )  # the last layer is the model itself


def test_an_identity_map_is_the_logit_lens_and_a_turned_stream_is_further_away():
    model, batch = opened("llama"), text(2, rows=5)
    width, last = model.d_model, f"resid_post.{model.n_layers - 1}"
    same = Translator(torch.zeros(width, width), torch.zeros(width))
    plain, mapped, turned = nearness(
        model,
        batch,
        LensNearness(last, "logit"),
        LensNearness(last, "tuned", same),
        LensNearness(last, "turned", same),
    )
    assert mapped == pytest.approx(plain, abs=1e-6) and (turned < plain - 0.01).all()


def test_a_row_without_a_scored_position_has_no_number():
    model, batch = opened("llama"), text(3, rows=3)
    special = torch.zeros_like(batch.mask)
    special[1] = batch.mask[1]
    blank = type(batch)(batch.tensors, batch.mask, batch.rows, special)
    (found,) = nearness(model, blank, LensNearness("resid_post.0", "logit"))
    assert np.isnan(found).tolist() == [False, True, False]


def test_it_comes_back_from_json_and_what_does_not_fit_is_refused():
    shelf, pair = Shelf(), Translator(torch.randn(4, 4), torch.randn(4))
    for one in (LensNearness("resid_pre.0", "logit"), LensNearness("resid_pre.0", "turned", pair)):
        back = LensNearness.of(one.executable(shelf), shelf)
        assert (back.site, back.which) == (one.site, one.which)
        if one.translator is not None:
            assert torch.equal(back.translator.weight, pair.weight) and torch.equal(
                back.translator.bias, pair.bias
            )
    for which, held in (("tuned", None), ("logit", pair)):
        with pytest.raises(BadInput, match=which):
            LensNearness("resid_pre.0", which, held)
