"""Every way of training a sparse dictionary, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, UnknownName, Unsupported
from prosect.decompose.jumprelu import JumpReLU
from prosect.decompose.objective import Objective
from prosect.decompose.penalties import L1, Gated
from prosect.decompose.sparsity import Sparsity, TopK
from prosect.decompose.topk import BatchTopK, EachTopK, Matryoshka, Pursued

__all__ = [
    "L1",
    "OBJECTIVES",
    "BatchTopK",
    "EachTopK",
    "Gated",
    "JumpReLU",
    "Matryoshka",
    "Objective",
    "Pursued",
    "objective_named",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "topk": EachTopK,
    "batchtopk": BatchTopK,
    "matryoshka": Matryoshka,
    "pursuit": Pursued,
    "l1": L1,
    "gated": Gated,
    "jumprelu": JumpReLU,
}


def fitting(field: Field[Any], value: Any) -> Any:
    """A number as the field's type has it; anything else as it is, for the field's owner to judge."""
    wanted = str(field.type)
    if isinstance(value, int) and not isinstance(value, bool) and "float" in wanted and "int" not in wanted:
        return float(value)
    if isinstance(value, float) and "int" in wanted and "float" not in wanted:
        raise BadInput(f"{field.name} = {value}", "a whole number")
    if isinstance(value, str) and "str" not in wanted and "Literal" not in wanted:
        raise BadInput(f"{field.name} = {value!r}", "a number")
    return value


def objective_named(
    name: str, parameters: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> Objective:
    """The objective of that name.

    Args:
        name: in `OBJECTIVES`.
        parameters: of it.
        defaults: for parameters that are not given, where it has them; others are ignored.

    Raises:
        UnknownName: no such objective, or no such parameter.
        BadInput: a parameter that it needs is missing, or is not the number that it should be.
    """
    if name not in OBJECTIVES:
        raise UnknownName("objective", name, OBJECTIVES)
    own = {f.name: f for f in fields(OBJECTIVES[name])}  # type: ignore[arg-type]  # all are dataclasses
    given = {n: v for n, v in (defaults or {}).items() if n in own} | dict(parameters)
    for parameter in given:
        if parameter not in own:
            raise UnknownName(f"parameter of {name}", parameter, own)
    missing = [n for n, f in own.items() if f.default is MISSING and n not in given]
    if missing:
        said = ", ".join(given) or "nothing"
        raise BadInput(f"{said} for a {name} dictionary, without {', '.join(missing)}", ", ".join(own))
    return OBJECTIVES[name](**{n: fitting(own[n], v) for n, v in given.items()})


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
