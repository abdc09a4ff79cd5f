"""Methods on the bench that work, fail or cheat."""

import os
import sys
import time
from pathlib import Path

import torch


def axes(given, seed):
    width = given.tensors["activations"].shape[1]
    return {"directions": torch.eye(width)[: given.about["count"]]}


def drawn(given, seed):
    width = given.tensors["activations"].shape[1]
    return {"directions": torch.randn((given.about["count"], width), generator=seed.torch())}


def raises(given, seed):
    raise RuntimeError("no such luck")


def wrong_shape(given, seed):
    return {"directions": torch.ones(3, 2)}


def too_many(given, seed):
    return {"directions": torch.ones(given.about["count"] + 1, given.tensors["activations"].shape[1])}


def not_finite(given, seed):
    return {"directions": torch.full((1, given.tensors["activations"].shape[1]), float("nan"))}


def nothing(given, seed):
    return None


def sleeps(given, seed):
    time.sleep(60)


def dies(given, seed):
    os.kill(os.getpid(), 9)


def imports_a_builder(given, seed):
    from prosect.organisms.superposition import network

    return {"directions": torch.from_numpy(network(0)[1].features[0].directions)}


def loads_an_organism(given, seed):
    import prosect

    prosect.load("organism:pentagon")


def tells(given, seed):
    """Everything within reach, as the reason of a failure."""
    seen = {
        "arguments": sys.argv,
        "environment": sorted(os.environ),
        "folder": sorted(p.name for p in Path.cwd().iterdir()),
        "about": dict(given.about),
    }
    raise RuntimeError(repr(seen))


def outputs(given, seed):
    return {"out": given.module(given.tensors["rows"])}


def builder(given, seed):
    return {"out": type(given.module).forward.__globals__["network"](0)}


def other_file(given, seed):
    import benched_parts

    return {"out": benched_parts.truth_of(0)}


def says_who_it_is_and_sleeps(given, seed):
    Path("writing").write_text(str(os.getpid()))
    Path("writing").rename("who")
    time.sleep(60)
