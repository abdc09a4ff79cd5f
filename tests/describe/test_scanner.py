"""The scanner against Python's own tokenizer."""

import inspect
import io
import json
import random
import textwrap
import tokenize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.describe.scanner import Scanner
from prosect.describe.vocabulary import Vocabulary


def pieces(text, seed, longest=4):
    """``text`` cut at random into tokens."""
    rng, out, at = random.Random(seed), [], 0
    while at < len(text):
        step = rng.randint(1, longest)
        out.append(text[at : at + step])
        at += step
    return out


def scan(tokens, specials=()):
    strings = sorted(set(tokens))
    found = Scanner(Vocabulary.of(strings, [strings.index(s) for s in specials])).scan(
        [[strings.index(t) for t in tokens]]
    )
    return found, strings


SOURCES = [
    inspect.getsource(textwrap),
    inspect.getsource(json.encoder),
    inspect.getsource(tokenize),
    r"""x = '''a 'b' \''' c''' + "" + '' + r"\"#" + '"' # it's
y = f('[', {1: [2]})
""",
]


@pytest.mark.parametrize("source", SOURCES, ids=["textwrap", "json.encoder", "tokenize", "corners"])
def test_quotes_comments_and_brackets_are_where_python_sees_them(source):
    starts = np.cumsum([0, *(len(line) for line in source.splitlines(keepends=True))])
    string, comment = np.zeros(len(source), bool), np.zeros(len(source), bool)
    bracket = np.zeros(len(source), int)
    nested = opened = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        name = tokenize.tok_name[token.type]
        # From 3.12 on the tokenizer also looks into f-strings; the scanner does not.
        if name == "FSTRING_START":
            nested, opened = nested + 1, begin if not nested else opened
        elif name == "FSTRING_END":
            nested -= 1
            string[opened:end] = True
        elif nested:
            continue
        elif name == "STRING":
            string[begin:end] = True
        elif name == "COMMENT":
            comment[begin:end] = True
        elif name == "OP" and token.string in "([{":
            bracket[begin:] += 1
        elif name == "OP" and token.string in ")]}":
            bracket[end:] -= 1
    found, _ = scan(list(source))
    # A prefix such as r or f is not inside quotes; Python counts it to the string.
    prefix = np.array([c in "rbfuRBFU" for c in source]) & string & ~found.quotes
    after = np.roll(string, -1)
    assert (found.quotes | (prefix & after) == string).all()
    assert (found.comment == comment).all()
    assert ((bracket > 0) == found.brackets).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("source", SOURCES[:2], ids=["textwrap", "json.encoder"])
def test_how_text_is_cut_changes_nothing_at_the_cuts(source, seed):
    whole, _ = scan(list(source))
    tokens = pieces(source, seed)
    cut, _ = scan(tokens)
    ends = np.cumsum([len(t) for t in tokens]) - 1
    alone = np.array([len(t) == 1 for t in tokens])
    assert alone.sum() > 100
    assert (cut.comment == whole.comment[ends]).all()
    assert (cut.brackets[alone] == whole.brackets[ends[alone]]).all()
    assert (cut.quotes[alone] == whole.quotes[ends[alone]]).all()


def test_lines_are_named_by_their_first_visible_token():
    tokens = ["def", " f", "(", "):", "\n", "    ", "return", " 1", "\n\n", "x", "\ny", " z", "\n"]
    found, strings = scan(tokens)
    name = lambda ids: [strings[i] if i >= 0 else None for i in ids]  # noqa: E731
    assert name(found.line) == [
        "def", "def", "def", "def", None, None, "return", "return", None, "x", "\ny", "\ny", None,
    ]  # fmt: skip
    assert name(found.previous) == [
        None, None, None, None, "def", "def", "def", "def", "return", "return", "x", "x", "\ny",
    ]  # fmt: skip


def test_apostrophes_in_prose_open_nothing():
    found, _ = scan(["It", "'", "s", " the", " dog", "'", "s", " bone", "\n", "ok"])
    assert not found.quotes.any()


def test_a_string_left_open_ends_with_its_line():
    found, _ = scan(["x", " = ", "'", "abc", "\n", "y"])
    assert found.quotes.tolist() == [False, False, True, True, True, False]


def test_brackets_that_were_never_opened_close_nothing():
    found, _ = scan([")", "x", ")](", "y", "])", "z", "}}(", "w"])
    assert found.brackets.tolist() == [False, False, True, True, True, False, True, True]


def test_a_special_token_ends_everything():
    found, _ = scan(["f", "(", '"""', "a", "<end>", "b"], specials=["<end>"])
    assert found.quotes.tolist() == [False, False, True, True, False, False]
    assert found.brackets.tolist() == [False, True, True, True, False, False]
    assert found.line[4] == -1 and found.previous[5] == -1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="ab \n'\"#()\\[é", max_size=4), max_size=30))
def test_it_never_fails_and_looks_only_back(tokens):
    tokens = [t for t in tokens if t]
    if not tokens:
        return
    whole, strings = scan([*tokens, "end"])
    part, fewer = scan(tokens)
    assert (whole.quotes[:-1] == part.quotes).all() and (whole.brackets[:-1] == part.brackets).all()
    assert [strings[i] for i in whole.line[:-1] if i >= 0] == [fewer[i] for i in part.line if i >= 0]
