"""What a target stands for: presets, spec files, and anything `prosect.load` opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosect.assay.spec import Spec, keys, make_spec, read_spec
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

GENERATED: dict[str, Any] = {
    "studies": ["latents", "heads"],
    "decompose": {"width": 128, "active": 8, "tokens": 200_000, "batch": 512},
    "describe": {"components": 24, "chosen": 4, "neurons": 8, "effects": 8, "untrained": 1},
    "data": {"inputs": 400},
    "validate": {"effect_rows": 60},
}
"""What organisms without a preset change: they are small, and their inputs are generated."""

VERBS: dict[str, dict[str, Any]] = {
    "patch": {"studies": ["patching"]},
    "lens": {
        "studies": ["lens"],
        "data": {"documents": 500, "context": 64, "validate_windows": 1},
        "describe": {"tokens": 24_000},
    },
    "flow": {
        "studies": ["flow"],
        "data": {"documents": 160, "context": 24, "explore_windows": 1, "validate_windows": 1},
    },
    "steer": {
        "studies": ["steering"],
        "data": {"documents": 400, "context": 64, "validate_windows": 1},
    },
    "synthesise": {
        "studies": ["synthesis"],
        "data": {"context": 64, "validate_windows": 1},
        "describe": {"tokens": 24_000},
    },
    "probe": {
        "studies": ["probing"],
        "data": {"documents": 400, "context": 64, "validate_windows": 1},
    },
    "attribute": {
        "studies": ["attribution"],
        "data": {
            "documents": 360,
            "context": 32,
            "sealed": 0.3,
            "explore_windows": 1,
            "validate_windows": 1,
        },
    },
}
"""What a command with a question of its own changes of the defaults, beside going round once; a spec file wins."""


def resolve(target: str, changes: Mapping[str, Any] | None = None, verb: str = "") -> Spec:
    """The whole spec of a target: a preset's, a file's, or the one for any language model.

    Args:
        target: a preset, a path ending in ``.toml``, or anything `prosect.load` takes.
        changes: dotted keys to values, laid over it; None values are left out.
        verb: a command of `VERBS`, whose settings take the place of a preset's.

    Raises:
        BadInput: the file or a value does not fit.
        UnknownName: a key or a command that does not exist.
    """
    if verb and verb not in VERBS:
        raise UnknownName("command", verb, VERBS)
    name = target.removeprefix("organism:")
    plain = GENERATED if name in ORGANISMS else {"studies": ["latents", "heads"]}
    base = SPECS.get(name, {"target": target, **plain})
    if verb:
        once = {"validate": {"rounds": 1}, "data": {"folds": 1}}
        base = laid_over({"target": base["target"], **once}, VERBS[verb])
    if target.endswith(".toml"):
        said = read_spec(Path(target)).model_dump(mode="json", by_alias=True, exclude_unset=True)
        content = laid_over(base, {**said, "studies": VERBS[verb]["studies"]}) if verb else said
    else:
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


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables, the second's values where both have one."""
    out = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = laid_over(out[key], value) if both else value
    return out


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


def folder_of(spec: Spec, target: str, verb: str = "") -> str:
    """The same, after the command that asked."""
    return f"{verb}-{name_of(spec, target)}" if verb else name_of(spec, target)


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
        if isinstance(value, Mapping) and value:
            out |= flattened(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
