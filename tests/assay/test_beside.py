"""Readable models of the same inputs stand beside every cause: measured on the same unseen data, deciding nothing."""

import tomllib

import pytest

from prosect.assay.loop import conduct
from prosect.assay.opening import open_target
from prosect.assay.spec import make_spec
from prosect.core.records import Evidence
from prosect.store.ledger import read
from tiny import LATENTS

NUMBERS = """
target = "superposition"
device = "cpu"
limit = 60
studies = ["features"]
[decompose]
width = 64
active = 4
tokens = 4000
batch = 256
[describe]
components = 2
controls = 1
tokens = 2000
[validate]
rounds = 1
seal = false
"""


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        (LATENTS, {"additive-table"}),
        (NUMBERS, {"linear-surrogate", "tree-surrogate", "additive-surrogate"}),
    ],
    ids=["text", "numbers"],
)
def test_they_are_measured_with_every_cause(text, beside, tmp_path):
    run = conduct(make_spec(tomllib.loads(text)), tmp_path / "run", open_target, quiet=True)
    causes = {h: v for h, v in run.verdicts.items() if v.hypothesis.side == "cause"}
    assert causes
    told = [r for r in read(run.path / "ledger.jsonl") if isinstance(r, Evidence)]
    for evidence in (e for e in told if e.hypothesis in causes and e.test == "predicts"):
        found = {c.rival: c for c in evidence.comparisons}
        assert beside <= set(found)
        for name in beside:
            assert not found[name].decides and found[name].role == "baseline"
            assert -1 <= found[name].measured.estimate <= 1
            assert found[name].measured.low <= found[name].measured.high
