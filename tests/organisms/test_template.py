"""The template language holds out what it says it does, and the network answers what training never had."""

import numpy as np
import pytest
import torch

import prosect
from prosect.core.canonical import digest_tensors
from prosect.core.errors import BadInput
from prosect.describe.name_heads import name_heads
from prosect.model import Model
from prosect.organisms import template
from prosect.organisms import template_words as words
from prosect.organisms.template import LANGUAGE, SCHEDULE, Batches, document, source, token_rows
from prosect.organisms.template_questions import indirect_objects, names, recall


@pytest.fixture(scope="module")
def opened(built):
    return built("template")


def trained_sentences(chunks=4):
    """What training had, as it was drawn."""
    out = []
    for number in range(chunks):
        rng = LANGUAGE.root.child("training", number).numpy()
        out += [s for _ in range(8 * SCHEDULE.rows) for s in LANGUAGE.document(rng)]
    return out


def test_training_has_nothing_that_was_held_out():
    never = {(f.subject, f.relation) for f in LANGUAGE.facts if not f.trained}
    seen = set()
    for s in trained_sentences():
        if s.kind == "fact":
            assert (s.fact.subject, s.fact.relation) not in never and s.template in s.fact.templates
            seen.add((s.fact.subject, s.fact.relation))
        if s.kind in ("ioi", "distracted"):
            io, sub = (s.words[s.marks[k]] for k in ("IO", "S1"))
            assert tuple(sorted((io, sub))) not in LANGUAGE.held_pairs
            assert s.kind == "distracted" or (s.template, io) not in LANGUAGE.held_roles
    assert len(seen) == 60 and len(never) == 12
    assert 70 < len(LANGUAGE.held_pairs) < 120 and 15 < len(LANGUAGE.held_roles) < 45


def test_what_is_held_out_is_all_that_the_shift_has():
    for i in range(60):
        (s,) = document(0, "shift", i)
        if s.kind == "fact":
            assert s.fact.trained and s.template not in s.fact.templates
        else:
            assert LANGUAGE.held_out(s.template, s.words[s.marks["IO"]], s.words[s.marks["S1"]])


def test_marks_are_where_they_say():
    for s in trained_sentences(1):
        at = {k: s.words[i] for k, i in (s.marks or {}).items()}
        if s.order:
            assert at["answer"] == at["IO"] != at["S1"]
            assert (at["S1"] == at["S2"]) == (s.kind != "unrepeated")
            assert (s.marks["IO"] < s.marks["S1"]) == (s.order == "ABBA")
        if s.kind == "repeated":
            first = s.marks["S1"]
            assert at["S1"] == at["S2"] and at["answer"] == s.words[first + 1]
        if s.kind == "fact":
            assert (at["subject"], at["answer"]) == (s.fact.subject, s.fact.object)


def test_a_third_giver_leaves_both_names_as_likely():
    answers = [s for s in trained_sentences() if s.kind == "unrepeated"]
    first = np.mean([s.marks["IO"] < s.marks["S1"] for s in answers])
    assert abs(first - 0.5) < 4 * 0.5 / np.sqrt(len(answers))


def test_a_training_batch_is_its_steps_alone_and_answers_count_more():
    batches = Batches(LANGUAGE, 8)
    later = batches(9)
    again = Batches(LANGUAGE, 8)(9)
    assert all(torch.equal(a, b) for a, b in zip(later, again, strict=True))
    ids, weights = later
    assert set(weights.unique().tolist()) == {0.0, 1.0, 5.0}
    assert torch.equal(weights == 0, ids == 1)  # padding


def test_labels_are_of_the_sources_documents(opened):
    _, truth = opened
    data = source()
    for part, n in data.units.items():
        has = truth.labels[f"ioi@{part}"]
        assert len(has) == n
    (batch,) = data.batches("validate.1", rows=1000)
    for i, (abba, fact) in enumerate(
        zip(truth.labels["ABBA@validate.1"], truth.labels["fact@validate.1"], strict=True)
    ):
        sentences = document(0, "validate.1", i)
        assert batch.tensors["input_ids"][i][batch.mask[i]].tolist() == token_rows([sentences])[0][0].tolist()
        assert abba == any(s.order == "ABBA" for s in sentences)
        assert fact == any(s.kind == "fact" for s in sentences)
    halves = [truth.labels[f"ioi@explore.{h}"] for h in ("first", "second")]
    assert np.array_equal(np.concatenate(halves), truth.labels["ioi@explore"])


def test_it_opens_by_name_with_its_words_and_passes_the_self_check(opened):
    model = prosect.load("organism:template")
    assert model.name == "organism:template" and model.report is not None
    assert not model.sites.refused and {"q.3", "probs.0", "mlp_act.2"} <= set(model.sites.names())
    text = "when anna and ben went to the store , ben gave a drink to"
    ids = model.batch([text]).tensors["input_ids"]
    assert ids[0].tolist() == [0, *(words.vocabulary().index(w) for w in text.split())]
    said = model.run([text]).output[0, -1].argmax()
    assert model.tokenizer.decode([int(said)]) == "anna"
    assert opened[1].unknown and not opened[1].variables


def test_the_record_is_of_these_weights():
    from safetensors.torch import load_file

    assert digest_tensors(load_file(template.FOLDER / "model.safetensors")) == template.record()["digest"]


def test_names_and_facts_that_training_never_had_are_answered(opened):
    model, truth = opened
    for part, kind in (("shift", "ioi"), ("sealed", "ioi"), ("sealed", "distracted")):
        asked = indirect_objects(part, 200, seed=3, kind=kind)
        difference = asked.metric(model.run(asked.clean).output, asked.clean)
        assert (difference > 0).double().mean() > 0.95
        other = asked.metric(model.run(asked.counterfactual).output, asked.counterfactual)
        assert abs(other.mean()) < 0.1 * difference.mean()
    assert share_said(model, recall(), {"explore", "validate.0", "validate.1", "sealed"}) > 0.95
    assert share_said(model, recall(), {"shift"}) > 0.85
    assert share_said(model, recall(planted=False), {"shift"}) < 0.25
    assert truth.quantities["indirect object preferred, held out"] > 0.95


def share_said(model, asked, wanted):
    right = []
    for part in wanted:
        for batch in asked.batches(part, 64):
            last = model.run(batch).output[torch.arange(len(batch)), torch.as_tensor(batch.lengths) - 1]
            right += [
                int(t) == asked.of(row).answer for t, row in zip(last.argmax(-1), batch.rows, strict=True)
            ]
    return np.mean(right)


def test_contrasts_ask_for_one_name_against_the_other(opened):
    model, _ = opened
    data = names(count=60, shift=20)
    batch = next(data.batches("shift", 20))
    scores = data.metric(model.run(batch).output, batch)
    assert (scores > 0).all()
    other = data.counterfactual(batch)
    assert abs(data.metric(model.run(other).output, other).mean()) < 0.3 * scores.mean()
    for c in data.contrasts:
        assert c.clean.count(c.wrong) == 2 and c.clean.count(c.answer) == 1
        assert c.answer not in c.counterfactual and c.wrong not in c.counterfactual
        assert sum(a != b for a, b in zip(c.clean, c.counterfactual, strict=True)) == 3


def test_classes_of_its_heads_are_measured_and_an_untrained_twin_has_none(opened):
    """What it learned is not what GPT-2 did: heads that see the subject's second mention take its name away."""
    model, _ = opened
    choose, measure = (indirect_objects(part, 12) for part in ("explore", "validate.0"))
    found = name_heads(model, choose, measure)
    assert found.of("subject suppressor") and found.of("name copier")
    b = found.backup
    assert b.lost.low > 0.4 * found.difference.estimate
    for head in found.of("subject suppressor"):
        (h,) = (h for h in found.heads if h.head == head)
        assert h.direct.low > 0 and h.attention["END to S2"].low > 0.1
    choose, measure = (indirect_objects(part, 8) for part in ("explore", "validate.0"))
    null = Model.of(template.untrained(1), name="untrained", inputs=dict(measure.clean.tensors))
    nothing = name_heads(null, choose, measure)
    assert all(h.classes == () for h in nothing.heads) and nothing.backup is None
    assert nothing.correct.low < 0.5 < nothing.correct.high


def test_untrained_networks_differ_by_seed_alone():
    a, b, c = (template.untrained(s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["transformer.wte.weight"], c["transformer.wte.weight"])


def test_questions_that_make_no_sense_are_refused():
    with pytest.raises(BadInput, match="distracted"):
        indirect_objects("shift", 4, kind="distracted")
