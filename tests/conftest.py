"""Shared by all tests: nothing reaches the network, the user's home or global random state."""

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import rationed  # it lies beside this file

rationed.begin()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    rationed.calls.clear()


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PROSECT_HOME", str(tmp_path_factory.mktemp("home")))
