"""Induction heads found where they were wired, and what goes without them."""

import numpy as np
import pytest
import torch

from prosect.core.errors import TooLittleData
from prosect.data.behaviours import repeated_block
from prosect.describe.induction_heads import induction_heads
from prosect.model import Model
from prosect.organisms import induction, induction_learned


def block(vocab, length=16, seed=0):
    return repeated_block(torch.arange(1, vocab), length=length, shifted=24, bos=0, seed=seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_wired_head_is_singled_out_from_its_decoys(seed):
    model, truth = induction.build(seed)
    found = induction_heads(model, block(model.vocab_size), rows=16)
    (real,) = (v.site for v in truth.variables if v.parameters["role"] == "induction" and v.effect["matters"])
    (silent,) = (
        v.site for v in truth.variables if v.parameters["role"] == "induction" and not v.effect["matters"]
    )
    assert found.of("induction") == (real,)
    assert set(found.of("previous")) == {
        v.site for v in truth.variables if v.parameters["role"] == "previous"
    }
    scores = {h.head: h for h in found.heads}
    assert scores[silent].prefix.low > 0.5  # it attends, and writes nothing
    assert abs(scores[silent].copying.estimate) < 1e-6
    assert scores[real].copying.low > 1
    assert found.gain.low > 3
    assert found.lost.estimate == pytest.approx(1.0, abs=1e-3)
    assert len(found.random) == 5
    for heads, lost in found.random:
        assert len(heads) == 1 and real not in heads and abs(lost.estimate) < 1e-4


def test_prefix_matching_is_attention_to_what_followed():
    """Against loops over a captured pattern."""
    model, _ = induction_learned.build()
    behaviour = induction_learned.repetition(length=12)
    pairs = behaviour.pairs("validate.0", 8)
    ids = pairs.clean.tensors["input_ids"]
    patterns = [
        model.run(b, capture=["probs.1"])["probs.1"][:, 2] for b in (pairs.clean, pairs.counterfactual)
    ]
    rows = []
    for row, tokens in enumerate(ids.tolist()):
        masses = []
        for q in range(13, 24):  # the second copy; the last token has no target
            keys = [k for k in range(1, q + 1) if tokens[k - 1] == tokens[q] and k - 1 < q]
            masses.append(sum(float(patterns[0][row, q, k] - patterns[1][row, q, k]) for k in keys))
        rows.append(np.mean(masses))
    found = induction_heads(model, behaviour, rows=8)
    (head,) = (h for h in found.heads if h.head == "z.1.h2")
    assert head.prefix.estimate == pytest.approx(np.mean(rows), abs=1e-5)


def test_an_untrained_network_has_none():
    module = induction_learned.untrained(3)
    batch = next(induction_learned.source().batches("explore", 2))
    model = Model.of(module, name="untrained", inputs=dict(batch.tensors))
    found = induction_heads(model, induction_learned.repetition(), rows=16)
    assert found.of("induction") == () and found.lost.estimate is None and found.random == ()
    assert found.gain.low < 0.05


def test_too_few_rows_are_refused():
    model, _ = induction.build(0)
    with pytest.raises(TooLittleData, match="3 rows"):
        induction_heads(model, block(model.vocab_size), rows=3)
