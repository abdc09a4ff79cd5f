"""Cards: made from what is there, recorded, read again without building, and compared."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from prosect.core.canonical import digest_tensors
from prosect.core.errors import BadInput, NewerSchema, UnknownName, VerificationFailed
from prosect.core.registries import ORGANISMS
from prosect.organisms import recorded, superposition
from prosect.organisms.card import Build, card, here
from prosect.organisms.compiler import zoo


@pytest.fixture(scope="module")
def made():
    return card("compiled-histogram", seed=3)


def test_a_card_says_what_is_there(made):
    module, truth = zoo.network("histogram", seed=3)
    ((where, build),) = made.builds.items()
    assert where == here() and build.digest == digest_tensors(module.state_dict())
    assert build.metrics == truth.quantities and made.nulls == truth.nulls and made.size == truth.size
    assert made.known["variables"] == len(truth.variables)
    assert made.known["features"] == len(truth.features[-1].directions)
    assert made.known["edges under zero"] == len(truth.edges["zero"])
    assert made.about == ORGANISMS.about("compiled-histogram")
    assert made.how.startswith("Compiled from a program") and "\n\n" not in made.how
    assert not made.unknown and made.build() == build
    page = made._repr_html_()
    assert build.digest[:16] in page and "shuffled-labels" in page


def test_what_nobody_knows_is_said_to_be_unknown():
    assert card("modular-grokked").says().startswith("mechanism unknown, 1 labels")


def test_cards_are_read_as_they_were_recorded_and_other_platforms_stay(made, tmp_path):
    path = tmp_path / "cards.json"
    assert recorded.cards(path) == {}
    elsewhere = replace(made, builds={"elsewhere": Build("0" * 64, {"accuracy": 1.0}, 2.0)})
    recorded.record([elsewhere, replace(made, organism="other")], path)
    recorded.record([made], path)
    found = recorded.cards(path)
    assert found["compiled-histogram"] == replace(made, builds={**elsewhere.builds, **made.builds})
    recorded.record([replace(made, seed=4)], path)  # of another seed nothing can be compared
    assert list(recorded.cards(path)["compiled-histogram"].builds) == [here()]
    recorded.forget(["other"], path)
    assert list(recorded.cards(path)) == ["compiled-histogram"]


def test_a_file_that_is_no_record_is_refused(tmp_path):
    path = tmp_path / "cards.json"
    for text in ("{", "[]", '{"schema": 1, "cards": {"a": {}}}'):
        path.write_text(text)
        with pytest.raises(BadInput, match="record_cards"):
            recorded.cards(path)
    path.write_text(json.dumps({"schema": 2, "cards": {}}))
    with pytest.raises(NewerSchema):
        recorded.cards(path)


def test_the_same_hash_is_asked_for_on_the_same_platform_and_the_same_metrics_on_another(made):
    assert made.verify(made) == "same hash"
    ((where, build),) = made.builds.items()
    other = replace(build, digest="f" * 64)
    with pytest.raises(VerificationFailed, match=f"{build.digest[:16]}.*{'f' * 16}"):
        made.verify(replace(made, builds={where: other}))
    assert made.verify(replace(made, builds={"elsewhere": other})) == "metrics match"
    for metrics in ({**build.metrics, "chance": 0.9}, {"accuracy": 1.0}):
        with pytest.raises(VerificationFailed, match=r"chance.*elsewhere"):
            made.verify(replace(made, builds={"elsewhere": replace(other, metrics=metrics)}))
    with pytest.raises(BadInput):
        made.verify(replace(made, seed=4))


def test_another_seed_and_another_weight_are_found(made, monkeypatch):
    again = card("compiled-histogram", seed=3)
    assert again.verify(made) == "same hash"
    monkeypatch.setattr(superposition, "THRESHOLD", 0.31)
    changed = card("superposition")
    monkeypatch.undo()
    with pytest.raises(VerificationFailed):
        changed.verify(card("superposition"))


def test_unknown_organisms_are_named():
    with pytest.raises(UnknownName, match="superposition"):
        card("superpositon")


def test_what_ships_is_read_without_torch():
    code = (
        "import sys; from prosect.organisms.recorded import cards; found = cards(); "
        "[c.rows() for c in found.values()]; assert 'torch' not in sys.modules; print(*found)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(out.split()) <= set(ORGANISMS)


@pytest.mark.parametrize("name", ["superposition", "modular", "compiled-sort", "compiled-sort-superposed"])
def test_what_ships_is_what_is_built(name):
    found = recorded.cards()
    if name not in found:
        pytest.skip(f"{name} was not recorded")
    assert card(name, found[name].seed).verify(found[name]) in ("same hash", "metrics match")
