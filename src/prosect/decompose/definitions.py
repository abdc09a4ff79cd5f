"""What is a feature? There is no definition that all accept, so every answer about features says which one it used.

The same activations have features of several kinds: directions, the latents of a dictionary, subspaces, variables that
can be exchanged. A number about the one says nothing of the other, so answers carry a `Definition`, and whatever puts
answers together calls `one_definition`, which refuses two. A definition of your own is another `Definition`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from prosect.core.errors import Conflict, TooLittleData


@dataclass(frozen=True)
class Definition:
    """What counts as a feature, and as finding one. Two are the same where all three texts are.

    Attributes:
        name: one or two words, for tables.
        says: what a feature is.
        alike: the number that says how alike two are, with its range.
    """

    name: str
    says: str
    alike: str

    def __str__(self) -> str:
        return self.name


DIRECTION = Definition(
    "direction", "a direction of the activations at a site, whatever its length", "cosine, -1 to 1"
)
LINE = Definition(
    "line", "a direction of the activations at a site or its opposite", "absolute cosine, 0 to 1"
)
LATENT = Definition(
    "latent",
    "a function of the activations that is present or absent: the code of one component",
    "F1 of where both are present, 0 to 1",
)
SUBSPACE = Definition(
    "subspace",
    "a subspace of the activations at a site, of one or more dimensions",
    "mean squared cosine of the principal angles, 0 to 1",
)
VARIABLE = Definition(
    "causal variable",
    "something whose value can be exchanged between two inputs, to a known effect on what is computed",
    "share of the effect of exchanging it, at most 1; 0 for an exchange without effect",
)


@runtime_checkable
class Defined(Protocol):
    """Anything that says what it means by a feature."""

    @property
    def definition(self) -> Definition: ...


def one_definition(answers: Iterable[Defined]) -> Definition:
    """The definition that all answers share.

    Raises:
        Conflict: they have different ones; both are named.
        TooLittleData: there is no answer.
    """
    found = list(dict.fromkeys(answer.definition for answer in answers))
    if not found:
        raise TooLittleData("no answers", "at least one")
    if len(found) > 1:
        said = " and ".join(f"{d.name} ({d.says})" for d in found)
        raise Conflict(
            f"answers about different things: {said}",
            "answers that mean the same by a feature",
            "keeping them apart, each under its own name",
        )
    return found[0]
