"""The rule explainer against planted rules, noise, and the symmetries it must respect."""

import numpy as np
import pytest

from describe.texts import batches, contexts, documents, flat, names
from prosect.core.errors import NotFinite, ShapeMismatch, UnknownName
from prosect.core.records import Executable
from prosect.core.seeds import Seed
from prosect.describe.contexts import FLAGS, Contexts
from prosect.describe.explainer import RuleExplainer
from prosect.describe.rules import Branch, Leaf, TokenRule, predicates
from prosect.describe.splits import shrunk_means
from prosect.describe.tables import TokenTable
from prosect.describe.vocabulary import Vocabulary
from prosect.store.shelf import Shelf

DOCS = documents(count=120)
FRESH = documents(seed=99, count=60)
WORDS = names(50)
CONTEXTS = contexts(DOCS, WORDS)
CURRENT, PREVIOUS = flat(DOCS)
N = len(CURRENT)
SHELF = Shelf()
EXPLAINER = RuleExplainer(CONTEXTS, SHELF)


def rule_of(explained):
    return TokenRule.of(explained.executable, SHELF)


def named(explained, back=0):
    """Tokens that the rule names at an offset where it predicts more than without it."""
    return {
        t
        for p in predicates(rule_of(explained).tree)
        if p.what == "token" and p.back == back
        for t in p.tokens
    }


def on(explained, docs):
    return np.concatenate([rule_of(explained).activation(b) for b in batches(docs)])


def noisy(signal, correlation, rng):
    """Noise added so that the signal's correlation with the sum is what is asked for."""
    noise = rng.standard_normal(len(signal))
    return signal + noise * signal.std() * np.sqrt(1 / correlation**2 - 1)


@pytest.mark.parametrize("tokens", [(7,), (3, 11, 30), tuple(range(20, 28))])
def test_a_planted_token_set_is_recovered_exactly(tokens):
    """E1: and predicts documents that the explainer never saw."""
    explained = EXPLAINER.explain(np.isin(CURRENT, tokens) * 2.5, "token")
    assert named(explained) == set(tokens)
    assert on(explained, FRESH) == pytest.approx(np.isin(flat(FRESH)[0], tokens) * 2.5, abs=1e-6)
    about = explained.description.about
    assert about["length"] == 1 and about["claim"] == "token" and about["coverage"] == 1.0
    assert explained.explored["correlation"] == pytest.approx(1.0)
    assert about["agreement"] == pytest.approx(1.0) and about["jaccard"] == 1.0


@pytest.mark.parametrize("correlation", [0.9, 0.7, 0.5])
def test_a_set_is_recovered_through_noise(correlation):
    rng, tokens = np.random.default_rng(5), (2, 9, 14, 21)
    signal = np.isin(CURRENT, tokens) * 1.0
    activation = noisy(signal, correlation, rng)
    explained = EXPLAINER.explain(activation, "token")
    assert named(explained) == set(tokens)
    assert explained.explored["correlation"] == pytest.approx(np.corrcoef(signal, activation)[0, 1], abs=0.01)


def test_strengths_may_differ_between_tokens():
    strength = np.zeros(50)
    strength[[4, 8, 15, 16, 23, 42]] = [3.0, 2.8, 1.5, 1.4, 3.1, 1.6]
    explained = EXPLAINER.explain(strength[CURRENT], "token")
    assert named(explained) == {4, 8, 15, 16, 23, 42}
    assert explained.explored["correlation"] > 0.98
    assert explained.words.startswith("fires on ") and "and 1 more" not in explained.words


@pytest.mark.parametrize("correlation", [1.0, 0.8])
def test_a_context_rule_is_recovered(correlation):
    tokens, before = (0, 1, 2, 5, 7), (3, 4, 6, 8)
    signal = (np.isin(CURRENT, tokens) & np.isin(PREVIOUS, before)) * 1.5
    activation = noisy(signal, correlation, np.random.default_rng(6))
    alone = EXPLAINER.explain(activation, "token")
    explained = EXPLAINER.explain(activation, "context")
    assert named(explained) == set(tokens) and named(explained, 1) == set(before)
    about = explained.description.about
    assert about["claim"] == "context" and about["beats_unigram"] is True
    assert explained.explored["correlation"] > alone.explored["correlation"] + 0.2
    assert " after " in explained.words


def test_without_the_context_columns_no_context_is_claimed():
    signal = (np.isin(CURRENT, (0, 1)) & np.isin(PREVIOUS, (2, 3))) * 1.0
    explained = EXPLAINER.explain(signal, "token")
    assert explained.description.about["claim"] == "token"
    assert all(p.what in ("token", "class") and p.back == 0 for p in predicates(rule_of(explained).tree))


def test_repetition_position_and_what_came_before():
    seen = np.concatenate([[t in d[:i] for i, t in enumerate(d)] for d in DOCS])
    assert EXPLAINER.explain(seen * 1.0).words == "fires on any token seen before in the window"
    place = np.concatenate([np.arange(len(d)) for d in DOCS])
    assert EXPLAINER.explain((place < 4) * 1.0).words == "fires on any token before position 4"
    assert EXPLAINER.explain((place == 0) * 1.0).words == "fires on any token at the start"
    two = np.concatenate([[-1, -1, *d[:-2]] for d in DOCS])
    assert EXPLAINER.explain((two == 3) * 1.0).words == "fires on any token two places after `t003`"


CODE = Vocabulary.of(
    [
        "def",
        "class",
        " f",
        " g",
        "(",
        ")",
        ":",
        "\n",
        "    ",
        "self",
        "x",
        ",",
        "'",
        "word",
        " said",
        "# ",
        "1",
        "+",
    ],
    language="python",
)


def programs(count, seed=0):
    rng = np.random.default_rng(seed)
    at = {s: i for i, s in enumerate(CODE.strings)}
    out = []
    for _ in range(count):
        doc = []
        for _ in range(rng.integers(4, 9)):
            line = [
                ["def", rng.choice([" f", " g"]), "(", "self", ",", "x", ")", ":"],
                ["class", rng.choice([" f", " g"]), ":"],
                ["    ", "x", "+", "1"],
                ["    ", "x", "+", "'", *rng.choice(["word", " said", "x", "1"], 4), "'"],
                ["x", "+", "self", "# ", *rng.choice(["word", " said", "x"], 3)],
                ["self", "(", *rng.choice(["x", "1", "self"], 2), ")"],
                ["x", "+", " f", "(", rng.choice(["x", "self"]), ",", "self", ")"],
                ["    ", "x", ",", "self", "+", " g", "(", "self", ")"],
            ][rng.integers(8)]
            doc += [at[t] for t in [*line, "\n"]]
        out.append(doc)
    return out


def flag(name, back=0):
    return lambda c: c.flags[:, FLAGS.index((*name, back))]


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (flag(("inside", "quotes")), "fires on any token inside quotes"),
        (flag(("inside", "comment")), "fires on any token inside a comment"),
        (flag(("inside", "brackets")), "fires on any token inside brackets"),
        (flag(("class", "number")), "fires on `1`"),
        (lambda c: c.codes[4] == c.code[0], "fires on any token in a line that starts with `def`"),
        (
            lambda c: c.codes[5] == c.code[1],
            "fires on any token below a line that starts with `class`",
        ),
        (lambda c: (c.tokens == 9) & (c.codes[1] == c.code[4]), "fires on `self` after `(`"),
    ],
)
def test_rules_about_text_are_found_and_told(truth, words):
    found, shelf = contexts(programs(80), CODE), Shelf()
    explained = RuleExplainer(found, shelf).explain(truth(found) * 2.0)
    assert explained.words == words
    fresh = programs(20, seed=1)
    rule = TokenRule.of(explained.executable, shelf)
    predicted = np.concatenate([rule.activation(b) for b in batches(fresh)])
    assert predicted == pytest.approx(truth(contexts(fresh, CODE)) * 2.0, abs=1e-6)


def test_noise_gives_nothing_and_does_not_predict():
    """D5: over many components of pure noise, cross-fitted and fresh correlations are centred on zero."""
    rng, explored, fresh, found = np.random.default_rng(7), [], [], 0
    current, _ = flat(FRESH)
    for i in range(24):
        sparse = rng.exponential(size=N) * (rng.random(N) < 0.03)
        explained = EXPLAINER.explain(sparse if i % 2 else rng.standard_normal(N))
        found += explained.found
        explored.append(explained.explored["correlation"])
        predicted = on(explained, FRESH)
        if predicted.std() > 0:
            fresh.append(np.corrcoef(predicted, rng.standard_normal(len(current)))[0, 1])
    assert found <= 5
    assert abs(np.mean(explored)) < 0.02 and np.max(np.abs(explored)) < 0.08
    assert not fresh or abs(np.mean(fresh)) < 0.04


def test_a_shuffled_activation_gives_nothing():
    signal = np.isin(CURRENT, (3, 11, 30)) * 2.5
    rng = np.random.default_rng(8)
    results = [EXPLAINER.explain(rng.permutation(signal)) for _ in range(10)]
    assert np.mean([r.explored["correlation"] for r in results]) < 0.02
    assert sum(r.found for r in results) <= 2
    nothing = next(r for r in results if not r.found)
    assert nothing.words == "no rule found: its mean activation everywhere"
    assert nothing.description.about["length"] == 0 and isinstance(rule_of(nothing).tree, Leaf)


def test_a_component_that_never_fires_is_described_as_such():
    explained = EXPLAINER.explain(np.zeros(N))
    assert not explained.found and explained.description.about["coverage"] == 0.0
    assert on(explained, FRESH).tolist() == [0.0] * len(flat(FRESH)[0])


def test_the_figures_are_cross_fitted_and_match_tables_fitted_by_hand():
    activation = noisy(np.isin(CURRENT, (1, 5)) * 1.0, 0.6, np.random.default_rng(9))
    explained = EXPLAINER.explain(activation, "token")
    predicted = np.zeros(N)
    for half in (False, True):
        here = CONTEXTS.second == half
        counts = np.bincount(CURRENT[here], minlength=50).astype(float)
        totals = np.bincount(CURRENT[here], weights=activation[here], minlength=50)
        table = shrunk_means(counts, totals, float((activation[here] ** 2).sum()))
        predicted[~here] = table[CURRENT[~here]]
    assert explained.explored["unigram"] == pytest.approx(np.corrcoef(predicted, activation)[0, 1], abs=1e-5)
    # a two-valued token rule, cross-fitted by hand
    predicted = np.zeros(N)
    for half in (False, True):
        here = CONTEXTS.second == half
        yes = np.isin(CURRENT, (1, 5))
        predicted[~here & yes] = activation[here & yes].mean()
        predicted[~here & ~yes] = activation[here & ~yes].mean()
    assert explained.explored["correlation"] == pytest.approx(
        np.corrcoef(predicted, activation)[0, 1], abs=1e-5
    )
    assert TokenTable.fit(CONTEXTS, activation).means[1] == pytest.approx(1.0, abs=0.2)


def test_coverage_is_the_share_of_the_activation_that_the_rule_speaks_of():
    rng = np.random.default_rng(16)
    yes = np.isin(CURRENT, (1, 5))
    activation = np.where(yes, 2.0, 0.0) + 0.2 * rng.random(N)
    explained = EXPLAINER.explain(activation, "token")
    assert named(explained) == {1, 5}
    share = activation[yes].sum() / activation.sum()
    assert 0.3 < share < 0.95 and explained.description.about["coverage"] == pytest.approx(share, rel=1e-4)


def test_agreement_is_low_where_the_two_sets_tell_different_stories():
    signal = np.where(CONTEXTS.second, np.isin(CURRENT, (3, 5)), np.isin(CURRENT, (7, 9))) * 2.0
    explained = EXPLAINER.explain(signal, "token")
    assert explained.explored["correlation"] < 0.3
    same = EXPLAINER.explain(np.isin(CURRENT, (3, 5)) * 2.0, "token")
    assert explained.description.about["agreement"] < 0.3 < same.description.about["agreement"]


def test_the_order_of_documents_changes_nothing():
    order = np.random.default_rng(10).permutation(len(DOCS)).tolist()
    named_ = [f"doc{i:03d}" for i in range(len(DOCS))]
    moved = Contexts.of(
        WORDS, batches([DOCS[i] for i in order], names=[named_[i] for i in order]), seed=Seed(0)
    )
    rng = np.random.default_rng(11)
    activation = noisy((np.isin(CURRENT, (1, 5, 6)) & (PREVIOUS != 2)) * 1.0, 0.7, rng)
    pieces = np.split(activation, np.cumsum([len(d) for d in DOCS])[:-1])
    one = EXPLAINER.explain(activation)
    two = RuleExplainer(moved, SHELF).explain(np.concatenate([pieces[i] for i in order]))
    assert two.description == one.description and two.explored == one.explored


def test_renaming_tokens_renames_the_rule():
    rng = np.random.default_rng(12)
    new = rng.permutation(50)  # old id → new id
    strings = [""] * 50
    for old, string in enumerate(WORDS.strings):
        strings[new[old]] = string
    renamed = contexts([[int(new[t]) for t in d] for d in DOCS], Vocabulary.of(strings))
    activation = noisy((np.isin(CURRENT, (1, 5, 6)) & (PREVIOUS != 2)) * 1.0, 0.7, rng)
    one, two = EXPLAINER.explain(activation), RuleExplainer(renamed, SHELF).explain(activation)
    assert two.words == one.words and two.explored == one.explored
    for back in (0, 1, 2, 3):
        assert named(two, back) == {int(new[t]) for t in named(one, back)}


def test_scaling_the_activation_scales_the_rule():
    activation = noisy(np.isin(CURRENT, (1, 5, 6)) * 1.0, 0.7, np.random.default_rng(13))
    one = EXPLAINER.explain(activation)
    for factor in (1e-3, 0.37, 41.0, 1e4):
        two = EXPLAINER.explain(activation * factor)
        assert two.words == one.words
        assert on(two, FRESH) == pytest.approx(on(one, FRESH) * factor, rel=1e-5, abs=1e-5 * factor)


def test_a_rule_comes_back_bit_identical(tmp_path):
    shelf = Shelf(tmp_path)
    found = contexts(programs(60), CODE)
    rng = np.random.default_rng(14)
    activation = (found.tokens == 9) * 2.0 + found.flags[:, 40] + 0.3 * rng.random(len(found))
    explained = RuleExplainer(found, shelf).explain(activation)
    stored = explained.executable.model_dump_json()
    again = TokenRule.of(Executable.model_validate_json(stored), Shelf(tmp_path))
    for batch in batches(programs(10, seed=3)):
        assert np.array_equal(
            again.activation(batch), TokenRule.of(explained.executable, shelf).activation(batch)
        )


def test_rules_stay_readable():
    rng = np.random.default_rng(15)
    for _ in range(5):
        activation = rng.standard_normal(50)[CURRENT] + 0.3 * rng.standard_normal(N)
        explained = EXPLAINER.explain(activation)
        tree = rule_of(explained).tree
        assert isinstance(tree, Branch) and len(predicates(tree)) <= 4
        assert all(len(p.tokens) <= 32 for p in predicates(tree))
        assert len(explained.words) <= 120 and "\n" not in explained.words


def test_bad_input_is_refused():
    with pytest.raises(UnknownName, match="richness"):
        EXPLAINER.explain(np.zeros(N), "contexts")
    with pytest.raises(ShapeMismatch):
        EXPLAINER.explain(np.zeros(N - 1))
    with pytest.raises(NotFinite):
        EXPLAINER.explain(np.full(N, np.inf))


def test_hostile_tokens_are_escaped_where_they_are_shown():
    words = Vocabulary.of(["<script>alert(1)</script>", *WORDS.strings[1:]])
    found = contexts(DOCS, words)
    explained = RuleExplainer(found, Shelf()).explain((CURRENT == 0) * 1.0)
    assert "<script>" not in str(explained._repr_html_())
    assert "&lt;script&gt;" in str(explained._repr_html_())


@pytest.mark.parametrize("richness", ["token", "context"])
def test_what_the_second_set_alone_gives_never_saw_the_first(richness):
    signal = np.where(CONTEXTS.second, np.isin(CURRENT, (3, 5)), np.isin(CURRENT, (3, 7))) * 2.0
    explained = EXPLAINER.explain(signal, richness)
    current, _ = flat(FRESH)
    again = TokenRule.of(explained.second, SHELF)
    said = np.concatenate([again.activation(b) for b in batches(FRESH)])
    assert said[np.isin(current, (3, 5))].min() > 1.0 and said[~np.isin(current, (3, 5))].max() < 0.5
    assert on(explained, FRESH)[current == 7].mean() > 0.5  # both sets together know of the first's token
    same = EXPLAINER.explain(np.isin(CURRENT, (3, 5)) * 2.0, richness)
    assert same.second == same.executable
