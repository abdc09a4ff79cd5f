"""Concepts told from text, and probes for them on a network, measured row by row."""

import numpy as np
import pytest
import torch

from decoders import opened, text
from prosect.core.errors import BadInput, UnknownName
from prosect.core.registries import DESCRIPTIONS
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.data.source import TableSource
from prosect.describe.probes.concepts import Concept, by_word, concepts
from prosect.describe.probes.layers import gather, probe_layers
from prosect.describe.probes.linear import LinearProbe
from prosect.describe.probes.reading import ConceptReading
from prosect.describe.vocabulary import Vocabulary
from prosect.store.shelf import Shelf

WORDS = Vocabulary.of(["<s>", "f", "(", "x", ")", "'", "#", "\n", " if"], [0], "python")
NOWHERE = TableSource(lambda part: {}, {}, "")


def batch_of(*rows):
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return Batch({"input_ids": ids}, mask, tuple(Row(i, f"text {i}") for i in range(len(rows))))


def told(name, *rows):
    labels, known = Concept(name, WORDS).labels(batch_of(*rows))
    return ["?" if not k else int(v) for v, k in zip(labels, known, strict=True)]


def test_labels_are_what_a_reader_would_say():
    call = [1, 2, 3, 4, 3]  # f ( x ) x
    assert told("inside brackets", call) == [0, 1, 1, 1, 0]
    assert told("inside quotes", [7, 5, 3, 5, 7]) == [0, 1, 1, 1, 0]
    assert told("inside comment", [3, 6, 3, 7, 3])[:3] == [0, 1, 1]
    assert told("repeated", call) == [0, 0, 0, 0, 1]
    assert told("class keyword", [3, 8]) == [0, 1]
    assert told("next x", call, [3, 3]) == [0, 1, 0, 1, "?", 1, "?"]


def test_concepts_that_are_not_there_are_refused():
    for name in concepts()[:-1]:
        Concept(name, WORDS)
    with pytest.raises(UnknownName, match="inside quotes"):
        Concept("inside quote", WORDS)
    with pytest.raises(UnknownName, match="single token"):
        Concept("next fx", WORDS)


def test_the_control_task_is_as_frequent_as_the_concept():
    labels = by_word(20_000, 0.3, Seed(0))
    assert abs(labels.mean() - 0.3) < 0.02
    assert (labels == by_word(20_000, 0.3, Seed(0))).all()


def test_a_network_s_embedding_tells_words_and_nothing_beyond_them():
    """Which token stands there is linear in its embedding; labels drawn for each token are read there as well."""
    model = opened("llama")
    strings = [chr(97 + i % 26) if i % 3 else str(i % 10) for i in range(model.vocab_size)]
    concept = Concept("class number", Vocabulary.of(strings))
    found = probe_layers(model, [text(1, rows=60)], ["resid_pre.0", "mlp_out.1"], concept, heldout=0.4)
    read = found.alone["resid_pre.0"]
    assert read.accuracy.estimate > 0.9
    assert abs(read.selectivity.estimate) < 0.15
    assert found.words.estimate > 0.9
    assert found.fitted + found.heldout == text(1, rows=60).count


def test_what_is_gathered_is_what_the_model_holds():
    model, batch = opened("gpt2"), text(2, rows=3)
    concept = Concept("repeated", Vocabulary.of([str(i) for i in range(model.vocab_size)]))
    rows = gather(model, [batch], ["resid_post.0"], concept)
    trace = model.run(batch, ["resid_post.0"])
    assert torch.equal(rows.x["resid_post.0"], batch.flat(trace["resid_post.0"]).float())
    assert rows.words.tolist() == batch.tensors["input_ids"][batch.scored].tolist()
    with pytest.raises(BadInput, match="each once"):
        gather(model, [batch], ["resid_post.0", "resid_post.0"], concept)


def test_readings_are_shares_told_right_and_come_back_from_json():
    model, batch, shelf = opened("gpt2"), text(3, rows=4), Shelf()
    strings = [str(i) if i % 2 else "w" for i in range(model.vocab_size)]
    concept = Concept("class number", Vocabulary.of(strings))
    draw = torch.Generator().manual_seed(0)
    probe = LinearProbe(("resid_post.0", "mlp_out.1"), torch.randn(64, generator=draw).double(), 0.2)
    table = torch.rand(model.vocab_size, generator=draw) < 0.5
    wanted = [
        ConceptReading(concept, "probe", probe),
        ConceptReading(concept, "control", probe, table),
        ConceptReading(concept, "words", None, table),
        ConceptReading(concept, "frequent", None, torch.tensor([True])),
    ]
    back = [DESCRIPTIONS.get(w.kind).of(w.executable(shelf), shelf) for w in wanted]
    found = ConceptReading.measure(back, model, batch, NOWHERE)
    trace = model.run(batch, list(probe.sites))
    ids = batch.tensors["input_ids"]
    for row, length in enumerate(batch.lengths.tolist()):
        scored = slice(1, length)  # the first token is special
        x = torch.cat([trace[s][row, scored] for s in probe.sites], dim=-1).double()
        said = (x @ probe.weights + probe.bias > 0).numpy()
        here = ids[row, scored]
        truth = (here % 2 == 1).numpy()
        asked = table[here].numpy()
        by_hand = [said == truth, said == asked, asked == truth, truth]
        assert found[:, row] == pytest.approx([np.mean(v) for v in by_hand])


def test_nonsense_is_refused():
    concept = Concept("repeated", WORDS)
    with pytest.raises(BadInput, match="without a probe"):
        ConceptReading(concept, "probe")
    with pytest.raises(BadInput, match="control"):
        ConceptReading(concept, "control", LinearProbe(("a",), torch.zeros(2), 0.0))
    shelf = Shelf()
    whole = ConceptReading(concept, "words", None, torch.zeros(9, dtype=torch.bool)).executable(shelf)
    broken = whole.model_copy(update={"tensors": {}})
    with pytest.raises(BadInput, match="malformed"):
        ConceptReading.of(broken, shelf)
