"""Programs trained into a narrower network: the losses do what they say, and the shipped one carries its program."""

import json

import numpy as np
import pytest
import torch

from prosect.core.canonical import digest_tensors
from prosect.core.errors import Unsupported
from prosect.core.registries import ORGANISMS
from prosect.organisms.compiler import siit, superposed, zoo
from prosect.organisms.compiler.interpret import run
from prosect.organisms.compiler.layout import Layout
from prosect.organisms.compiler.programs import SHIPPED
from prosect.organisms.compiler.siit import Recipe, blank, changed, measure, nodes, train
from prosect.organisms.found import functions


def compiled_as(name, seed=1):
    made = zoo.organism(name, seed)
    return made.module, made.program, made.layout


@pytest.mark.parametrize("name", ["sort", "histogram", "induction"])
def test_a_compiled_network_carries_its_program_perfectly(name):
    found = measure(*compiled_as(name), pairs=100)
    assert (found.behaviour, found.interchange, found.strictness) == (1.0, 1.0, 1.0)
    assert found.inputs == sum(4**n for n in range(1, 7))


def test_a_node_that_carries_something_else_is_found():
    module, program, layout = compiled_as("sort")
    picks = layout.head_of["sorted"]
    moved = {**layout.head_of, "sorted": (picks[0], 1 - picks[1])}
    wrong = Layout(
        layout.layers, layout.heads, moved, layout.neurons_of, layout.neurons, layout.spaces, layout.parts
    )
    found = measure(module, program, wrong, pairs=100)
    assert found.behaviour == 1 and found.interchange < 0.6 and found.strictness < 0.6


def test_the_program_after_an_interchange_is_computed_by_hand():
    _, program, layout = compiled_as("sort")
    (node,) = [n for n in nodes(program, layout) if "sorted" in n.variables]
    base, other = np.array([[3, 2, 1]]), np.array([[0, 2, 2]])
    assert changed(program, node, base, other).tolist() == [[0, 2, 2]]
    (rank,) = [n for n in nodes(program, layout) if "rank" in n.variables]
    assert run(program, other)["rank"].tolist() == [[0, 1, 2]]  # tokens stay where they are
    assert changed(program, rank, base, other).tolist() == [[3, 2, 1]]


def test_training_lowers_all_three_losses():
    program = zoo.program_of("count")
    layout = Layout.of(program, spare=1)
    recipe = Recipe(width=10, head=6, neurons=16, steps=110, rows=64, rate=1e-2)
    before = measure(blank(program, layout, recipe, 0), program, layout, pairs=200)
    after = measure(train(program, layout, recipe), program, layout, pairs=200)
    assert recipe.width < layout.width
    assert after.behaviour > before.behaviour + 0.3
    assert after.interchange > before.interchange + 0.3


def test_a_numerical_output_is_refused():
    program = zoo.program_of("fraction-previous")
    with pytest.raises(Unsupported, match="number"):
        train(program, Layout.of(program), Recipe(width=4, head=4, neurons=4, steps=1))


@pytest.mark.parametrize("name", superposed.PROGRAMS)
def test_the_shipped_network_is_what_its_record_says(name):
    """Behaviour on every input, interchange and strictness on pairs that training met one in many of."""
    module, truth = superposed.network(name)
    program, layout, recipe = superposed.plan(name)
    found, said = measure(module, program, layout), superposed.metrics_of(name)
    assert found.inputs == said.inputs
    for measured in ("behaviour", "interchange", "strictness"):
        assert getattr(found, measured) == pytest.approx(getattr(said, measured), abs=2e-3)
        assert getattr(found, measured) > 0.99
        assert truth.quantities[measured] == getattr(said, measured)
    assert recipe.width <= 0.6 * layout.width  # superposition: fewer dimensions than the variables need
    record = json.loads((superposed.FOLDER / f"{name}.json").read_text())
    assert digest_tensors(module.state_dict()) == record["digest"]
    assert (superposed.FOLDER / f"{name}.safetensors").stat().st_size < 1_000_000
    assert {v.site for v in truth.variables if v.effect["matters"]} == {
        n.site for n in nodes(program, layout) if n.variables
    }


@pytest.mark.parametrize("name", superposed.PROGRAMS)
def test_it_opens_and_does_what_its_program_does(name, built):
    model, truth = built(f"compiled-{name}-superposed", 1)
    assert model.report.passed, model.report.lines()
    assert model.name == f"organism:{truth.organism}" == f"organism:compiled-{name}-superposed"
    batch = next(functions(truth.organism).source(1).batches("validate.0", rows=32))
    base = model.run(batch).output.argmax(-1)
    expected = functions(truth.organism).targets(batch)
    scored = expected >= 0
    assert (base == expected)[scored].float().mean() > 0.99
    assert any(not v.effect["matters"] for v in truth.variables)


@pytest.mark.parametrize("name", superposed.PROGRAMS)
def test_the_narrow_network_has_no_room_for_one_dimension_each(name):
    module, truth = superposed.network(name)
    written = module.model.embed_tokens.weight[1:].detach()
    assert written.shape[1] < truth.quantities["dimensions needed"]
    with torch.no_grad():
        rank = torch.linalg.matrix_rank(
            torch.cat([b.mlp.down_proj.weight for b in module.model.layers], dim=1)
        )
    assert int(rank) == module.config.hidden_size


def test_programs_that_were_not_trained_are_not_there():
    with pytest.raises(AttributeError):
        superposed.build_reverse  # noqa: B018
    assert {n for n in ORGANISMS if n.endswith("-superposed")} == {
        f"compiled-{name}-superposed" for name in superposed.PROGRAMS
    }


def test_every_shipped_program_with_a_categorical_output_could_be_trained():
    could = [n for n in SHIPPED if not zoo.program_of(n).output.numerical]
    assert len(could) >= 11 and siit.STRICTNESS == 0.4
