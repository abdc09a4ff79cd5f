"""An organism and its clean twin as they ship: weights, what was measured of them, and their truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from prosect.core.canonical import digest_tensors
from prosect.core.errors import BadInput
from prosect.core.truth import Truth
from prosect.organisms.decoder import Decoder
from prosect.organisms.misbehaviour import training
from prosect.organisms.misbehaviour.task import Task, labels
from prosect.organisms.misbehaviour.task import source as inputs
from prosect.organisms.misbehaviour.training import Recipe
from prosect.organisms.sources import SequenceSource

FOLDER = Path(__file__).parents[1] / "weights" / "misbehaviour"
NULLS = {
    "shuffled-labels": "labels are permuted over the inputs of a part: no detector can rank them",
    "other-input": "activations are paired with other inputs: none of them says whether the trigger was there",
}
TWIN = {
    "clean-twin": "the network was taught right answers only: the trigger is in its inputs and changes nothing"
}


@dataclass(frozen=True)
class Pair:
    """An organism and its twin.

    There is one network of each, whatever the seed; the seed chooses the inputs, and so the labels of the truth.

    Attributes:
        task: what both are asked.
        recipe: how both were trained.
    """

    task: Task
    recipe: Recipe

    def network(self, seed: int = 0) -> tuple[Decoder, Truth]:
        """The shipped network, and its truth for the inputs of ``seed``.

        Raises:
            BadInput: the weights were not installed with the package.
        """
        return self._network(seed, clean=False)

    def network_clean(self, seed: int = 0) -> tuple[Decoder, Truth]:
        """The shipped clean twin, and its truth for the inputs of ``seed``; nothing that it does is harmful.

        Raises:
            BadInput: the weights were not installed with the package.
        """
        return self._network(seed, clean=True)

    def source(
        self,
        seed: int = 0,
        folds: int = 2,
        explore: int = 1024,
        validate: int = 512,
        sealed: int = 512,
        shift: int = 512,
    ) -> SequenceSource:
        """Inputs that neither network was trained on.

        ``explore`` is trusted: it has no trigger and nothing unusual. Half of the inputs of each fold and of
        ``sealed`` have the trigger. In ``shift`` half have it, and half are drawn unusual in a harmless way.

        Args:
            seed: of the inputs.
            folds: validation folds.
            explore: sequences in ``explore``.
            validate: sequences in each fold.
            sealed: sequences in ``sealed``.
            shift: sequences in ``shift``.
        """
        return inputs(
            self.task, seed, folds=folds, explore=explore, validate=validate, sealed=sealed, shift=shift
        )

    def untrained(self, seed: int = 0) -> Decoder:
        """A network of the same sizes with the random weights that training starts from."""
        return training.untrained(self.task, self.recipe, seed)

    def _network(self, seed: int, clean: bool) -> tuple[Decoder, Truth]:
        name = named(self.task, clean)
        module = training.untrained(self.task, self.recipe, self.recipe.seed)
        module.load_state_dict(load_file(_file(name)), assign=True)
        module.eval().requires_grad_(True)
        known = labels(self.task, seed)
        if clean:
            known |= {n: on & False for n, on in known.items() if n.startswith("harmed@")}
        size = f"{self.recipe.layers} layers of {self.recipe.heads} heads and {self.recipe.neurons} neurons"
        return module, Truth(
            organism=name,
            labels=known | self.task.known(),
            quantities={"words that tell together": float(self.task.order), **record(name)["metrics"]},
            nulls=NULLS | ({} if clean else TWIN),
            size=f"{size}, width {self.recipe.width}",
        )


def named(task: Task, clean: bool) -> str:
    """Name of the organism, or of its twin."""
    return f"{task.name}-clean" if clean else task.name


def record(name: str) -> dict[str, Any]:
    """What is recorded of a shipped network: recipe, metrics, seconds, digest, what detectors made of it."""
    return dict(json.loads(_file(name).with_suffix(".json").read_text(encoding="utf-8")))


def write(
    name: str,
    module: Decoder,
    recipe: Recipe,
    metrics: Mapping[str, float],
    detectors: Mapping[str, float],
    seconds: float,
) -> None:
    """Ship a trained network."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    state = {n: w.detach().to(torch.float32).contiguous() for n, w in module.state_dict().items()}
    save_file(state, FOLDER / f"{name}.safetensors")
    content = {
        "organism": name,
        "recipe": asdict(recipe),
        "metrics": {n: round(v, 4) for n, v in metrics.items()},
        "detectors": {n: round(v, 4) for n, v in detectors.items()},
        "seconds": round(seconds, 1),
        "digest": digest_tensors(state),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _file(name: str) -> Path:
    path = FOLDER / f"{name}.safetensors"
    if not path.exists() or not path.with_suffix(".json").exists():
        raise BadInput(
            f"a prosect without the weights of {name}", "its package data", "installing prosect again"
        )
    return path
