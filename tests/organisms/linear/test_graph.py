"""The linear network's truth against matrix inversion, paths walked one by one, and interventions."""

import numpy as np
import pytest
import torch

from prosect.model import Model
from prosect.model.edits import patch
from prosect.organisms.linear import graph


def walked(a, start, end):
    """The sum over all paths of the product of their weights."""
    if start == end:
        return 1.0
    return sum(a[i, start] * walked(a, i, end) for i in range(start + 1, end + 1) if a[i, start])


@pytest.fixture(scope="module", params=[0, 3])
def opened(request):
    module, truth = graph.network(request.param)
    batch = next(graph.source(request.param).batches("explore", rows=64))
    inputs = batch.tensors["inputs"].double()
    return request.param, Model.of(module.double(), inputs={"inputs": inputs[:4]}), truth, inputs


@pytest.mark.parametrize("seed", range(5))
def test_total_effects_are_the_inverse_and_the_sum_over_paths(seed):
    a, _, _ = graph.weights(seed)
    total = graph.total(a)
    assert np.abs(total - np.linalg.inv(np.eye(len(a)) - a)).max() < 1e-9
    for j in range(len(a)):
        assert total[-1, j] == walked(a, j, len(a) - 1)
    size = np.abs(a)
    shares = size / np.maximum(size.sum(axis=1, keepdims=True), 1e-300)
    assert np.allclose(graph.influence(a), [*(walked(shares, j, len(a) - 1) for j in range(len(a) - 1)), 0])


def test_one_more_at_a_node_or_along_an_edge_does_what_the_truth_says(opened):
    seed, model, truth, inputs = opened
    a, _, _ = graph.weights(seed)
    q, last = truth.quantities, len(a) - 1
    sites = [f"nodes.{j}" for j in range(len(a))]
    clean = model.run({"inputs": inputs}, capture=sites)
    for j in range(last):
        more = model.run({"inputs": inputs}, edits=[patch(sites[j], clean[sites[j]] + 1)]).output
        assert torch.allclose(more - clean.output, torch.full_like(more, q[f"total {j}"]), atol=1e-12)
        assert q[f"total {j}"] == pytest.approx(q[f"direct {j}"] + q[f"indirect {j}"])
        for i in np.flatnonzero(a[:, j]):
            more = model.run(
                {"inputs": inputs}, edits=[along(model, inputs, i, j, clean[sites[j]] + 1)]
            ).output
            assert torch.allclose(more - clean.output, torch.full_like(more, q[f"edge {j} {i}"]), atol=1e-12)
            if i == last:
                assert q[f"edge {j} {i}"] == q[f"direct {j}"]


def along(model, inputs, reader, writer, value):
    """Have one reader see ``value`` of one writer."""
    direction = torch.eye(reader, dtype=torch.float64)[writer]
    return patch(f"nodes.{reader}:in", value * direction, direction=direction)


def test_the_edges_that_matter_are_those_whose_cut_moves_the_output(opened):
    seed, model, truth, inputs = opened
    a, _, _ = graph.weights(seed)
    clean = model.run({"inputs": inputs}, capture=[f"nodes.{j}" for j in range(len(a))])
    for ablation in ("zero", "mean", "resample"):
        found = set()
        for i, j in np.argwhere(a):
            said = clean[f"nodes.{j}"]
            value = {"zero": 0 * said, "mean": said.mean() + 0 * said, "resample": said.roll(1, 0)}[ablation]
            moved = model.run({"inputs": inputs}, edits=[along(model, inputs, int(i), int(j), value)]).output
            if (moved - clean.output).abs().max() > 1e-9:
                found.add((f"nodes.{j}", f"nodes.{i}:in"))
        assert set(truth.edges[ablation]) == found


def test_planted_nodes_are_what_they_are_called(opened):
    seed, _, truth, _ = opened
    _, _, planted = graph.weights(seed)
    q = truth.quantities
    assert q[f"total {planted['cancelled']}"] == 0 != q[f"direct {planted['cancelled']}"]
    assert q[f"variance {planted['cancelled']}"] > 0 == q[f"variance {planted['constant']}"]
    assert q[f"mean {planted['constant']}"] == 1
    readers = {edge for found in truth.edges.values() for edge in found}
    assert not any(reader == f"nodes.{planted['cancelled']}:in" for _, reader in readers)
    assert not any(writer == f"nodes.{planted['unread']}" for writer, _ in readers)
    only = set(truth.edges["zero"]) - set(truth.edges["mean"])
    assert only and {writer for writer, _ in only} == {f"nodes.{planted['constant']}"}


def test_moments_are_those_of_the_inputs():
    model, truth = graph.build(1)
    batch = next(graph.source(1).batches("explore", rows=4096))
    sites = [f"nodes.{j}" for j in range(13)]
    seen = model.run(batch, capture=sites)
    for j, site in enumerate(sites):
        x = seen[site][:, 0].double()
        mean, variance = truth.quantities[f"mean {j}"], truth.quantities[f"variance {j}"]
        assert float(x.mean()) == pytest.approx(mean, abs=5 * (variance / 4096) ** 0.5 + 1e-6)
        assert float(x.var()) == pytest.approx(variance, rel=0.15, abs=1e-6)
