"""Errors, seeds, digests, registries, HTML primitives and envelopes."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosect.core.canonical import canonical_json, digest, digest_tensor, digest_tensors, plain
from prosect.core.errors import (
    BadInput,
    NewerSchema,
    NotFinite,
    ProsectError,
    UnknownName,
    VerificationFailed,
)
from prosect.core.markup import card, element
from prosect.core.records import Component, Note
from prosect.core.registry import Registry
from prosect.core.schema import unwrap, wrap
from prosect.core.seeds import Seed

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_an_error_says_what_was_got_expected_and_what_to_try():
    error = BadInput("3 heads", "4 heads", "another model")
    assert str(error) == "got 3 heads; expected 4 heads; try another model"
    assert error.exit_code == 2
    assert VerificationFailed.exit_code == 1
    assert issubclass(BadInput, ProsectError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_unknown_name_offers_the_nearest():
    error = UnknownName("site", "resid_pst.3", [f"resid_post.{i}" for i in range(6)])
    assert "resid_post.3" in str(error)
    assert "resid_post.3" in str(pickle.loads(pickle.dumps(error)))


@given(JSON)
def test_canonical_json_is_one_form(value):
    import json

    data = canonical_json(value)
    assert canonical_json(json.loads(data)) == data
    assert digest(value) == digest(json.loads(data))


def test_key_order_does_not_change_a_digest_and_values_do():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), [1.0, {"x": math.nan}]])
def test_nan_has_no_canonical_form(bad):
    with pytest.raises(NotFinite):
        canonical_json(bad)


def test_things_without_a_json_form_are_refused():
    with pytest.raises(BadInput, match="object"):
        plain(object())


def test_a_tensor_digest_sees_value_shape_and_dtype():
    t = torch.arange(6.0)
    assert digest_tensor(t) == digest_tensor(t.clone())
    assert digest_tensor(t) != digest_tensor(t.reshape(2, 3))
    assert digest_tensor(t) != digest_tensor(t.double())
    assert digest_tensor(t.reshape(2, 3).T) == digest_tensor(t.reshape(2, 3).T.contiguous())
    assert digest_tensors({"a": t, "b": t + 1}) == digest_tensors({"b": t + 1, "a": t})
    assert digest_tensor(torch.ones(2, dtype=torch.bfloat16)) != digest_tensor(
        torch.ones(2, dtype=torch.float16)
    )
    assert digest_tensor(torch.zeros(0)) == digest_tensor(torch.zeros(0))


def test_seeds_are_named_and_independent():
    root = Seed(7)
    assert root.child("a", "b").integer == root.child("a").child("b").integer
    assert root.child("ab").integer != root.child("a", "b").integer
    assert root.child("a").integer != Seed(8).child("a").integer
    assert 0 <= root.integer < 2**63
    assert torch.equal(
        torch.rand(3, generator=root.child("x").torch()), torch.rand(3, generator=root.child("x").torch())
    )
    assert np.array_equal(root.child("x").numpy().random(3), root.child("x").numpy().random(3))


def test_no_global_random_state_is_touched():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Seed(1).torch()
    Seed(1).numpy().random(5)
    assert torch.equal(before, torch.get_rng_state())


def test_a_registry_is_lazy_and_helpful():
    registry = Registry("colour", {"red": ("no.such.module:x", "a colour")})
    registry.register("path", "pathlib:Path")
    assert list(registry) == ["path", "red"]
    assert registry.get("path").__name__ == "Path"
    assert registry.about("red") == "a colour"
    with pytest.raises(UnknownName, match="unknown colour 'rod'; expected one of red"):
        registry.get("rod")
    with pytest.raises(BadInput, match="twice"):
        registry.register("path", "os:path")
    with pytest.raises(BadInput, match="package"):
        registry.register("bad", "os.path")


HOSTILE = "<script>alert('x')</script>\"'&"


def test_html_is_escaped_in_text_and_attributes():
    made = str(element("p", HOSTILE, [HOSTILE, None], title=HOSTILE, hidden=True, class_="a", data_x=None))
    assert "<script" not in made
    assert made.startswith('<p title="&lt;script&gt;')
    assert " hidden " in made
    assert "data-x" not in made
    assert element("br") == "<br/>"
    assert "<script" not in card(HOSTILE, [(HOSTILE, HOSTILE)], HOSTILE)
    assert element("p", element("b", "x")) == "<p><b>x</b></p>"


def test_records_are_frozen_strict_and_finite():
    c = Component(decomposition="heads", index=3)
    assert c.name == "heads/3"
    with pytest.raises(ValueError, match="frozen"):
        c.index = 4
    with pytest.raises(ValueError, match="extra"):
        Component(decomposition="heads", index=3, colour="red")


def test_envelopes_round_trip_and_refuse_the_future():
    note = Note(about="x", text="y", data={"a": [1, 2.5]})
    assert unwrap(wrap(note)) == note
    with pytest.raises(NewerSchema, match="schema 99"):
        unwrap({**wrap(note), "schema": 99})
    with pytest.raises(BadInput, match="kind"):
        unwrap({**wrap(note), "kind": "poem"})
    with pytest.raises(BadInput, match="malformed"):
        unwrap({**wrap(note), "body": {"text": 3}})
    with pytest.raises(BadInput, match="schema"):
        unwrap({"kind": "note"})
