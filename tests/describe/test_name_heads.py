"""Head classes on a circuit wired by hand, where every figure is known, and on networks that have none."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.data.batch import Batch, Row
from prosect.data.indirect_objects import IndirectObjects
from prosect.describe.name_heads import name_heads
from prosect.model import Model
from prosect.organisms.wiring import Wiring

VOCAB, PLACES, HEAD = 24, 7, 26
BOS, END, NAMES, PLAIN = 0, 1, range(2, 18), range(18, 24)
# a row: BOS, indirect object, subject, word, word, subject again, END
IO, S1, S2, LAST = 1, 2, 5, 6
SHARP, MOVES, BACKS_UP = 60.0, 10.0, 8.0


def sentences(seed, rows=24):
    rng = np.random.default_rng(seed)
    clean, other = [], []
    for _ in range(rows):
        a, b, c, d, e = (int(x) for x in rng.permutation(NAMES)[:5])
        x, y = (int(w) for w in rng.choice(PLAIN, 2))
        clean.append([BOS, a, b, x, y, b, END])
        other.append([BOS, c, d, x, y, e, END])
    ids = tuple(Row(i, f"sentence {seed}/{i}") for i in range(rows))
    mask = torch.ones(rows, 7, dtype=torch.bool)

    def batch(tokens):
        tensors = {"input_ids": torch.tensor(tokens), "attention_mask": mask.long()}
        return Batch(tensors, mask, ids)

    tokens, at = np.array(clean), np.ones(rows, dtype=int)
    return IndirectObjects(
        batch(clean), batch(other), tokens[:, IO], tokens[:, S1], at * IO, at * S1, at * S2
    )


def wired(backup=True):
    """Three layers of four heads. Layer 0: duplicate token, induction, previous token and S-inhibition look back 3,
    2, 1 and 1 places. Layer 1: a name mover whose query the S-inhibition head turns away from the subject. Layer
    2: a head that says the name as well, but only if no one has."""
    token, position = slice(0, VOCAB), slice(VOCAB, VOCAB + PLACES)
    inhibited = slice(position.stop, position.stop + VOCAB)
    logits = slice(inhibited.stop, inhibited.stop + VOCAB)
    w = Wiring.blank(VOCAB, PLACES, logits.stop, layers=3, heads=4, head=HEAD)
    w.tokens[:, token], w.positions[:, position] = np.eye(VOCAB), np.eye(PLACES)
    w.unembed[logits] = np.eye(VOCAB)
    w.tokens[END, logits] = 0.01 * np.arange(VOCAB)  # so that no logit is nothing but rounding
    words = np.eye(VOCAB, HEAD)
    named = np.zeros(VOCAB)
    named[list(NAMES)] = 1.0
    for head, back in enumerate((3, 2, 1, 1)):
        w.query[0, head, position, :PLACES] = SHARP * np.eye(PLACES, k=-back)
        w.key[0, head, position, :PLACES] = np.eye(PLACES)
    w.value[0, 3, token], w.out[0, 3, :, inhibited] = np.diag(named) @ words, words.T
    for layer in (1, 2) if backup else (1,):
        w.query[layer, 0, END, :VOCAB] = 30.0 * named
        w.query[layer, 0, inhibited] = -30.0 * words
        w.key[layer, 0, token] = words
        w.value[layer, 0, token] = np.diag(named) @ words
        w.out[layer, 0, :, logits] = (MOVES if layer == 1 else BACKS_UP) * words.T
    if backup:
        w.query[2, 0, END, BOS] = 20.0  # attends to the start once the name has been said
        w.query[2, 0, logits] = -3.0 * words
        w.query[2, 0, VOCAB : VOCAB + LAST, BOS] = SHARP  # and from every other place
    module = w.turned(np.random.default_rng(0)).decoder()
    example = {"input_ids": sentences(9, 2).clean.tensors["input_ids"]}
    return Model.of(module, name="wired", inputs=example)


@pytest.fixture(scope="module")
def found():
    return name_heads(wired(), sentences(0), sentences(1))


def test_every_head_is_in_the_classes_that_it_was_wired_for(found):
    expected = {
        "z.0.h0": ("duplicate token",),
        "z.0.h1": ("induction",),
        "z.0.h2": ("previous token",),
        "z.0.h3": ("S-inhibition", "previous token"),
        "z.1.h0": ("name mover", "name copier"),
    }
    assert {h.head: h.classes for h in found.heads} == {h.head: expected.get(h.head, ()) for h in found.heads}
    assert found.correct.estimate == 1.0 and 0.8 < found.correct.low < 1.0  # not certain, though none failed
    assert found.of("name mover") == ("z.1.h0",)


def test_figures_are_those_of_the_wiring(found):
    heads = {h.head: h for h in found.heads}
    assert found.difference.estimate == pytest.approx(MOVES, abs=0.2)
    assert heads["z.1.h0"].direct.estimate == pytest.approx(MOVES, abs=1e-3)
    assert heads["z.1.h0"].raises.estimate == pytest.approx(MOVES * (1 - 1 / VOCAB), abs=1e-3)
    assert heads["z.1.h0"].attention["END to IO"].estimate == pytest.approx(1 - 1 / 7, abs=1e-4)
    assert heads["z.0.h0"].attention["S2 to S1"].estimate == pytest.approx(1 - 1 / 6, abs=1e-4)
    assert heads["z.0.h0"].through.estimate == pytest.approx(0.0, abs=1e-3)


def test_what_takes_over_is_found_once_the_mover_is_gone(found):
    """The last head says the name if nobody has: alone it does nothing, afterwards it does all that is done."""
    b = found.backup
    assert b.gone == ("z.1.h0",)
    assert b.found == ("z.2.h0", "z.0.h3")  # the last head too is told by it where not to look
    assert b.direct.estimate == pytest.approx(MOVES, abs=1e-3)
    assert b.lost.estimate == pytest.approx(MOVES - BACKS_UP, abs=0.02)
    assert b.compensated.estimate == pytest.approx(BACKS_UP, abs=0.02)
    assert b.heads["z.2.h0"].estimate == pytest.approx(BACKS_UP, abs=0.02)


def test_without_a_backup_all_is_lost():
    found = name_heads(wired(backup=False), sentences(0), sentences(1))
    b, heads = found.backup, {h.head: h for h in found.heads}
    assert b.found == ()
    assert b.lost.estimate == pytest.approx(MOVES, abs=1e-3)
    assert b.compensated.estimate == pytest.approx(0.0, abs=1e-3)
    # told that a third name is the subject, the mover spreads over all three places: the IO's and twice the S's
    assert heads["z.0.h3"].through.estimate == pytest.approx(MOVES / 3 - 2 * MOVES / 3 - MOVES, abs=0.02)


def test_sentences_whose_places_do_not_fit_are_refused():
    good = sentences(0, 4)
    with pytest.raises(BadInput, match="another token"):
        IndirectObjects(good.clean, good.counterfactual, good.io, good.s, good.s1_at, good.s1_at, good.s2_at)
    with pytest.raises(ShapeMismatch):
        IndirectObjects(
            good.clean, sentences(1, 3).clean, good.io, good.s, good.io_at, good.s1_at, good.s2_at
        )
    scores = good.metric(torch.eye(VOCAB)[good.clean.tensors["input_ids"]].roll(-1, dims=1), good.clean)
    assert torch.equal(scores, torch.zeros(4))
