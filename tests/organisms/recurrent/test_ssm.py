"""The state-space network against recurrences and filters worked out elsewhere."""

import numpy as np
import pytest
import torch
from scipy.signal import dimpulse, lfilter

from prosect.model.edits import zero
from prosect.organisms.recurrent import ssm


def response(truth, lags=ssm.LAGS):
    return np.array(
        [
            [
                [truth.quantities[f"response {o} {i} {k}"] for i in range(ssm.INPUTS)]
                for o in range(ssm.OUTPUTS)
            ]
            for k in range(lags)
        ]
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_an_impulse_gives_the_response_and_a_step_the_gain(seed):
    module, truth = ssm.network(seed)
    known = response(truth)
    for i in range(ssm.INPUTS):
        impulse = torch.zeros(1, ssm.LAGS, ssm.INPUTS)
        impulse[0, 0, i] = 1
        step = torch.zeros(1, 600, ssm.INPUTS)
        step[..., i] = 1
        with torch.no_grad():
            assert np.abs(module(impulse)[0].numpy() - known[:, :, i]).max() < 1e-5
            last = module(step)[0, -1].numpy()
        assert last == pytest.approx(
            [truth.quantities[f"gain {o} {i}"] for o in range(ssm.OUTPUTS)], abs=1e-4
        )


def test_the_response_is_scipys_of_the_same_system():
    plan = ssm.Plan.of(4)
    # ours writes before it reads: the state that is read holds the input of the same step
    a, b = np.diag(plan.pole), plan.write
    system = (a, b, plan.read @ a, plan.read @ b + plan.skip, 1)
    _, per_input = dimpulse(system, n=ssm.LAGS)
    theirs = np.stack(per_input, axis=-1)
    assert np.allclose(theirs, plan.response(ssm.LAGS))


def test_states_are_filters_of_their_poles_and_idle_ones_do_nothing():
    model, truth = ssm.build(2)
    batch = next(ssm.source(2).batches("validate.0", rows=8))
    seen = model.run(batch, capture=("scan",))
    written = batch.tensors["inputs"].double().numpy()
    idle = 0
    for v in truth.variables:
        said = seen["scan"][..., v.index].double().numpy()
        u = written @ np.array(v.parameters["write"])
        assert np.abs(said - lfilter([1.0], [1.0, -v.parameters["pole"]], u, axis=1)).max() < 1e-4
        direction = torch.eye(ssm.STATES)[v.index]
        lost = model.run(batch, edits=[zero("scan", direction=direction)]).output
        assert ((lost - seen.output).abs().max() > 1e-4) == v.effect["matters"]
        idle += not v.effect["matters"]
    assert idle == 2 and sum(v.kind == "nothing" for v in truth.variables) == 1


def test_the_gate_multiplies_what_the_other_network_gives():
    plain, gated = ssm.network(3)[0], ssm.network_gated(3)[0]
    batch = next(ssm.source_gated(3).batches("shift", rows=4))
    with torch.no_grad():
        x = batch.tensors["inputs"]
        gate = torch.sigmoid(x @ gated.gate.project.weight.T + gated.gate.project.bias)
        assert torch.allclose(gated(x), plain(x) * gate, atol=1e-6)
    assert 0.01 < float(gate.min()) < 0.4 < 0.6 < float(gate.max())
