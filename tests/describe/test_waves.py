"""Formulas of modular addition, against the closed-form network and its decoys."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.records import Executable
from prosect.core.registries import DESCRIPTIONS
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.trigonometric import Trigonometric, TrigonometricOutput
from prosect.describe.waves import TrigonometricExplainer, TrigonometricOutputExplainer, written
from prosect.store.shelf import Shelf

P = 31
EVERY = np.array(list(itertools.product(range(P), repeat=2)))
EXPLORED = EVERY[np.random.default_rng(0).permutation(P * P)[:400]]
EXPLAINER = TrigonometricExplainer(EXPLORED, P, Seed(0))
angles = st.floats(0.0, 2 * math.pi)


def batch(pairs):
    return Batch({"pairs": torch.from_numpy(pairs)}, None, tuple(Row(i) for i in range(len(pairs))))


def neuron(seed, form="square"):
    """A neuron of the analytic network, with random amplitudes."""
    rng = np.random.default_rng(seed)
    k, (phi, psi), (a, b) = int(rng.integers(1, 16)), rng.uniform(0, 2 * math.pi, 2), rng.uniform(0.3, 3.0, 2)
    return Trigonometric(P, k, float(phi), float(psi), float(a), float(b), form)


def apart(x, y):
    """Distance between two angles."""
    return abs(math.remainder(x - y, 2 * math.pi))


@pytest.mark.parametrize("seed", range(12))
def test_a_neuron_is_recovered_from_part_of_the_pairs(seed):
    """A5: a description found on part of the inputs holds on all."""
    truth = neuron(seed)
    explained = EXPLAINER.explain(truth.at(EXPLORED))
    found, named = Trigonometric.of(explained.executable, Shelf()), truth.canonical
    assert explained.found and found.k == named.k
    assert apart(found.phi, named.phi) < 1e-6 and apart(found.psi, named.psi) < 1e-6
    assert (found.a, found.b) == pytest.approx((named.a, named.b), rel=1e-6)
    assert found.activation(batch(EVERY)) == pytest.approx(truth.at(EVERY), abs=1e-5)
    assert explained.explored["R²"] == pytest.approx(1.0) and f"frequency {named.k} " in explained.words


def test_pre_activations_are_recovered_too():
    explainer = TrigonometricExplainer(EXPLORED, P, Seed(0), form="linear")
    for seed in range(4):
        truth = neuron(seed, "linear")
        explained = explainer.explain(truth.at(EXPLORED))
        found = Trigonometric.of(explained.executable, Shelf())
        assert explained.found and found.k == truth.canonical.k
        assert found.at(EVERY) == pytest.approx(truth.at(EVERY), abs=1e-6)


@pytest.mark.parametrize("p", [3, 4, 5, 7, 11, 59])
def test_other_moduli(p):
    pairs = np.array(list(itertools.product(range(p), repeat=2)))
    if len(pairs) < 40:
        pairs = np.tile(pairs, (5, 1))
    truth = Trigonometric(p, (p - 1) // 2, 0.7, 2.9, 1.3, 0.8)
    explained = TrigonometricExplainer(pairs[: 59 * 20], p, Seed(0)).explain(truth.at(pairs[: 59 * 20]))
    assert explained.found and Trigonometric.of(explained.executable, Shelf()).at(pairs) == pytest.approx(
        truth.at(pairs), abs=1e-5
    )


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_a_noisy_neuron_keeps_its_frequency_and_phases(noise):
    rng = np.random.default_rng(1)
    for seed in range(6):
        truth = neuron(seed)
        y = truth.at(EXPLORED)
        explained = EXPLAINER.explain(y + noise * y.std() * rng.standard_normal(len(y)))
        found, named = Trigonometric.of(explained.executable, Shelf()), truth.canonical
        assert explained.found and found.k == named.k
        assert found.at(EVERY) == pytest.approx(truth.at(EVERY), abs=0.5 * noise * y.std() * 3)


def test_rescaling_scales_the_amplitudes_and_nothing_else():
    truth = neuron(3)
    one = Trigonometric.of(EXPLAINER.explain(truth.at(EXPLORED)).executable, Shelf())
    two = Trigonometric.of(EXPLAINER.explain(9.0 * truth.at(EXPLORED)).executable, Shelf())
    assert (two.k, two.phi, two.psi) == pytest.approx((one.k, one.phi, one.psi), abs=1e-6)
    assert (two.a, two.b) == pytest.approx((3 * one.a, 3 * one.b), rel=1e-6)


def decoys():
    rng = np.random.default_rng(2)
    a, b = EXPLORED.T
    yield "constant", np.full(400, 3.0)
    yield "zero", np.zeros(400)
    yield "random table", rng.random(400)
    yield "shuffled", rng.permutation(neuron(0).at(EXPLORED))
    yield "four frequencies", sum(neuron(s).at(EXPLORED) for s in (1, 2, 4, 7))
    yield "one pair", ((a == EXPLORED[0, 0]) & (b == EXPLORED[0, 1])) * 1.0


@pytest.mark.parametrize(
    ("name", "activation"), list(decoys()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_decoys_have_no_single_frequency(name, activation):
    explained = EXPLAINER.explain(activation)
    assert not explained.found and explained.words.startswith("no single frequency")
    assert explained.explored["R²"] < 0.5


def test_many_shuffled_neurons_explain_nothing():
    rng = np.random.default_rng(3)
    found = [EXPLAINER.explain(rng.permutation(neuron(s).at(EXPLORED))) for s in range(20)]
    assert not any(e.found for e in found)
    assert abs(np.mean([e.explored["correlation"] for e in found])) < 0.05


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    angles,
    angles,
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.sampled_from(["square", "linear"]),
)
def test_the_canonical_form_is_the_same_function_under_one_name(k, phi, psi, a, b, form):
    formula = Trigonometric(P, k, phi, psi, a, b, form)
    named = formula.canonical
    assert named.at(EVERY) == pytest.approx(formula.at(EVERY), abs=1e-9)
    assert 1 <= named.k <= 15 and named.a >= 0 and named.b >= 0
    assert 0 <= named.phi < 2 * math.pi and 0 <= named.psi < 2 * math.pi
    if form == "square":
        assert named.phi < math.pi
    again = named.canonical
    assert (again.k, again.phi, again.psi) == pytest.approx((named.k, named.phi, named.psi))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 15), st.floats(0.05, 3.0), st.floats(0.05, 6.2), st.floats(0.3, 2), st.floats(0.3, 2))
def test_every_name_of_a_function_has_one_canonical_form(k, phi, psi, a, b):
    names = [
        Trigonometric(P, k, phi, psi, a, b),
        Trigonometric(P, P - k, -phi, -psi, a, b),
        Trigonometric(P, k, phi + math.pi, psi + math.pi, a, b),
        Trigonometric(P, k, phi + math.pi, psi, -a, b),
        Trigonometric(P, k, phi - 2 * math.pi, psi + 4 * math.pi, -a, -b),
    ]
    first = names[0].canonical
    for other in names[1:]:
        other = other.canonical
        assert other.k == first.k
        assert apart(other.phi, first.phi) < 1e-9 and apart(other.psi, first.psi) < 1e-9
        assert (other.a, other.b) == pytest.approx((first.a, first.b))


def network(p, n, seed=0):
    """The analytic network: hidden units, and what each adds to every output."""
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.product(range(p), repeat=2)))
    k, phi, psi = rng.integers(1, (p - 1) // 2 + 1, n), *rng.uniform(0, 2 * math.pi, (2, n))
    turn = 2 * math.pi * k / p
    z = (np.cos(turn * pairs[:, :1] + phi) + np.cos(turn * pairs[:, 1:] + psi)) ** 2
    w = np.cos(turn[:, None] * np.arange(p) + (phi + psi)[:, None])
    return pairs, k, phi, psi, z, w


def test_the_closed_form_network_is_described_neuron_by_neuron_and_still_adds():
    p, n = 7, 64
    pairs, k, phi, psi, z, w = network(p, n)
    assert ((z @ w).argmax(axis=1) == pairs.sum(axis=1) % p).all()
    half = np.random.default_rng(1).permutation(len(pairs))[:44]
    explainer = TrigonometricExplainer(pairs[half], p, Seed(0))
    logits = np.zeros((len(pairs), p))
    for j in range(n):
        cause = explainer.explain(z[half, j])
        formula = Trigonometric.of(cause.executable, Shelf())
        effect = TrigonometricOutputExplainer(p, formula)
        effect.update(torch.from_numpy(z[half, j]), torch.from_numpy(-z[half, j][:, None] * w[j]))
        explained = effect.explain()
        output = TrigonometricOutput.of(explained.executable, Shelf())
        truth = TrigonometricOutput(p, int(k[j]), float(phi[j] + psi[j]), 1.0).canonical
        assert cause.found and explained.found and output.k == formula.k == truth.k
        assert apart(output.theta, truth.theta) < 1e-6 and output.amplitude == pytest.approx(1.0)
        logits -= output.change(batch(pairs))
    assert logits == pytest.approx(z @ w, abs=1e-4)


def test_what_is_written_is_measured_and_its_nulls_are_nothing():
    rng = np.random.default_rng(4)
    wave = TrigonometricOutput(P, 4, 1.2, 0.8)
    z = rng.random(200)
    found = TrigonometricOutputExplainer(P)
    for second in (False, True):
        noise = 0.1 * rng.standard_normal((200, P))
        found.update(torch.from_numpy(z), torch.from_numpy(-z[:, None] * wave.wave + noise), second=second)
    explained = found.explain()
    output = TrigonometricOutput.of(explained.executable, Shelf())
    assert explained.found and output.k == 4 and apart(output.theta, 1.2) < 0.05
    assert explained.description.about["agreement"] > 0.95
    assert output.change(batch(EXPLORED)) == pytest.approx(
        -z.mean() * np.tile(output.wave, (400, 1)), rel=1e-6
    )
    assert not written(rng.standard_normal(P)).found
    assert not written(np.zeros(P)).found and not written(np.full(P, 0.3)).found
    assert written(wave.wave + 7.0).explored["share"] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["trigonometric", "trigonometric-output"])
def test_formulas_come_back_bit_identical(kind):
    formula = neuron(5)
    made = formula if kind == "trigonometric" else TrigonometricOutput(P, 4, 0.1, 2.0, formula, 0.5)
    stored = Executable.model_validate_json(made.executable().model_dump_json())
    again = DESCRIPTIONS.get(kind).of(stored, Shelf())
    assert again == made
    run = "activation" if kind == "trigonometric" else "change"
    assert np.array_equal(getattr(again, run)(batch(EVERY)), getattr(made, run)(batch(EVERY)))


def test_bad_input_is_refused():
    with pytest.raises(BadInput, match="0 to 30"):
        TrigonometricExplainer(EXPLORED + 1, P, Seed(0)).explain(np.zeros(400))
    with pytest.raises(BadInput, match="form"):
        TrigonometricExplainer(EXPLORED, P, Seed(0), form="cube")
    with pytest.raises(TooLittleData):
        TrigonometricExplainer(EXPLORED[:10], P, Seed(0))
    with pytest.raises(ShapeMismatch):
        EXPLAINER.explain(np.zeros(3))
    with pytest.raises(NotFinite):
        EXPLAINER.explain(np.full(400, np.nan))
    with pytest.raises(BadInput, match="frequency 31"):
        Trigonometric(P, 31, 0.0, 0.0)
    with pytest.raises(BadInput, match="malformed"):
        Trigonometric.of(Executable(kind="trigonometric", parameters={"p": 7}), Shelf())
    tokens = Batch(
        {"input_ids": torch.zeros(1, 2, dtype=torch.long)}, torch.ones(1, 2, dtype=torch.bool), (Row(0),)
    )
    with pytest.raises(BadInput, match="pairs of residues"):
        neuron(0).activation(tokens)
    with pytest.raises(ShapeMismatch):
        TrigonometricOutputExplainer(P).update(torch.zeros(3), torch.zeros(3, 5))
    with pytest.raises(TooLittleData):
        TrigonometricOutputExplainer(P).explain()


def test_what_the_second_set_alone_gives_never_saw_the_first():
    second = np.arange(len(EXPLORED)) % 2 == 1
    one, two = neuron(1), neuron(2)
    y = np.where(second, two.at(EXPLORED), one.at(EXPLORED))
    found = TrigonometricExplainer(EXPLORED, P, Seed(0), second=second).explain(y)
    formula = Trigonometric.of(found.second, Shelf())
    assert not found.found and one.canonical.k != two.canonical.k
    assert formula.k == two.canonical.k and formula.at(EVERY) == pytest.approx(two.at(EVERY), abs=1e-5)
    waves = TrigonometricOutput(P, 4, 1.2, 0.8), TrigonometricOutput(P, 9, 0.3, 0.8)
    maker, z = TrigonometricOutputExplainer(P), np.random.default_rng(0).random(100)
    for half, wave in enumerate(waves):
        maker.update(torch.from_numpy(z), torch.from_numpy(-z[:, None] * wave.wave), second=bool(half))
    output = TrigonometricOutput.of(maker.explain().second, Shelf())
    assert output.k == 9 and apart(output.theta, 0.3) < 1e-6
