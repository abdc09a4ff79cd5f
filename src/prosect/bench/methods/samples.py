"""Sample labels: how far a row lies from trusted ones, inside the network, at its outputs, or in what it reads.

Where rows have positions, those of the network are read at the last one; `everywhere` has the same without that choice.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.bench.tasks.samples import batch_of
from prosect.core.detection import distances
from prosect.core.errors import Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch

ROWS = 64
SHRINK = 0.05
"""How far a covariance is moved towards a multiple of the identity."""
NEIGHBOURS = 5


def mahalanobis(given: Given, seed: Seed) -> Answer:
    """Distance from the mean of trusted activations, in their own covariance."""
    trusted, asked = (_inside(given, w) for w in ("trusted", "asked"))
    return {"score": distance(trusted, asked)}


def neighbours(given: Given, seed: Seed) -> Answer:
    """Distance to the fifth nearest trusted activation."""
    trusted, asked = (_inside(given, w) for w in ("trusted", "asked"))
    return {"score": nearest(trusted, asked, NEIGHBOURS)}


def confidence(given: Given, seed: Seed) -> Answer:
    """One minus the largest probability of the output: nothing inside the network is looked at."""
    out = torch.softmax(_outputs(given, "asked"), dim=-1)
    return {"score": 1.0 - out.max(dim=-1).values}


def entropy(given: Given, seed: Seed) -> Answer:
    """Entropy of the output."""
    log = torch.log_softmax(_outputs(given, "asked"), dim=-1)
    return {"score": -(log.exp() * log).sum(dim=-1)}


def inputs(given: Given, seed: Seed) -> Answer:
    """What the row itself looks like: rarity of its tokens among trusted rows, or distance of its numbers from theirs."""
    trusted, asked = (batch_of(given, w) for w in ("trusted", "asked"))
    if "input_ids" in trusted.tensors:
        size = 1 + int(max(b.tensors["input_ids"].max() for b in (trusted, asked)))
        seen = torch.bincount(trusted.flat(trusted.tensors["input_ids"]), minlength=size).double()
        surprise = -((seen + 1) / (seen.sum() + size)).log()
        rows = asked.flat(surprise[asked.tensors["input_ids"]][..., None])[:, 0]
        return {"score": _means(asked, rows[:, None])[:, 0]}
    x, y = (torch.cat([t.double().flatten(1) for t in b.tensors.values()], dim=1) for b in (trusted, asked))
    return {"score": distance(x, y)}


def distance(trusted: Float[Tensor, "n d"], asked: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
    """Squared Mahalanobis distance of each asked row from the trusted ones."""
    return torch.from_numpy(distances(trusted.numpy(), asked.numpy(), SHRINK))


def nearest(trusted: Float[Tensor, "n d"], asked: Float[Tensor, "m d"], which: int) -> Float[Tensor, " m"]:
    """Distance of each asked row to its nearest trusted row, or the second, ... ``which``; every unit in its own spread."""
    scale = trusted.std(dim=0).clamp(min=1e-6)
    near = torch.cdist(asked / scale, trusted / scale).topk(min(which, len(trusted)), largest=False)
    return near.values[:, -1]


def site(given: Given) -> str:
    """Where activations are compared: the end of the last block, where all was written that the network computed, or the
    last layer before the outputs."""
    model = given.model
    if model.n_layers:
        return f"resid_post.{model.n_layers - 1}"
    parts = [n for n, m in model.module.named_modules() if n and n in model.sites and not list(m.children())]
    if len(parts) < 2:
        raise Unsupported("a network with a single layer", "a hidden layer")
    return str(parts[-2])


def _inside(given: Given, which: str) -> Float[Tensor, "n d"]:
    """The site's activations; at the last position of each row, where there are positions."""
    batch, where = batch_of(given, which), site(given)
    out = []
    for part in cut(batch):
        held = given.model.run(part, capture=(where,))[where].detach().double()
        out.append(_last(part, held))
    return torch.cat(out)


def _outputs(given: Given, which: str) -> Float[Tensor, "n outputs"]:
    out = []
    for part in cut(batch_of(given, which)):
        found = given.model.run(part).output
        if found is None:
            raise Unsupported("a network without an output", "logits")
        out.append(_last(part, found.detach().double()))
    return torch.cat(out)


def cut(batch: Batch) -> list[Batch]:
    """A batch as several small ones."""
    return [batch.select(list(range(i, min(i + ROWS, len(batch))))) for i in range(0, len(batch), ROWS)]


def _last(batch: Batch, x: Tensor) -> Float[Tensor, "n d"]:
    if batch.mask is None:
        return x.flatten(1)
    return x[torch.arange(len(batch)), torch.from_numpy(batch.lengths) - 1]


def _means(batch: Batch, flat: Float[Tensor, "n d"]) -> Float[Tensor, "rows d"]:
    """Mean over the scored positions of each row."""
    row = torch.from_numpy(batch.flat_units)
    total = torch.zeros((len(batch), flat.shape[1]), dtype=flat.dtype).index_add_(0, row, flat)
    return total / torch.bincount(row, minlength=len(batch)).clamp(min=1)[:, None]
