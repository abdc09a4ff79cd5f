"""Learned induction: the phase change is in its checkpoints, and its record is of its weights."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import prosect
from prosect.core.canonical import digest_tensors
from prosect.describe.induction_heads import induction_heads
from prosect.describe.progress import halfway
from prosect.organisms import induction_learned as organism
from prosect.organisms.next_token import Trainer


@pytest.fixture(scope="module")
def points():
    return list(organism.checkpoints())


def test_repetition_is_learned_within_a_short_stretch_of_training(points):
    pairs = organism.repetition().pairs("validate.1", 32)
    ids, losses, single = pairs.clean.tensors["input_ids"], [], []
    for point in points:
        with torch.no_grad():
            logits = point.module(input_ids=ids).logits
        losses.append(-float(organism.repetition().metric(logits, pairs).mean()))
        logp = logits.log_softmax(-1)[:, :13].gather(-1, ids[:, 1:14, None])
        single.append(-float(logp.mean()))
    assert points[0].step == 0 and points[-1].step == organism.SCHEDULE.steps
    assert losses[0] == pytest.approx(np.log(organism.VOCAB), abs=0.1)
    assert losses[-1] < 1.0
    assert min(single) > 4.0  # the first copy cannot be foreseen
    change = halfway([p.step for p in points], losses)
    before, after = (losses[[p.step for p in points].index(s)] for s in (400, 900))
    assert 400 < change < 900 and before - after > 0.5 * (losses[0] - losses[-1])


def test_heads_that_do_it_appear_with_the_phase_change(points):
    behaviour = organism.repetition()
    by_step = {p.step: p for p in points}
    early = induction_heads(by_step[200].model(), behaviour, rows=12)
    late = induction_heads(by_step[2000].model(), behaviour, rows=12)
    assert early.of("induction") == () and early.gain.high < 1.0
    assert late.of("induction") and all(h.startswith("z.1.") for h in late.of("induction"))
    assert late.of("previous") and all(h.startswith("z.0.") for h in late.of("previous"))
    assert late.lost.low > 0.95


def test_it_opens_by_name_and_passes_the_self_check(points):
    model = prosect.load("organism:induction-learned")
    _, truth = organism.build()
    assert truth.unknown and truth.quantities["repeated-token loss"] < 1.0
    assert model.report is not None and not model.report.failed
    batch = next(organism.source().batches("validate.0", rows=4))
    with torch.no_grad():
        assert torch.equal(model.run(batch).output, points[-1].module(**batch.tensors).logits)


def test_the_record_is_of_these_weights():
    record = json.loads((organism.FOLDER / "record.json").read_text())
    weights = load_file(organism.FOLDER / "checkpoints.safetensors")
    assert digest_tensors(weights) == record["digest"]
    assert [p.step for p in organism.checkpoints()] == record["steps"]


def test_its_training_starts_at_the_first_checkpoint(points):
    module = organism.untrained(0)
    for name, w in module.state_dict().items():
        assert torch.equal(w.half().float(), points[0].module.state_dict()[name])
    trainer = Trainer(module, organism.SCHEDULE, organism.batches(0, 4))
    (first,) = (loss for _, loss in trainer.run(1))
    assert first == pytest.approx(np.log(organism.VOCAB), abs=0.1)
    assert not torch.equal(module.lm_head.weight, organism.untrained(0).lm_head.weight)


def test_parts_repeat_blocks_and_the_shift_has_longer_ones():
    data = organism.source(seed=2)
    for part, low, high in (("explore", 8, 20), ("shift", 21, 26)):
        (batch,) = data.batches(part, rows=10_000)
        periods = []
        for row in batch.tensors["input_ids"][:, 1:].tolist():
            found = [n for n in range(1, 47) if row[n:] == row[:-n]]
            periods += found[:1]
        assert low <= min(periods) and max(periods) <= high
        assert 0.8 < len(periods) / len(batch) <= 1.0
