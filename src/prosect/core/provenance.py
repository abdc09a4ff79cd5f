"""Where a result came from: versions, git state, machine, threads. Never times or paths of a machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from prosect.core.canonical import Json, digest

PACKAGES = (
    "prosect",
    "torch",
    "transformers",
    "interp-engine",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
)


def versions() -> dict[str, str]:
    """Installed versions of what results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def source_digest(module: str = "prosect") -> str:
    """Digest of the source files of a package or module, so that a changed method is seen to have changed."""
    import importlib.util

    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return "unknown"
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return digest({f.relative_to(origin.parent).as_posix(): digest(f.read_bytes()) for f in files})


def git_state() -> dict[str, Json]:
    """Commit and whether the tree differs from it, if prosect runs from a checkout; else empty."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here)]
    try:
        inside = subprocess.run(
            [*command, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=5, check=False
        )
        if inside.returncode != 0:  # installed somewhere inside another project's checkout
            return {}
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, timeout=5, check=True)
        dirty = subprocess.run(
            [*command, "status", "--porcelain"], capture_output=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit.stdout.decode().strip(), "dirty": bool(dirty.stdout.strip())}


def bfloat16_units() -> bool:
    """Whether this processor multiplies in bfloat16 itself (AMX or AVX512-BF16)."""
    import torch

    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def environment(device: str = "cpu") -> dict[str, Json]:
    """Versions, git state and machine, as far as results can depend on them."""
    import torch

    return {
        "versions": versions(),
        "source": source_digest(),
        "git": git_state(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device asked for": device,
            "byteorder": sys.byteorder,
            "bfloat16 units": bfloat16_units(),
        },
    }
