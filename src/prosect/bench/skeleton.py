"""A network as names and tensors, and back: no pickle, and nothing of whoever built it.

A transformers model is its class and its configuration. Any other module is written down as it is: the class of each
module in its tree, its plain attributes, and which parameters and buffers it has; building it again calls no
constructor of its own, so an organism has nothing to declare. Attributes may be numbers, strings, None, lists, tuples
and dictionaries of those, and functions of torch; whatever else a module holds is refused by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from prosect.core.canonical import Json
from prosect.core.errors import Unsupported

PLAIN = (bool, int, float, str, type(None))
RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
FUNCTIONS = ("torch", "torch.nn.functional", "torch.special")
"""Where functions that a module holds may come from."""
OWN = frozenset(vars(nn.Module())) - {"training"}
"""What every module has and rebuilding makes by itself: hooks and tables of children."""


def blueprint(module: nn.Module) -> Json:
    """Everything about a module but its weights, as JSON.

    Raises:
        Unsupported: it holds something that is no plain value.
    """
    config: Any = getattr(module, "config", None)
    if hasattr(config, "to_dict"):
        return {"class": path_of(type(module)), "config": config.to_dict()}
    return _tree(module, type(module).__name__)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers, those that are not saved among them."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def rebuilt(plan: Json, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The module again, in eval mode, without gradients.

    Args:
        plan: of `blueprint`.
        tensors: of `weights`.
    """
    if "config" in plan:
        cls = found(plan["class"])
        module: nn.Module = cls(cls.config_class.from_dict(plan["config"]))
        own = weights(module)
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
    else:
        module = _grown(plan, tensors, "")
    return module.eval().requires_grad_(False)


def path_of(what: Any) -> str:
    """``module:qualified.name``."""
    return f"{what.__module__}:{what.__qualname__}"


def found(path: str) -> Any:
    """What has that path."""
    module, _, name = path.partition(":")
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def classes(plan: Json) -> set[str]:
    """The paths of all classes in a plan."""
    own = {plan["class"]}
    return own.union(*(classes(child) for _, child in plan.get("children", ())))


def _tree(module: nn.Module, at: str) -> dict[str, Json]:
    children = [[name, _tree(child, f"{at}.{name}")] for name, child in module.named_children()]
    if isinstance(
        module, nn.RNNBase
    ):  # keeps its parameters in a list of its own, which its constructor makes
        sizes = {name: getattr(module, name) for name in RECURRENT}
        return {"class": path_of(type(module)), "arguments": sizes, "children": []}
    held = {k: v for k, v in vars(module).items() if k not in OWN}
    return {
        "class": path_of(type(module)),
        "attributes": {k: _said(v, f"{at}.{k}") for k, v in held.items()},
        "parameters": [k for k, v in module._parameters.items() if v is not None],
        "buffers": [k for k, v in module._buffers.items() if v is not None],
        "absent": [k for k, v in (*module._parameters.items(), *module._buffers.items()) if v is None],
        "passing": sorted(module._non_persistent_buffers_set),
        "children": children,
    }


def _said(value: Any, at: str) -> Json:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_said(v, at) for v in value]}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _said(v, at) for k, v in value.items()}}
    name = str(getattr(value, "__name__", ""))
    for place in FUNCTIONS if isinstance(value, FunctionType | BuiltinFunctionType) else ():
        if getattr(importlib.import_module(place), name, None) is value:
            return {"function": f"{place}:{name}"}
    raise Unsupported(
        f"{at}, a {type(value).__name__}, in a network to be handed to a method",
        "attributes that are numbers, strings, lists, tuples or dictionaries of those, or functions of torch",
        "keeping it as a number, a buffer or a module",
    )


def _meant(said: Json) -> Any:
    if not isinstance(said, dict):
        return said
    ((kind, value),) = said.items()
    if kind == "function":
        return found(value)
    if kind == "dict":
        return {k: _meant(v) for k, v in value.items()}
    return [_meant(v) for v in value] if kind == "list" else tuple(_meant(v) for v in value)


def _grown(plan: Json, tensors: Mapping[str, Tensor], at: str) -> nn.Module:
    cls = found(plan["class"])
    if "arguments" in plan:
        module: nn.Module = cls(**plan["arguments"])
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(tensors[at + name])
        return module
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    for name, said in plan["attributes"].items():
        object.__setattr__(module, name, _meant(said))
    for name in plan["parameters"]:
        module.register_parameter(name, nn.Parameter(tensors[at + name], requires_grad=False))
    for name in plan["buffers"]:
        module.register_buffer(name, tensors[at + name], persistent=name not in plan["passing"])
    for name in plan["absent"]:
        module.register_parameter(name, None)
    for name, child in plan["children"]:
        module.add_module(name, _grown(child, tensors, f"{at}{name}."))
    return module
