"""What keeps a method from the builders of organisms while it runs.

A network's class lives in the file of whoever builds it, so that file has to be imported before the network can be made.
After that, everything in it is taken away but the classes of networks and what their code uses; and what was not
imported by then cannot be. This stops a method from asking for the answer. It does not stop one that reads the source of
a builder from disk and guesses seeds: against that there are sealed seeds.
"""

from __future__ import annotations

import dis
import importlib.abc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from prosect.core.errors import ProsectError

ORGANISMS = "prosect.organisms"
PLAIN = (bool, int, float, str)


class Withheld(ProsectError, ImportError):
    """A method asked for what it is not to see."""


class _Refuses(importlib.abc.MetaPathFinder):
    def __init__(self, places: tuple[str, ...]) -> None:
        self.places = places

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if within(fullname, self.places):
            raise Withheld(f"{fullname} is withheld from methods on the bench: it builds organisms")


def within(name: str, places: Iterable[str]) -> bool:
    """Whether a module is one of these or lies inside one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def withhold(places: Sequence[str] = ()) -> None:
    """Take the builders away, in this process and for good.

    Args:
        places: modules that build organisms, beside those of prosect.
    """
    held = (ORGANISMS, *places)
    for name, module in list(sys.modules.items()):
        if within(name, held) and isinstance(module, ModuleType):
            _emptied(name, module)
    sys.meta_path.insert(0, _Refuses(held))


def _emptied(name: str, module: ModuleType) -> None:
    kept = _used(module)
    for attribute, value in list(vars(module).items()):
        if attribute in kept or (attribute.startswith("__") and attribute != "__getattr__"):
            continue
        if not isinstance(value, PLAIN):
            setattr(module, attribute, _refusal(name, attribute))


def _used(module: ModuleType) -> set[str]:
    """Names of a module that its networks are, or use."""
    names = {k for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, nn.Module)}
    for value in list(vars(module).values()):  # a transformers class and its configuration
        if isinstance(value, type) and issubclass(value, nn.Module):
            config = getattr(value, "config_class", None)
            names |= {k for k, v in vars(module).items() if config is not None and v is config}
    waiting, seen = list(names), set(names)
    while waiting:
        for code in _codes(vars(module)[waiting.pop()]):
            for name in _globals(code):
                if name in vars(module) and name not in seen:
                    seen.add(name)
                    waiting.append(name)
    return seen


def _codes(value: Any) -> Iterator[CodeType]:
    members = list(vars(value).values()) if isinstance(value, type) else [value]
    for member in members:
        inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
        inner = getattr(inner, "__wrapped__", inner)
        if isinstance(inner, FunctionType):
            yield inner.__code__


def _globals(code: CodeType) -> Iterator[str]:
    """Global names that a function's code reads, functions inside it included."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)


def _refusal(module: str, attribute: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise Withheld(f"{module}.{attribute} is withheld from methods on the bench")

    return refuse
