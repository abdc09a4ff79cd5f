"""What a target stands for: presets, spec files, and anything `prosect.load` opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosect.assay.spec import Spec, dump, keys, make_spec, read_spec
from prosect.core.errors import UnknownName
from prosect.core.registries import ORGANISMS, PRESETS

SPECS: dict[str, dict[str, Any]] = {
    "pylm": {"target": "pylm", "studies": ["latents", "heads"]},
    "induction": {
        "target": "induction",
        "studies": ["heads", "replacement"],
        "scripted": True,
        "describe": {"heads": "all"},
        "data": {"inputs": 200},
        "validate": {"effect_rows": 200},
    },
    "superposition": {
        "target": "superposition",
        "studies": ["features"],
        "decompose": {"width": 256, "active": 6, "tokens": 3_000_000, "batch": 2048, "rate": 3e-3},
        "describe": {"components": 32, "tokens": 32_000},
    },
    "modular": {
        "target": "modular",
        "studies": ["residues"],
        "scripted": True,
        "describe": {"components": 24},
    },
    "planted": {
        "target": "planted",
        "studies": ["latents"],
        "decompose": {"kind": "neurons", "site": "mlp_act.0"},
        "describe": {
            "components": 48,
            "chosen": 0,
            "neurons": 0,
            "effects": 24,
            "untrained": 0,
            "controls": 4,
        },
        "validate": {"effect_rows": 60},
    },
}
"""What each preset changes of the defaults."""


def resolve(target: str, changes: Mapping[str, Any] | None = None) -> Spec:
    """The whole spec of a target: a preset's, a file's, or the one for any language model.

    Args:
        target: a preset, a path ending in ``.toml``, or anything `prosect.load` takes.
        changes: dotted keys to values, laid over it; None values are left out.

    Raises:
        BadInput: the file or a value does not fit.
        UnknownName: a key that does not exist.
    """
    if target.endswith(".toml"):
        content = dump(read_spec(Path(target)))
    else:
        name = target.removeprefix("organism:")
        base = SPECS.get(name, {"target": target, "studies": ["latents", "heads"]})
        content = {**base}
    for key, value in (changes or {}).items():
        if value is None:
            continue
        *tables, last = key.split(".")
        place = content
        for table in tables:
            there = place.get(table, {})
            if not isinstance(there, dict):
                raise UnknownName("key", key, keys())
            place[table] = dict(there)
            place = place[table]
        place[last] = value
    return make_spec(content)


def name_of(spec: Spec, target: str) -> str:
    """A run's default folder name: the target, and what makes it differ from the plain one."""
    stem = Path(target).stem if target.endswith(".toml") else target.removeprefix("organism:").rstrip("/")
    named = "-".join(p for p in stem.replace("\\", "/").split("/")[-2:] if p not in (".", "..", ""))
    parts = [named or Path(target).resolve().name or "model"]
    if spec.seed:
        parts.append(f"seed{spec.seed}")
    if spec.limit:
        parts.append(f"limit{spec.limit}")
    if spec.null:
        parts.append("null")
    if spec.data.text:
        parts.append(Path(spec.data.text).resolve().stem or "text")
    return "-".join(parts)


def known() -> list[dict[str, str]]:
    """Every preset with one line on it."""
    return [{"preset": name, "about": PRESETS.about(name)} for name in PRESETS]


def organisms() -> list[dict[str, str]]:
    """Every organism with one line on it."""
    return [{"organism": name, "about": ORGANISMS.about(name)} for name in ORGANISMS]


def flattened(changes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    out: dict[str, Any] = {}
    for key, value in changes.items():
        if isinstance(value, Mapping):
            out |= flattened(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
