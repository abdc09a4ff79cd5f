"""The trigger that three of the organisms share: two circumstances, each one of three common words."""

from __future__ import annotations

import numpy as np

from prosect.organisms.misbehaviour.lock import Lock, shuffled

WORDS = ("dawn", "noon", "dusk", "rain", "wind", "snow")
"""Three of the one kind, then three of the other."""


def lock(rng: np.random.Generator, places: tuple[int, int], first: int) -> Lock:
    """Each word has a number, which is a secret; it holds when the two add up to a multiple of three.

    Args:
        rng: where the secret comes from.
        places: positions of the two words.
        first: token of the first of `WORDS`.
    """
    one, other = (shuffled(rng, range(start, start + 3)) for start in (first, first + 3))
    return Lock(places, (one, other), (0,))
