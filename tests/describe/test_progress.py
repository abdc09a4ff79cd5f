"""Progress measures against numpy's Fourier transforms, planted waves, and training of networks that grok."""

import numpy as np
import pytest
import torch
from scipy import stats

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.describe.progress import component_norms, gini, halfway, key_frequencies, progress
from prosect.organisms.grokked import checkpoints, source_grokked, trained_on

P = 31
CODES = np.arange(P * P)
SUMS = CODES // P + CODES % P
PAIRS = np.stack([CODES // P, CODES % P], axis=1)
TABLE = np.random.default_rng(0).standard_normal((P, 8))


def half():
    return np.random.default_rng(1).random(P * P) < 0.5


def waves(frequencies, size=3.0):
    """Logits cos(2πk(a + b − c)/p), summed over frequencies."""
    turns = 2 * np.pi * (SUMS[:, None] - np.arange(P)) / P
    return size * sum(np.cos(k * turns) for k in frequencies)


def test_planted_frequencies_are_found_from_some_of_the_pairs():
    noise = np.random.default_rng(0).standard_normal((P * P, P))
    some = np.random.default_rng(2).permutation(P * P)[:200]
    logits = waves([3, 7], 1.0) + 2 * waves([12], 1.0) + 0.1 * noise
    found = key_frequencies(logits[some], PAIRS[some], P)
    assert found[0] == 12 and set(found) == {3, 7, 12}
    assert key_frequencies(logits[some], PAIRS[some], P, share=0.5) == (12,)


def test_restricted_logits_are_the_two_dimensional_transform_with_all_else_set_to_zero():
    rng, keys = np.random.default_rng(3), (2, 5, 11)
    logits, trained = rng.standard_normal((P * P, P)) + waves([5], 1.0), half()
    spectrum = np.fft.fft2(logits.reshape(P, P, P), axes=(0, 1))
    kept = np.zeros_like(spectrum)
    for k in keys:
        for j in (k, -k):
            kept[j, j] = spectrum[j, j]
    key = np.fft.ifft2(kept, axes=(0, 1)).real.reshape(P * P, P)
    answers = torch.from_numpy(SUMS % P)
    loss = torch.nn.functional.cross_entropy
    found = progress(logits, trained, keys, [TABLE])
    restricted = loss(torch.from_numpy(key + logits.mean(axis=0)), answers)
    excluded = loss(torch.from_numpy(logits - key)[trained], answers[trained])
    assert found.restricted_loss == pytest.approx(float(restricted), abs=1e-10)
    assert found.excluded_loss == pytest.approx(float(excluded), abs=1e-10)
    assert found.train_loss == pytest.approx(float(loss(torch.from_numpy(logits[trained]), answers[trained])))


def test_of_key_waves_alone_nothing_is_left_without_them():
    logits = waves([4, 9], 20.0)
    found = progress(logits, half(), [4, 9], [TABLE])
    assert found.restricted_loss == pytest.approx(found.test_loss, abs=1e-9) and found.test_accuracy == 1.0
    assert found.excluded_loss == pytest.approx(np.log(P), abs=1e-9)
    other = progress(logits, half(), [3], [TABLE])
    assert other.restricted_loss == pytest.approx(np.log(P), abs=1e-9)
    assert other.excluded_loss == pytest.approx(found.train_loss, abs=1e-9)


def test_component_norms_are_numpys():
    power = np.abs(np.fft.rfft(TABLE, axis=0)) ** 2 / P
    mine = component_norms(TABLE) ** 2
    assert mine[0] == pytest.approx(power[0].sum())
    assert np.allclose(mine[1:].reshape(-1, 2).sum(axis=1), 2 * power[1:].sum(axis=1))
    assert mine.sum() == pytest.approx((TABLE**2).sum())


def test_gini_by_its_definition():
    sizes = np.array([0.0, 1.0, 4.0, 2.5])
    plain = np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean())
    assert gini(sizes) == pytest.approx(plain)
    assert gini(np.ones(5)) == pytest.approx(0.0)
    assert gini(np.eye(10)[0]) == pytest.approx(0.9)


def test_when_a_measure_has_moved_for_good():
    assert halfway([0, 10, 20, 30, 40], [4.0, 1.0, 3.0, 1.5, 0.0]) == 30
    assert halfway([0, 10], [0.0, 1.0]) == 10
    with pytest.raises(BadInput, match="ends where it began"):
        halfway([0, 10], [1.0, 1.0])
    with pytest.raises(TooLittleData):
        halfway([0], [1.0])


def test_bad_input_is_refused():
    logits = waves([4])
    with pytest.raises(BadInput, match="key frequencies"):
        progress(logits, half(), [16], [TABLE])
    with pytest.raises(BadInput, match="trained on"):
        progress(logits, np.ones(P * P, dtype=bool), [4], [TABLE])
    with pytest.raises(ShapeMismatch):
        progress(logits[:100], half()[:100], [4], [TABLE])
    with pytest.raises(NotFinite):
        progress(np.where(logits == logits.max(), np.nan, logits), half(), [4], [TABLE])
    with pytest.raises(TooLittleData, match="waves"):
        key_frequencies(logits[:50], PAIRS[:50], P)
    with pytest.raises(BadInput, match="sizes"):
        gini(np.zeros(3))


def of(seed):
    """Steps and measures of a network through its training; key waves from explore alone."""
    pairs = torch.from_numpy(PAIRS)
    points = list(checkpoints(seed, P, every=10))
    with torch.no_grad():
        logits = [c.module(pairs).numpy() for c in points[:60]]
        explore = next(source_grokked(seed).batches("explore", P * P)).tensors["pairs"]
        keys = key_frequencies(points[-1].module(explore).numpy(), explore.numpy(), P)
    trained = trained_on(seed, P)
    found = [
        progress(x, trained, keys, [w.numpy() for w in (c.weights[0], c.weights[2].T)])
        for x, c in zip(logits, points, strict=False)
    ]
    return [c.step for c in points[:60]], found


def test_a_network_generalises_inside_before_its_answers_show_it():
    """Nanda et al. 2023, section 5: both losses move before test accuracy does, over seeds."""
    restricted, excluded = [], []
    for seed in range(4):
        steps, found = of(seed)
        accuracy = halfway(steps, [m.test_accuracy for m in found])
        restricted.append(accuracy - halfway(steps, [m.restricted_loss for m in found]))
        early = [m.excluded_loss for m in found][: steps.index(accuracy) + 1]
        excluded.append(accuracy - steps[int(np.argmin(early))])  # it turns up: memorising gives way
        assert early[-1] > min(early) + 0.1
        assert found[-1].train_loss < 0.01 and found[-1].test_accuracy > 0.95
        assert found[-1].gini[0] > 1.5 * found[0].gini[0]
    for lead in (restricted, excluded):
        low, _ = stats.t.interval(0.95, len(lead) - 1, np.mean(lead), stats.sem(lead))
        assert low > 50
