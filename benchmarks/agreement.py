"""Attribution beside the libraries people know: the same numbers from captum and shap, and from exact enumeration.

Run it with the interpreter of the peers environment: `make peers`, then
`.venv-peers/bin/python benchmarks/agreement.py`. A peer that is not there is skipped, in words. Differences are
the largest over all rows and features, in the metric's units; the attributions are of order one.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from figures import Figure, report
from prosect.core.seeds import Seed
from prosect.describe.attribution import (
    Attribution,
    InputGradient,
    IntegratedGradients,
    Occlusion,
    Saliency,
    Shapley,
    attribute,
)
from prosect.model import Model, load

WIDTH, ROWS, BACKGROUND, STEPS = 10, 12, 8, 32
OUTPUT = 1


def network() -> Model:
    """Three layers of tanh and ReLU with random weights: float32, ten inputs, three outputs."""
    net = nn.Sequential(
        nn.Linear(WIDTH, 32), nn.Tanh(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)
    ).eval()
    rng = Seed(0).child("weights").torch()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) / (p.shape[-1] ** 0.5 if p.ndim > 1 else 5.0))
    return load(net, inputs=torch.zeros(2, WIDTH))


def metric(output: Tensor, _: object) -> Tensor:
    """One output."""
    return output[:, OUTPUT]


def apart(ours: Attribution, theirs: Any) -> float:
    """Largest difference."""
    return float(np.abs(ours.values - np.asarray(theirs).reshape(ours.values.shape)).max())


def with_captum(model: Model, x: Tensor, base: Tensor) -> list[Figure]:
    """Every quadrature, and the other methods that both have."""
    from captum import attr

    names = {
        "gauss-legendre": "gausslegendre",
        "middle": "riemann_middle",
        "trapezoid": "riemann_trapezoid",
        "left": "riemann_left",
        "right": "riemann_right",
    }
    run = {"baseline": base, "sanity": None, "pairs": 0}
    figures = []
    for ours, theirs in names.items():
        made = attribute(model, x, metric, IntegratedGradients(STEPS, ours), **run)
        found = attr.IntegratedGradients(model.module).attribute(
            x, base[None], target=OUTPUT, n_steps=STEPS, method=theirs
        )
        note = ""
        if (
            ours == "trapezoid"
        ):  # captum's weights add up to (steps − 1) / steps: a constant gradient shows it
            found, note = found * STEPS / (STEPS - 1), ", captum's weights made to add up to 1"
        figures.append(
            Figure(
                f"integrated gradients and captum, {ours}{note}", apart(made, found.detach()), "", "<= 1e-5"
            )
        )
    pairs = [
        ("saliency", Saliency("l1"), attr.Saliency(model.module).attribute(x, target=OUTPUT)),
        (
            "input × gradient",
            InputGradient(),
            attr.InputXGradient(model.module).attribute(x, target=OUTPUT),
        ),
        (
            "occlusion, window 3, stride 2",
            Occlusion(3, 2),
            attr.Occlusion(model.module).attribute(x, (3,), strides=(2,), baselines=0, target=OUTPUT),
        ),
    ]
    for name, method, theirs in pairs:
        made = attribute(model, x, metric, method, baseline="zero", sanity=None, pairs=0)
        figures.append(Figure(f"{name} and captum", apart(made, theirs.detach()), "", "<= 1e-5"))
    return figures


def with_shap(model: Model, x: Tensor, background: Tensor) -> list[Figure]:
    """Exact values, and its two samplers beside ours at about the same number of evaluations."""
    import shap

    def function(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(model.module(torch.from_numpy(points).float())[:, OUTPUT].numpy(), dtype=float)

    run = {"background": background, "sanity": None}
    exact = attribute(model, x, metric, Shapley("exact"), **run)
    masker = shap.maskers.Independent(background.numpy(), max_samples=len(background))
    theirs = shap.ExactExplainer(function, masker)(x.numpy(), silent=True).values
    figures = [Figure("Shapley values, exact, and shap's", apart(exact, theirs), "", "<= 1e-5")]
    pairs, size = 48, float(np.sqrt(np.square(exact.values).mean()))
    evaluations = 2 * pairs * (WIDTH - 1) + 2
    kernel = shap.KernelExplainer(function, background.numpy())
    np.random.seed(0)  # noqa: NPY002  (the only seed that it takes)
    found = kernel.shap_values(x.numpy(), nsamples=2 * pairs, l1_reg="num_features(10)", silent=True)
    ours = attribute(model, x, metric, Shapley("kernel", pairs=pairs), **run)
    permuted = attribute(model, x, metric, Shapley("permutation", pairs=pairs), **run)
    for name, values in [
        (f"kernel, {2 * pairs} coalitions, error", ours.values),
        (f"shap's kernel, {2 * pairs} coalitions, error", np.asarray(found)),
        (f"permutations, {evaluations} coalitions, error", permuted.values),
    ]:
        error = float(np.sqrt(np.square(values - exact.values).mean())) / size
        figures.append(Figure(f"{name} over size of values", error))
    return figures


def by_hand(model: Model) -> list[Figure]:
    """Shapley values of six of the inputs as the mean over all 720 orders."""
    x = torch.randn(2, WIDTH, generator=Seed(0).child("few").torch())
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 5])
    ours = attribute(model, x, metric, Shapley("exact"), groups=groups, baseline="zero", sanity=None)
    worst = 0.0
    for row in range(2):
        known: dict[frozenset[int], float] = {}

        def value(s: frozenset[int], row: int = row, known: dict[frozenset[int], float] = known) -> float:
            if s not in known:
                keep = torch.tensor([int(g) in s for g in groups])
                with torch.no_grad():
                    known[s] = float(model.module((x[row] * keep)[None])[0, OUTPUT])
            return known[s]

        total = np.zeros(6)
        orders = list(permutations(range(6)))
        for order in orders:
            for at, i in enumerate(order):
                total[i] += value(frozenset(order[: at + 1])) - value(frozenset(order[:at]))
        worst = max(worst, float(np.abs(total / len(orders) - ours.values[row]).max()))
    return [
        Figure("Shapley values and every order by hand", worst, "", "<= 1e-5"),
        Figure("efficiency: |sum of values − (f(x) − E f)|", float(ours.completeness.max()), "", "<= 1e-5"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # what peers warn of is theirs
    model = network()
    rng = Seed(0).child("inputs").torch()
    x, background = (torch.randn(n, WIDTH, generator=rng) for n in (ROWS, BACKGROUND))
    figures = by_hand(model)
    for name, peer, more in [("captum", with_captum, background[0]), ("shap", with_shap, background)]:
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not in this environment: skipped (make peers)")
            continue
        figures += peer(model, x, more)
    if not report(figures, options.json):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
