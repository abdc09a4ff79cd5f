"""The loop on one model. The package itself can be called: ``prosect.assay("pylm")`` runs it."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any


def assay(
    target: str,
    *,
    out: str | Path | None = None,
    quiet: bool = True,
    verb: str = "",
    **changes: Any,
) -> Any:
    """Run the whole loop on a target and write a report.

    Args:
        target: a preset, a spec file, ``organism:NAME``, a local Hugging Face folder or a hub id.
        out: the run folder; by default ``runs/NAME`` below the current folder.
        quiet: show no progress.
        verb: ask one question instead, as the command of that name does: ``patch``, ``attribute``, ``lens``,
            ``flow``, ``steer`` or ``synthesise``.
        **changes: of the spec; tables as dictionaries: ``data={"text": "my-texts"}``.

    Returns:
        The finished `prosect.assay.run.Run`: its ledger's verdicts, its report, its head.

    Raises:
        ProsectError: whatever the run refuses; nothing is left half-written.

    Example:
        >>> run = prosect.assay("induction", seed=1)  # doctest: +SKIP
        >>> run.report  # doctest: +SKIP
    """
    from prosect.assay.loop import conduct
    from prosect.assay.opening import open_target
    from prosect.assay.presets import flattened, folder_of, resolve

    spec = resolve(target, flattened(changes), verb)
    folder = Path(out) if out is not None else Path("runs") / folder_of(spec, target, verb)
    return conduct(
        spec,
        folder,
        open_target,
        command=f"prosect.assay({target!r}{f', verb={verb!r}' if verb else ''})",
        quiet=quiet,
    )


class _Callable(types.ModuleType):
    """A package that can be called, so that ``prosect.assay`` is both the room and its door."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return assay(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
