"""Columns around each token, against loops written out."""

import numpy as np
import pytest
import torch

from describe.texts import batches, contexts, documents, names
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.contexts import CATEGORICAL, FLAGS, POSITIONS, Columns, Contexts
from prosect.describe.vocabulary import Vocabulary

WORDS_50 = names(50)
WORDS = Vocabulary.of(["<end>", "def", " f", "(", ")", ":", "\n    ", "'", "x", "# ", "\n"], [0], "python")


def test_columns_of_a_batch_are_what_loops_give():
    docs = documents(seed=1, count=9, low=3, high=30)
    (batch,) = batches(docs, width=40)
    columns = Columns(batch)
    at = 0
    for row, doc in enumerate(docs):
        for i, token in enumerate(doc):
            for back in (0, 1, 2, 3):
                assert columns.token(back)[at] == (doc[i - back] if i >= back else -1)
            assert columns.position[at] == i and columns.row[at] == row
            assert columns.repeated[at] == (token in doc[:i])
            at += 1
    assert len(columns) == at == batch.count


def test_special_tokens_are_seen_and_not_scored():
    docs = [[0, *d] for d in documents(seed=1, count=9, low=3, high=30)]
    (plain,), (marked,) = batches(docs, width=40), batches(docs, width=40, special=1)
    whole, some = Columns(plain, WORDS_50), Columns(marked, WORDS_50)
    kept = whole.position > 0
    assert len(some) == marked.count == len(whole) - 9
    for back in (0, 1, 2, 3):
        assert (some.token(back) == whole.token(back)[kept]).all()
    for name in ("position", "row", "repeated"):
        assert (getattr(some, name) == getattr(whole, name)[kept]).all()
    for name in ("line", "previous", "quotes", "comment", "brackets"):
        assert (getattr(some.scan, name) == getattr(whole.scan, name)[kept]).all()
    found = contexts(docs, WORDS_50, special=1)
    assert len(found) == sum(len(d) - 1 for d in docs) and (found.codes[1][found.position == 1] > 0).all()
    assert (np.diff(found.starts) == [len(d) - 1 for d in docs]).all()


def test_far_back_is_before_the_start():
    (batch,) = batches([[1, 2], [3]])
    assert (Columns(batch).token(5) == -1).all()


def test_flags_and_codes_are_the_columns_and_rank_tokens_by_string():
    docs = [[1, 2, 3, 8, 4, 5, 6, 8, 9, 8], [10, 7, 8, 7, 10, 1, 2]]
    found = Contexts.of(WORDS, batches(docs), seed=Seed(0))
    strings = np.array([*(WORDS.strings[t] for t in found.named), None], dtype=object)
    assert strings[:-1].tolist() == sorted(strings[:-1])
    before = strings[found.codes[CATEGORICAL.index(("token", 1))] - 1]
    assert before.tolist() == [None, "def", " f", "(", "x", ")", ":", "\n    ", "x", "# ", None, "\n", "'", "x",
                               "'", "\n", "def"]  # fmt: skip
    flag = {f: found.flags[:, i] for i, f in enumerate(FLAGS)}
    assert flag["class", "keyword", 0].tolist() == [t == 1 for d in docs for t in d]
    assert flag["class", "keyword", 1].tolist() == [t == 1 for d in docs for t in [-1, *d[:-1]]]
    assert flag["inside", "quotes", 0].tolist() == [False] * 11 + [True, True, True] + [False] * 3
    assert flag["inside", "comment", 0].tolist() == [False] * 8 + [True, True] + [False] * 7
    assert flag["inside", "brackets", 0].tolist() == [False, False, True, True, True] + [False] * 12
    for below in POSITIONS:
        assert (flag["position", str(below), 0] == (found.position < below)).all()
    line = strings[found.codes[CATEGORICAL.index(("line", 0))] - 1]
    assert line[:10].tolist() == ["def"] * 6 + [None, "x", "x", "x"]


def test_the_two_sets_do_not_depend_on_the_order_of_documents():
    docs = documents(count=21)
    names_ = [f"d{i}" for i in range(21)]
    order = np.random.default_rng(0).permutation(21).tolist()
    one = contexts(docs, names(50), names=names_)
    two = contexts([docs[i] for i in order], names(50), names=[names_[i] for i in order])
    in_second = {names_[i]: bool(one.second[one.starts[i]]) for i in range(21)}
    assert {names_[order[i]]: bool(two.second[two.starts[i]]) for i in range(21)} == in_second
    assert one.units == (11, 10)
    assert in_second != {n: bool(c) for n, c in zip(names_, contexts(docs, names(50), seed=1, names=names_).second[one.starts[:-1]], strict=True)}  # fmt: skip


def test_near_duplicates_stay_together():
    docs = documents(count=12)
    found = contexts(docs, names(50), units=[i // 3 for i in range(12)])
    assert found.units == (2, 2)
    for unit in range(4):
        assert len(set(found.second[found.unit == unit].tolist())) == 1


def test_two_sets_may_be_given_and_must_be_disjoint():
    docs = documents(count=8)
    first, second = batches(docs[:5]), batches(docs[5:], names=["x", "y", "z"])
    found = Contexts.of(names(50), first, second)
    assert found.units == (5, 3) and len(found.rows) == 8
    assert (found.second == (found.row >= 5)).all()
    with pytest.raises(BadInput, match="in both document sets"):
        Contexts.of(names(50), first, batches(docs[5:], names=["x", "doc001", "z"]))


def test_bad_input_is_refused():
    vocabulary, docs = names(50), documents(count=4)
    with pytest.raises(BadInput, match="token 49"):
        Contexts.of(names(10), batches([[1, 49], [2]]))
    with pytest.raises(TooLittleData, match="no explored position"):
        Contexts.of(vocabulary, [])
    with pytest.raises(TooLittleData, match="1 unit"):
        Contexts.of(vocabulary, batches(docs[:1]))
    with pytest.raises(TooLittleData, match="one of them empty"):
        Contexts.of(vocabulary, batches(docs), [])
    numeric = Batch({"s": torch.zeros(2, 3)}, None, (Row(0), Row(1)))
    with pytest.raises(BadInput, match="got a batch of s"):
        Columns(numeric)
    left = Batch(
        {"input_ids": torch.zeros((1, 3), dtype=torch.long)}, torch.tensor([[False, True, True]]), (Row(0),)
    )
    with pytest.raises(ShapeMismatch, match="padding"):
        Columns(left)
    found = contexts(docs, vocabulary)
    with pytest.raises(ShapeMismatch, match="explored positions"):
        found.checked(np.zeros(3))
    bad = np.zeros(len(found))
    bad[-1] = np.nan
    with pytest.raises(NotFinite, match="doc003"):
        found.checked(bad)
    assert "explored" in Contexts._repr_html_(found).lower()
