"""``compiled-sort-superposed``: the sorting program trained into fewer dimensions than its variables need.

Its weights ship, since training takes minutes and rounding differs between machines; `scripts/train_superposed.py`
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

from prosect.core.canonical import digest_tensors
from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.organisms.compiler import zoo
from prosect.organisms.compiler.layout import Layout
from prosect.organisms.compiler.siit import Metrics, Recipe, blank, carries, nodes
from prosect.organisms.compiler.types import Checked
from prosect.organisms.decoder import Decoder
from prosect.organisms.sources import SequenceSource

if TYPE_CHECKING:
    from prosect.model import Model

PROGRAM = "sort"
NAME = f"compiled-{PROGRAM}-superposed"
FOLDER = Path(__file__).parents[1] / "weights" / "superposed"


def plan() -> tuple[Checked, Layout, Recipe]:
    """The program, where its variables go, and how it is trained."""
    record = _record()
    recipe = Recipe(**record["recipe"])
    program = zoo.program_of(PROGRAM)
    return program, Layout.of(program, spare=recipe.spare), recipe


def network(seed: int = 0) -> tuple[Decoder, Truth]:
    """The shipped network and its truth; there is one, whatever the seed.

    Raises:
        BadInput: the weights were not installed with the package.
    """
    program, layout, recipe = plan()
    module = blank(program, layout, recipe, _record()["seed"])
    module.load_state_dict(load_file(FOLDER / f"{PROGRAM}.safetensors"), assign=True)
    module.eval().requires_grad_(True)
    needed = layout.width
    variables = tuple(
        Variable(
            node.site,
            0,
            "carried" if node.variables else "nothing",
            {"variables": list(node.variables), "form": carries(program, node)} if node.variables else {},
            {"matters": bool(node.variables)},
        )
        for node in nodes(program, layout)
    )
    metrics = asdict(metrics_of())
    truth = Truth(
        organism=NAME,
        variables=variables,
        quantities={**{k: float(v) for k, v in metrics.items()}, "dimensions needed": float(needed)},
        nulls=zoo.network(PROGRAM)[1].nulls,
        size=f"{layout.layers} layers of {layout.heads} heads and {recipe.neurons} neurons, width {recipe.width} "
        f"for variables of {needed} dimensions",
    )
    return module, truth


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Program that sorts, trained into half the dimensions it needs.

    Strict interchange intervention training (Gupta et al. 2024, "InterpBench"): behaviour, interchange and
    strictness losses against the program's interpreter; the weights ship. Known, and measured: which head and which MLP
    carries which variable, and how well. How it is written there was not asked for and is not claimed.
    """
    from prosect.model import Model

    module, known = network(seed)
    batch = next(source(seed).batches("explore", rows=2))
    return Model.of(module, name=f"organism:{NAME}", inputs=dict(batch.tensors), tokenizer=None), known


def untrained(seed: int = 0) -> Decoder:
    """The model null: the network before training, from the initialisation of another seed."""
    program, layout, recipe = plan()
    return blank(
        program, layout, recipe, Seed(seed).child("compiler", PROGRAM, "superposed", "untrained").integer
    )


def source(seed: int = 0, **sizes: int) -> SequenceSource:
    """Inputs: those of the compiled program."""
    return zoo.source(PROGRAM, seed, **sizes)


def metrics_of() -> Metrics:
    """What was measured of the shipped network."""
    return Metrics(**_record()["metrics"])


def write(module: Decoder, recipe: Recipe, metrics: Metrics, seed: int, seconds: float) -> None:
    """Ship a trained network."""
    from safetensors.torch import save_file

    FOLDER.mkdir(parents=True, exist_ok=True)
    state = {name: w.detach().to(torch.float32).contiguous() for name, w in module.state_dict().items()}
    save_file(state, FOLDER / f"{PROGRAM}.safetensors")
    record = {
        "program": PROGRAM,
        "seed": seed,
        "recipe": asdict(recipe),
        "metrics": asdict(metrics),
        "seconds": round(seconds, 1),
        "digest": digest_tensors(state),
    }
    (FOLDER / f"{PROGRAM}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _record() -> dict[str, Any]:
    path = FOLDER / f"{PROGRAM}.json"
    if not path.exists() or not path.with_suffix(".safetensors").exists():
        raise BadInput(
            f"a prosect without the weights of {NAME}", "its package data", "installing prosect again"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))
