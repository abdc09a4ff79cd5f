"""prosect takes a trained neural network apart and proves, or fails to prove, what its parts do.

The public names are resolved when they are first used, so that importing prosect costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "BadInput": "prosect.core.errors:BadInput",
    "Batch": "prosect.data.batch:Batch",
    "Dictionary": "prosect.decompose.dictionary:Dictionary",
    "Edit": "prosect.model:Edit",
    "Model": "prosect.model:Model",
    "ProsectError": "prosect.core.errors:ProsectError",
    "VerificationFailed": "prosect.core.errors:VerificationFailed",
    "assay": "prosect.assay:",
    "load": "prosect.model:load",
    "load_dictionary": "prosect.decompose.pretrained:load_dictionary",
    "save_dictionary": "prosect.decompose.pretrained:save_dictionary",
    "verify": "prosect.store.verify:verify",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'prosect' has no attribute {name!r}")
    module, attribute = _PUBLIC[name].split(":")
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
