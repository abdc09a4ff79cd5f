"""What is set beside what: explore's figures, lineages, tallies and the order of failures."""

import pytest
from scipy.stats import binomtest

from claims import evidence, family, hypothesis, plan
from prosect.core.exhibits import Findings, SiteCell
from prosect.core.records import Component
from prosect.core.verdicts import verdicts
from prosect.report.atlas import atlas
from prosect.report.claims import claims_of, explored_key, gap_of, gather, lineages
from prosect.report.failures import strongest, widest
from prosect.report.places import place_of
from prosect.report.reading import Run, stand_in
from prosect.report.tally import Tally, by_draw, by_level, reasons, refinements
from prosect.report.trials import sentence, standing, trials
from prosect.store.ledger import Entry


def run_of(*records, findings=None):
    entries = tuple(Entry(n, r, "", f"{n:064x}") for n, r in enumerate(records))
    return Run(
        header={},
        entries=entries,
        broken="",
        lost=0,
        finished=True,
        verdicts=verdicts(records),
        findings=findings or stand_in(),
        stand_in=findings is None,
        exhibits={},
        metrics={},
        repairs=0,
    )


def explored(h, **figures):
    return h.model_copy(update={"explored": figures})


def test_explore_stands_only_beside_the_same_number():
    p = plan("predicts")
    assert explored_key(p, {"predicts": 0.9}) == "predicts"
    assert explored_key(p, {"correlation": 0.9}) == "correlation"  # a word of the metric
    assert explored_key(p, {"predict-activations": 0.9}) == "predict-activations"
    assert explored_key(p, {"accuracy": 0.9, "n": 12}) is None
    assert explored_key(p, {"correlation": "high"}) is None and explored_key(p, {"correlation": True}) is None
    assert explored_key(p, {"correlation": 0.1, "predicts": 0.2}) == "predicts"


def test_the_gap_is_what_explore_promised_less_what_was_measured():
    h = explored(hypothesis(), correlation=0.9)
    found = gap_of(h, {"predicts": evidence(h, estimate=0.3)})
    assert found.width == pytest.approx(0.6) and found.measured.estimate == 0.3
    assert gap_of(h, {}) is None
    assert gap_of(explored(h, other=0.9), {"predicts": evidence(h)}) is None


def test_failures_are_ordered_by_gap_and_support_by_its_worst_end():
    made = [explored(hypothesis(i), correlation=0.5 + i / 10) for i in range(4)]
    found = [evidence(h, p=0.9, difference=-0.3, estimate=0.2) for h in made[:3]]
    good = evidence(made[3], p=1e-6, difference=0.5)
    run = run_of(*made, family(1, *made), *found, good)
    claims = claims_of(run)
    assert [c.hypothesis.component.index for c in widest(claims, 2)] == [2, 1]
    assert [c.hypothesis.component.index for c in strongest(claims, 9)] == [3]
    assert claims[3].clearance == pytest.approx(0.5 - 0.1 - 0.1)
    assert [c.component.index for c in gather(run, claims)] == [2, 1, 0, 3]


def test_a_claim_refuted_and_refined_is_kept_on_its_card_and_sorted_as_a_failure():
    parent, other = hypothesis(0), hypothesis(1)
    child = hypothesis(0, round=2, parent=parent.id)
    run = run_of(
        parent, other, family(1, parent, other), evidence(parent, p=0.9, difference=-0.4), evidence(other, p=1e-6),
        child, family(2, child), evidence(child, p=1e-6),
    )  # fmt: skip
    claims = claims_of(run)
    card = gather(run, claims)[0]
    assert [c.outcome for c in card.claims] == ["refuted", "supported"]
    assert [c.id for c in card.current] == [child.id]
    assert card.outcomes == {"refuted", "supported"}
    found = refinements(claims)
    assert [[c.id for c in chain] for chain in found.chains] == [[parent.id, child.id]]
    assert found.fate == Tally(supported=1) and found.dropped == 0


def test_lineages_lose_no_claim_even_where_one_was_refined_twice():
    root = hypothesis(0)
    children = [hypothesis(i, round=2, parent=root.id) for i in (1, 2)]
    grandchild = hypothesis(3, round=3, parent=children[0].id)
    claims = claims_of(run_of(root, *children, grandchild))
    chains = [[c.id for c in chain] for chain in lineages(claims)]
    assert chains == [[root.id, children[1].id], [root.id, children[0].id, grandchild.id]]


@pytest.mark.parametrize(("supported", "registered"), [(0, 5), (5, 5), (61, 256), (1, 1000)])
def test_shares_have_the_exact_interval_of_scipy(supported, registered):
    found = Tally(supported, registered - supported, 0, 0).share
    exact = binomtest(supported, registered).proportion_ci(method="exact")
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))


def test_what_was_not_tested_stays_in_the_denominator():
    assert Tally(1, 1, 1, 7).share.estimate == pytest.approx(0.1)


def test_tables_of_tallies_partition_the_claims():
    made = [
        hypothesis(i, tests=(plan("a"), plan("b", level=3)) if i % 2 else None).model_copy(
            update={"draw": ("random", "chosen")[i % 2]}
        )
        for i in range(6)
    ]
    run = run_of(*made, family(1, *made), *[evidence(h, t.name, p=1e-6) for h in made[:4] for t in h.tests])
    claims = claims_of(run)
    rows = by_draw(gather(run, claims), run.findings)
    assert [r.name for r in rows] == ["latents, drawn at random", "latents, chosen on explore"]
    assert sum(r.tally.registered for r in rows) == 6 and sum(r.tally.supported for r in rows) == 4
    levels = {r.name[0]: r.tally for r in by_level(claims)}
    assert levels["1"].registered == 6 and levels["3"].registered == 3
    assert levels["2"] is None and levels["4"] is None and levels["5"] is None


def test_reasons_count_each_undecided_claim_once():
    made = [hypothesis(i) for i in range(5)]
    outcomes = [
        {"enough": False},
        {"enough": False},
        {"difference": 0.1, "p": 0.5},
        {"p": 1e-6},
        {"p": 0.9, "difference": -1.0},
    ]
    run = run_of(*made, family(1, *made), *[evidence(h, **o) for h, o in zip(made, outcomes, strict=True)])
    assert reasons(claims_of(run)) == [
        ("too few independent units, or active in too few", 2),
        ("the interval includes the margin", 1),
    ]


def test_standing_says_on_which_side_of_the_margin_the_interval_lies():
    h = hypothesis()
    for difference, word in ((0.5, "clears 0.1"), (0.1, "undecided at 0.1"), (-0.05, "does not clear 0.1")):
        comparison = evidence(h, difference=difference).comparisons[0]
        assert word in standing(comparison)
        assert "clear" not in standing(comparison.model_copy(update={"decides": False}))


def test_sentences_follow_the_state():
    h = hypothesis()
    found = verdicts([h, family(1, h), evidence(h, p=1e-6)])[h.id].tests["predicts"]
    assert sentence(1, found) == "Supported at level 1."
    assert "decides nothing" in sentence(None, found)
    found = verdicts([h, family(1, h), evidence(h, p=0.9, difference=-0.5)])[h.id].tests["predicts"]
    assert sentence(2, found) == "Refuted at level 2: does not exceed random-direction by 0.1."
    assert sentence(1, verdicts([h])[h.id].tests["predicts"]) == "Registered and not tested at level 1."


def test_sealed_estimates_are_shown_and_decide_nothing():
    h = hypothesis()
    records = [h, family(1, h), evidence(h, p=0.9, difference=-0.5), evidence(h, "predicts@sealed", p=1e-9)]
    claim = claims_of(run_of(*records))[0]
    shown = trials(claim)
    assert [t.outcome for t in shown] == ["refuted", "not tested"]
    assert shown[1].title == "Sealed split: predicts" and "decides nothing" in shown[1].sentence
    assert claim.outcome == "refuted"


def test_places_follow_the_decomposition_where_there_is_no_exhibit():
    def where(name, *reads):
        p = place_of(Component(decomposition=name, index=0, reads=reads), None)
        return p.kind, p.layer, p.column

    assert where("topk@resid_post.2", "resid_post.2") == ("latent", 2, "dictionary on resid_post")
    assert where("heads@z.5", "z.5.h1") == ("head", 5, "heads")
    assert where("neurons@mlp_act.0", "mlp_act.0") == ("neuron", 0, "neurons")
    assert where("pca@resid_mid.3", "resid_mid.3") == ("direction", 3, "directions on resid_mid")
    assert where("mine") == ("component", -1, "components on ")


def test_the_map_keeps_what_was_left_alone_and_adds_what_it_did_not_know():
    findings = Findings(
        title="t", question="q", model="m", data="d",
        map=(
            SiteCell(layer=0, place="heads", components=4),
            SiteCell(layer=1, place="dictionary on resid_post", components=64, examined=1),
        ),
    )  # fmt: skip
    made = [
        hypothesis(0),
        hypothesis(1).model_copy(update={"component": Component(decomposition="odd", index=3)}),
    ]
    run = run_of(*made, findings=findings)
    found = atlas(findings, gather(run, claims_of(run)))
    assert found.columns == ("heads", "dictionary on resid_post", "components on")
    rows = dict(found.rows)
    assert rows["layer 0"][0].examined == 0 and rows["layer 0"][0].components == 4
    assert rows["layer 1"][1].tally.registered == 1 and rows["layer 1"][1].components == 64
    assert rows["outside layers"][2].components is None
    assert found.components == 68 and found.examined == 2
