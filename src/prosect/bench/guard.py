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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    modules = {n: m for n, m in sys.modules.items() if within(n, held) and isinstance(m, ModuleType)}
    used = _used(modules)
    for home, module in modules.items():
        for name, value in list(vars(module).items()):
            if (home, name) in used or (name.startswith("__") and name != "__getattr__"):
                continue
            if not isinstance(value, PLAIN):
                setattr(module, name, _refusal(home, name))
    sys.meta_path.insert(0, _Refuses(held))


def _used(modules: Mapping[str, ModuleType]) -> set[tuple[str, str]]:
    """(module, name) of every network among these, and of whatever their code uses, wherever it is."""
    networks = {
        v
        for m in modules.values()
        for v in vars(m).values()
        if isinstance(v, type) and issubclass(v, nn.Module)
    }
    started = networks | {getattr(v, "config_class", None) for v in networks} - {None}
    waiting = [
        (home, name)
        for home, m in modules.items()
        for name, v in vars(m).items()
        if isinstance(v, type) and v in started
    ]
    seen = set(waiting)
    while waiting:
        home, name = waiting.pop()
        for function in _functions(vars(modules[home])[name]):
            own = str(function.__globals__.get("__name__"))
            for found in _reached(function.__code__, own, modules):
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
    return seen


def _functions(value: Any) -> Iterator[FunctionType]:
    """A function, or those of a class and of what it inherits from."""
    members = [m for c in value.__mro__ for m in vars(c).values()] if isinstance(value, type) else [value]
    for member in members:
        inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
        inner = getattr(inner, "__wrapped__", inner)
        if isinstance(inner, FunctionType):
            yield inner


def _reached(code: CodeType, own: str, modules: Mapping[str, ModuleType]) -> Iterator[tuple[str, str]]:
    """What a function's code names: globals of its module, and attributes of modules among those."""
    if own not in modules:
        return
    there, attributes = vars(modules[own]), _attributes(code)
    for name in _globals(code):
        if name in there:
            yield own, name
            inner = str(getattr(there[name], "__name__", ""))
            if isinstance(there[name], ModuleType) and inner in modules:
                yield from ((inner, a) for a in attributes if a in vars(modules[inner]))


def _attributes(code: CodeType) -> set[str]:
    own = {str(s.argval) for s in dis.get_instructions(code) if s.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    return own.union(*(_attributes(c) for c in code.co_consts if isinstance(c, CodeType)))


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
