"""A first layer written down: detectors of lines, edges and curves whose orientation is known.

A *line* detector is a Gabor filter in cosine phase, an *edge* detector the derivative of a Gaussian, and a *curve*
detector a line detector bent along an arc (what curve detectors of trained networks look like: Cammarata et al. 2021,
"Curve Circuits", who replaced them with drawn ones as `filter_of` does). Every filter has mean zero and length one, so
an even surface moves none. Angles are in degrees, counter-clockwise from the positive x axis with y upwards: those of
a line say how it lies (0 to 180), those of an edge and a curve where the bright side or the arc's centre is (0 to 360).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prosect.core.canonical import Json
from prosect.core.errors import UnknownName
from prosect.core.seeds import Seed
from prosect.core.truth import Variable

KINDS = ("line", "edge", "curve")
RADIUS = 5.0  # of the arcs of curve detectors, pixels
SHARP, WIDE = 1.0, 2.0  # standard deviations across and along a line, pixels
PERIOD = 5.0  # of a line detector's wave, pixels


@dataclass(frozen=True)
class Detector:
    """What one channel of the bank is.

    Attributes:
        kind: one of `KINDS`, or ``random``: a filter of noise.
        angle: degrees; 0 where there is none.
        read: whether the layer after it may read it.
    """

    kind: str
    angle: float = 0.0
    read: bool = True

    @property
    def parameters(self) -> Mapping[str, Json]:
        """For a `Variable`."""
        radius: dict[str, Json] = {"radius": RADIUS} if self.kind == "curve" else {}
        return {} if self.kind == "random" else {"angle": self.angle} | radius


def filter_of(kind: str, angle: int | float, size: int) -> Float[np.ndarray, "size size"]:
    """The filter of a detector, rows from top to bottom.

    Args:
        kind: one of `KINDS`.
        angle: degrees; see the top of this file.
        size: odd; pixels along each side.

    Raises:
        UnknownName: no such kind.
    """
    at = np.arange(size) - size // 2
    x, y = np.meshgrid(at.astype(float), -at.astype(float))
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    if kind == "line":
        across, along = -sin * x + cos * y, cos * x + sin * y
        drawn = _profile(across) * np.exp(-(along**2) / (2 * WIDE**2))
    elif kind == "curve":
        across = np.hypot(x - RADIUS * cos, y - RADIUS * sin) - RADIUS
        drawn = _profile(across) * np.exp(-(x**2 + y**2) / (2 * WIDE**2))
    elif kind == "edge":
        drawn = (cos * x + sin * y) * np.exp(-(x**2 + y**2) / (2 * SHARP**2))
    else:
        raise UnknownName("kind of detector", kind, KINDS)
    return _settled(drawn)


def drawn(
    detectors: tuple[Detector, ...], size: int, seed: Seed
) -> Float[np.ndarray, "channels 1 size size"]:
    """The weights of the layer; ``random`` filters are drawn."""
    out = []
    for i, d in enumerate(detectors):
        noise = seed.child(i).numpy().standard_normal((size, size))
        out.append(_settled(noise) if d.kind == "random" else filter_of(d.kind, d.angle, size))
    return np.stack(out)[:, None]


def variables(site: str, detectors: tuple[Detector, ...]) -> tuple[Variable, ...]:
    """One for every channel: its effect is known where nothing reads it, and otherwise left to training."""
    return tuple(
        Variable(
            site,
            i,
            "nothing" if d.kind == "random" else d.kind,
            d.parameters,
            None if d.read else {"matters": False},
        )
        for i, d in enumerate(detectors)
    )


def _profile(across: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
    return np.asarray(np.cos(2 * np.pi * across / PERIOD) * np.exp(-(across**2) / (2 * SHARP**2)))


def _settled(weights: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
    weights = weights - weights.mean()
    return np.asarray(weights / np.linalg.norm(weights))
