"""Addition modulo a prime: exact, and every neuron is what the truth says, seen by a Fourier transform."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosect.core.errors import BadInput, TooLittleData
from prosect.core.seeds import Seed
from prosect.organisms import grokked
from prosect.organisms.grokked import RECIPES, network_grokked, source_grokked
from prosect.organisms.modular import NEURONS, canonical, cut, network, source

TURN = 2 * np.pi


def everything(p):
    codes = torch.arange(p * p)
    return torch.stack([codes // p, codes % p], dim=1)


def inside(module, pairs):
    """Hidden activations in float64, and logits."""
    seen = []
    hook = module.hidden.register_forward_hook(lambda _m, _a, out: seen.append(out.double().numpy()))
    with torch.no_grad():
        logits = module(pairs)
    hook.remove()
    return seen[0], logits


def predicted(v, pairs):
    """What the truth says a neuron's activation is."""
    q, a, b = v.parameters, *pairs.double().numpy().T
    turn = TURN * q["frequency"] / q["modulus"]
    total = np.cos(turn * a + q["phase_a"]) + np.cos(turn * b + q["phase_b"])
    return (q["amplitude"] * total) ** 2


@pytest.fixture(scope="module", params=[(31, 0), (31, 1), (59, 0)])
def organism(request):
    p, seed = request.param
    module, truth = network(seed, p)
    pairs = everything(p)
    hidden, logits = inside(module, pairs)
    return p, module, truth, pairs, hidden, logits


@pytest.mark.parametrize(("p", "seeds"), [(31, 10), (59, 3), (97, 1)])
def test_every_sum_is_right_by_a_wide_margin(p, seeds):
    pairs = everything(p)
    for seed in range(seeds):
        module, _ = network(seed, p)
        _, logits = inside(module, pairs)
        right = pairs.sum(dim=1, keepdim=True) % p
        others = logits.scatter(1, right, -torch.inf).amax(dim=1)
        margin = logits.gather(1, right)[:, 0] - others
        assert margin.min() > 0.1 * NEURONS[p]


def test_neurons_compute_what_the_truth_says(organism):
    _, _, truth, pairs, hidden, _ = organism
    for v in truth.variables:
        if v.kind == "trigonometric":
            expected = predicted(v, pairs)
            assert np.abs(hidden[:, v.index] - expected).max() < 0.15 * expected.max()
            assert np.corrcoef(hidden[:, v.index], expected)[0, 1] > 0.999


def test_a_fourier_transform_finds_the_true_frequency_and_phases_and_none_in_decoys(organism):
    p, _, truth, _, hidden, _ = organism
    for v in truth.variables:
        spectrum = np.fft.fft2(hidden[:, v.index].reshape(p, p)) / p**2
        power = np.abs(spectrum) ** 2
        power[0, 0] = 0.0
        shares = [(power[k, k] + power[k, -k]) * 2 / max(power.sum(), 1e-300) for k in range(1, p // 2 + 1)]
        best = int(np.argmax(shares)) + 1
        if v.kind == "trigonometric":
            assert best == v.parameters["frequency"]
            assert shares[best - 1] == pytest.approx(0.8, abs=0.03)  # 4 of 5 parts are cross terms
            total = np.angle(spectrum[best, best])  # of a cosine of both turns added
            difference = np.angle(spectrum[best, -best])
            a, b = v.parameters["phase_a"], v.parameters["phase_b"]
            assert np.cos(total - (a + b)) > 0.999
            assert np.cos(difference - (a - b)) > 0.999
        else:
            assert shares[best - 1] < 0.35


def test_removing_a_neuron_changes_the_logits_as_the_truth_says(organism):
    p, module, truth, _, hidden, _ = organism
    out = module.readout.weight.detach().double().numpy().T  # neurons, p
    c = np.arange(p)
    for v in truth.variables:
        written = hidden[:, v.index].max() * out[v.index]
        if not v.effect["matters"]:
            assert np.abs(written).max() == 0
        elif "frequency" in v.effect:
            wave = np.cos(TURN * v.effect["frequency"] * c / p + v.effect["phase"])
            expected = hidden[:, v.index].max() * v.effect["amplitude"] * wave
            assert np.abs(written - expected).max() < 0.06 * np.abs(expected).max()
        else:
            power = np.abs(np.fft.rfft(out[v.index])[1:]) ** 2
            assert v.parameters["decoy"] == "table" and np.abs(written).max() > 0.1
            assert power.max() / power.sum() < 0.5


def test_scales_cancel_and_every_decoy_is_there(organism):
    p, _, truth, _, hidden, _ = organism
    assert len(truth.variables) == hidden.shape[1] == NEURONS[p] * 9 // 8
    assert [v.index for v in truth.variables] == list(range(hidden.shape[1]))
    decoys = [v.parameters.get("decoy") for v in truth.variables]
    each = NEURONS[p] // 32
    assert {d: decoys.count(d) for d in ("constant", "table", "elsewhere")} == dict.fromkeys(
        ("constant", "table", "elsewhere"), each
    )
    silent = [v for v in truth.variables if v.kind == "trigonometric" and not v.effect["matters"]]
    assert len(silent) == each
    scales = np.array([v.parameters["amplitude"] for v in truth.variables if v.kind == "trigonometric"])
    assert scales.min() < 0.6 and scales.max() > 1.7
    constants = [v.index for v in truth.variables if v.parameters.get("decoy") == "constant"]
    assert np.ptp(hidden[:, constants], axis=0).max() == 0 and hidden[:, constants].min() > 0.05
    first = [v.kind for v in truth.variables][: NEURONS[p]]
    assert "nothing" in first  # decoys are not simply last


PHASES = st.floats(-20, 20)


@given(st.sampled_from([5, 31]), st.integers(1, 200), PHASES, PHASES)
def test_the_canonical_form_is_the_same_function_and_unique(p, k, x, y):
    if k % p == 0:
        return
    a, b = np.meshgrid(np.arange(p), np.arange(p))
    f = lambda k, x, y: (np.cos(TURN * k * a / p + x) + np.cos(TURN * k * b / p + y)) ** 2  # noqa: E731
    q, u, v = canonical(p, k, x, y)
    assert 1 <= q <= p // 2 and 0 <= u <= np.pi and 0 <= v <= TURN
    assert np.abs(f(q, u, v) - f(k, x, y)).max() < 1e-9
    for same in ((p - k % p, -x, -y), (k + p, x, y), (k, x + np.pi, y - np.pi), (k, x + TURN, y)):
        r, s, t = canonical(p, *same)
        assert r == q
        turned = np.exp(1j * np.array([s - u, t - v]))
        assert min(np.abs(turned - 1).max(), np.abs(turned + 1).max()) < 1e-9  # at an edge both may turn


def test_moduli_without_a_known_size_are_refused():
    for make in (network, network_grokked, source_grokked):
        with pytest.raises(BadInput, match="p=12"):
            make(p=12)


# --- learned ---


@pytest.fixture(scope="module")
def learned():
    return network_grokked(0)


def test_pairs_that_were_never_seen_are_answered(learned):
    module, truth = learned
    pairs = everything(31)
    _, logits = inside(module, pairs)
    held = ~truth.labels["trained"]
    right = (logits.argmax(dim=1) == pairs.sum(dim=1) % 31).numpy()
    assert held.sum() == 481 and right[held].all() and right.all()
    assert truth.quantities["held-out accuracy"] == 1.0
    assert truth.quantities["chance"] == pytest.approx(1 / 31)


def test_its_mechanism_is_not_given(learned):
    _, truth = learned
    assert truth.unknown
    assert truth.variables == () and truth.features == () and not truth.edges


def test_each_of_its_neurons_has_one_frequency(learned):
    """That it learned to add by trigonometry, which the truth does not claim, is nevertheless seen."""
    module, _ = learned
    power = np.abs(np.fft.rfft(module.embed_a.weight.detach().double().numpy(), axis=0)[1:]) ** 2
    assert power.max(axis=0).sum() / power.sum() > 0.7


@pytest.mark.slow
def test_the_larger_one_generalises_too():
    _, truth = network_grokked(1, p=59)
    assert truth.quantities["held-out accuracy"] == 1.0


def test_training_is_adamw_on_cross_entropy():
    p, recipe, trained = 5, grokked.Recipe(neurons=6, share=0.5, steps=10), np.array([0, 7, 3, 21, 13, 18])
    a, b, out = grokked.train(p, recipe, trained, Seed(2))  # 20 steps: six pairs are not enough to stop early
    rng = Seed(2).torch()
    theirs = [torch.nn.Parameter(torch.randn(p, 6, generator=rng) / p**0.5) for _ in range(2)]
    theirs.append(torch.nn.Parameter(torch.randn(6, p, generator=rng) / 6**0.5))
    adam = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.98), weight_decay=1.0)
    one, two = torch.from_numpy(trained // p), torch.from_numpy(trained % p)
    for _ in range(20):
        adam.zero_grad()
        logits = (theirs[0][one] + theirs[1][two]) ** 2 @ theirs[2]
        torch.nn.functional.cross_entropy(logits, (one + two) % p).backward()
        adam.step()
    for mine, w in zip((a, b, out), theirs, strict=True):
        assert (mine - w).abs().max() < 1e-5


def test_the_same_seed_gives_the_same_network(monkeypatch):
    monkeypatch.setitem(RECIPES, 31, grokked.Recipe(16, 0.5, 20))
    trained = grokked._trained(0, 31)
    a, b, c = (grokked.train(31, RECIPES[31], trained, Seed(s)) for s in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])


# --- pairs ---


def pairs_of(data, part):
    return {tuple(x) for b in data.batches(part, 50) for x in b.tensors["pairs"].tolist()}


@pytest.mark.parametrize("p", [31, 59])
def test_analytic_parts_are_disjoint_and_the_shift_wraps(p):
    data = source(0, p=p)
    found = {part: pairs_of(data, part) for part in data.units}
    assert found["explore.first"] | found["explore.second"] == found["explore"]
    whole = [part for part in found if not part.startswith("explore.")]
    assert sum(len(found[part]) for part in whole) == len(set.union(*(found[part] for part in whole)))
    assert found["shift"] == {(a, b) for a in range(p) for b in range(p) if a + b >= p}
    assert all(a + b < p for part in whole if part != "shift" for a, b in found[part])
    assert min(data.units[f"validate.{i}"] for i in range(2)) >= 60
    assert all(len(found[part]) == data.units[part] for part in found)


def test_a_learned_networks_shift_is_what_it_never_saw():
    data = source_grokked(0)
    trained = set(map(tuple, everything(31)[torch.from_numpy(grokked._trained(0, 31))].tolist()))
    found = {part: pairs_of(data, part) for part in data.units}
    assert found["shift"] == set(map(tuple, everything(31).tolist())) - trained
    assert set.union(*(found[part] for part in found if part != "shift")) <= trained
    assert min(data.units[f"validate.{i}"] for i in range(2)) >= 60


def test_too_many_folds_are_refused():
    with pytest.raises(TooLittleData, match="fewer folds"):
        cut(31, np.zeros(961, dtype=bool), Seed(0), folds=600, explore=0.4)
