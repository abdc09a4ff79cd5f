"""The training loop: Adam as torch has it, to the bit, and the rate, the clip and the decay that were asked for."""

import subprocess
import sys

import pytest
import torch

from prosect.core.errors import NotFinite
from prosect.organisms.training import descend


def problem():
    """Weights of two shapes, and a loss of a step that reads one of them on every other step."""
    rng = torch.Generator().manual_seed(0)
    weights = [torch.randn(7, 3, generator=rng).requires_grad_(True), torch.ones(3, requires_grad=True)]
    data = torch.randn(40, 5, 7, generator=rng)

    def loss(step):
        out = torch.tanh(data[step] @ weights[0])
        return (out * weights[1] - 1).square().mean() * 10 if step % 2 else out.square().sum()

    return weights, loss


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("constant", [False, True])
def test_it_is_torchs_adam_to_the_bit(clip, decay, constant):
    mine, loss = problem()
    descend(mine, 40, 0.05, loss, constant=constant, clip=clip, decay=decay)
    theirs, loss = problem()
    adam = torch.optim.AdamW(theirs, lr=0.05, weight_decay=decay)
    for step in range(40):
        adam.param_groups[0]["lr"] = 0.05 if constant else 0.05 * (1 - step / 40)
        adam.zero_grad()
        loss(step).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(theirs, clip)
        adam.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not torch.equal(mine[0], problem()[0][0]) and all(w.grad is None for w in mine)


def test_something_is_done_after_each_step_without_a_gradient():
    weights, loss = problem()
    seen = []

    def after(step):
        weights[0].mul_(0)  # in place, so only where no gradient is kept
        seen.append(step)

    descend(weights, 3, 0.1, loss, after)
    assert seen == [0, 1, 2] and not weights[0].any()


def test_a_loss_that_runs_away_is_named():
    w = torch.ones(1, requires_grad=True)
    with pytest.raises(NotFinite, match="smaller rate"):
        descend([w], 3, 1.0, lambda _: (w * float("inf")).sum())


def test_training_loads_no_compiler():
    code = (
        "import sys, torch; from prosect.organisms.training import descend; "
        "w = torch.ones(2, requires_grad=True); descend([w], 2, 0.1, lambda _: w.square().sum(), clip=1.0); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
