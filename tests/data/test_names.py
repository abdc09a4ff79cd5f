"""Sentences with names: every name where it should be, in tokenizers of different kinds; no name in two parts."""

import numpy as np
import pytest

from named import by_bytes, by_spaces
from prosect.core.errors import BadInput, Unsupported
from prosect.data.names import NAMES, named_sentences, single_names


@pytest.fixture(scope="module", params=[by_spaces, by_bytes])
def tokenizer(request):
    return request.param()


def test_single_names_are_one_token_in_a_sentence(tokenizer):
    found = single_names(tokenizer)
    assert len(found) >= 12 and len(set(found.values())) == len(found)
    for name in NAMES:
        ids = tokenizer.encode(f"and with {name}", add_special_tokens=False)
        before = tokenizer.encode("and with", add_special_tokens=False)
        assert (name in found) == (len(ids) == len(before) + 1), name


def test_a_sentence_says_one_name_twice_and_ends_before_the_other(tokenizer):
    names = {token: name for name, token in single_names(tokenizer).items()}
    made = named_sentences(tokenizer, "explore", 40, seed=3)
    orders = set()
    for i in range(40):
        n = int(made.clean.lengths[i])
        ids, other = (b.tensors["input_ids"][i, :n].tolist() for b in (made.clean, made.counterfactual))
        at = [p for p, t in enumerate(ids) if t in names]
        assert sorted(at) == sorted([made.io_at[i], made.s1_at[i], made.s2_at[i]])
        assert [names[ids[p]] for p in (made.s1_at[i], made.s2_at[i])] == [names[made.s[i]]] * 2
        assert made.io[i] != made.s[i] and made.s1_at[i] < made.s2_at[i] and made.io_at[i] < made.s2_at[i]
        assert tokenizer.decode(ids).rstrip().endswith(" to")
        assert [p for p in range(n) if ids[p] != other[p]] == sorted(at)
        assert len({other[p] for p in at} | {ids[p] for p in at}) == 5  # three others, no two the same
        orders.add(bool(made.io_at[i] < made.s1_at[i]))
    assert orders == {True, False}


def test_parts_share_no_name(tokenizer):
    a, b = (named_sentences(tokenizer, part, 40) for part in ("explore", "validate.0"))
    assert not {*a.io.tolist(), *a.s.tolist()} & {*b.io.tolist(), *b.s.tolist()}
    again = named_sentences(tokenizer, "explore", 40)
    assert np.array_equal(a.io, again.io) and not np.array_equal(
        a.io, named_sentences(tokenizer, seed=1, rows=40).io
    )


def test_what_has_too_few_names_is_refused():
    with pytest.raises(Unsupported, match="3 of 46 names as single tokens"):
        named_sentences(by_spaces(NAMES[:3]))
    with pytest.raises(Unsupported, match="without a tokenizer"):
        named_sentences(None)
    with pytest.raises(BadInput, match="explore or validate"):
        named_sentences(by_spaces(), "sealed")
