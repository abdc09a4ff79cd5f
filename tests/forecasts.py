"""What a dry run says beforehand, held against what the same run then counted on the model's meter."""

import json

import pytest

from prosect.assay.forecast import forecast
from prosect.assay.spec import make_spec


def foreseen(path):
    """The dry run of a finished run's own spec, and what that run counted: on explore, on the folds, gradients."""
    spec = make_spec(json.loads((path / "run.json").read_text())["spec"])
    rows = forecast(spec)
    counted = (
        "rows run on explore",
        "rows run on the folds",
        "rows with gradients",
        "FLOPs",
        "seconds, at least",
    )
    row = {name: sum(r[name] for r in rows) for name in counted}
    row["note"] = "; ".join(r["note"] for r in rows if "note" in r)
    cost = json.loads((path / "metrics.json").read_text())["cost"]
    explore = cost.get("explore rows computed", 0) + cost.get("search rows computed", 0)
    gradients = sum(n for name, n in cost.items() if name.endswith("rows with gradients"))
    folds = cost["validate rows computed"] + cost.get("untrained rows", 0)
    return row, explore, folds, gradients


def hold(path, explore=0.02, folds=0.02):
    """The forecast is right up to these shares; nothing takes gradients."""
    row, on_explore, on_folds, gradients = foreseen(path)
    assert on_explore == pytest.approx(row["rows run on explore"], rel=explore, abs=2)
    assert on_folds == pytest.approx(row["rows run on the folds"], rel=folds, abs=2)
    assert gradients == 0 == row["rows with gradients"]
    assert row["FLOPs"] > 0 and row["seconds, at least"] >= 0
