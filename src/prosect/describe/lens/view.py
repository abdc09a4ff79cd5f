"""One row through a lens: what each layer would say at each position. An illustration, not an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from markupsafe import Markup
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.markup import card
from prosect.data.batch import Batch
from prosect.describe.lens.lens import Lens
from prosect.model.forward import settled
from prosect.model.model import Model
from prosect.model.unembed import Readout

NOTHING = -1
"""As a target: says nothing."""


@dataclass(frozen=True)
class LensView:
    """One row, layer by layer.

    Attributes:
        lens: its name.
        source: the document of the row.
        sites: in the order of the network.
        tokens: of the row, real positions only.
        top: the likeliest tokens at each site and position, likeliest first.
        probability: of those.
        kl: KL(model ‖ lens), nats.
        target: the token asked about at each position; -1 for none.
        target_probability: of that token; NaN where there is none.
        target_rank: how many tokens are likelier; -1 where there is none.
    """

    lens: str
    source: str
    sites: tuple[str, ...]
    tokens: tuple[int, ...]
    top: Int[np.ndarray, "sites positions k"]
    probability: Float[np.ndarray, "sites positions k"]
    kl: Float[np.ndarray, "sites positions"]
    target: Int[np.ndarray, " positions"]
    target_probability: Float[np.ndarray, "sites positions"]
    target_rank: Int[np.ndarray, "sites positions"]

    def table(self, words: Sequence[str] | None = None) -> list[dict[str, Json]]:
        """One line for each site and position; tokens as ``words`` where they are given."""
        say = (lambda i: int(i)) if words is None else (lambda i: words[i])
        out: list[dict[str, Json]] = []
        for s, site in enumerate(self.sites):
            for p, token in enumerate(self.tokens):
                told = self.target[p] != NOTHING
                out.append(
                    {
                        "site": site,
                        "position": p,
                        "token": say(token),
                        "top": [say(i) for i in self.top[s, p]],
                        "probability": [float(x) for x in self.probability[s, p]],
                        "target": say(int(self.target[p])) if told else None,
                        "target probability": float(self.target_probability[s, p]) if told else None,
                        "target rank": int(self.target_rank[s, p]) if told else None,
                        "KL": float(self.kl[s, p]),
                    }
                )
        return out

    def record(self) -> Json:
        """As plain values, None where there is no target."""
        told = self.target != NOTHING
        chances: Json = [
            [float(x) if t else None for x, t in zip(line, told, strict=True)]
            for line in self.target_probability
        ]
        return {
            "lens": self.lens,
            "source": self.source,
            "sites": list(self.sites),
            "tokens": list(self.tokens),
            "top": self.top.tolist(),
            "probability": self.probability.tolist(),
            "kl": self.kl.tolist(),
            "target": self.target.tolist(),
            "target_probability": chances,
            "target_rank": self.target_rank.tolist(),
        }

    def _repr_html_(self) -> Markup:
        rows = [(site, " ".join(str(i) for i in self.top[s, :, 0])) for s, site in enumerate(self.sites)]
        return card(f"{self.lens}: the likeliest token at each position", rows)


def view(
    model: Model,
    read: Readout,
    lens: Lens,
    sites: Sequence[str],
    batch: Batch,
    targets: Int[Tensor, "rows positions"],
    row: int,
    top: int,
) -> LensView:
    """One row of ``batch`` through ``lens``; the row is run by itself.

    Args:
        model: what is looked at.
        read: its readout.
        lens: how.
        sites: canonical names.
        batch: rows of tokens.
        targets: the token asked about at each position; -1 for none.
        row: which.
        top: likeliest tokens to keep.
    """
    one = batch.select([row])
    trace = model.run(one, sites)
    length = int(one.lengths[0])
    real = torch.ones(length, dtype=torch.bool) if one.mask is None else one.mask[0].cpu()
    final = trace.output[0, real].float().log_softmax(dim=-1)
    target = targets[row].cpu()[real].to(final.device)
    tops, chances, kls, wanted, ranks = [], [], [], [], []
    for site in sites:
        with settled(model.module):
            logits = read(lens.translate(site, trace[site][0, real])).float()
        logp = logits.log_softmax(dim=-1)
        chance, found = logp.exp().topk(min(top, logp.shape[-1]), dim=-1)
        tops.append(found.cpu().numpy())
        chances.append(chance.double().cpu().numpy())
        kls.append(divergence(final, logp).cpu().numpy())
        picked, rank = placed(logits, logp, target)
        wanted.append(picked.exp().double().cpu().numpy())
        ranks.append(rank.cpu().numpy())
    told = target.cpu().numpy() != NOTHING
    return LensView(
        lens.name,
        batch.rows[row].document,
        tuple(sites),
        tuple(one.tensors["input_ids"][0].cpu()[real].tolist()),
        np.stack(tops),
        np.stack(chances),
        np.stack(kls),
        target.cpu().numpy(),
        np.where(told, np.stack(wanted), np.nan),
        np.where(told, np.stack(ranks), NOTHING),
    )


def divergence(final: Float[Tensor, "n vocab"], logp: Float[Tensor, "n vocab"]) -> Float[Tensor, " n"]:
    """KL(final ‖ logp) of each row, nats, float64."""
    return (final.exp() * (final - logp)).sum(dim=-1, dtype=torch.float64).clamp(min=0.0)


def placed(
    logits: Float[Tensor, "n vocab"], logp: Float[Tensor, "n vocab"], target: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Log-probability of each target and how many tokens are likelier; meaningless where the target is -1."""
    at = target.clamp(min=0)[:, None]
    rank = (logits > logits.gather(-1, at)).sum(dim=-1)
    return logp.gather(-1, at)[:, 0], rank
