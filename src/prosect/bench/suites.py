"""Which tasks, on which organisms, with how many seeds: ``quick`` for every day, ``full`` for the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prosect.bench.task import Setup
from prosect.core.errors import UnknownName


@dataclass(frozen=True)
class Suite:
    """A run of the bench.

    Attributes:
        name: as on the command line.
        about: one line.
        organisms: task → the organisms it is asked on; "*" stands for all that have the matching truth
            and are not in `AGAIN`.
        seeds: of each organism.
        setup: the budget of every method.
    """

    name: str
    about: str
    organisms: Mapping[str, tuple[str, ...]]
    seeds: int
    setup: Setup


ALL = ("*",)
AGAIN = {"features": ("solu-mlp", "solu-bare-mlp", "relu-mlp", "gelu-mlp", "single-mlp")}
"""Task → organisms that would be asked what another is asked: these twins of ``topk-mlp`` see its inputs through its
embedding, and the features are known there. They are asked where the user names them."""
SUITES = {
    "quick": Suite(
        "quick",
        "every task on small organisms, in minutes on two cores",
        {
            "features": ("pentagon", "world-trees"),
            "circuits": ("induction", "random-program"),
            "roles": ("induction",),
            "rules": ("planted",),
            "waves": ("modular",),
            "samples": ("backdoor", "password-locked"),
            "roles-null": ("induction",),
            "rules-null": ("planted",),
            "waves-null": ("modular",),
        },
        seeds=3,
        setup=Setup(seconds=60.0, rows=8192),
    ),
    "full": Suite(
        "full",
        "every task on every organism that has the matching truth",
        dict.fromkeys(
            (
                "features",
                "circuits",
                "roles",
                "rules",
                "waves",
                "samples",
                *(f"{base}-{kind}" for base in ("roles", "rules", "waves") for kind in ("null", "untrained")),
            ),
            ALL,
        ),
        seeds=8,
        setup=Setup(seconds=600.0, rows=32768),
    ),
}


def suite_of(name: str) -> Suite:
    """A suite by name.

    Raises:
        UnknownName: there is none.
    """
    if name not in SUITES:
        raise UnknownName("suite", name, SUITES)
    return SUITES[name]
