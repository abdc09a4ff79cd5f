"""What is known of a compiled network, as a `Truth` record: everything follows from the program and the layout."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prosect.core.canonical import Json
from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth, Variable
from prosect.organisms.compiler import soft
from prosect.organisms.compiler.compile import Compiled
from prosect.organisms.compiler.edges import Edges
from prosect.organisms.compiler.layout import OUTPUT
from prosect.organisms.compiler.parts import BOS, Neurons
from prosect.organisms.compiler.types import Attend

MEASURED = 2000  # inputs of the full length, at most, that frequencies are taken over
NULLS = {
    "other-input": "activations and outputs are paired with other inputs of the same length: no variable is where it "
    "is said to be, and no output is right (nulls.other_input)",
    "shuffled-labels": "the values of every variable are permuted across inputs and positions: no direction stands "
    "for the value it is said to (nulls.shuffled_labels of compiler.zoo.values)",
    "untrained": "networks of the same sizes with random weights, over many seeds: only what is learned, beyond "
    "what these show, is false there",
}


def truth(organism: str, made: Compiled, found: Edges) -> Truth:
    """The record.

    Variables: one at ``z.L.hN`` for every head (kind ``compiled-head`` with the operation and what it reads, or
    ``nothing``) and one at ``mlp_act.L`` for every neuron (kind ``compiled-neuron`` with the variable it helps to
    make and when it fires, or ``nothing``). Features: at every ``resid_post.L`` and ``resid_pre.0`` the directions of
    all variables that are there, one for each value (``variable=value``) or one for a number. Edges: see `edges.py`.

    Args:
        organism: its name.
        made: the network.
        found: its edges, named as in its layout.
    """
    layout, program = made.layout, made.program
    mattering = {node for kind in found.matter.values() for edge in kind for node in edge}
    size = (
        f"{layout.layers} layers of {layout.heads} heads and {layout.neurons} neurons, width {layout.width}"
    )
    classes = max(1, len(made.classes))
    quantities = {"length": float(program.length), "vocabulary": float(len(program.vocabulary))}
    if not program.output.numerical:
        quantities |= {"accuracy": 1.0, "chance": 1.0 / classes}
    return Truth(
        organism=organism,
        features=_features(made),
        variables=(*_heads(made, mattering), *_neurons(made)),
        edges=dict(found.matter),
        quantities=quantities,
        nulls=NULLS,
        size=f"{size}, {len(program.vocabulary)} tokens, up to {program.length} of them",
    )


def _heads(made: Compiled, mattering: set[str]) -> list[Variable]:
    steps = {made.layout.head_of[s.out.name]: s for s in made.program.steps if isinstance(s, Attend)}
    out = []
    for at in np.ndindex(made.layout.layers, made.layout.heads):
        site = "z.{}.h{}".format(*at)
        step = steps.get((int(at[0]), int(at[1])))
        if step is None:
            out.append(Variable(site, 0, "nothing", {}, {"matters": False}))
            continue
        says: dict[str, Json] = {
            "makes": step.out.name,
            "form": step.form,
            "query": step.query,
            "key": step.key,
            "value": step.value,
        }
        out.append(Variable(site, 0, "compiled-head", says, {"matters": site in mattering}))
    return out


def _neurons(made: Compiled) -> list[Variable]:
    says: dict[tuple[int, int], dict[str, Json]] = {}
    for name, (layer, places) in made.layout.neurons_of.items():
        part = made.layout.parts[name]
        assert isinstance(part, Neurons)
        says |= {
            (layer, int(at)): {"makes": name, "fires": when}
            for at, when in zip(places, part.says, strict=True)
        }
    return [
        Variable(f"mlp_act.{layer}", j, "compiled-neuron", says[layer, j])
        if (layer, j) in says
        else Variable(f"mlp_act.{layer}", j, "nothing")
        for layer in range(made.layout.layers)
        for j in range(made.layout.neurons)
    ]


def _features(made: Compiled) -> tuple[FeatureDirections, ...]:
    """At each residual site the directions that are there so far."""
    program, layout = made.program, made.layout
    rng = Seed(0).child("compiler", "frequencies").numpy()
    tokens = rng.integers(len(program.vocabulary), size=(MEASURED, program.length))
    values = soft.run(program, layout.parts, tokens)
    written = {name: at[0] for name, at in (*layout.head_of.items(), *layout.neurons_of.items())}
    order = sorted(
        (n for n in values if n != OUTPUT), key=lambda n: (written.get(n, -1), layout.spaces[n].start)
    )
    names: list[str] = []
    frequency: list[float] = []
    ends: dict[int, int] = {}
    for name in order:
        names += _labels(made, name)
        active = np.abs(values[name]) > 1e-3  # astray attention gives less
        frequency += active.mean(axis=(0, 1)).tolist()
        ends[written.get(name, -1)] = len(names)
    directions = np.concatenate([made.directions(name) for name in order])
    out = []
    end = ends[-1]
    for layer in range(-1, layout.layers):
        end = ends.get(layer, end)
        site = "resid_pre.0" if layer < 0 else f"resid_post.{layer}"
        out.append(FeatureDirections(site, directions[:end], np.array(frequency[:end]), tuple(names[:end])))
    return tuple(out)


def _labels(made: Compiled, name: str) -> list[str]:
    if name == BOS:
        return [BOS]
    variable = made.program.variables[name]
    return [name] if variable.numerical else [f"{name}={value}" for value in variable.values]


def subspaces(made: Compiled) -> Mapping[str, np.ndarray]:
    """Variable → its directions in the residual stream, one for each value, or one for a number."""
    return {name: made.directions(name) for name in made.layout.spaces}
