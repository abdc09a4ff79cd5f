"""Denoisers against the posterior mean by quadrature and the score by finite differences."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from prosect.organisms import diffusion
from prosect.organisms.diffusion import SPREAD, Mixture


def density(mixture, x, sigma):
    """Of noisy points, by scipy."""
    cover = (SPREAD**2 + sigma**2) * np.eye(2)
    return sum(
        w * multivariate_normal(m, cover).pdf(x) for w, m in zip(mixture.weights, mixture.means, strict=True)
    )


@pytest.mark.parametrize("sigma", [0.2, 0.7, 2.0])
def test_the_written_denoiser_is_the_posterior_mean_and_gives_the_score(sigma):
    module, _ = diffusion.network_exact(1)
    mixture = Mixture.of(1)
    points = np.array([[0.3, -0.4], [1.5, 0.7], [-1.0, 1.2]])
    with torch.no_grad():
        said = module(torch.from_numpy(points).float(), torch.full((3, 1), sigma)).double().numpy()
    grid = np.linspace(-5, 5, 401)
    clean = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    prior = density(mixture, clean, 0.0)
    for x, guess in zip(points, said, strict=True):
        weight = prior * np.exp(-np.square(clean - x).sum(axis=1) / (2 * sigma**2))
        assert np.abs(weight @ clean / weight.sum() - guess).max() < 2e-3
        step = 1e-4
        slope = [
            (np.log(density(mixture, x + e, sigma)) - np.log(density(mixture, x - e, sigma))) / (2 * step)
            for e in step * np.eye(2)
        ]
        assert np.abs((guess - x) / sigma**2 - slope).max() < 1e-2


def test_shares_are_posteriors_and_belong_to_their_components():
    model, truth = diffusion.build_exact(2)
    mixture = Mixture.of(2)
    x = torch.from_numpy(mixture.means).float()
    shares = model.run({"x": x, "sigma": torch.full((5, 1), 0.05)}, capture=("shares",))["shares"]
    assert torch.allclose(shares, torch.eye(5), atol=1e-3)
    assert [v.parameters["mean"] for v in truth.variables] == mixture.means.tolist()
    alike = model.run({"x": x, "sigma": torch.full((5, 1), 200.0)}, capture=("shares",))["shares"]
    assert torch.allclose(alike, torch.from_numpy(mixture.weights).float().expand(5, 5), atol=1e-3)


def test_a_network_trained_a_little_lies_between_the_trivial_guess_and_the_best(monkeypatch):
    monkeypatch.setattr(diffusion, "STEPS", 5)
    first, second = (diffusion.train.__wrapped__(0).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    monkeypatch.setattr(diffusion, "STEPS", 200)
    monkeypatch.setattr(diffusion, "train", diffusion.train.__wrapped__)
    _, truth = diffusion.network(0)
    q = truth.quantities
    for level in ("0.3", "1"):
        assert 0 < q[f"excess error {level}"] < 0.7 * (q[f"trivial error {level}"] - q[f"best error {level}"])
    for level in diffusion.LEVELS:
        assert q[f"best error {level:g}"] < 2 * min(level**2, 4)


def test_points_and_noise_are_drawn_as_the_mixture_says():
    mixture = Mixture.of(0)
    clean, level, noisy = mixture.draw(20_000, diffusion.LARGEST, torch.Generator().manual_seed(0))
    near = np.linalg.norm(clean.numpy()[:, None] - mixture.means, axis=-1).argmin(axis=1)
    assert np.abs(np.bincount(near, minlength=5) / 20_000 - mixture.weights).max() < 0.03
    assert float(((noisy - clean) / level).std()) == pytest.approx(1, abs=0.02)
    assert float(level.min()) >= diffusion.SMALLEST and float(level.max()) <= diffusion.LARGEST
