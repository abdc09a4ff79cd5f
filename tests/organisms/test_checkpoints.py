"""Networks through their training: the end is the organism itself, and the same again from the seed."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.organisms import grokked
from prosect.organisms.next_token import Schedule, Trainer, initialised, loss_of


def test_the_last_checkpoint_is_the_organism():
    every = list(grokked.checkpoints(0, 31, every=400))
    assert [c.step for c in every] == [0, 400, 800, 1200, 1500]
    module, truth = grokked.network_grokked(0)
    for name, w in every[-1].module.state_dict().items():
        assert torch.equal(w, module.state_dict()[name])
    assert not torch.equal(every[0].weights[0], every[1].weights[0])
    assert torch.equal(grokked.untrained_grokked(0).embed_a.weight, every[0].weights[0])
    assert np.array_equal(grokked.trained_on(0, 31), truth.labels["trained"])


def test_a_checkpoint_opens_as_a_model(monkeypatch):
    monkeypatch.setitem(grokked.RECIPES, 31, grokked.Recipe(16, 0.5, 5))
    point = next(grokked.checkpoints(1, 31, every=5))
    pairs = torch.tensor([[3, 4], [30, 30]])
    with torch.no_grad():
        direct = point.module(pairs)
    assert torch.equal(point.model().run({"pairs": pairs}).output, direct)


def test_checkpoints_refuse_what_is_not_there():
    for options in ({"p": 12}, {"every": 0}):
        with pytest.raises(BadInput):
            next(grokked.checkpoints(**options))


# --- next-token training ---


class Bigram(torch.nn.Module):
    """Logits from the current token alone."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(5, 5)

    def forward(self, input_ids):
        return type("Out", (), {"logits": self.table(input_ids)})


def rows(step):
    ids = torch.from_numpy(np.random.default_rng(step).integers(0, 5, (4, 6)))
    return ids, torch.ones(ids.shape)


def trainer(steps=12):
    module = initialised(Bigram(), Seed(0), 0.5)
    return Trainer(module, Schedule(steps=steps, rows=4, rate=0.05, warm=3), rows)


def test_stopped_and_gone_on_with_is_as_one_run():
    whole, first = trainer(), trainer()
    losses = [loss for _, loss in whole.run()]
    before = [loss for _, loss in first.run(5)]
    second = trainer()
    second.resume(first.state())
    after = [loss for _, loss in second.run()]
    assert before + after == losses and second.step == 12
    assert torch.equal(whole.module.table.weight, second.module.table.weight)


def test_weights_say_how_much_a_token_counts():
    module = initialised(Bigram(), Seed(0), 0.5)
    ids = torch.tensor([[0, 1, 2], [3, 4, 4]])
    weights = torch.tensor([[1.0, 5.0, 1.0], [1.0, 1.0, 0.0]])
    each = -module.table.weight.log_softmax(-1)
    expected = (5 * each[0, 1] + each[1, 2] + each[3, 4]) / 7
    assert loss_of(module, ids, weights).item() == pytest.approx(expected.item())


def test_initial_weights_leave_the_global_state_alone():
    modules = [Bigram() for _ in range(3)]
    before = torch.random.get_rng_state()
    a, b, c = (initialised(m, Seed(s)).table.weight for m, s in zip(modules, (0, 0, 1), strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_rate_warms_up_and_falls_to_a_tenth():
    schedule = Schedule(steps=100, rows=1, rate=1.0, warm=10)
    assert schedule.at(0) == pytest.approx(0.1, rel=1e-2)
    assert max(schedule.at(s) for s in range(100)) <= 1.0
    assert schedule.at(99) == pytest.approx(0.1, abs=1e-3)
