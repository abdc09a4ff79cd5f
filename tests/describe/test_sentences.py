"""Rules as sentences, exactly."""

import pytest

from prosect.describe.rules import Branch, Leaf, Predicate
from prosect.describe.sentences import sentence
from prosect.describe.vocabulary import Vocabulary

WORDS = Vocabulary.of(["self", "(", "cls", ".", " x", "\n", "def", "<b>", *[f"word{i}" for i in range(60)]])


def token(*tokens, back=0):
    return Predicate("token", back=back, tokens=tokens)


def flag(what, name="", back=0):
    return Predicate(what, name=name, back=back)


def when(predicate, then, otherwise=0.0):
    made = [Leaf(float(v)) if isinstance(v, int | float) else v for v in (then, otherwise)]
    return Branch(predicate, *made)


SENTENCES = [
    (Leaf(1.0), "no rule found: its mean activation everywhere"),
    (when(token(0), 1), "fires on `self`"),
    (when(token(0, 5), 1), "fires on `⏎` or `self`"),
    (when(token(0), when(token(1, back=1), 1)), "fires on `self` after `(`"),
    (when(token(0), when(token(1, back=1), 0, 1)), "fires on `self` not after `(`"),
    (when(token(0), when(token(1, 3, back=2), 1)), "fires on `self` two places after `(` or `.`"),
    # strengths: one set, the strongest first, and what was asked before is not said twice
    (when(token(0, 2), when(token(2), 3, 2)), "fires on `cls` or `self`"),
    (when(token(0), 2, when(token(2), 3)), "fires on `cls` or `self`"),
    (when(token(0, 2), when(token(0), 2)), "fires on `self`"),
    (when(token(0), when(token(1, back=1), 2, 1)), "fires on `self` after `(`; less on `self` not after `(`"),
    (
        when(token(0), 2, when(flag("inside", "quotes"), 1)),
        "fires on `self`; less on any token except `self` inside quotes",
    ),
    (when(flag("class", "number"), 1), "fires on a number"),
    (when(flag("class", "number", 1), 1), "fires on any token after a number"),
    (
        when(flag("inside", "comment"), when(flag("class", "word"), 0, 1)),
        "fires on any token other than a word or part of one inside a comment",
    ),
    (when(flag("inside", "brackets"), when(token(0), 1)), "fires on `self` inside brackets"),
    (when(token(0), when(flag("inside", "quotes"), 0, 1)), "fires on `self` outside quotes"),
    (when(flag("repeated"), 1), "fires on any token seen before in the window"),
    (when(token(0), when(flag("repeated"), 0, 1)), "fires on `self` new in the window"),
    (when(Predicate("position", below=1), 1), "fires on any token at the start"),
    (
        when(Predicate("position", below=8), when(Predicate("position", below=2), 0, 1)),
        "fires on any token between positions 2 and 7",
    ),
    (when(token(0), when(Predicate("position", below=8), 0, 1)), "fires on `self` from position 8 on"),
    (when(Predicate("line", tokens=(6,)), 1), "fires on any token in a line that starts with `def`"),
    (
        when(Predicate("previous line", tokens=(6,)), when(token(0), 1)),
        "fires on `self` below a line that starts with `def`",
    ),
    # told the other way round where only an absence goes with firing
    (when(token(0), 0, 1), "fires less on `self`"),
    (when(flag("class", "word"), 0, 1), "fires less on a word or part of one"),
    (when(token(7), 1), "fires on `<b>`"),
    # what is known of the token's class is taken into the set, and a set it leaves empty is not told
    (
        when(flag("class", "word"), when(token(0, 1), 2), when(token(0, 1), 1)),
        "fires on `self` or `(`",
    ),
    (when(flag("class", "number"), when(token(0), 2), when(token(1), 1)), "fires on `(`"),
]


@pytest.mark.parametrize(("tree", "words"), SENTENCES, ids=[w for _, w in SENTENCES])
def test_a_rule_reads_as(tree, words):
    assert sentence(tree, 0.5, WORDS) == words


def test_long_sets_are_cut_to_a_readable_length():
    text = sentence(when(token(*range(8, 68)), 1), 0.5, WORDS)
    assert text.startswith("fires on `word0`, `word1`, ") and text.endswith(" more") and len(text) <= 120
    shown = text.count("`") // 2
    assert text.endswith(f" and {60 - shown} more")
    many = when(
        token(*range(8, 40)), when(token(*range(40, 60), back=1), 2), when(token(*range(41, 68), back=2), 1)
    )
    assert len(sentence(many, 0.5, WORDS)) <= 120


def test_the_strongest_tokens_are_named_first():
    text = sentence(when(token(8, 9, 10), 1), 0.5, WORDS, lambda place, t: float(t == 10))
    assert text == "fires on `word2`, `word0` or `word1`"


def test_cases_that_do_not_fit_are_counted():
    long = Vocabulary.of([f"a_rather_long_token_{i:03d}" for i in range(20)])
    tree = Leaf(0.0)
    for i in range(4):
        tree = when(token(i), when(token(10 + i, back=1), 4.0 - i), tree)
    text = sentence(tree, 0.5, long)
    assert len(text) <= 120 and "; and " in text and text.endswith(" more")
