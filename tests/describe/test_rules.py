"""Token rules: predicates against loops, storage, refusals."""

import numpy as np
import pytest

from describe.texts import batches, documents, names
from prosect.core.errors import BadInput, NewerSchema
from prosect.core.records import Executable
from prosect.describe.contexts import Columns
from prosect.describe.rules import Branch, Leaf, Predicate, TokenRule, tree_of
from prosect.describe.vocabulary import Vocabulary
from prosect.store.shelf import Shelf

DOCS = documents(seed=2, count=7, low=2, high=25)


def test_a_rule_predicts_what_its_tree_says():
    tree = Branch(
        Predicate("token", tokens=(1, 3, 4)),
        Branch(Predicate("token", back=1, tokens=(0, 2)), Leaf(2.0), Leaf(1.0)),
        Branch(
            Predicate("repeated"), Branch(Predicate("position", below=8), Leaf(0.5), Leaf(0.25)), Leaf(0.0)
        ),
    )
    expected = []
    for doc in DOCS:
        for i, token in enumerate(doc):
            if token in (1, 3, 4):
                expected.append(2.0 if i and doc[i - 1] in (0, 2) else 1.0)
            elif token in doc[:i]:
                expected.append(0.5 if i < 8 else 0.25)
            else:
                expected.append(0.0)
    (batch,) = batches(DOCS, width=30)
    assert TokenRule(tree).activation(batch).tolist() == expected


def test_a_token_before_the_start_is_in_no_set():
    (batch,) = batches([[5, 5]])
    rule = TokenRule(Branch(Predicate("token", back=1, tokens=(5,)), Leaf(1.0), Leaf(0.0)))
    assert rule.activation(batch).tolist() == [0.0, 1.0]
    words = Vocabulary.of([" "] * 6)
    before = TokenRule(Branch(Predicate("class", back=1, name="white space"), Leaf(1.0), Leaf(0.0)), words)
    assert before.activation(batch).tolist() == [0.0, 1.0]


def test_tokens_the_rule_never_saw_are_in_no_set():
    (batch,) = batches([[1000, 1]])
    rule = TokenRule(Branch(Predicate("token", tokens=(1,)), Leaf(1.0), Leaf(0.0)))
    assert rule.activation(batch).tolist() == [0.0, 1.0]


def test_only_rules_about_text_keep_the_vocabulary(tmp_path):
    words = names(50)
    about_ids = TokenRule(Branch(Predicate("token", tokens=(1,)), Leaf(1.0), Leaf(0.0)), words)
    about_text = TokenRule(Branch(Predicate("class", name="word"), Leaf(1.0), Leaf(0.0)), words)
    shelf = Shelf(tmp_path)
    assert about_ids.executable(shelf).tensors == {}
    stored = about_text.executable(shelf)
    (batch,) = batches(DOCS)
    again = TokenRule.of(Executable.model_validate_json(stored.model_dump_json()), Shelf(tmp_path))
    assert np.array_equal(again.activation(batch), about_text.activation(batch))
    with pytest.raises(BadInput, match="without a vocabulary"):
        TokenRule.of(stored.model_copy(update={"tensors": {}}), shelf)


@pytest.mark.parametrize(
    "tree",
    [
        {"value": float("inf")},
        {"value": "x"},
        {"if": {"what": "token", "tokens": []}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "token", "tokens": [3, 3]}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "token", "tokens": [-1]}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "token", "tokens": [1], "back": -1}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "class", "name": "verb"}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "next token", "tokens": [1]}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "repeated", "why": 1}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "position"}, "then": {"value": 1}, "else": {"value": 0}},
        {"if": {"what": "repeated"}, "then": {"value": 1}},
        [],
        None,
    ],
)
def test_malformed_trees_are_refused(tree):
    executable = {"kind": "token-rule", "parameters": {"tree": tree}}
    with pytest.raises((BadInput, ValueError)):
        TokenRule.of(Executable.model_validate(executable), Shelf())


def test_a_tree_without_end_is_refused():
    tree = {"value": 0.0}
    for _ in range(40):
        tree = {"if": {"what": "repeated"}, "then": tree, "else": {"value": 1.0}}
    with pytest.raises(BadInput, match="deep"):
        tree_of(tree)


def test_other_kinds_and_versions_are_refused():
    tree = {"tree": {"value": 1.0}}
    with pytest.raises(BadInput, match="kind"):
        TokenRule.of(Executable(kind="token-table", parameters=tree), Shelf())
    with pytest.raises(NewerSchema):
        TokenRule.of(Executable(kind="token-rule", version=2, parameters=tree), Shelf())
    with pytest.raises(BadInput, match="version 0"):
        TokenRule.of(Executable(kind="token-rule", version=0, parameters=tree), Shelf())


def test_columns_are_made_once_for_all_rules_on_a_batch(monkeypatch):
    (batch,) = batches(DOCS)
    made = []
    original = Columns.token
    monkeypatch.setattr(Columns, "token", lambda self, back: made.append(id(self)) or original(self, back))
    for token in range(5):
        TokenRule(Branch(Predicate("token", tokens=(token,)), Leaf(1.0), Leaf(0.0))).activation(batch)
    assert len(made) == 5 and len(set(made)) == 1
