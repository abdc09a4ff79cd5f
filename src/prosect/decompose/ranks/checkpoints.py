"""Checkpoints that ranks go on from: whole or not there, whichever of them dies when.

Where all ranks have the same numbers, the first writes them. Where latents are dealt, each writes its own beside,
named after the step; once all are on disk the first puts the step's name in the checkpoint's place, and only then
do those of the step before go. What was dealt in one way is not gone on with in another, whose sums would be
rounded otherwise.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, Conflict
from prosect.core.schema import SCHEMA, check_version
from prosect.decompose.ranks.dealt import Ranks
from prosect.store.tensors import load_tensors, save_tensors

ELSE = "another folder, or deleting that file to begin again"


def keep(path: Path, tensors: dict[str, Tensor], about: dict[str, Json], ranks: Ranks) -> None:
    """Write a checkpoint in the place of the one before.

    Args:
        path: the file, the same for all ranks.
        tensors: what this rank goes on from.
        about: what goes with it, ``step`` among that; the same on all ranks.
        ranks: who writes.
    """
    about = {"schema": SCHEMA, **about, "ranks": _said(ranks)}
    if ranks.how != "latents":
        if ranks.first:
            save_tensors(path, tensors, about)
        return
    own = _own(path, about["step"], ranks.rank, ranks.size)
    save_tensors(own, tensors, about)
    ranks.wait()
    if ranks.first:
        save_tensors(path, {}, about)
    ranks.wait()
    for old in path.parent.glob(f"{path.stem}.step*.rank{ranks.rank}of*{path.suffix}"):
        if old != own:
            old.unlink()


def found(path: Path, ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Json]] | None:
    """What was kept there, as this rank goes on from it; None if nothing was.

    Raises:
        BadInput: it is damaged, or no checkpoint.
        Conflict: other ranks wrote it, or as many that dealt the work otherwise.
        NewerSchema: a later prosect wrote it.
    """
    if not path.exists():
        return None
    tensors, about = load_tensors(path)
    if not isinstance(about, dict) or "step" not in about:
        raise BadInput(f"{path}, which is no checkpoint", "one that training wrote", ELSE)
    check_version(about.get("schema"), str(path))
    said = about.get("ranks", {"size": 1, "dealt": ""})
    if said != _said(ranks):
        raise Conflict(
            f"{path}, a checkpoint of {_words(said)}, on {_words(_said(ranks))}",
            "as many ranks as wrote it, and the same dealt: other sums would be rounded otherwise",
            f"{said['size']} ranks, {ELSE}",
        )
    if ranks.how == "latents":
        tensors, _ = load_tensors(_own(path, about["step"], ranks.rank, ranks.size))
    return tensors, about


def _own(path: Path, step: int, rank: int, size: int) -> Path:
    return path.with_name(f"{path.stem}.step{step}.rank{rank}of{size}{path.suffix}")


def _said(ranks: Ranks) -> dict[str, Json]:
    return {"size": ranks.size, "dealt": ranks.how}


def _words(said: dict[str, Json]) -> str:
    return "one process" if said["size"] == 1 else f"{said['size']} ranks with {said['dealt']} dealt"
