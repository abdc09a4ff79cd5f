"""Which formats there are, and which of them a folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prosect.core.errors import BadInput, Conflict
from prosect.core.registry import Registry

READERS = Registry(
    "format",
    {
        "saelens": ("prosect.decompose.formats.saelens:read", "SAELens: any architecture, 6 and before"),
        "sparsify": ("prosect.decompose.formats.sparsify:read", "EleutherAI's sparsify: top-k"),
        "dictionary_learning": (
            "prosect.decompose.formats.dictionary_learning:read",
            "saprmarks/dictionary_learning: torch pickles",
        ),
        "gemma_scope": ("prosect.decompose.formats.gemma_scope:read", "Gemma Scope: JumpReLU archives"),
        "gemma_scope_2": (
            "prosect.decompose.formats.gemma_scope_2:read",
            "Gemma Scope 2: JumpReLU, with or without a skip",
        ),
        "prosect": ("prosect.decompose.formats.native:read", "prosect's own: any dictionary, to the bit"),
    },
)
WRITERS = Registry(
    "format to save in",
    {
        "saelens": ("prosect.decompose.formats.saelens_write:write", "what SAELens 6 loads"),
        "sparsify": ("prosect.decompose.formats.sparsify:write", "what sparsify loads"),
        "gemma_scope": ("prosect.decompose.formats.gemma_scope:write", "an archive like Gemma Scope's"),
        "prosect": ("prosect.decompose.formats.native:write", "any dictionary, to the bit"),
    },
)


@dataclass(frozen=True)
class Marks:
    """The files of a format.

    Attributes:
        weights: the one that no other format has.
        others: what else belongs to it.
    """

    weights: str
    others: tuple[str, ...] = ()


MARKS: dict[str, Marks] = {
    "saelens": Marks(
        "sae_weights.safetensors", ("cfg.json", "sparsity.safetensors", "activation_scaler.json")
    ),
    "sparsify": Marks("sae.safetensors", ("cfg.json",)),
    "dictionary_learning": Marks("ae.pt", ("config.json",)),
    "gemma_scope": Marks("params.npz"),
    "gemma_scope_2": Marks("params.safetensors", ("config.json",)),
    "prosect": Marks("dictionary.safetensors"),
}
FILES = tuple(sorted({file for marks in MARKS.values() for file in (marks.weights, *marks.others)}))
"""Every file that any format reads."""


def recognise(folder: Path) -> str:
    """The format of the dictionary in a folder.

    Raises:
        BadInput: there is none; folders below it that hold one are named.
        Conflict: there are several.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}, which is no folder", "a folder that holds a dictionary")
    found = [name for name, marks in MARKS.items() if (folder / marks.weights).is_file()]
    if len(found) > 1:
        raise Conflict(f"{folder}, which holds {' and '.join(found)}", "one of them", f'format="{found[0]}"')
    if found:
        return found[0]
    below = sorted(
        str(path.parent.relative_to(folder))
        for marks in MARKS.values()
        for path in folder.rglob(marks.weights)
    )
    raise BadInput(
        f"{folder}, which holds none of {', '.join(marks.weights for marks in MARKS.values())}",
        "a dictionary in one of the formats " + ", ".join(MARKS),
        several(below),
    )


def several(folders: list[str]) -> str:
    """A hint that names folders which hold a dictionary; empty if none does."""
    more = f" and {len(folders) - 8} more" if len(folders) > 8 else ""
    return f"subfolder= one of {', '.join(folders[:8])}{more}" if folders else ""
