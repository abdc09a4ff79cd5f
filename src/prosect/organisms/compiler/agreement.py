"""Whether a compiled network is its program: both run on every input up to a length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from prosect.organisms.compiler.compile import BOS_ID, Compiled, logits_of
from prosect.organisms.compiler.interpret import every_input, run
from prosect.organisms.compiler.layout import OUTPUT

ROWS = 4096  # of inputs at a time
NUMERIC = 1e-4  # largest error of a number


@dataclass(frozen=True)
class Agreement:
    """What was compared.

    Attributes:
        inputs: how many, every one of them.
        places: positions in them.
        wrong: places whose category differs, or whose number is off by more than `NUMERIC`.
        error: largest error of a number; 0 for categories.
        margin: smallest lead of the right logit over the next, for categories; infinite for numbers.
    """

    inputs: int
    places: int
    wrong: int
    error: float
    margin: float

    @property
    def complete(self) -> bool:
        """Whether they agree everywhere."""
        return self.wrong == 0


def agreement(made: Compiled, longest: int | None = None) -> Agreement:
    """Compare a network with its interpreter.

    Args:
        made: the network.
        longest: on every input up to this length; the program's length by default.
    """
    output = made.program.output
    inputs = places = wrong = 0
    error, margin = 0.0, np.inf
    for tokens in every_input(made.program, longest):
        codes = run(made.program, tokens)[OUTPUT]
        inputs, places = inputs + len(tokens), places + codes.size
        for start in range(0, len(tokens), ROWS):
            expected = codes[start : start + ROWS]
            body = 1 + tokens[start : start + ROWS]
            ids = torch.from_numpy(np.pad(body, ((0, 0), (1, 0)), constant_values=BOS_ID))
            with torch.no_grad():
                logits = made.module(ids).logits[:, 1:].double().numpy()
            if output.numerical:
                off = np.abs(logits[..., 0] - output.vectors()[expected, 0])
                error, wrong = max(error, float(off.max())), wrong + int((off > NUMERIC).sum())
                continue
            right = logits_of(made.program)[expected][..., None]
            logits = logits[..., : len(made.classes)]
            own = np.take_along_axis(logits, right, axis=-1)
            np.put_along_axis(logits, right, -np.inf, axis=-1)
            lead = own[..., 0] - logits.max(axis=-1, initial=-np.inf)
            margin, wrong = min(margin, float(lead.min())), wrong + int((lead <= 0).sum())
    return Agreement(inputs, places, wrong, error, margin)
