"""Examples: strata, disjoint sets, and what must not be told by how they are drawn."""

from collections import Counter

import numpy as np
import pytest
import torch

from describe.texts import batches, contexts, documents, flat, names
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.describe.examples import STRATA, attention_examples, input_examples, token_examples
from prosect.describe.explainer import RuleExplainer
from prosect.describe.roles import HeadRole
from prosect.describe.rules import TokenRule
from prosect.store.shelf import Shelf

DOCS = documents(count=80)
WORDS = names(50)
CONTEXTS = contexts(DOCS, WORDS)
CURRENT, PREVIOUS = flat(DOCS)
RNG = np.random.default_rng(0)
SIZE = RNG.exponential(size=len(CURRENT)) + 0.1
ACTIVATION = (np.isin(CURRENT, (3, 7, 9)) & (PREVIOUS != 0)) * SIZE
RULE = np.isin(CURRENT, (3, 7, 9)) * 1.0


def drawn(**kwargs):
    options = {"each": 3, "predicted": RULE} | kwargs
    return token_examples(
        CONTEXTS, options.pop("activation", ACTIVATION), options.pop("seed", Seed(1)), **options
    )


def places(examples, activation=ACTIVATION, stratum=None):
    """(document set, stratum) → positions in the flat order, found again by document and content."""
    starts = {f"doc{i:03d}": (sum(map(len, DOCS[:i])), d) for i, d in enumerate(DOCS)}
    for e in examples.shown:
        if stratum not in (None, e.stratum):
            continue
        begin, doc = starts[e.source]
        ids = [int(t[1:]) for t in e.tokens]
        at = next(i for i in range(len(doc)) if doc[i : i + len(ids)] == ids
                  and np.allclose(activation[begin + i : begin + i + len(ids)], e.measured, rtol=1e-4))  # fmt: skip
        yield e, begin + at + e.centre


def test_every_stratum_comes_from_both_disjoint_sets():
    found = drawn()
    counts = Counter((e.documents, e.stratum) for e in found.shown)
    assert counts == {(d, s): 3 for d in ("first", "second") for s in STRATA}
    assert found.short == {}
    sources = {d: {e.source for e in found.shown if e.documents == d} for d in ("first", "second")}
    in_second = {
        CONTEXTS.rows[i].document: bool(CONTEXTS.second[CONTEXTS.starts[i]]) for i in range(len(DOCS))
    }
    assert all(not in_second[s] for s in sources["first"]) and all(in_second[s] for s in sources["second"])


def test_the_centre_is_the_position_it_was_drawn_for():
    active = ACTIVATION > 0
    for e, at in places(drawn(each=6)):
        assert e.tokens[e.centre] == WORDS.strings[CURRENT[at]] and len(e.tokens) <= 24
        assert len(e.predicted) == len(e.tokens) == len(e.measured)
        same_set = active & (CONTEXTS.second == (e.documents == "second"))
        rank = (ACTIVATION[same_set] < ACTIVATION[at]).mean()
        if e.stratum == "top":
            assert rank >= 0.88
        elif e.stratum == "middle":
            assert 0.25 <= rank <= 0.75
        elif e.stratum == "near miss":
            assert ACTIVATION[at] == 0 and RULE[at] > 0


def test_near_misses_without_a_rule_share_a_token_with_what_is_active():
    for e, at in places(drawn(predicted=None)):
        assert e.predicted == ()
        if e.stratum == "near miss":
            assert ACTIVATION[at] == 0 and CURRENT[at] in (3, 7, 9)


def test_random_means_uniform_over_the_population():
    """Over many seeds, random examples fall evenly on the positions of their set (chi-squared)."""
    hits = np.zeros(len(CURRENT))
    for seed in range(10):
        for _, at in places(drawn(seed=Seed(seed), each=50), stratum="random"):
            hits[at] += 1
    for second in (False, True):
        at = np.flatnonzero(CONTEXTS.second == second)
        parts = np.array([chunk.sum() for chunk in np.array_split(hits[at], 10)])
        expected = parts.sum() / 10
        assert ((parts - expected) ** 2 / expected).sum() < 27.9  # .999 quantile with 9 degrees of freedom
    # active positions are drawn as often as they occur, no more
    share = hits[ACTIVATION > 0].sum() / hits.sum()
    assert share == pytest.approx((ACTIVATION > 0).mean(), abs=0.03)


def test_the_place_in_the_window_tells_nothing_of_the_stratum():
    """As in a scorer that always marks the same place in its negatives: here all strata have one distribution."""
    where = {s: [] for s in STRATA}
    start = np.concatenate([np.arange(len(d)) for d in DOCS])
    left = np.concatenate([len(d) - 1 - np.arange(len(d)) for d in DOCS])
    for seed in range(40):
        for e, at in places(drawn(seed=Seed(seed))):
            if min(start[at], left[at]) >= 24:  # at the edges of a row the window has no choice
                where[e.stratum].append(e.centre / len(e.tokens))
    means = {s: np.mean(v) for s, v in where.items()}
    error = max(np.std(v) / np.sqrt(len(v)) for v in where.values())
    assert max(means.values()) - min(means.values()) < 5 * error
    assert all(len(v) > 40 and len(set(v)) > 8 for v in where.values())


def test_strata_do_not_share_positions_but_for_random_ones():
    seen = [at for e, at in places(drawn(each=5)) if e.stratum != "random"]
    assert len(seen) == len(set(seen))


def test_examples_prefer_different_documents():
    top = [e for e in drawn(each=5).shown if e.stratum == "top" and e.documents == "first"]
    assert len({e.source for e in top}) == 5


def test_the_same_seed_draws_the_same_and_no_global_state_moves():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert drawn() == drawn() != drawn(seed=Seed(2))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_what_is_missing_is_counted():
    """Nothing is dropped in silence: a stratum that cannot be filled says how many are missing."""
    rare = np.zeros(len(CURRENT))
    rare[np.flatnonzero(CURRENT == 3)[:1]] = 1.0
    found = drawn(activation=rare, predicted=rare)
    counts = Counter(e.stratum for e in found.shown)
    assert found.short["top"] == 6 - counts["top"] > 0
    assert sum(found.short.values()) + len(found.shown) == 24
    silent = drawn(activation=np.zeros(len(CURRENT)), predicted=None)
    assert silent.agreement is None and {e.stratum for e in silent.shown} == {"random"}
    assert silent.short == {"top": 6, "middle": 6, "near miss": 6}


def test_agreement_tells_one_meaning_from_two():
    """D4: a component that means something else in other documents."""
    same = drawn().agreement
    two = np.where(CONTEXTS.second, np.isin(CURRENT, (3, 7)), np.isin(CURRENT, (5, 9))) * SIZE
    assert same > 0.6 and drawn(activation=two).agreement == 0.0


def test_a_dense_component_is_active_in_its_highest_tenth():
    dense = np.random.default_rng(1).standard_normal(len(CURRENT)) + 3.0
    for e, at in places(drawn(activation=dense, predicted=None), dense):
        if e.stratum in ("top", "middle"):
            assert dense[at] > np.quantile(dense, 0.9)


def test_a_polysemantic_component_shows_both_meanings_beyond_the_top():
    """D3: the loud meaning fills the top; the middle also shows the quiet one."""
    loud, quiet = np.isin(CURRENT, (3,)), np.isin(CURRENT, (7, 9))
    activation = np.where(loud, 10.0 * SIZE, np.where(quiet, SIZE, 0.0))
    shown = drawn(activation=activation, predicted=None, each=12).shown
    told = {s: {e.tokens[e.centre] for e in shown if e.stratum == s} for s in ("top", "middle")}
    assert told["top"] == {"t003"} and told["middle"] & {"t007", "t009"}


def test_what_explains_and_what_is_shown_never_meets_what_scores():
    """Explainer and examples see the explore documents and no other: scoring documents share none."""
    scoring = {f"score{i}" for i in range(20)}
    explained = RuleExplainer(CONTEXTS, Shelf()).explain(ACTIVATION)
    rule = TokenRule.of(explained.executable, Shelf())
    predicted = np.concatenate([rule.activation(b) for b in batches(DOCS)])
    shown = drawn(predicted=predicted).shown
    assert {e.source for e in shown} <= {r.document for r in CONTEXTS.rows}
    assert not {e.source for e in shown} & scoring
    assert not {e.source for e in shown if e.documents == "first"} & {
        e.source for e in shown if e.documents == "second"
    }


def test_inputs_have_strata_too():
    rng = np.random.default_rng(2)
    activation = np.maximum(rng.standard_normal(300) - 0.5, 0.0)
    predicted = (activation > 0.2) + (rng.random(300) < 0.1) * 1.0
    second = np.arange(300) % 2 == 0
    found = input_examples(activation, lambda i: f"pair {i}", second, Seed(0), predicted)
    assert Counter((e.documents, e.stratum) for e in found.shown) == {
        (d, s): 3 for d in ("first", "second") for s in STRATA
    }
    for e in found.shown:
        i = int(e.words.split()[1])
        assert e.measured == pytest.approx(activation[i], rel=1e-5) and second[i] == (e.documents == "second")
        if e.stratum == "near miss":
            assert e.measured == 0 and e.predicted > 0
    assert found.agreement is None


def test_queries_show_all_they_look_at():
    role, explored = HeadRole("induction"), []
    for batch in batches(DOCS, size=20):
        n = batch.mask.shape[1]
        uniform = torch.ones((n, n)).tril() / torch.arange(1, n + 1)[:, None]
        explored.append((batch, uniform.expand(len(batch), n, n)))
    found = attention_examples(explored, WORDS, Seed(0), role)
    assert len(found.shown) == 8 and not found.short
    for e in found.shown:
        assert len(e.tokens) == len(e.attention) == len(e.predicted) == e.query + 1
        assert sum(e.attention) == pytest.approx(1.0, abs=1e-4)
        after = [k for k in range(1, e.query + 1) if e.tokens[k - 1] == e.tokens[e.query]]
        assert [k for k, w in enumerate(e.predicted) if w > 0] == [k for k in after if k - 1 < e.query]
    assert all(any(e.predicted) for e in found.shown[:4])
    assert len(attention_examples(explored, WORDS, Seed(0)).shown) == 4
    nowhere = attention_examples(
        [(b, torch.eye(3).expand(1, 3, 3)) for b in batches([[1, 2, 3]])], WORDS, Seed(0), role
    )
    assert nowhere.short == {"role": 4, "random": 2} and len(nowhere.shown) == 2


def test_special_tokens_are_never_shown_as_examples():
    begun = contexts([[0, *(1 + t for t in d)] for d in DOCS], names(51), special=1)
    found = token_examples(
        begun, np.maximum(np.random.default_rng(3).standard_normal(len(begun)), 0.0), Seed(0), each=20
    )
    assert len(found.shown) > 100 and not any("t000" in e.tokens for e in found.shown)
    explored = [(b, torch.eye(2).expand(1, 2, 2)) for b in batches([[1, 2]], special=2)]
    assert not attention_examples(explored, WORDS, Seed(0)).shown


def test_bad_input_is_refused_and_text_is_escaped():
    with pytest.raises(ShapeMismatch):
        drawn(predicted=np.zeros(3))
    with pytest.raises(NotFinite):
        drawn(activation=np.full(len(CURRENT), np.nan))
    with pytest.raises(BadInput):
        drawn(each=0)
    with pytest.raises(ShapeMismatch):
        attention_examples([(batches([[1, 2]])[0], torch.zeros(1, 3, 3))], WORDS, Seed(0))
    assert "drawn uniformly" in str(drawn()._repr_html_())
