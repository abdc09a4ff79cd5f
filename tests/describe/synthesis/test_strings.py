"""Strings as descriptions, on planted neurons, whose activation is the strength of a token and nothing else."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, TooLittleData, UnknownName
from prosect.data.source import TableSource
from prosect.describe.synthesis.contexts import on_text, over
from prosect.describe.synthesis.strings import RandomString, StringActivation, inserted
from prosect.describe.synthesis.unit import Unit, best_example
from prosect.organisms.planted import build, source
from prosect.store.shelf import Shelf

NOWHERE = TableSource(lambda part: {}, {}, "")
"""What is measured looks at the batch alone."""


@pytest.fixture(scope="module")
def planted():
    model, truth = build(0)
    return model, truth, next(iter(source(0, explore=12).batches("explore", 12)))


def token_neuron(truth):
    """A neuron that fires on some tokens, with its strength on every token of the vocabulary."""
    variable = next(v for v in truth.variables if v.parameters.get("sort") == "token")
    strength = np.zeros(97)
    strength[list(variable.parameters["current"])] = variable.parameters["strengths"]
    return variable, strength


def test_a_token_neuron_with_a_string_is_its_planted_strength(planted):
    model, truth, batch = planted
    variable, strength = token_neuron(truth)
    token = int(strength.argmax())
    spread = 0.5
    wanted = [
        StringActivation(variable.site, variable.index, "alone", spread, (5, token), (0,)),
        StringActivation(variable.site, variable.index, "inserted", spread, (5, token)),
        StringActivation(variable.site, variable.index, "text", spread),
    ]
    alone, rise, most = StringActivation.measure(wanted, model, batch, NOWHERE)
    ids = [row[:n] for row, n in zip(batch.tensors["input_ids"].tolist(), batch.lengths, strict=True)]
    assert alone == pytest.approx(np.full(len(batch), strength[token] / spread), rel=1e-4)
    assert rise == pytest.approx([(strength[token] - strength[row[-1]]) / spread for row in ids], rel=1e-4)
    assert most == pytest.approx([strength[row[1:]].max() / spread for row in ids], rel=1e-4, abs=1e-5)
    assert len(set(most.round(4).tolist())) > 1  # else the row would not matter


def test_a_random_string_is_the_planted_strength_of_what_was_drawn(planted):
    model, truth, batch = planted
    variable, strength = token_neuron(truth)
    barred = tuple(t for t in range(97) if not strength[t] and t % 9)  # so that some of what is drawn counts
    random = RandomString(3, 97, barred)
    drawn = random.draw(batch)
    wanted = [
        StringActivation(variable.site, variable.index, "alone", 1.0, (), (0,), random),
        StringActivation(variable.site, variable.index, "inserted", 1.0, random=random),
    ]
    alone, rise = StringActivation.measure(wanted, model, batch, NOWHERE)
    last = [row[n - 1] for row, n in zip(batch.tensors["input_ids"].tolist(), batch.lengths, strict=True)]
    assert strength[drawn[:, -1]].any()
    assert alone == pytest.approx(strength[drawn[:, -1]], rel=1e-4, abs=1e-5)
    assert rise == pytest.approx(strength[drawn[:, -1]] - strength[last], rel=1e-4, abs=1e-5)


def test_random_strings_depend_on_the_row_alone(planted):
    *_, batch = planted
    random = RandomString(4, 97, (0, 3))
    whole = random.draw(batch)
    assert np.array_equal(random.draw(batch.select([7, 2])), whole[[7, 2]])
    assert len({tuple(row) for row in whole.tolist()}) == len(batch)
    assert not np.isin(whole, [0, 3]).any()


def test_a_string_takes_the_place_of_a_rows_last_tokens(planted):
    *_, batch = planted
    strings = np.arange(3 * len(batch)).reshape(-1, 3) % 97
    changed, fits = inserted(batch, strings)
    assert fits.all()
    for before, after, n, string in zip(
        batch.tensors["input_ids"], changed.tensors["input_ids"], batch.lengths, strings, strict=True
    ):
        assert after[n - 3 : n].tolist() == string.tolist()
        same = torch.ones(len(before), dtype=torch.bool)
        same[n - 3 : n] = False
        assert torch.equal(before[same], after[same])


def test_rows_too_short_for_a_string_have_no_number(planted):
    model, truth, batch = planted
    variable, _ = token_neuron(truth)
    length = int(
        np.sort(batch.lengths)[5]
    )  # a row of as many tokens, its special one included, has one too few
    long = StringActivation(variable.site, variable.index, "inserted", 1.0, (5,) * length)
    (found,) = StringActivation.measure([long], model, batch, NOWHERE)
    assert np.array_equal(np.isfinite(found), batch.lengths - 1 > length)
    assert 0 < np.isfinite(found).sum() < len(batch)


def test_text_is_read_once_for_all_units_and_says_what_each_would_alone(planted):
    model, truth, batch = planted
    units = [Unit("mlp_act.0", v.index) for v in truth.variables[:6]]
    halves = [batch.select([0, 1, 2, 3]), batch.select([4, 5, 6, 7, 8, 9, 10, 11])]
    for unit, found in zip(units, on_text(model, units, halves, 1), strict=True):
        flat = unit.everywhere(model, model.run(batch, ["mlp_act.0"])).double()[batch.scored]
        assert found.spread == pytest.approx(float(flat.std(correction=0)), rel=1e-6, abs=1e-9)
        one = best_example(model, unit, halves)
        assert (found.best, found.document) == (pytest.approx(one.activation), one.document)
        assert found.tokens == one.tokens[1:][-24:] and found.values[-1] == pytest.approx(found.best)
        assert found.positions == batch.count
    enough = on_text(model, units, [batch], 60)
    assert all(len(f.tokens) == 24 for f in enough)
    with pytest.raises(TooLittleData, match="500 tokens"):
        on_text(model, units, [batch], 500)


def test_over_gives_every_token_its_strength(planted):
    model, truth, _ = planted
    variable, strength = token_neuron(truth)
    strings = [[1, int(strength.argmax()), 7], [int(strength.argmax())]]
    for string, values in zip(
        strings, over(model, Unit(variable.site, variable.index), strings, (0,)), strict=True
    ):
        assert values == pytest.approx(strength[string], rel=1e-4, abs=1e-5)


def test_it_comes_back_from_json_and_nonsense_is_refused(planted):
    model, _, batch = planted
    shelf = Shelf()
    for one in (
        StringActivation("mlp_act.0", 3, "alone", 0.2, (1, 2), (0,)),
        StringActivation("mlp_act.0", 3, "inserted", 0.2, random=RandomString(2, 9, (0,))),
        StringActivation("mlp_act.0", 3, "text", 0.2),
    ):
        assert StringActivation.of(one.executable(), shelf) == one
    with pytest.raises(BadInput, match="spread"):
        StringActivation("mlp_act.0", 3, "text", 0.0)
    with pytest.raises(BadInput, match="strings"):
        StringActivation("mlp_act.0", 3, "alone", 1.0)
    with pytest.raises(BadInput, match="strings"):
        StringActivation("mlp_act.0", 3, "text", 1.0, (1,))
    with pytest.raises(BadInput, match="draw"):
        RandomString(2, 2, (0, 1))
    with pytest.raises(BadInput, match="unit 48"):
        StringActivation.measure([StringActivation("mlp_act.0", 48, "text", 1.0)], model, batch, NOWHERE)
    with pytest.raises(UnknownName, match=r"mlp_act\.7"):
        StringActivation.measure([StringActivation("mlp_act.7", 0, "text", 1.0)], model, batch, NOWHERE)
