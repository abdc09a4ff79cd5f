"""Feature recovery without dictionaries: what a sceptic asks for first."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.core.seeds import Seed
from prosect.decompose.contract import Decomposition
from prosect.decompose.linear import Ica, KMeans, Nmf, Pca
from prosect.decompose.streams import ArrayStream

SITE = "x"


def neurons(given: Given, seed: Seed) -> Answer:
    """The axes of the site, both ways, as many as may be given."""
    width = given.tensors["activations"].shape[1]
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    return {"directions": both[: given.about["count"]]}


def pca(given: Given, seed: Seed) -> Answer:
    """Principal components."""
    return _of(given, Pca(SITE))


def ica(given: Given, seed: Seed) -> Answer:
    """Independent components."""
    return _of(given, Ica(SITE, seed=seed))


def nmf(given: Given, seed: Seed) -> Answer:
    """Non-negative factors of activations whose signs are split."""
    width = given.tensors["activations"].shape[1]
    return _of(given, Nmf(SITE, min(given.about["count"], width), seed=seed))


def kmeans(given: Given, seed: Seed) -> Answer:
    """Centres of clusters, seen from the mean."""
    x = given.tensors["activations"]
    made = KMeans(SITE, given.about["count"], seed=seed).fit(ArrayStream({SITE: x}))
    return {"directions": made.directions.double() - x.double().mean(dim=0)}


def samples(given: Given, seed: Seed) -> Answer:
    """Activations themselves, drawn at random and centred: where few features are active they come near one."""
    x = given.tensors["activations"].double()
    drawn = torch.randperm(len(x), generator=seed.torch())[: given.about["count"]]
    return {"directions": (x - x.mean(dim=0))[drawn]}


def _of(given: Given, decomposition: Decomposition) -> Answer:
    x = given.tensors["activations"]
    found = decomposition.fit(ArrayStream({SITE: x})).directions.double()
    return {"directions": skewed(found, x)[: given.about["count"]]}


def skewed(directions: Float[Tensor, "m width"], x: Float[Tensor, "n width"]) -> Float[Tensor, "m width"]:
    """Each direction with the sign that makes projections skewed to the right, as those of a rare feature are."""
    along = (x.double() - x.double().mean(dim=0)) @ directions.T
    return directions * torch.where(along.pow(3).mean(dim=0, keepdim=True).T < 0, -1.0, 1.0)
