"""What direct attribution gives: every part's share in the logits of some rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.markup import card
from prosect.core.records import Measured


@dataclass(frozen=True)
class Share:
    """What one part writes to the logit directly, over rows.

    Attributes:
        part: ``embeddings``, ``positions``, ``z.L.hN``, ``attn_out.L``, ``attn_bias.L``, ``mlp_out.L``,
            ``mlp_bias.L``, ``norm_bias`` or ``unembedding_bias``.
        logit: mean share, in logits.
        control: the same for tokens drawn at random.
        beyond: ``logit`` minus ``control``, paired.
    """

    part: str
    logit: Measured
    control: Measured
    beyond: Measured


@dataclass(frozen=True, eq=False)
class Attribution:
    """Logits split into direct parts.

    Attributes:
        model: its name.
        digest: of its configuration and weights.
        parts: names, in the order of the network.
        contributions: of each part to each row's logit.
        logits: what they sum to: the model's own logit, or difference, before any cap.
        error: the largest gap between sum and logit, relative to the largest logit or part.
        cap: the model's logits are cap · tanh(logit / cap), which no sum survives; None where there is none.
        shares: means over rows, with intervals over documents and the control.
        targets: the token of each row.
        against: what its logit is compared with: a token for each row, ``mean`` of all tokens, or nothing.
        positions: where in each row, counted in real tokens.
        reads: for each row the direction in the last stream that its logit reads, scale included.
        notes: what could not be told apart.
        n: documents.
        control: what the control is, in words.
        seed: of the control and the intervals.
    """

    model: str
    digest: str
    parts: tuple[str, ...]
    contributions: Float[np.ndarray, "rows parts"]
    logits: Float[np.ndarray, " rows"]
    error: float
    cap: float | None
    shares: tuple[Share, ...]
    targets: tuple[int, ...]
    against: tuple[int, ...] | str | None
    positions: tuple[int, ...]
    reads: Float[Tensor, "rows d_model"] = field(repr=False)
    notes: tuple[str, ...]
    n: int
    control: str
    seed: int

    def __getitem__(self, part: str) -> Float[np.ndarray, " rows"]:
        """The contributions of one part.

        Raises:
            BadInput: no such part.
        """
        if part not in self.parts:
            raise BadInput(f"part {part!r}", f"one of {', '.join(self.parts[:12])} ...")
        return self.contributions[:, self.parts.index(part)]

    def effect(self, written: Float[Tensor, "rows n d_model"]) -> Float[np.ndarray, "rows n"]:
        """What anything written to the stream adds to each row's logit, such as a dictionary's active latents.

        Args:
            written: code times direction, for each row; one row stands for all.

        Raises:
            ShapeMismatch: another width, or other rows.
        """
        rows, width = self.reads.shape
        if written.shape[-1] != width or written.shape[0] not in (1, rows):
            raise ShapeMismatch(f"directions {tuple(written.shape)}", f"({rows} or 1, n, {width})")
        found = torch.einsum("rnd,rd->rn", written.double().cpu().expand(rows, -1, -1), self.reads.cpu())
        return np.asarray(found.numpy())

    def table(self) -> list[dict[str, Json]]:
        """One line for each part."""
        return [
            {
                "part": share.part,
                "logit": share.logit.estimate,
                "low": share.logit.low,
                "high": share.logit.high,
                "control": share.control.estimate,
                "beyond": share.beyond.estimate,
                "beyond low": share.beyond.low,
                "beyond high": share.beyond.high,
                "n": self.n,
            }
            for share in self.shares
        ]

    def record(self) -> Json:
        """As plain values."""
        return plain({k: getattr(self, k) for k in self.__dataclass_fields__ if k != "reads"})

    def _repr_html_(self) -> Markup:
        order = np.argsort(-np.abs(self.contributions.mean(axis=0)), kind="stable")[:12]
        rows = [(self.parts[i], f"{self.contributions[:, i].mean():+.3f}") for i in order]
        rows.append(("sum", f"{self.logits.mean():.3f} (off by {self.error:.1g} at most)"))
        return card(
            f"direct parts of a logit of {self.model}", rows, "What later layers make of a part is not here."
        )
