"""What a head does with what it sees: does it raise (copy) or lower (anti-copy) the tokens it looks at?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.records import Description, Executable
from prosect.data.batch import Batch
from prosect.describe.contexts import token_ids
from prosect.describe.executables import parameters_of, reading
from prosect.describe.explained import Explained
from prosect.describe.roles import HeadRole, scored_positions
from prosect.describe.wording import significant
from prosect.store.shelf import Shelf

METHOD = "copying@1"
CLEAR = 4.0
"""Standard errors from zero at which copying is called found."""


@dataclass(frozen=True)
class HeadOutput:
    """Removing the head changes each output by minus ``size`` times the attention its token gets.

    Attributes:
        role: where the head looks.
        size: change of an output when its token has all the attention; above 0 for copying.
        outputs: how many.

    Raises:
        BadInput: ``size`` is not finite, or there are no outputs.
    """

    role: HeadRole
    size: float
    outputs: int

    kind = "head-output"
    version = 1

    def __post_init__(self) -> None:
        if not math.isfinite(self.size) or self.outputs < 1:
            raise BadInput(f"size {self.size} over {self.outputs} outputs", "a finite size and some outputs")

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> HeadOutput:
        """The effect that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, cls.kind, cls.version)
        with reading(cls.kind):
            role = HeadRole.read(parameters["role"])
            return cls(role, float(parameters["size"]), int(parameters["outputs"]))

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored."""
        parameters: Json = {"role": self.role.json, "size": self.size, "outputs": self.outputs}
        return Executable(kind=self.kind, version=self.version, parameters=parameters)

    def change(self, batch: Batch) -> Float[np.ndarray, "n outputs"]:
        """What removing the head does to every output at scored positions, up to a constant of each position.

        Raises:
            BadInput: the batch holds no tokens, or one that is no output.
        """
        looked = attended(batch, self.role.attention(batch), self.outputs)
        return np.asarray(-self.size * (looked - looked.mean(axis=1, keepdims=True)))


def attended(
    batch: Batch, attention: Float[np.ndarray, "rows queries keys"], outputs: int
) -> Float[np.ndarray, "n outputs"]:
    """The attention that each token of the vocabulary gets from each scored position.

    Raises:
        BadInput: a token is no output.
        ShapeMismatch: the attention does not fit the batch.
    """
    ids, mask = token_ids(batch)
    if attention.shape != (*ids.shape, ids.shape[1]):
        raise ShapeMismatch(f"attention of shape {attention.shape}", f"{(*ids.shape, ids.shape[1])}")
    if ids[mask].max(initial=0) >= outputs:
        raise BadInput(f"token {ids[mask].max()}", f"one of {outputs} outputs")
    row, query = np.nonzero(scored_positions(batch))
    weights = np.where(mask[row], attention[row, query], 0.0)
    out = np.zeros((len(row), outputs))
    at = np.broadcast_to(np.arange(len(row))[:, None], weights.shape)
    np.add.at(out, (at, np.where(mask[row], ids[row], 0)), weights)
    return out


class CopyExplainer:
    """Whether a head copies, from what ablating it does to the outputs on explore.

    Args:
        role: where the head is said to look; the description stored predicts with it.
        outputs: how many.
    """

    method = METHOD

    def __init__(self, role: HeadRole, outputs: int) -> None:
        self.role, self.outputs = role, outputs
        self._rows: list[Float[np.ndarray, " 3"]] = []  # a row is the smallest thing that can be independent

    def update(
        self,
        batch: Batch,
        attention: Float[Tensor, "rows queries keys"],
        delta: Float[Tensor, "n outputs"],
    ) -> None:
        """Add one explored batch.

        Args:
            batch: the tokens.
            attention: the head's own weights.
            delta: outputs with the head ablated minus without, at scored positions.

        Raises:
            ShapeMismatch: something does not fit the batch.
            NotFinite: something is NaN or infinite.
        """
        looked = attended(batch, attention.detach().cpu().double().numpy(), self.outputs)
        change = delta.detach().cpu().double().numpy()
        if change.shape != looked.shape:
            raise ShapeMismatch(f"changes of shape {change.shape}", f"{looked.shape}")
        if not np.isfinite(change).all() or not np.isfinite(looked).all():
            raise NotFinite(
                "NaN or infinity in attention or changes", "finite numbers", "checking the ablation"
            )
        x = looked - looked.mean(axis=1, keepdims=True)
        y = -(change - change.mean(axis=1, keepdims=True))
        row = np.nonzero(scored_positions(batch))[0]
        sums = np.stack([(x * x).sum(axis=1), (x * y).sum(axis=1), (y * y).sum(axis=1)], axis=1)
        self._rows += [sums[row == r].sum(axis=0) for r in np.unique(row)]

    def explain(self) -> Explained:
        """The proposal: size by least squares, its error by leaving out one row at a time.

        Raises:
            TooLittleData: fewer than two rows were added.
        """
        if len(self._rows) < 2:
            raise TooLittleData(
                f"{len(self._rows)} explored row(s)", "two or more", "update() with more text"
            )
        rows = np.stack(self._rows)
        xx, xy, yy = rows.sum(axis=0).tolist()
        size = xy / xx if xx > 0 else 0.0
        correlation = xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else 0.0
        rest = rows.sum(axis=0) - rows
        without = np.divide(rest[:, 1], rest[:, 0], out=np.full(len(rows), size), where=rest[:, 0] > 0)
        error = math.sqrt((len(rows) - 1) * float(np.mean((without - without.mean()) ** 2)))
        found = abs(size) > CLEAR * error and abs(correlation) >= 0.1
        verb = "raises" if size > 0 else "lowers"
        words = f"{verb} the tokens it looks at: {self.role.words}"
        return Explained(
            Description(
                words=words if found else f"neither raises nor lowers what it looks at: {self.role.words}",
                effect=HeadOutput(self.role, significant(size), self.outputs).executable(),
                about={"rows": len(rows), "error": significant(error)},
            ),
            "effect",
            METHOD,
            found,
            {"size": significant(size), "correlation": significant(correlation)},
        )


def circuit(role: HeadRole, moved: Float[Tensor, "tokens outputs"], share: float = 0.5) -> Explained:
    """The cheap first guess, from weights: what seeing each token writes onto the outputs.

    Args:
        role: where the head is said to look.
        moved: embedding · W_V · W_O · unembedding: row t is what full attention to token t adds to each output.
        share: copying is found if more than this share of tokens raise themselves above every other output,
            anti-copying if as many lower themselves below every other.

    Raises:
        ShapeMismatch: tokens and outputs differ in number.
        NotFinite: a number is NaN or infinite.
    """
    table = moved.detach().cpu().double().numpy()
    if table.shape[0] != table.shape[1]:
        raise ShapeMismatch(
            f"{table.shape[0]} tokens and {table.shape[1]} outputs", "the same tokens as both"
        )
    if not np.isfinite(table).all():
        raise NotFinite("NaN or infinity in the circuit's weights", "finite weights", "checking the weights")
    own = np.diag(table)
    others = np.where(np.eye(len(table), dtype=bool), np.nan, table)
    top = float((own > np.nanmax(others, axis=1)).mean()) if len(table) > 1 else 0.0
    bottom = float((own < np.nanmin(others, axis=1)).mean()) if len(table) > 1 else 0.0
    size = float((own - table.mean(axis=1)).mean())
    found = max(top, bottom) > share
    verb = "raises" if size > 0 else "lowers"
    words = f"{verb} the tokens it looks at: {role.words}"
    return Explained(
        Description(
            words=words if found else f"neither raises nor lowers what it looks at: {role.words}",
            effect=HeadOutput(role, significant(size), len(table)).executable(),
            about={"raises itself most": significant(top), "lowers itself most": significant(bottom)},
        ),
        "effect",
        METHOD,
        found,
        {"size": significant(size)},
    )
