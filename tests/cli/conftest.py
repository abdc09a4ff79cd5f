"""One tiny finished run, and copies of it to be tampered with."""

import shutil

import pytest

from prosect.cli import main
from tiny import HEADS, LATENTS


@pytest.fixture(scope="session")
def specs(tmp_path_factory):
    """Spec files by name."""
    folder = tmp_path_factory.mktemp("specs")
    for name, text in (("heads", HEADS), ("latents", LATENTS)):
        (folder / f"{name}.toml").write_text(text)
    return {name: folder / f"{name}.toml" for name in ("heads", "latents")}


@pytest.fixture(scope="session")
def finished(specs, tmp_path_factory):
    """A run folder of which some claims were refuted, and the exit code that making it had."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PROSECT_HOME", str(tmp_path_factory.mktemp("home")))
        code = main(["run", str(specs["heads"]), "--out", str(out), "--quiet", "--json"])
    return out, code


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run, with the head kept beside it, somewhere else."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    shutil.copy(finished[0].with_name("run.head"), tmp_path / "copy.head")
    return folder
