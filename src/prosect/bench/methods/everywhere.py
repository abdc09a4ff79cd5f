"""Sample labels where nobody says at which position a row gives itself away: every position is scored, the largest counts.

A score of one position is no score of another: some vary more, some hardly at all. So each is brought to units of its own
spread among trusted rows that had no part in it, and only then are they compared. Nothing here is told where to look.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.bench.methods.samples import NEIGHBOURS, cut, distance, nearest, site
from prosect.bench.tasks.samples import batch_of
from prosect.core.errors import TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch

PLACES = 32
"""Positions of a row that are looked at, counted from its end, at most."""
FEWEST = 32
"""Trusted rows that each half must have at a position; where fewer reach, it is left out."""
SPREAD = 1e-3
"""The least spread that a score is measured in, as a share of its mean: below lies rounding."""

Score = Callable[[Float[Tensor, "n d"], Float[Tensor, "m d"]], Float[Tensor, " m"]]
"""Trusted values and others at one position → how unlike each of the others is."""


def mahalanobis(given: Given, seed: Seed) -> Answer:
    """The largest over positions of the distance from that position's mean, in that position's covariance."""
    return {"score": largest(*_held(given, _inside), _thirds(distance), seed)}


def neighbours(given: Given, seed: Seed) -> Answer:
    """The largest over positions of the distance to the fifth nearest activation at that position."""
    return {
        "score": largest(*_held(given, _inside), _thirds(lambda x, y: nearest(x, y, NEIGHBOURS) ** 2), seed)
    }


def confidence(given: Given, seed: Seed) -> Answer:
    """The largest over positions of the odds against the likeliest output; nothing inside is looked at."""
    return {"score": largest(*_held(given, _odds), lambda _, rows: rows[:, 0], seed)}


def largest(
    trusted: Float[Tensor, "n places d"], asked: Float[Tensor, "m places d"], score: Score, seed: Seed
) -> Float[Tensor, " m"]:
    """The largest of the standardised scores of a row's positions.

    Half of the trusted rows, drawn by ``seed``, say what is near; mean and standard deviation of the others' scores are
    the zero and the unit of that position.

    Args:
        trusted: what is held at each position of the trusted rows; NaN where a row has none.
        asked: the same of the rows that are asked about.
        score: of one position.
        seed: which half is which.

    Raises:
        TooLittleData: no position that is reached by enough trusted rows varies among them.
    """
    order = torch.randperm(len(trusted), generator=seed.child("halves").torch())
    near, usual = (trusted[order[i::2]].double() for i in (0, 1))
    found = torch.full(asked.shape[:2], -torch.inf, dtype=torch.float64)
    for place in range(trusted.shape[1]):
        x, y = (t[~t[:, place].isnan().any(dim=1), place] for t in (near, usual))
        here = ~asked[:, place].isnan().any(dim=1)
        if min(len(x), len(y)) < FEWEST or not _varies(x) or not here.any():
            continue
        calm = score(x, y)
        unit = calm.std().clamp(min=SPREAD * calm.mean().abs().item() + 1e-12)
        found[here, place] = (score(x, asked[here, place].double()) - calm.mean()) / unit
    best = found.max(dim=1).values
    if not bool(torch.isfinite(best).all()):
        raise TooLittleData(
            f"{len(trusted)} trusted rows", f"{2 * FEWEST} that vary at a position of every row that is asked"
        )
    return best


def _thirds(squared: Score) -> Score:
    """The cube root of a squared distance, which is close to normal where the distance is Gaussian (Wilson & Hilferty 1931)."""
    return lambda trusted, rows: squared(trusted, rows) ** (1 / 3)


def _varies(x: Float[Tensor, "n d"]) -> bool:
    """Whether a position's values differ by more than rounding; the first of a sequence is often always the same."""
    return float(x.std(dim=0).max()) > 1e-5 * max(1.0, float(x.abs().max()))


def _held(
    given: Given, read: Callable[[Given, Batch], Tensor]
) -> tuple[Float[Tensor, "n places d"], Float[Tensor, "m places d"]]:
    """What is read off the last positions of trusted rows and of those asked about."""
    found = []
    for which in ("trusted", "asked"):
        parts = [_ends(part, read(given, part)) for part in cut(batch_of(given, which))]
        most = max(p.shape[1] for p in parts)
        found.append(
            torch.cat(
                [torch.nn.functional.pad(p, (0, 0, most - p.shape[1], 0), value=float("nan")) for p in parts]
            )
        )
    places = min(t.shape[1] for t in found)
    return found[0][:, -places:], found[1][:, -places:]


def _ends(batch: Batch, x: Tensor) -> Float[Tensor, "n places d"]:
    """The last positions of each row, its last one last; NaN before its first. One position where there are none."""
    if batch.mask is None:
        return x.flatten(1)[:, None]
    most = min(int(batch.lengths.max()), PLACES)
    out = torch.full((len(batch), most, x.shape[-1]), float("nan"), dtype=torch.float32)
    for i, row in enumerate(batch.mask):
        mine = x[i, row][-most:]
        out[i, most - len(mine) :] = mine.float()
    return out


def _inside(given: Given, batch: Batch) -> Tensor:
    where = site(given)
    return given.model.run(batch, capture=(where,))[where].detach()


def _odds(given: Given, batch: Batch) -> Tensor:
    """Logarithm of the odds against the likeliest output."""
    out = given.model.run(batch).output
    if out is None or out.shape[-1] < 2:
        raise Unsupported(f"a network with {'no' if out is None else 'one'} output", "two logits or more")
    chance = torch.log_softmax(out.detach().double(), dim=-1).sort(dim=-1).values
    return (chance[..., :-1].logsumexp(dim=-1) - chance[..., -1])[..., None]
