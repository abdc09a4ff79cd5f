"""Direct logit attribution: one logit, or a difference of two, as a sum over everything that wrote to the stream.

The stream that the last norm reads is a sum: the embedding, every head, every MLP, every bias. With the norm's
scale held at what it was in the run, the logit is linear in it, so it is a sum over the same parts, exactly.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Zero-layer" and "residual stream";
TransformerLens calls it logit attribution.) What a part does by way of later layers is not in its share, and the
scale that all of them share is not attributed to any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.averages import Averages, Wanted
from prosect.describe.lens.shares import Attribution, Share
from prosect.describe.lens.writers import Writers, mlp_branch, writers
from prosect.model.inputs import Inputs
from prosect.model.model import Model
from prosect.model.unembed import readout

WITHIN = 1e-4
"""How far the parts may miss the logit, relative to the largest logit or part; 3e-2 in half precision."""
CONTROL = "the same parts' share in the logit of a token drawn at random"


def attribute(
    model: Model,
    inputs: Inputs,
    targets: int | Sequence[int],
    *,
    against: int | Sequence[int] | str | None = None,
    positions: int | Sequence[int] = -1,
    split: str = "heads",
    seed: int = 0,
) -> Attribution:
    """Split one logit of each row into what every part of the network wrote to it directly.

    Args:
        model: a language model.
        inputs: rows of tokens.
        targets: the token whose logit is split; one for all rows or one for each.
        against: subtract the logit of this token, or the mean over all tokens, which no softmax sees.
        positions: where, in real tokens, negatives from the end; one for all rows or one for each.
        split: attention by head, or whole sublayers where an architecture does not allow that.
        seed: of the control's tokens and of the intervals.

    Raises:
        Unsupported: the stream of this model is not the sum of its named parts, or a sublayer is not linear
            behind its heads.
        BadInput: a token or a position that is not there.
    """
    batch = model.batch(inputs)
    reader = readout(model)
    if split not in ("heads", "sublayers"):
        raise BadInput(f"split {split!r}", "heads or sublayers")
    n, root = len(batch), Seed(seed).child("direct")
    at, counted = _places(batch, positions)
    wrote = writers(model, batch, at, heads=split == "heads")
    matrix = getattr(reader.head, "weight", None)
    if not isinstance(matrix, Tensor) or matrix.ndim != 2:
        raise Unsupported(f"the unembedding of {model.name}, which is no matrix", "a linear unembedding")
    vocabulary = int(matrix.shape[0])
    wanted = _tokens(targets, n, vocabulary, "target")
    compared = against if against is None or against == "mean" else _tokens(against, n, vocabulary, "against")
    made = _Parts(wrote, matrix.detach(), getattr(reader.head, "bias", None), reader.factor)
    parts, contributions, reads = made.of(wanted, compared)
    logits = _difference(reader.uncapped, wrote, wanted, compared)
    # large parts that cancel leave a logit no more exact than they are
    scale = max(float(np.abs(logits).max()), float(np.abs(contributions).max()), 1e-12)
    error = float(np.abs(contributions.sum(axis=1) - logits).max()) / scale
    if not error <= (WITHIN if model.dtype in (torch.float32, torch.float64) else 3e-2):
        raise Unsupported(
            f"the parts of a logit of {model.name}, which miss it by {error:.2g}",
            f"at most {WITHIN:g} of the largest logit or part",
            "float32",
        )
    draw = root.child("control").numpy()
    random = tuple(int(t) for t in draw.integers(vocabulary, size=n))
    other = (
        tuple(int(t) for t in draw.integers(vocabulary, size=n)) if isinstance(compared, tuple) else compared
    )
    _, control, _ = made.of(random, other)
    return Attribution(
        model.name,
        model.digest,
        parts,
        contributions,
        logits,
        error,
        reader.cap,
        _shares(parts, contributions, control, batch.units, root),
        wanted,
        compared,
        counted,
        reads,
        wrote.notes,
        len(set(batch.units.tolist())),
        CONTROL + (" against that of another" if isinstance(compared, tuple) else ""),
        seed,
    )


def neurons(
    model: Model, inputs: Inputs, attribution: Attribution, layer: int
) -> Float[np.ndarray, "rows neurons"]:
    """What each neuron of one MLP writes to the logits that ``attribution`` split, on the same inputs.

    Raises:
        Unsupported: this model has no neurons there, or something else than a norm follows them.
        BadInput: other rows than those that were split.
    """
    batch = model.batch(inputs)
    if len(batch) != len(attribution.targets) or model.digest != attribution.digest:
        raise BadInput(f"{len(batch)} rows of {model.name}", "the rows and the model that were split")
    at, _ = _places(batch, attribution.positions)
    found = mlp_branch(model, batch, layer, at)
    direction, _ = found.reads(attribution.reads.to(model.device))
    return np.asarray((found.inner.double() * direction).cpu().numpy())


@dataclass(frozen=True)
class _Parts:
    """Everything that a logit is linear in."""

    wrote: Writers
    matrix: Float[Tensor, "vocab d_model"]
    bias: Tensor | None
    factor: float

    def of(
        self, targets: tuple[int, ...], against: tuple[int, ...] | str | None
    ) -> tuple[tuple[str, ...], Float[np.ndarray, "rows parts"], Float[Tensor, "rows d_model"]]:
        """Names, contributions, and the direction read."""
        u = self._rows(self.matrix, targets, against) * self.factor
        g = self.wrote.norm.transposed(u)
        names, columns = self.wrote.read(g)
        columns = [*columns, u @ self.wrote.norm.bias]
        names = [*names, "norm_bias"]
        if self.bias is not None:
            columns.append(self._rows(self.bias.detach()[:, None], targets, against)[:, 0] * self.factor)
            names.append("unembedding_bias")
        return tuple(names), torch.stack(columns, dim=1).cpu().numpy(), g

    def _rows(
        self, x: Float[Tensor, "vocab k"], targets: tuple[int, ...], against: tuple[int, ...] | str | None
    ) -> Float[Tensor, "rows k"]:
        out = x[list(targets)].double()
        if against == "mean":
            return out - x.double().mean(dim=0)
        return out if against is None or isinstance(against, str) else out - x[list(against)].double()


def _difference(
    uncapped: Callable[[Tensor], Tensor],
    wrote: Writers,
    targets: tuple[int, ...],
    against: tuple[int, ...] | str | None,
) -> Float[np.ndarray, " rows"]:
    """The model's own logits, from its own norm and unembedding."""
    logits = wrote.logits(uncapped).double()
    rows = torch.arange(len(targets))
    found = logits[rows, list(targets)]
    if isinstance(against, tuple):
        found = found - logits[rows, list(against)]
    elif against == "mean":
        found = found - logits.mean(dim=-1)
    return np.asarray(found.cpu().numpy())


def _places(batch: Batch, positions: int | Sequence[int]) -> tuple[Int[Tensor, " rows"], tuple[int, ...]]:
    """Index on the axis of positions, and real position, of each row.

    Raises:
        BadInput: a position outside its row, or not one for each row.
        Unsupported: rows without positions.
    """
    if batch.mask is None:
        raise Unsupported("rows without positions", "rows of tokens")
    asked = [positions] * len(batch) if isinstance(positions, int) else [int(p) for p in positions]
    if len(asked) != len(batch):
        raise BadInput(f"{len(asked)} positions", f"one, or one for each of {len(batch)} rows")
    index, counted = [], []
    for row, (p, mask) in enumerate(zip(asked, batch.mask.cpu(), strict=True)):
        real = mask.nonzero().flatten()
        if not -len(real) <= p < len(real):
            raise BadInput(
                f"position {p} of row {row}", f"at most {len(real) - 1}: it has {len(real)} tokens"
            )
        counted.append(p % len(real))
        index.append(int(real[p]))
    return torch.tensor(index, device=batch.mask.device), tuple(counted)


def _tokens(given: object, rows: int, vocabulary: int, what: str) -> tuple[int, ...]:
    """One token for each row.

    Raises:
        BadInput: not one for each row, or none of the vocabulary.
    """
    found = [given] * rows if isinstance(given, int) else list(given)  # type: ignore[call-overload]
    out = tuple(int(t) for t in found)
    if len(out) != rows:
        raise BadInput(f"{len(out)} {what} tokens", f"one, or one for each of {rows} rows")
    wrong = [t for t in out if not 0 <= t < vocabulary]
    if wrong:
        raise BadInput(f"{what} token {wrong[0]}", f"tokens from 0 to {vocabulary - 1}")
    return out


def _shares(
    parts: tuple[str, ...],
    found: Float[np.ndarray, "rows parts"],
    control: Float[np.ndarray, "rows parts"],
    units: Int[np.ndarray, " rows"],
    seed: Seed,
) -> tuple[Share, ...]:
    sums, wanted = Averages(), {}
    for i, part in enumerate(parts):
        sums.add((part, "logit"), found[:, i], units)
        sums.add((part, "control"), control[:, i], units)
        wanted[f"{part} logit"] = Wanted(((part, "logit"),))
        wanted[f"{part} control"] = Wanted(((part, "control"),))
        wanted[f"{part} beyond"] = Wanted(((part, "logit"),), ((part, "control"),))
    got = sums.measure(wanted, seed.child("intervals"))
    return tuple(Share(p, got[f"{p} logit"], got[f"{p} control"], got[f"{p} beyond"]) for p in parts)
