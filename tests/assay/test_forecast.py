"""What a dry run says of studies of features and of residues, against what the run then computed."""

import pytest

from forecasts import foreseen
from prosect.cli import main

ONCE = """
device = "cpu"
limit = 120
[data]
folds = 1
[validate]
rounds = 1
seal = false
[describe]
components = 3
controls = 1
"""
FEATURES = f"""
target = "superposition"
studies = ["features"]
{ONCE}tokens = 4000
[decompose]
width = 32
active = 4
tokens = 1000
batch = 64
"""
RESIDUES = f"""
target = "modular"
studies = ["residues"]
{ONCE}
"""


@pytest.fixture
def run(request, tmp_path, monkeypatch):
    monkeypatch.setenv("PROSECT_HOME", str(tmp_path / "home"))
    (tmp_path / "spec.toml").write_text(request.param)
    assert main(["run", str(tmp_path / "spec.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    return tmp_path / "run"


@pytest.mark.parametrize(("run", "untested"), [(FEATURES, 2), (RESIDUES, 1.05)], indirect=["run"], ids="fr")
def test_the_forecast_is_what_was_run(run, untested):
    """On folds it is as though all that is looked at were claimed: a network, a neuron may give nothing to claim."""
    row, on_explore, on_folds, gradients = foreseen(run)
    assert on_explore == row["rows run on explore"] > 0
    assert on_folds <= row["rows run on the folds"] <= untested * on_folds
    assert gradients == row["rows with gradients"] == 0
