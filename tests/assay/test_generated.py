"""A run on an organism of tokens that has no preset: its own inputs, its own answers, its truth beside the claims."""

import json
import math

import pytest
import torch

from prosect.assay.loop import conduct
from prosect.assay.opening import open_target
from prosect.assay.openings.unstudied import unstudied
from prosect.assay.presets import resolve
from prosect.assay.spec import dump
from prosect.core.errors import BadInput, Unsupported
from prosect.core.records import Hypothesis, TruthCheck
from prosect.organisms.compiler import zoo
from prosect.store.ledger import read
from prosect.store.run import RunFolder
from prosect.validate.matters import answer_loss, loss
from prosect.validate.subject import Subject

SMALL = {
    "limit": 80,
    "decompose": {"width": 24, "active": 3, "tokens": 4000, "batch": 128},
    "describe": {
        "components": 3,
        "chosen": 0,
        "neurons": 2,
        "effects": 2,
        "untrained": 0,
        "controls": 1,
        "tokens": 600,
    },
    "validate": {"rounds": 1, "effect_rows": 4, "firing_min": 5},
}


def small(target, **more):
    changes = {
        f"{t}.{k}": v for t, table in SMALL.items() if isinstance(table, dict) for k, v in table.items()
    }
    return resolve(target, {**changes, "limit": SMALL["limit"], **more})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "induction"
    return conduct(small("organism:compiled-induction"), folder, open_target, command="", quiet=True)


def test_a_run_makes_and_judges_claims_about_latents_and_heads(finished):
    found = json.loads((finished.path / "metrics.json").read_text())
    claims = records(finished, Hypothesis)
    kinds = {h.component.decomposition.split("@")[0] for h in claims}
    assert "heads" in kinds and len(kinds) >= 2
    assert found["claims"] == len(claims) > 4 and sum(found["verdicts"].values()) == found["claims"]
    page = (finished.path / "report.html").read_text()
    assert "organism:compiled-induction" in page and "resid_post." in page


def test_the_truth_says_of_heads_whether_they_matter_and_not_where_they_look(finished):
    _, truth = zoo.network("induction", 0)
    matter = {v.site: v.effect["matters"] for v in truth.variables if v.site.startswith("z.")}
    about = {h.id: h for h in records(finished, Hypothesis)}
    sides = set()
    for check in records(finished, TruthCheck):
        claim = about[check.hypothesis]
        if not claim.component.decomposition.startswith("heads@"):
            assert check.holds is None
            continue
        assert check.holds is (matter[claim.component.writes[0]] if claim.side == "effect" else None)
        sides.add(claim.side)
    assert sides == {"cause", "effect"}


def records(run, kind):
    return [r for r in read(run.path / "ledger.jsonl") if isinstance(r, kind)]


def test_the_answer_is_the_loss_where_there_is_one():
    module, _ = zoo.network("reverse", 0)
    batch = next(zoo.source("reverse").batches("explore", rows=8))
    subject = object.__new__(Subject)
    subject.answers = lambda b: zoo.targets("reverse", b)
    with torch.no_grad():
        logits = module(**batch.tensors).logits
    right, asked = loss(logits, batch, subject)
    assert torch.equal(asked, batch.scored) and right[asked].max() < 1e-3  # the right logit leads by 10
    wrong, _ = loss(-logits, batch, subject)
    assert wrong[asked].min() > 5 and not wrong[~asked].any()
    flat = answer_loss(torch.zeros(1, 2, 4), torch.tensor([[3, -1]]))
    assert torch.allclose(flat, torch.tensor([[math.log(4), 0.0]]))
    number = answer_loss(torch.tensor([[[0.5, 9.0], [2.0, 9.0]]]), torch.tensor([[0.1, float("nan")]]))
    assert torch.allclose(number, torch.tensor([[0.5 * 0.16, 0.0]]))
    subject.answers = None
    assert torch.equal(loss(logits, batch, subject)[1][:, :-1], batch.mask[:, 1:] & batch.mask[:, :-1])


def test_what_learns_from_explore_alone_gets_the_same_inputs():
    opened = unstudied(resolve("compiled-sort"))
    assert opened.site == "resid_post.1" and opened.source.units["explore"] == 400
    assert opened.model.name == "organism:compiled-sort"


@pytest.mark.parametrize(
    ("target", "changes", "error", "words"),
    [
        ("deceptive", {}, Unsupported, "not tokens"),
        ("compiled-sort", {"device": "cuda"}, Unsupported, "cpu"),
        ("compiled-sort", {"studies": ["residues"]}, BadInput, "latents, heads, synthesis"),
        ("compiled-sort", {"studies": ["lens"]}, Unsupported, "lens of organism:compiled-sort"),
    ],
)
def test_what_cannot_be_run_is_refused(target, changes, error, words, tmp_path):
    spec = resolve(target, changes)
    with RunFolder.open(tmp_path / "run", dump(spec), {}) as run, pytest.raises(error, match=words):
        open_target(spec, run)
