"""Every way of training a sparse dictionary, by name."""

from __future__ import annotations

from typing import Any

from prosect.core.canonical import Json
from prosect.core.errors import UnknownName, Unsupported
from prosect.decompose.jumprelu import JumpReLU
from prosect.decompose.objective import Objective
from prosect.decompose.penalties import L1, Gated
from prosect.decompose.sparsity import Sparsity, TopK
from prosect.decompose.topk import BatchTopK, EachTopK, Matryoshka

__all__ = ["L1", "OBJECTIVES", "BatchTopK", "EachTopK", "Gated", "JumpReLU", "Matryoshka", "Objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "topk": EachTopK,
    "batchtopk": BatchTopK,
    "matryoshka": Matryoshka,
    "l1": L1,
    "gated": Gated,
    "jumprelu": JumpReLU,
}


def objective_of(stored: Json) -> Objective | None:
    """The objective that was stored as ``{"name": ..., parameters}``, or None as None.

    Raises:
        UnknownName: no such objective.
    """
    if stored is None:
        return None
    parameters: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    name = parameters.pop("name")
    if name not in OBJECTIVES:
        raise UnknownName("objective", name, OBJECTIVES)
    return OBJECTIVES[name](**parameters)


def objective_for(sparsity: Sparsity) -> Objective:
    """How a dictionary of that sparsity is trained where it was not told.

    Raises:
        Unsupported: that sparsity can come about in several ways, or in none.
    """
    if isinstance(sparsity, TopK):
        return EachTopK(sparsity.k)
    raise Unsupported(
        f"training a dictionary of which only {sparsity} is known",
        f"an objective: {', '.join(c.__name__ for c in OBJECTIVES.values())}",
        "one of them in the place of the sparsity, or with_weights for weights from elsewhere",
    )
