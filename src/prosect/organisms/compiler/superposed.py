"""``compiled-NAME-superposed``: programs trained into fewer dimensions than their variables need.

Their weights ship, since training takes minutes and rounding differs between machines; `scripts/train_superposed.py`
makes them again. What is known: which head and which MLP carries which variable, and how well (`Metrics`). How a
variable is written there, and which edges between nodes matter, was not asked for in training and is not claimed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from prosect.core.canonical import digest_tensors
from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.data.batch import Batch
from prosect.organisms.compiler import zoo
from prosect.organisms.compiler.bound import bound
from prosect.organisms.compiler.layout import Layout
from prosect.organisms.compiler.siit import Metrics, Recipe, blank, carries, nodes
from prosect.organisms.compiler.truth import NULLS
from prosect.organisms.compiler.types import Checked
from prosect.organisms.decoder import Decoder
from prosect.organisms.opened import opened
from prosect.organisms.sources import SequenceSource

if TYPE_CHECKING:
    from prosect.model import Model

PROGRAMS = ("sort", "histogram", "count")
FOLDER = Path(__file__).parents[1] / "weights" / "superposed"


def plan(program: str) -> tuple[Checked, Layout, Recipe]:
    """The program of that name, where its variables go, and how it is trained."""
    recipe = Recipe(**_record(program)["recipe"])
    checked = zoo.program_of(program)
    return checked, Layout.of(checked, spare=recipe.spare), recipe


def network(program: str, seed: int = 0) -> tuple[Decoder, Truth]:
    """The shipped network and its truth; there is one, whatever the seed.

    Raises:
        BadInput: the weights were not installed with the package.
    """
    checked, layout, recipe = plan(program)
    module = blank(checked, layout, recipe, _record(program)["seed"])
    module.load_state_dict(load_file(FOLDER / f"{program}.safetensors"), assign=True)
    module.eval().requires_grad_(True)
    needed = layout.width
    variables = tuple(
        Variable(
            node.site,
            0,
            "carried" if node.variables else "nothing",
            {"variables": list(node.variables), "form": carries(checked, node)} if node.variables else {},
            {"matters": bool(node.variables)},
        )
        for node in nodes(checked, layout)
    )
    metrics = asdict(metrics_of(program))
    truth = Truth(
        organism=f"compiled-{program}-superposed",
        variables=variables,
        quantities={**{k: float(v) for k, v in metrics.items()}, "dimensions needed": float(needed)},
        nulls=NULLS,
        size=f"{layout.layers} layers of {layout.heads} heads and {recipe.neurons} neurons, width {recipe.width} "
        f"for variables of {needed} dimensions",
    )
    return module, truth


def build(program: str, seed: int = 0) -> tuple[Model, Truth]:
    """Program trained into half the dimensions that its variables need.

    Strict interchange intervention training (Gupta et al. 2024, "InterpBench"): behaviour, interchange and
    strictness losses against the program's interpreter; the weights ship. Known, and measured: which head and which MLP
    carries which variable, and how well. How it is written there was not asked for and is not claimed.
    """
    return opened(network(program, seed), source(program, seed))


def untrained(program: str, seed: int = 0) -> Decoder:
    """The model null: the network before training, from the initialisation of another seed."""
    checked, layout, recipe = plan(program)
    start = Seed(seed).child("compiler", program, "superposed", "untrained").integer
    return blank(checked, layout, recipe, start)


def source(program: str, seed: int = 0, folds: int = 2, **sizes: int) -> SequenceSource:
    """Inputs: those of the compiled program."""
    return zoo.source(program, seed, folds, **sizes)


def targets(program: str, batch: Batch) -> Tensor:
    """What the program gives at every position: `zoo.targets`."""
    return zoo.targets(program, batch)


def metrics_of(program: str) -> Metrics:
    """What was measured of the shipped network."""
    return Metrics(**_record(program)["metrics"])


def write(program: str, module: Decoder, recipe: Recipe, metrics: Metrics, seed: int, seconds: float) -> None:
    """Ship a trained network."""
    from safetensors.torch import save_file

    FOLDER.mkdir(parents=True, exist_ok=True)
    state = {name: w.detach().to(torch.float32).contiguous() for name, w in module.state_dict().items()}
    path = FOLDER / f"{program}.safetensors"
    save_file(state, path)
    path.chmod(0o644)
    record = {
        "program": program,
        "seed": seed,
        "recipe": asdict(recipe),
        "metrics": asdict(metrics),
        "seconds": round(seconds, 1),
        "digest": digest_tensors(state),
    }
    (FOLDER / f"{program}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _record(program: str) -> dict[str, Any]:
    path = FOLDER / f"{program}.json"
    if not path.exists() or not path.with_suffix(".safetensors").exists():
        raise BadInput(
            f"a prosect without the weights of compiled-{program}-superposed",
            "its package data",
            "installing prosect again",
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))


__getattr__ = bound(__name__, PROGRAMS, build, network, source, untrained, targets)
"""``build_sort``, ``source_sort`` and the like."""
