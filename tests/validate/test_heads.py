"""Heads: where they look and whether they matter, on a network whose every head is known."""

import pytest
import torch

from prosect.core.errors import BadInput
from prosect.core.records import Rival
from prosect.core.seeds import Seed
from prosect.validate.attend import OFFSETS, OTHER_HEADS, SHUFFLED, UNIFORM
from prosect.validate.session import open_fold
from prosect.validate.subject import rekeyed
from subjects import claim, control, head, heads_of, induction_subject, plan, role


@pytest.fixture(scope="module")
def network():
    return induction_subject()


def attends(subject, truth, where, name, offsets=None, **given):
    others = [head(*h) for h in [(0, i) for i in range(4)] + [(1, i) for i in range(4)] if h != where]
    rivals = [control(OTHER_HEADS, components=others), control(SHUFFLED), control(UNIFORM)]
    tests = [plan(kind="attend", rivals=rivals, unit="cluster")]
    return claim(subject, head(*where), cause=role(name, **given), tests=tests)


def matters(subject, where, name):
    others = [head(*h) for h in [(0, i) for i in range(4)] + [(1, i) for i in range(4)] if h != where]
    tests = [
        plan(kind="head-matters", rivals=[control(OTHER_HEADS, 0.01, components=others)], unit="cluster")
    ]
    return claim(subject, head(*where), effect=role(name), tests=tests)


def test_every_head_looks_where_the_truth_says(network):
    subject, truth = network
    claims, names = [], []
    for name in ("previous", "induction", "first"):
        for where in heads_of(truth, name):
            claims.append(attends(subject, truth, where, name))
            names.append(name)
    assert {"previous", "induction", "first"} <= set(names)
    for name, e in zip(names, open_fold(claims, subject, "validate.0", Seed(0)).evidence, strict=True):
        assert e.measured.estimate > 0.98
        by = {c.rival: c for c in e.comparisons}
        assert by[UNIFORM].p < 0.01
        if name == "induction":
            assert by[SHUFFLED].difference.estimate > 0.5
        else:  # these roles do not depend on the text
            assert by[SHUFFLED].difference.estimate == pytest.approx(0.0, abs=1e-6)


def test_only_the_two_heads_of_the_circuit_matter(network):
    subject, truth = network
    where = {h: n for n in ("previous", "induction") for h in heads_of(truth, n)}
    claims = [matters(subject, h, n) for h, n in where.items()]
    found = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    rise = dict(zip(where, found, strict=True))
    real = {
        (int(v.site.split(".")[1]), int(v.site.split(".")[2][1:]))
        for v in truth.variables
        if v.effect and v.effect["matters"]
    }
    assert len(real) == 2
    assert len(where) == 4  # each with a decoy that looks at the same place
    for h, e in rise.items():
        if h in real:
            assert e.measured.estimate > 0.5
            assert e.p < 0.01
        else:
            assert abs(e.measured.estimate) < 1e-3
            assert e.p == 1.0


def test_the_statistical_null_breaks_both_sides():
    subject, truth = induction_subject(null="statistical")
    (where, *_) = heads_of(truth, "induction")
    claims = [attends(subject, truth, where, "induction")]
    claims += [matters(subject, h, "induction") for h in heads_of(truth, "induction")]
    found = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    assert found[0].measured.estimate < 0.5
    assert found[0].p > 0.05
    assert all(e.p > 0.001 for e in found[1:])


def together(subject, heads, others, name="induction"):
    asked = {
        "repeated": True,
        "heads": [list(h) for h in heads],
        "others": [[list(h) for h in o] for o in others],
    }
    tests = [
        plan(kind="head-matters", rivals=[control("other-sets", 0.01)], unit="cluster", parameters=asked)
    ]
    return claim(subject, head(*heads[0]), effect=role(name), tests=tests)


def test_heads_can_be_removed_together(network):
    """Without both heads of the circuit repeated spans are lost; without as many decoys, nothing is."""
    subject, truth = network
    real, decoys = [], []
    for v in truth.variables:
        if v.parameters.get("role") in ("previous", "induction"):
            _, layer, number = v.site.split(".")
            (real if v.effect["matters"] else decoys).append((int(layer), int(number[1:])))
    claims = [together(subject, real, [decoys]), together(subject, decoys, [real])]
    pair, fake = open_fold(claims, subject, "validate.0", Seed(0)).evidence
    alone = open_fold([together(subject, real[:1], [decoys[:1]])], subject, "validate.0", Seed(0)).evidence[0]
    assert pair.measured.estimate > 0.5 and pair.p < 0.01
    assert pair.measured.estimate == pytest.approx(fake.comparisons[0].measured.estimate)
    assert (
        pair.measured.estimate > alone.measured.estimate - 1e-6
    )  # the circuit is a chain: either half breaks it
    assert abs(fake.measured.estimate) < 1e-3 and fake.p == 1.0
    mixed = together(
        subject, [decoys[0], real[0]], [decoys]
    )  # every head of a set is removed, not the first alone
    assert open_fold([mixed], subject, "validate.0", Seed(0)).evidence[0].measured.estimate > 0.5


def test_rekeyed_attention_forgets_distance_and_content(network):
    subject, _ = network
    batch = next(iter(subject.batches("validate.0")))
    n = batch.mask.shape[1]
    previous = torch.diag_embed(torch.ones(n - 1), offset=-1)
    previous[0, 0] = 1.0
    weights = previous.expand(len(batch), 2, n, n)
    mixed = rekeyed(weights, batch, Seed(0))
    assert torch.equal(mixed.sort(dim=-1).values, weights.sort(dim=-1).values)
    assert not mixed.triu(diagonal=1).any()  # nothing is moved to a key that comes later
    assert torch.equal(mixed, rekeyed(weights, batch, Seed(0)))
    assert not torch.equal(mixed[0], mixed[1])
    late = torch.arange(n // 2, n)
    kept = mixed[:, 0, late, late - 1].mean().item()
    chance = (1.0 / (late + 1)).mean().item()
    assert abs(kept - chance) < 4 * (chance / (len(batch) * len(late))) ** 0.5


def test_an_offset_table_accounts_for_an_offset_head(network):
    from prosect.describe.role_explainer import RoleExplainer

    subject, truth = network
    (where,) = heads_of(truth, "offset")[:1]
    explainer = RoleExplainer(4)
    for batch in subject.batches("explore"):
        explainer.update(batch, subject.model.run(batch, capture=(f"probs.{where[0]}",))[f"probs.{where[0]}"])
    table = explainer.offset_table(where[1]).executable(subject.shelf)
    v = next(v for v in truth.variables if v.site == f"z.{where[0]}.h{where[1]}")
    rivals = [Rival(name=OFFSETS, role="baseline", margin=0.1, descriptions=(table,))]
    c = claim(
        subject,
        head(*where),
        cause=role("offset", offset=v.parameters["offset"]),
        tests=[plan(kind="attend", rivals=rivals, unit="cluster")],
    )
    e = open_fold([c], subject, "validate.0", Seed(0)).evidence[0]
    assert e.measured.estimate > 0.95
    assert e.comparisons[0].difference.estimate < 0.1  # distance alone says as much
    assert e.p == 1.0


def test_another_description_is_measured_on_the_same_head(network):
    """As the one that the second document set alone gives: it scores as it would if it were claimed."""
    subject, truth = network
    where = heads_of(truth, "previous")[0]
    rivals = [control("second-document-set", decides=False, descriptions=[role("first")])]
    c = claim(
        subject,
        head(*where),
        cause=role("previous"),
        tests=[plan(kind="attend", rivals=[*rivals, control(UNIFORM)], unit="cluster")],
    )
    other = claim(
        subject,
        head(*where),
        cause=role("first"),
        tests=[plan(kind="attend", rivals=[control(UNIFORM)], unit="cluster")],
    )
    mine, its = open_fold([c, other], subject, "validate.0", Seed(0)).evidence
    assert mine.comparisons[0].measured.estimate == pytest.approx(its.measured.estimate, abs=1e-6)
    assert mine.comparisons[0].difference.estimate > 0.5


def test_what_is_no_head_is_refused(network):
    subject, _ = network
    c = claim(subject, head(0, 0), cause=role("previous"), tests=[plan(kind="attend", unit="cluster")])
    other = c.model_copy(
        update={"component": c.component.model_copy(update={"reads": ("hidden",), "writes": ()})}
    )
    with pytest.raises(BadInput, match=r"z\.1\.h0"):
        open_fold([other], subject, "validate.0", Seed(0))
    wrong = plan(kind="attend", unit="cluster", rivals=[control("no such rival")])
    with pytest.raises(BadInput, match="no such rival"):
        open_fold([c.model_copy(update={"tests": (wrong,)})], subject, "validate.0", Seed(0))
