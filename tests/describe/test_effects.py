"""Which outputs a component moves, against planted effects and exact linear ones."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.records import Executable
from prosect.core.registries import DESCRIPTIONS
from prosect.core.seeds import Seed
from prosect.describe.effects import EffectExplainer, OutputSets, direct
from prosect.store.shelf import Shelf

OUTPUTS = [f"out{i}" for i in range(200)]
RAISED, LOWERED = (3, 50, 120), (7, 199)


def planted(scale=1.0):
    effect = np.zeros(200)
    effect[list(RAISED)] = [3.0, 2.0, 1.5]
    effect[list(LOWERED)] = [-2.5, -1.2]
    return effect * scale


def measured(effect, noise, n=300, shift=5.0, seed=0):
    rng = np.random.default_rng(seed)
    found = EffectExplainer(OUTPUTS)
    for _ in range(3):
        size = rng.exponential(size=(n, 1))
        delta = -size * effect + noise * rng.standard_normal((n, 200)) + shift * rng.standard_normal((n, 1))
        found.update(torch.from_numpy(delta))
    return found


def sets(explained):
    return DESCRIPTIONS.get("output-sets").of(explained.executable, Shelf()).outputs()


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_planted_outputs_are_found_and_only_those(noise):
    explained = measured(planted(), noise).explain()
    raised, lowered = sets(explained)
    assert explained.found and set(raised) == set(RAISED) and set(lowered) == set(LOWERED)
    assert explained.side == "effect" and explained.words.startswith("raises `out")
    size = {e["output"]: e["effect"] for e in explained.explored["effects"]}
    assert size[3] == pytest.approx(3.0, rel=0.1) and size[7] == pytest.approx(-2.5, rel=0.1)


def test_what_all_outputs_share_is_not_looked_at():
    """A softmax does not see it, however loud it is."""
    assert set(sets(measured(planted(0.3), 0.1, shift=50.0).explain())[0]) == set(RAISED)


def test_the_surest_outputs_come_first():
    rng = np.random.default_rng(0)
    delta = np.zeros((400, 200))
    delta[:, 10] = -1.0 + 0.1 * rng.standard_normal(400)
    delta[:, 20] = -1.5 + 5.0 * rng.standard_normal(400)
    found = EffectExplainer(OUTPUTS)
    found.update(torch.from_numpy(delta))
    assert sets(found.explain())[0] == [10, 20]


def test_pure_noise_moves_nothing():
    named = [sum(map(len, sets(measured(np.zeros(200), 1.0, seed=s).explain()))) for s in range(20)]
    # 20 × 200 two-sided tests at 4 standard errors: one in sixteen thousand each
    assert sum(named) <= 2
    assert (
        measured(np.zeros(200), 0.0, shift=0.0).explain().words == "no output is reliably raised or lowered"
    )


def test_at_most_ten_a_side_and_nothing_negligible():
    effect = np.r_[np.linspace(5, 1, 40), np.full(10, 0.05), np.zeros(150)]
    raised, lowered = sets(measured(effect, 0.01, n=2000).explain())
    assert len(raised) == 10 and lowered == []
    few = np.zeros(200)
    few[[0, 1]] = [5.0, 0.3]  # the second is real and too small to matter
    assert sets(measured(few, 0.001).explain()) == ([0], [])


def test_streaming_in_other_pieces_changes_nothing():
    rng = np.random.default_rng(1)
    delta = torch.from_numpy(-planted() + rng.standard_normal((90, 200)))
    whole, pieces = EffectExplainer(OUTPUTS), EffectExplainer(OUTPUTS)
    whole.update(delta)
    for part in delta.split([1, 0, 50, 39]):
        pieces.update(part)
    assert whole.effect == pytest.approx(pieces.effect)
    assert sets(whole.explain()) == sets(pieces.explain())


def test_direct_effects_are_exact_for_a_linear_readout():
    """Ablating a direction before a linear unembedding changes logits by exactly direction · unembedding."""
    torch.manual_seed(0)
    generator = Seed(0).torch()
    unembedding = 0.05 * torch.randn(200, 32, generator=generator, dtype=torch.float64)
    direction = torch.randn(32, generator=generator, dtype=torch.float64)
    for i, sign in [(3, 1), (50, 1), (120, 1), (7, -1), (199, -1)]:
        unembedding[i] += sign * 0.1 * direction
    guess = direct(direction, unembedding, OUTPUTS)
    assert guess.found and guess.method == "direct-effects@1"
    raised, lowered = sets(guess)
    assert set(RAISED) <= set(raised) and set(LOWERED) <= set(lowered)
    code = torch.rand(64, 1, generator=generator, dtype=torch.float64) + 0.5
    hidden = torch.randn(64, 32, generator=generator, dtype=torch.float64)
    delta = (hidden - code * direction) @ unembedding.T - hidden @ unembedding.T
    found = EffectExplainer(OUTPUTS)
    found.update(delta)
    got = {e["output"]: e["effect"] for e in guess.explored["effects"]}
    for i, value in got.items():
        assert found.effect[i] == pytest.approx(value * code.mean().item(), rel=1e-4)


def test_renaming_outputs_renames_the_sets():
    order = np.random.default_rng(2).permutation(200)
    one = sets(measured(planted(), 0.0).explain())
    two = sets(measured(planted()[order], 0.0).explain())
    assert [[int(order[i]) for i in side] for side in two] == [list(side) for side in one]


def test_sets_come_back_and_malformed_ones_are_refused():
    made = OutputSets((3, 1), (2,))
    stored = Executable.model_validate_json(made.executable().model_dump_json())
    assert OutputSets.of(stored, Shelf()) == made and made.outputs() == ([3, 1], [2])
    for bad in ({"raised": [1], "lowered": [1]}, {"raised": [-1], "lowered": []}, {"raised": [1]}):
        with pytest.raises(BadInput):
            OutputSets.of(Executable(kind="output-sets", parameters=bad), Shelf())


def test_bad_input_is_refused():
    found = EffectExplainer(OUTPUTS)
    with pytest.raises(ShapeMismatch):
        found.update(torch.zeros(3, 4))
    with pytest.raises(NotFinite):
        found.update(torch.full((3, 200), float("nan")))
    with pytest.raises(TooLittleData):
        found.explain()
    with pytest.raises(BadInput):
        EffectExplainer(["only"])
    with pytest.raises(ShapeMismatch):
        direct(torch.zeros(3), torch.zeros(200, 4), OUTPUTS)


def test_what_the_second_set_alone_gives_never_saw_the_first():
    rng = np.random.default_rng(1)
    found = EffectExplainer(OUTPUTS)
    for second, output in ((False, 10), (True, 20)):
        delta = 0.1 * rng.standard_normal((300, 200))
        delta[:, output] -= 1.0
        found.update(torch.from_numpy(delta), second=second)
    explained = found.explain()
    assert set(sets(explained)[0]) == {10, 20}
    assert OutputSets.of(explained.second, Shelf()).raised == (20,)
    assert measured(planted(), 0.1).explain().second is None
