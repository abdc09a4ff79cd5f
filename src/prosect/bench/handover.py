"""From the process that knows the truth to the one that must not: a folder with JSON and safetensors, and back.

``given.safetensors`` holds the data, ``network.safetensors`` the weights, ``order.json`` names, numbers and the plan of
the network. What comes back is ``answer.safetensors``, or ``failed.json`` with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor, nn

from prosect.bench.given import Answer, Given
from prosect.bench.skeleton import blueprint, classes, rebuilt, weights
from prosect.core.canonical import Json, plain
from prosect.store.atomic import write_json
from prosect.store.tensors import load_tensors, save_tensors

GIVEN, NETWORK, ORDER = "given.safetensors", "network.safetensors", "order.json"
ANSWER, FAILED = "answer.safetensors", "failed.json"
INPUT = "input: "
OPENING = (
    "prosect.model",
    "interp_engine.model",
    "transformers.masking_utils",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
)
"""What building and opening a network imports."""


@dataclass(frozen=True)
class Order:
    """What a process is to do.

    Attributes:
        method: ``module:name`` of the function.
        seed: of the method's own random choices.
        withheld: modules that build organisms, beside those of prosect.
    """

    method: str
    seed: int
    withheld: tuple[str, ...] = ()


def put(folder: Path, given: Given, order: Order) -> None:
    """Write what a method is given.

    Raises:
        Unsupported: the network holds something that cannot be written down.
    """
    tensors = {**given.tensors, **{INPUT + k: t for k, t in given.inputs.items()}}
    save_tensors(folder / GIVEN, tensors)
    plan: Json = None
    if given.network is not None:
        module = given.module
        plan = plain(json.loads(json.dumps(blueprint(module), default=str)))
        save_tensors(folder / NETWORK, weights(module))
    write_json(
        folder / ORDER,
        {
            "method": order.method,
            "seed": order.seed,
            "withheld": list(order.withheld),
            "about": given.about,
            "network": plan,
            "seconds": given.seconds,
        },
    )


def take(folder: Path) -> tuple[Given, Order]:
    """What was put there; the classes of the network are imported, the network is made when it is asked for."""
    order = json.loads((folder / ORDER).read_bytes())
    tensors, _ = load_tensors(folder / GIVEN)
    plan = order["network"]
    if plan is not None:
        for path in sorted(classes(plan)):
            __import__(path.partition(":")[0])

    @cache
    def network() -> nn.Module:
        return rebuilt(plan, load_tensors(folder / NETWORK)[0])

    given = Given(
        {k: t for k, t in tensors.items() if not k.startswith(INPUT)},
        order["about"],
        {k.removeprefix(INPUT): t for k, t in tensors.items() if k.startswith(INPUT)},
        None if plan is None else network,
        order["seconds"],
    )
    return given, Order(order["method"], order["seed"], tuple(order["withheld"]))


def give(folder: Path, answer: Answer, spent: Mapping[str, Json]) -> None:
    """Write an answer and what it cost."""
    save_tensors(folder / ANSWER, answer, dict(spent))


def fail(folder: Path, reason: str) -> None:
    """Write why there is none."""
    write_json(folder / FAILED, {"reason": reason})


def outcome(folder: Path) -> tuple[dict[str, Tensor], dict[str, Json]] | str:
    """The answer and what it cost, or why there is none; an empty string where nothing was written."""
    if (folder / FAILED).exists():
        return str(json.loads((folder / FAILED).read_bytes())["reason"])
    if (folder / ANSWER).exists():
        tensors, spent = load_tensors(folder / ANSWER)
        return tensors, spent
    return ""


def preloaded(order: Order, plan: bool) -> Sequence[str]:
    """Modules that a process may as well have imported before: nothing in them is of any organism.

    Each answer is by a fresh process, and importing these takes it longer than most methods take.
    """
    own = order.method.partition(":")[0]
    ours = own.startswith("prosect.bench.methods")
    return [*(OPENING if plan else ()), *((own,) if ours else ())]
