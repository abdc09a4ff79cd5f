"""The bank's filters against lines, arcs and edges drawn here, and drawings against points laid along their strokes."""

from itertools import pairwise

import numpy as np
import pytest

from prosect.core.errors import UnknownName
from prosect.core.seeds import Seed
from prosect.organisms.vision import bank, drawings


def canvas(size):
    at = np.arange(size) - size // 2
    return np.meshgrid(at.astype(float), -at.astype(float))


def stroke(distance):
    return np.clip(1.0 - np.abs(distance), 0, 1)


@pytest.mark.parametrize("kind", bank.KINDS)
def test_filters_have_mean_zero_and_length_one_and_turn_with_their_angle(kind):
    for angle in (0.0, 22.5, 100.0):
        drawn = bank.filter_of(kind, angle, 7)
        assert abs(drawn.mean()) < 1e-12 and np.linalg.norm(drawn) == pytest.approx(1)
        assert np.allclose(np.rot90(drawn), bank.filter_of(kind, angle + 90, 7))
    assert np.allclose(bank.filter_of("line", 30, 7), bank.filter_of("line", 210, 7))
    assert np.allclose(bank.filter_of("edge", 30, 7), -bank.filter_of("edge", 210, 7))


def test_each_detector_answers_most_to_its_own_angle():
    x, y = canvas(7)
    lines = {a: bank.filter_of("line", a, 7) for a in np.arange(8) * 22.5}
    curves = {a: bank.filter_of("curve", a, 7) for a in np.arange(4) * 90.0}
    edges = {a: bank.filter_of("edge", a, 3) for a in np.arange(8) * 45.0}
    for angle in lines:
        r = np.deg2rad(angle)
        image = stroke(np.cos(r) * y - np.sin(r) * x)
        assert max(lines, key=lambda a: (lines[a] * image).sum()) == angle
    for angle in curves:
        r = np.deg2rad(angle)
        image = stroke(np.hypot(x - 5 * np.cos(r), y - 5 * np.sin(r)) - 5)
        assert max(curves, key=lambda a: (curves[a] * image).sum()) == angle
        # a curve moves a curve detector more than any line detector of its own length does a line as bent
        own = (curves[angle] * image).sum()
        assert own > max((f * image).sum() for f in lines.values())
    x, y = canvas(3)
    for angle in edges:
        r = np.deg2rad(angle)
        image = (x * np.cos(r) + y * np.sin(r) > 0.1).astype(float)
        assert max(edges, key=lambda a: (edges[a] * image).sum()) == angle


def test_channels_are_the_filters_of_their_variables():
    kinds = (bank.Detector("line", 45.0), bank.Detector("random"), bank.Detector("curve", 90.0, False))
    weights = bank.drawn(kinds, 7, Seed(0).child("bank"))
    variables = bank.variables("bank", kinds)
    assert weights.shape == (3, 1, 7, 7)
    assert np.allclose(weights[0, 0], bank.filter_of("line", variables[0].parameters["angle"], 7))
    assert variables[1].kind == "nothing" and variables[1].effect is None
    assert variables[2].effect == {"matters": False}
    with pytest.raises(UnknownName):
        bank.filter_of("corner", 0.0, 7)


def laid(kind, radius, angle):
    """Points along a stroke around the origin."""
    t = np.linspace(0, 1, 4000)[:, None]
    if kind == "circle":
        turn = 2 * np.pi * t
    elif kind == "arc":
        turn = angle + np.pi * (t - 0.5)
    else:
        turns = [0, np.pi] if kind == "line" else [0, 2 * np.pi / 3, 4 * np.pi / 3, 0]
        corners = [radius * np.array([np.cos(angle + a), np.sin(angle + a)]) for a in turns]
        return np.concatenate([a + t * (b - a) for a, b in pairwise(corners)])
    return radius * np.concatenate([np.cos(turn), np.sin(turn)], axis=1)


@pytest.mark.parametrize("kind", drawings.CLASSES)
def test_distances_are_those_from_points_along_the_stroke(kind):
    rng = np.random.default_rng(0)
    radius, angle = rng.uniform(5, 8, 3), rng.uniform(0, 2 * np.pi, 3)
    pixels = rng.uniform(-12, 12, (3, 10, 10, 2))
    found = getattr(drawings, f"_{kind}")(pixels, radius, angle)
    for i in range(3):
        points = laid(kind, radius[i], angle[i])
        nearest = np.linalg.norm(pixels[i, :, :, None] - points, axis=-1).min(axis=-1)
        assert np.abs(found[i] - nearest).max() < 0.02


def test_boxes_hold_the_ink_and_nothing_but_noise_is_outside():
    made = drawings.draw(200, np.random.default_rng(1))
    images = made.images[:, 0].numpy()
    for image, (top, left, bottom, right) in zip(images, made.boxes, strict=True):
        inside = image[top:bottom, left:right].copy()
        assert inside.max() > 0.6
        outside = image.copy()
        outside[top:bottom, left:right] = 0
        assert np.abs(outside).max() < 5.5 * drawings.NOISE
        assert 0 <= top < bottom <= drawings.SIDE and 0 <= left < right <= drawings.SIDE
        assert max(bottom - top, right - left) < 2 * drawings.LARGEST + 4
    assert np.bincount(made.classes, minlength=4).min() > 30
