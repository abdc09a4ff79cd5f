"""Fabricated runs, each made and drawn once."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fabricate import fabricate
from reader import read_page

from prosect.report import build

RUNS = {
    "normal": {"latents": 9, "heads": 5, "neurons": 2},
    "slight": {"latents": 5, "heads": 1, "neurons": 0, "rich": False},
    "hostile": {"latents": 5, "heads": 3, "neurons": 2, "hostile": True},
    "pictured": {"latents": 1, "heads": 0, "neurons": 0, "rich": False, "pictured": True},
    "pictured-hostile": {
        "latents": 1,
        "heads": 0,
        "neurons": 0,
        "rich": False,
        "pictured": True,
        "hostile": True,
    },
    "truth": {"latents": 1, "heads": 3, "neurons": 5, "truth": True, "rich": False},
    "nothing-supported": {
        "latents": 4,
        "heads": 1,
        "neurons": 1,
        "strength": 0.05,
        "calibrated": False,
        "rich": False,
    },
    "all-supported": {"latents": 2, "heads": 1, "neurons": 1, "strength": 0.95},
    "empty": {"latents": 0, "heads": 0, "neurons": 0},
    "unfinished": {
        "latents": 2,
        "heads": 1,
        "neurons": 1,
        "stop_after": 1,
        "finished": False,
        "with_findings": False,
    },
    "limited": {"latents": 2, "heads": 0, "neurons": 0, "partial": "Limited to 2 latents by --limit 2."},
    "bare": {"latents": 3, "heads": 2, "neurons": 0, "exhibits": False, "with_findings": False},
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders by name, made when first asked for."""
    root = tmp_path_factory.mktemp("runs")
    made = {}

    def get(name):
        if name not in made:
            made[name] = fabricate(root / name, **RUNS[name])
        return made[name]

    return get


@pytest.fixture(scope="session")
def pages(runs):
    """Pages by name of the run, as text and as a tree."""
    made = {}

    def get(name):
        if name not in made:
            html = build(runs(name)).read_text(encoding="utf-8")
            made[name] = html, read_page(html)
        return made[name]

    return get


@pytest.fixture
def copy(runs, tmp_path):
    """A run's folder, with the head beside it, to be tampered with."""

    def get(name):
        folder = tmp_path / name
        shutil.copytree(runs(name), folder)
        beside = runs(name).parent / f"{name}.head"
        if beside.exists():
            shutil.copy(beside, tmp_path / f"{name}.head")
        return folder

    return get
