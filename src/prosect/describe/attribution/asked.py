"""What is asked of a row: of text, how likely its last token is given those before it; of numbers, one output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.data.batch import Batch, Row
from prosect.describe.attribution.explicand import Explicand
from prosect.describe.attribution.features import choose
from prosect.describe.attribution.metrics import logit
from prosect.model import Model
from prosect.model.sweep import Metric

TOKENS = "input_ids"
FEWEST = 3
"""Features that a row needs before an order of them says anything."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Some rows with the question that is put to them.

    Attributes:
        rows: what the model is given; of text, without the token that is asked about.
        metric: log-probability (nats) of each row's next token, or one output.
        kept: which rows of the batch these are; rows of fewer than three features are left out.
        ranked: (rows, features): which features are ordered; special tokens and padding are not.
        place: name of the tensor that features are cut from.
        targets: the token that is asked about in each row; None for numbers.
    """

    rows: Batch
    metric: Metric
    kept: Int[Tensor, " rows"]
    ranked: Bool[Tensor, "rows features"] | None
    place: str
    targets: Int[Tensor, " rows"] | None

    def explicand(self, model: Model, batch: Batch | None = None) -> Explicand:
        """The question as a function of what is put in, on the model as it is now."""
        rows = model.batch(self.rows if batch is None else batch)
        features, present = choose(model, rows, *self.features)
        ranked = present if self.ranked is None else present & self.ranked.to(present.device)
        return Explicand(model, rows, self.metric, features, ranked)

    @property
    def features(self) -> tuple[str, str | None]:
        """Kind and place of the features, as `features.choose` takes them."""
        return ("tokens", None) if self.place == TOKENS else ("inputs", self.place)

    def background(self, donors: Shaped[Tensor, "donors ..."]) -> Batch:
        """Rows that absent features are taken from: donors, cut to the length of these rows.

        Raises:
            ShapeMismatch: donors are shorter than the rows, or not shaped as they are.
        """
        shape = tuple(self.rows.tensors[self.place].shape[1:])
        cut = donors[:, : shape[0]] if self.place == TOKENS else donors
        if tuple(cut.shape[1:]) != shape or len(cut) == 0:
            raise ShapeMismatch(
                f"donors of shape {tuple(donors.shape)}", f"rows of shape {shape}, at least 1"
            )
        cut = cut.to(self.rows.tensors[self.place].device)
        names = tuple(Row(i, f"donor {i}") for i in range(len(cut)))
        if self.place != TOKENS:
            return Batch({self.place: cut}, None, names)
        mask = torch.ones_like(cut, dtype=torch.bool)
        return Batch({TOKENS: cut, "attention_mask": mask.long()}, mask, names)


def ask(batch: Batch, *, most: int = 0, place: str = TOKENS, output: int = 0) -> Asked:
    """Put the question to every row of a batch that is long enough for it.

    Args:
        batch: text windows, or inputs of numbers.
        most: tokens of a row that the model is given, at most; the one after them is asked about. 0: all but
            the last.
        place: ``input_ids``, or the tensor whose numbers are the features.
        output: which output of each row, for numbers.

    Raises:
        BadInput: the batch has no such tensor, or text has no mask.
    """
    if place not in batch.tensors:
        raise BadInput(f"a batch without {place}", f"one of {', '.join(batch.tensors)}")
    if place != TOKENS:

        def one(found: Tensor, part: Batch) -> Tensor:
            flat = found.reshape(len(part), -1)
            if not 0 <= output < flat.shape[1]:
                raise BadInput(f"output {output}", f"outputs from 0 to {flat.shape[1] - 1}")
            return flat[:, output]

        kept = torch.arange(len(batch))
        return Asked(batch, one, kept, None, place, None)
    if batch.mask is None:
        raise BadInput("token ids without a mask", "a batch of text, as a source gives it")
    ids, mask = batch.tensors[TOKENS].cpu(), batch.mask.cpu()
    given = (mask.sum(dim=1) - 1).clamp(max=most or ids.shape[1])
    shown = torch.arange(ids.shape[1])[None] < given[:, None]
    special = torch.zeros_like(mask) if batch.special is None else batch.special.cpu()
    kept = torch.nonzero((shown & ~special).sum(dim=1) >= FEWEST)[:, 0]
    width = int(given[kept].max()) if len(kept) else 0
    shown, special = shown[kept, :width], special[kept, :width] & shown[kept, :width]
    device = batch.tensors[TOKENS].device
    targets = ids[kept, given[kept]]
    tensors = {TOKENS: ids[kept, :width].where(shown, 0), "attention_mask": shown.long()}
    rows = Batch(tensors, shown, tuple(batch.rows[i] for i in kept.tolist()), special).to(device)
    metric = logit(targets.tolist(), batch=rows, scale="log-probability") if len(kept) else _nothing
    return Asked(rows, metric, kept, shown & ~special, TOKENS, targets)


def _nothing(output: Tensor, batch: Batch) -> Tensor:
    return output.new_zeros(len(batch))
