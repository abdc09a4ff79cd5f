"""What a probe is asked to read: something about a position that can be told from the text alone.

Labels come from the text and not from a model, so that what a model holds of them is a question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from prosect.core.errors import UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.contexts import INSIDE, columns_of
from prosect.describe.vocabulary import CLASSES, Vocabulary

NEXT = "next "
"""Before the text of a token: whether it is the one that follows."""


def concepts() -> tuple[str, ...]:
    """Every name of a concept; the last stands for any token."""
    return (*(f"inside {w}" for w in INSIDE), "repeated", *(f"class {c}" for c in CLASSES), f"{NEXT}TOKEN")


@dataclass(frozen=True, eq=False)
class Concept:
    """Something that is so at some positions of a text and not at others.

    Args:
        name: ``inside quotes``, ``inside comment``, ``inside brackets``: whether they are open there; ``repeated``:
            whether the token came before in its row; ``class keyword`` and so on: what the token is; ``next X``:
            whether the token X follows.
        vocabulary: strings of the tokens.

    Raises:
        UnknownName: no such concept, or no token of that text.
    """

    name: str
    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        if self.name.startswith(NEXT):
            if self._token is None:
                raise UnknownName(
                    "token",
                    self.name.removeprefix(NEXT),
                    self.vocabulary.strings,
                    "a single token as it stands",
                )
        elif self.name not in concepts():
            raise UnknownName("concept", self.name, concepts())

    @property
    def _token(self) -> int | None:
        said = self.name.removeprefix(NEXT)
        return next((i for i, s in enumerate(self.vocabulary.strings) if s == said), None)

    def labels(self, batch: Batch) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Whether it is so at each scored position, in the order of ``batch.flat``, and where that can be told.

        Raises:
            BadInput: a batch without tokens, or with tokens of another vocabulary.
        """
        columns = columns_of(batch, self.vocabulary)
        known = np.ones(len(columns), dtype=bool)
        what, _, which = self.name.partition(" ")
        if what == "inside":
            scan = columns.scan
            return {"quotes": scan.quotes, "comment": scan.comment, "brackets": scan.brackets}[which], known
        if what == "repeated":
            return columns.repeated, known
        if what == "class":
            return self.vocabulary.classes[columns.token(0), list(CLASSES).index(which)], known
        follows = np.zeros_like(columns.scored)
        follows[:, :-1] = columns.ids[:, 1:] == self._token
        told = np.zeros_like(columns.scored)
        told[:, :-1] = columns.mask[:, 1:]  # what follows the last token of a row is not there to be seen
        return follows[columns.scored], told[columns.scored]

    def words(self, batch: Batch) -> Int[np.ndarray, " n"]:
        """The token at each scored position."""
        return columns_of(batch, self.vocabulary).token(0)


def by_word(vocabulary: int, rate: float, seed: Seed) -> Bool[np.ndarray, " vocabulary"]:
    """A control task: a label for every token, drawn once, as often true as the concept is.

    A probe that does as well on it reads which token stands there, and would read anything of it (Hewitt & Liang
    2019, "Designing and interpreting probes with control tasks").
    """
    return np.asarray(seed.numpy().random(vocabulary) < rate)
