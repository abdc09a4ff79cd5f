"""Traps that other projects fell into and that belong to no one file here: each would go unseen but for its test."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import prosect
from prosect.assay.opening import open_target
from prosect.assay.presets import resolve
from prosect.assay.spec import dump
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.dose import dose_curve
from prosect.describe.steered import log_probability
from prosect.model.check import relative
from prosect.model.edits import resample, zero
from prosect.model.patching import Meaning, noising, scrub
from prosect.organisms import induction
from prosect.store.run import RunFolder

SOURCE = Path(prosect.__file__).parent


def lines(pattern):
    return [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in sorted(SOURCE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_no_device_is_written_into_the_code():
    """Readers and attribution that ask for "cuda" by name run nowhere else."""
    assert lines(r"\.cuda\(|(?<![=!])[=(]\s*[\"']cuda(:\d)?[\"']\s*[,)]") == []


def test_no_global_generator_is_drawn_from_or_seeded():
    """A scorer that reseeds the global generator makes every later draw of the user's the same."""
    known = {"core/seeds.py", "assay/untrained.py"}  # a generator of its own; one put back as it was
    found = lines(r"manual_seed\(|np\.random\.(seed|rand|randn|choice|shuffle|permutation)\(|^import random$")
    assert {f.split(":")[0] for f in found} <= known


@pytest.fixture(scope="module")
def network():
    model, _ = induction.build(0)
    draw = Seed(0).child("traps").numpy()
    ids = torch.tensor(
        [[0, *b, *b] for b in (draw.permutation(np.arange(1, 25))[:6].tolist() for _ in range(8))]
    )
    batch = Batch({"input_ids": ids}, torch.ones_like(ids, dtype=torch.bool), tuple(Row(i) for i in range(8)))
    return model, batch


def last(token=5):
    return lambda output, rows: output[:, -1, token]


def test_the_users_generators_are_left_alone(network):
    model, batch = network
    other = Batch({"input_ids": batch.tensors["input_ids"].flip(0)}, batch.mask, batch.rows)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002  (the user's own)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    noising(model, batch, other, last(), "z", each="head", positions=[-1])
    dose_curve(model, batch, "resid_post.0", torch.ones(model.d_model), log_probability(3), [1.0], controls=1)
    model.run(batch, [], [resample("z.0", model.run(batch, ["z.0"])["z.0"].flatten(0, 1), seed=3)])
    model.generate(batch.tensors["input_ids"][:2, :4], max_new_tokens=2, temperature=1.0)
    scrub(model, batch, last(), {"a": Meaning("z.1.h0")}, ("a",), draws=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_tensor_that_only_points_the_right_way_is_not_the_right_one():
    """A contribution 3.5 times too long has a cosine of 1 with the right one: the check is of the difference."""
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert float(torch.cosine_similarity(3.5 * x, x, dim=0)) == pytest.approx(1.0, abs=1e-6)
    assert relative(3.5 * x, x) == pytest.approx(2.5)


def test_effects_of_opposite_sign_are_both_seen(network):
    """Scores divided by their sum let a negative head hide a positive one; here the largest either way come first."""
    model, batch = network
    other = Batch({"input_ids": batch.tensors["input_ids"].flip(0)}, batch.mask, batch.rows)
    answers = batch.tensors["input_ids"][:, 1]

    def both(output, rows):
        at = torch.as_tensor(rows.units)
        right = output[torch.arange(len(rows)), -1, answers[at]]
        return right - 2 * output[:, -1].logsumexp(dim=-1)

    found = noising(model, batch, other, both, "z", each="head", positions=[-1])
    mean = found.effects.mean
    chosen = [abs(c.explored) for c in found.top(4)]
    assert chosen == sorted(np.abs(mean).ravel(), reverse=True)[:4]
    # the share of each is of what the two runs differ by, whatever the others do
    gap = found.gap.estimate
    for cell in found.table():
        if cell.share.estimate is not None:
            assert cell.share.estimate == pytest.approx(cell.effect.estimate / gap)


def test_means_are_over_real_positions_and_each_heads_own(tmp_path):
    """A mean over heads, or over padding, is another ablation under the same name."""
    spec = resolve("induction", {"limit": 40, "studies": ["heads"], "describe.tokens": 100_000})
    with RunFolder.open(tmp_path / "run", dump(spec), {}) as run:
        (study,) = open_target(spec, run).studies
        study.explore()
        subject = study.subject
        for layer in range(2):
            rows = []
            for batch in subject.batches("explore"):
                z = subject.model.run(batch, [f"z.{layer}"])[f"z.{layer}"]
                for i, length in enumerate(batch.lengths.tolist()):
                    kept = [p for p in range(length) if batch.special is None or not batch.special[i, p]]
                    rows.append(z[i, kept])
            by_hand = torch.cat(rows).double().mean(dim=0)
            assert subject.means[f"z.{layer}"].double() == pytest.approx(by_hand, abs=1e-5)
            assert not torch.allclose(by_hand[0], by_hand.mean(dim=0), atol=1e-3)


LOAD = """
import resource, sys, torch
import prosect
from transformers import GPT2Config, GPT2LMHeadModel
small = GPT2LMHeadModel(GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=1))
small.save_pretrained(sys.argv[1] + "/small")
prosect.load(sys.argv[1] + "/small")  # what importing takes is taken before
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prosect.load(sys.argv[1] + "/large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
def test_loading_a_model_takes_its_size_and_not_its_size_twice(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=1000, n_positions=64, n_embd=1024, n_layer=16, n_head=8)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "large")
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    assert size > 700e6
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) * 1024 < 1.35 * size


def test_a_zero_is_no_typical_value_and_others_are_at_hand(network):
    """Zero may lie far from anything the network ever has; resampling puts in what it has on other rows."""
    model, batch = network
    z = model.run(batch, ["z.1"])["z.1"]
    drawn = model.run(batch, ["z.1"], [resample("z.1", z.flatten(0, 1), seed=1)])["z.1"]
    held = z.reshape(-1, *z.shape[2:])
    for value in drawn.reshape(-1, *drawn.shape[2:])[::5]:
        assert (held - value).abs().flatten(1).amax(dim=1).min() < 1e-6
    gone = model.run(batch, ["z.1"], [zero("z.1")])["z.1"]
    assert not gone.any() and not (held.abs().flatten(1).amax(dim=1) < 1e-6).any()
