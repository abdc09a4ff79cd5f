"""How near a layer's reading is to what the model will say, as something that can be measured on any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.describe.executables import parameters_of, reading
from prosect.describe.lens.lens import Lens, LogitLens, Turned
from prosect.describe.lens.tuned import Translator, TunedLens
from prosect.describe.lens.view import divergence
from prosect.model import Model
from prosect.model.forward import settled
from prosect.model.unembed import readout
from prosect.store.shelf import Shelf

Which = Literal["logit", "tuned", "turned"]


@dataclass(frozen=True, eq=False)
class LensNearness:
    """Minus KL(model ‖ lens) in nats, mean over a row's scored positions: 0 where the lens says what the model will.

    Attributes:
        site: of the residual stream.
        which: the logit lens; a tuned one; or the control, a lens on the stream turned at random.
        translator: of a tuned lens, or of the lens that is turned; None for the logit lens.
    """

    site: str
    which: Which
    translator: Translator | None = None

    kind = "lens-nearness"
    version = 1

    def __post_init__(self) -> None:
        allowed = {"logit": (False,), "tuned": (True,), "turned": (False, True)}
        if (self.translator is not None) not in allowed.get(self.which, ()):
            held = "with" if self.translator is not None else "without"
            raise BadInput(
                f"a {self.which!r} lens {held} a translator", "a logit, tuned or turned one that fits"
            )

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> LensNearness:
        """What an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed; a tensor is not there.
            NewerSchema: a later prosect wrote it.
        """
        parameters, held = parameters_of(executable, cls.kind, cls.version), executable.tensors
        with reading(cls.kind):
            pair = Translator(shelf.get(held["weight"]), shelf.get(held["bias"])) if held else None
            return cls(parameters["site"], parameters["which"], pair)

    def executable(self, shelf: Shelf) -> Executable:
        """As stored; a translator's tensors go on the shelf."""
        pair = self.translator
        return Executable(
            kind=self.kind,
            version=self.version,
            parameters={"site": self.site, "which": self.which},
            tensors={} if pair is None else {"weight": shelf.put(pair.weight), "bias": shelf.put(pair.bias)},
        )

    def lens(self, model: Model) -> Lens:
        """The lens that it measures."""
        plain: Lens = LogitLens()
        if self.translator is not None:
            plain = TunedLens({self.site: self.translator}, model.digest)
        return Turned(plain, Seed(0).child("nearness")) if self.which == "turned" else plain

    @classmethod
    def measure(
        cls, wanted: Sequence[LensNearness], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """One pass for all; a row without a scored position has none.

        Raises:
            Unsupported: the model has no readout.
        """
        reader = readout(model)
        trace = model.run(batch, list(dict.fromkeys(w.site for w in wanted)))
        final = batch.flat(trace.output).float().log_softmax(dim=-1)
        row = _rows(batch)
        counts = np.bincount(row, minlength=len(batch)).astype(float)
        out = np.full((len(wanted), len(batch)), np.nan)
        for i, one in enumerate(wanted):
            with settled(model.module):
                seen: Tensor = reader(
                    one.lens(model).translate(one.site, batch.flat(trace[one.site]))
                ).float()
            kl = divergence(final, seen.log_softmax(dim=-1)).double().cpu().numpy()
            total = np.bincount(row, weights=kl, minlength=len(batch))
            np.divide(-total, counts, out=out[i], where=counts > 0)
        return out


def _rows(batch: Batch) -> Int[np.ndarray, " n"]:
    """The row of every scored position, in the order of `Batch.flat`."""
    assert batch.scored is not None  # a model with a readout has positions
    return np.asarray(torch.nonzero(batch.scored.cpu())[:, 0].numpy())
