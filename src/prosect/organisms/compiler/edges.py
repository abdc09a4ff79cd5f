"""Which edges of a compiled network matter, from the interpreter alone.

An edge goes from a node that writes variables to a node that reads some of them: ``resid_pre.0`` (tokens, indices
and the mark of the first token), ``z.L.hN`` and ``mlp_out_post.L`` write; ``q.L.hN``, ``k.L.hN``, ``v.L.hN``, ``mlp_in.L``
and ``output`` read. It matters

- under ``resample`` if the program's output changes for some pair of inputs of one length when that reader, alone,
  sees those variables as they are in the other input. Random pairs of the full length are
  tried, then all pairs of the lengths that have at most `MOST_ROWS` inputs;
- under ``zero`` and ``mean-positional`` if the output changes when the reader sees zero, or the mean over inputs of that
  length at the same place. No program has such values, so the interpreter over vectors (`soft.py`) says what follows.

An edge that carries the same whatever the input is a *constant* edge; it can matter under ``zero`` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prosect.core.seeds import Seed
from prosect.organisms.compiler import interpret, soft
from prosect.organisms.compiler.interpret import inputs_of
from prosect.organisms.compiler.layout import OUTPUT, START, Layout
from prosect.organisms.compiler.parts import BOS
from prosect.organisms.compiler.types import Checked, Codes, Role, Step

Edge = tuple[str, str]
"""(writer, reader)."""
KINDS = ("zero", "mean-positional", "resample")
MOST_ROWS = 100
SAMPLED = 4096  # inputs of the full length, all of them if there are no more
DRAWS = 4  # other inputs for each of them
VECTORS = 384  # of those, run as vectors
FIRST = 16  # of those, tried before all: an edge that matters does so on most inputs
CHANGED = 1e-3  # of a vector; attention that goes astray changes less than a millionth


@dataclass(frozen=True)
class Edges:
    """What matters.

    Attributes:
        every: each edge, with the variables that it carries.
        matter: ablation → the edges that matter under it, in the order of ``every``.
        constant: edges that carry the same whatever the input.
    """

    every: Mapping[Edge, tuple[str, ...]]
    matter: Mapping[str, tuple[Edge, ...]]
    constant: frozenset[Edge]


def edges(program: Checked, layout: Layout) -> Edges:
    """Every edge of a program laid out like this, and when it matters."""
    carried = _carried(program, layout)
    sets = inputs(program)
    clean = [interpret.run(program, tokens) for tokens in sets]
    constant = frozenset(e for e, names in carried.items() if all(_same(run, names) for run in clean))
    few = [tokens[:VECTORS] for tokens in sets]
    exact = [soft.run(program, layout.parts, tokens) for tokens in few]
    matter: dict[str, list[Edge]] = {kind: [] for kind in KINDS}
    for edge in carried:
        if edge not in constant and any(
            _resampled(program, layout, edge, carried[edge], tokens, run)
            for tokens, run in zip(sets, clean, strict=True)
        ):
            matter["resample"].append(edge)
        # the mean of what is always the same is just that
        for kind in ("zero",) if edge in constant else ("zero", "mean-positional"):
            if any(
                change(program, layout, edge, kind, tokens, run, rows=rows) > CHANGED
                for rows in (slice(FIRST), slice(None))
                for tokens, run in zip(few, exact, strict=True)
            ):
                matter[kind].append(edge)
    return Edges(carried, {kind: tuple(found) for kind, found in matter.items()}, constant)


def _carried(program: Checked, layout: Layout) -> dict[Edge, tuple[str, ...]]:
    """Every edge that carries anything, and what."""
    found: dict[Edge, list[str]] = {}
    reads: list[tuple[Step | None, Role, str]] = [
        (step, role, name) for step in program.steps for role, name in layout.reads(step)
    ]
    for step, role, name in (*reads, (None, "output", program.output.name)):
        names = found.setdefault((layout.writer(name), layout.reader(step, role)), [])
        if name not in names:
            names.append(name)
    return {edge: tuple(names) for edge, names in found.items()}


def inputs(program: Checked) -> list[Codes]:
    """The inputs that edges are tried on: some of the full length, in random order, then all of shorter lengths."""
    tokens, rng = len(program.vocabulary), Seed(0).child("compiler", "edges", program.name).numpy()
    if tokens**program.length <= SAMPLED:
        longest = rng.permutation(inputs_of(tokens, program.length))
    else:
        longest = rng.integers(tokens, size=(SAMPLED, program.length))
    lengths = [n for n in range(1, program.length) if tokens**n <= MOST_ROWS]
    return [longest, *(inputs_of(tokens, n) for n in lengths)]


def behind(program: Checked, layout: Layout, reader: str) -> frozenset[str]:
    """The variables that can change when a reader sees something else."""
    found: set[str] = set()
    for step in program.steps:
        own = any(layout.reader(step, role) == reader for role, _ in layout.reads(step))
        if own or any(name in found for _, name in layout.reads(step)):
            found.add(step.out.name)
    return frozenset(found)


def _same(run: Mapping[str, Codes], names: tuple[str, ...]) -> bool:
    """Whether these variables are the same in every row."""
    return all(name == BOS or (run[name] == run[name][:1]).all() for name in names)


def _resampled(
    program: Checked,
    layout: Layout,
    edge: Edge,
    names: tuple[str, ...],
    tokens: Codes,
    clean: Mapping[str, Codes],
) -> bool:
    """Whether the output changes for some pair of these inputs."""
    carried = [clean[name] for name in names if name != BOS]
    rows = len(tokens)
    if rows <= MOST_ROWS:
        _, first = np.unique(np.concatenate(carried, axis=1), axis=0, return_index=True)
        donors = [np.full(rows, i) for i in np.sort(first)]
    else:
        donors = [np.roll(np.arange(rows), 1 + i) for i in range(DRAWS)]
    again = behind(program, layout, edge[1])
    for donor in donors:

        def read(step: Step | None, role: Role, name: str, own: Codes, donor: np.ndarray = donor) -> Codes:
            if (layout.writer(name), layout.reader(step, role)) == edge and name != BOS:
                return np.asarray(clean[name][donor])
            return own

        if (interpret.run(program, tokens, read, clean, again)[OUTPUT] != clean[OUTPUT]).any():
            return True
    return False


def change(
    program: Checked,
    layout: Layout,
    edge: Edge,
    kind: str,
    tokens: Codes,
    clean: Mapping[str, soft.Vectors],
    donor: np.ndarray | None = None,
    rows: slice = slice(None),
) -> float:
    """The largest change of the output's vector over these inputs under an ablation of one edge.

    Args:
        program, layout: what is run.
        edge: (writer, reader).
        kind: one of `KINDS`.
        tokens: the inputs, of one length.
        clean: `soft.run` of them.
        donor: for ``resample``, the row that each row is given values of.
        rows: which of the inputs are run; means are over all of them.
    """

    def read(step: Step | None, role: Role, name: str, own: soft.Vectors) -> soft.Vectors:
        if (layout.writer(name), layout.reader(step, role)) != edge:
            return own
        if kind == "resample":
            return np.asarray(clean[name][donor][rows])
        if kind == "zero":
            return np.zeros_like(own)
        return np.broadcast_to(clean[name].mean(axis=0, keepdims=True), own.shape)

    again = behind(program, layout, edge[1])
    before = {name: x[rows] for name, x in clean.items()}
    found = soft.run(program, layout.parts, tokens[rows], read, before, again)[OUTPUT]
    return float(np.abs(found - before[OUTPUT])[:, 1:].max())


def renamed(found: Edges, before: Layout, after: Layout) -> Edges:
    """The same edges of the same program in a layout whose heads are in another order."""
    heads = {
        f"{layer}.h{head}": "{}.h{}".format(*after.head_of[name])
        for name, (layer, head) in before.head_of.items()
    }

    def node(name: str) -> str:
        kind, _, at = name.partition(".")
        return f"{kind}.{heads[at]}" if at in heads and name != START else name

    def moved(edge: Edge) -> Edge:
        return node(edge[0]), node(edge[1])

    return Edges(
        {moved(e): names for e, names in found.every.items()},
        {kind: tuple(map(moved, matter)) for kind, matter in found.matter.items()},
        frozenset(map(moved, found.constant)),
    )
