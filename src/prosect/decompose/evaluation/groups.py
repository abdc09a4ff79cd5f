"""Circles in a trained network: neurons that vary alike over tokens, and whether what a group writes goes round.

A network keeps many circles at once, each in a plane of its own that no principal component picks out. The neurons that
serve one of them are found without knowing what it is about: seen as functions of a token, they lie in few dimensions
together and so point alike, as neighbouring latents do for Engels et al. 2024, "Not all language model features are
one-dimensionally linear". What a group writes is then searched by `circles`, beside Gaussian points of the same
covariance, which are no circle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.circles import GAUSSIAN_RADIUS, MIXTURE, Plane, circles
from prosect.decompose.quality import unit_rows

ALIKE, SMALLEST = 0.6, 5
"""Neurons this alike (absolute cosine) belong together; groups of fewer than so many are not searched."""


@dataclass(frozen=True)
class Group:
    """Neurons that vary alike, and the plane of the two widest directions of what they write together.

    Attributes:
        neurons: their numbers.
        plane: of what they write; its ``p`` is corrected for the number of groups.
        control: the same of Gaussian points with the same mean and covariance.
        points: coordinates in that plane, scaled to unit variance.
    """

    neurons: tuple[int, ...]
    plane: Plane
    control: Plane
    points: Float[np.ndarray, "n 2"]

    @property
    def circular(self) -> bool:
        """Whether what they write goes round a circle."""
        return _round(self.plane)

    @property
    def control_circular(self) -> bool:
        """Whether the Gaussian control would be called one."""
        return _round(self.control)


def circles_of_groups(
    varies: Float[Tensor, "m neurons"],
    activations: Float[Tensor, "n _"],
    writes: Float[Tensor, "_ width"],
    seed: Seed,
    alike: float = ALIKE,
    smallest: int = SMALLEST,
) -> tuple[Group, ...]:
    """Group neurons by how they vary, and search what each group writes for a circle.

    Args:
        varies: what each neuron is a function of: its input from every token, such as an embedding's columns.
        activations: of the neurons over inputs.
        writes: what each neuron writes for an activation of 1.
        seed: of permutations and of the control.
        alike: absolute cosine from which two neurons belong together, between 0 and 1.
        smallest: neurons in a group that is searched.

    Returns:
        The groups, the largest first; none where no neurons vary alike.

    Raises:
        ShapeMismatch: the three speak of different numbers of neurons.
        BadInput: a threshold that is no cosine between 0 and 1.
        TooLittleData: fewer inputs than `circles` needs.
    """
    neurons = varies.shape[1]
    if activations.shape[1] != neurons or len(writes) != neurons:
        raise ShapeMismatch(
            f"{neurons} neurons that vary, {activations.shape[1]} activations and {len(writes)} writes",
            "as many",
        )
    if not 0 < alike < 1:
        raise BadInput(f"neurons alike from {alike:g}", "a cosine between 0 and 1")
    found = [group for group in _groups(varies, alike) if len(group) >= smallest]
    draws = 20 * max(len(found), 1) - 1
    out = []
    for number, group in enumerate(found):
        written = activations[:, group].detach().cpu().double() @ writes[group].detach().cpu().double()
        centred = written - written.mean(dim=0)
        _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
        if int((sizes > 1e-9 * sizes[0]).sum()) < 2:
            continue  # a group that writes along one direction has no plane
        drawn = torch.randn(
            len(centred), len(sizes), generator=seed.child("control", number).torch(), dtype=torch.float64
        )
        like = (drawn * sizes / len(centred) ** 0.5) @ axes
        planes = [
            _corrected(circles(x, seed.child(name, number), 2, draws)[0], len(found))
            for name, x in (("own", centred), ("normal", like))
        ]
        points = (centred @ axes[:2].T / sizes[:2] * len(centred) ** 0.5).numpy()
        out.append(Group(tuple(group), planes[0], planes[1], points))
    return tuple(out)


def _groups(varies: Tensor, alike: float) -> list[list[int]]:
    """Connected neurons, largest group first."""
    from scipy.sparse.csgraph import connected_components

    columns = unit_rows((varies - varies.mean(dim=0)).T)
    near = (columns @ columns.T).abs() > alike
    _, label = connected_components(near.numpy(), directed=False)
    sizes = np.bincount(label)
    return [np.flatnonzero(label == g).tolist() for g in np.argsort(-sizes, kind="stable")]


def _corrected(plane: Plane, groups: int) -> Plane:
    return Plane(plane.components, plane.dependence, plane.mixture, plane.radius, min(1.0, plane.p * groups))


def _round(plane: Plane) -> bool:
    return plane.p <= 0.05 + 1e-12 and plane.mixture < MIXTURE and plane.radius < GAUSSIAN_RADIUS
