"""Cones: what must be computed, checked against the graph of what depends on what, walked node by node."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.core.errors import BadInput
from prosect.model import cost
from prosect.model.cone import Change, cone
from prosect.model.inputs import of_ids
from prosect.model.packed import Part
from prosect.model.reads import Reads

LAYERS, LENGTH = 3, 6
CHANGES = st.lists(
    st.tuples(
        st.integers(0, LAYERS - 1),
        st.sampled_from(["stream", "mix", "point"]),
        st.sets(st.integers(0, LENGTH - 1), min_size=1, max_size=3),
    ),
    max_size=3,
)


def depends(changes, reads, causal):
    """Which nodes a change reaches and something read depends on, by search in the graph.

    Nodes are (layer, what, column): the stream into a block, what is mixed there, and what comes out of it.
    """
    edges = {}
    for layer in range(LAYERS):
        for c in range(LENGTH):
            edges[("stream", layer, c)] = [("mix", layer, c), ("point", layer, c)]
            seers = range(c, LENGTH) if causal else range(LENGTH)
            edges[("mix", layer, c)] = [("point", layer, other) for other in seers]
            edges[("point", layer, c)] = [("stream", layer + 1, c)]
    below = {node: set() for node in edges} | {("stream", LAYERS, c): set() for c in range(LENGTH)}
    for node, others in edges.items():
        for other in others:
            below.setdefault(other, set()).add(node)

    def walk(starts, graph):
        seen, pending = set(starts), list(starts)
        while pending:
            for other in graph.get(pending.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    pending.append(other)
        return seen

    forward = walk([(c.at, c.layer, p) for c in changes for p in c.columns], edges)
    return forward & walk([("stream", LAYERS, c) for c in reads], below)


@settings(max_examples=300, deadline=None)
@given(drawn=CHANGES, reads=st.sets(st.integers(0, LENGTH - 1), min_size=1), causal=st.booleans())
def test_a_cone_computes_what_depends_on_a_change_and_is_read(drawn, reads, causal):
    changes = [Change(layer, at, tuple(sorted(columns))) for layer, at, columns in drawn]
    read = np.array(sorted(reads))
    found = cone(changes, LAYERS, LENGTH, read, causal)
    needed = depends(changes, reads, causal)
    assert set(found.tail.tolist()) == {c for what, layer, c in needed if (what, layer) == ("stream", LAYERS)}
    for layer in range(LAYERS):
        through = {c for what, at, c in needed if (what, at) == ("point", layer)}
        mixed = {c for what, at, c in needed if (what, at) == ("mix", layer)}
        queries, keys = set(found.queries[layer].tolist()), set(found.keys[layer].tolist())
        assert through <= queries
        assert mixed <= queries | keys
        assert not queries & keys
        if layer == LAYERS - 1:
            assert queries == through  # nothing more in the last block, where it would cost most
            assert keys == mixed - through
        if causal and (queries or keys):
            first = min(c for change in changes for c in change.columns)
            assert min(queries | keys) >= first
            assert max(queries | keys) <= max(reads)


def test_what_is_not_read_costs_nothing():
    nothing = cone([Change(2, "point", (0, 1))], LAYERS, LENGTH, np.array([4]))
    assert nothing.tokens.sum() == 0
    assert nothing.enter == LAYERS
    assert cone([], LAYERS, LENGTH).tokens.sum() == 0


def test_after_mixing_a_change_stays_where_it_is_within_its_block():
    found = cone([Change(0, "point", (2,))], LAYERS, LENGTH)
    assert [q.tolist() for q in found.queries] == [[2], [2, 3, 4, 5], [2, 3, 4, 5]]
    assert found.first == 2
    assert found.enter == 0


SIZES = cost.Cost(
    layers=LAYERS,
    width=8,
    length=LENGTH,
    heads=8,
    keys=16,
    widest=32,
    outputs=50,
    patterns=2,
    block=768.0,
    head=400.0,
    size=4,
)


def parts(count):
    made = []
    for i in range(count):
        changes = [Change(i % LAYERS, "stream", (i % LENGTH,))]
        cones = tuple(cone(changes, LAYERS, LENGTH) for _ in range(3))
        made.append(Part(i, (), (0, 1, 2), cones))
    return made


@pytest.mark.parametrize("count", [1, 60])
@pytest.mark.parametrize("room", [1, 20_000, 100_000])
@pytest.mark.parametrize("tokens", [1, 40, 1000])
def test_passes_take_no_more_than_there_is_room_for(count, room, tokens):
    passes = cost.packed(parts(count), SIZES, room, None, tokens)
    for some in passes:
        alone = len(some) == 1 and len(some[0].rows) == 1
        assert alone or sum(SIZES.part(p, None) for p in some) <= room
        most = sum(p.cones[i].tokens for p in some for i in p.lanes).max()
        assert most <= tokens or len(some) == 1
    cells = sorted((p.number, row) for some in passes for p in some for row in p.rows)
    assert cells == [(i, row) for i in range(count) for row in range(3)]


def test_a_whole_row_is_one_forward():
    everything = cone([Change(0, "stream", (0,))], LAYERS, LENGTH)
    assert SIZES.forwards([Part(0, (), (0,), (everything,))]) == pytest.approx(1.0)


def test_reads_count_real_positions():
    batch = of_ids([[1, 2, 3], [4, 5, 6, 7, 8]])
    assert Reads.of([0, -1], batch).columns.tolist() == [[0, 2], [0, 4]]
    assert Reads.of([[1], [-2]], batch).columns.tolist() == [[1], [3]]
    output = torch.arange(10.0).reshape(2, 5, 1)
    assert Reads.of(-1, batch).taken(output, [0, 1])[:, 0, 0].tolist() == [2.0, 9.0]
    assert Reads.of(-1, batch).taken(output[1:], [1])[:, 0, 0].tolist() == [9.0]
    assert Reads.of(None, batch).taken(output, [0, 1]) is output
    with pytest.raises(BadInput, match="row 0, which has 3"):
        Reads.of(-4, batch)
