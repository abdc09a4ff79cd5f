"""What is asked of the organism `template`: sentences that stop before an answer, with their counterfactuals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.data.contrasts import Contrast, ContrastSource, cut
from prosect.data.indirect_objects import IndirectObjects
from prosect.organisms import template_words as words
from prosect.organisms.template import LANGUAGE, token_rows, tokenizer
from prosect.organisms.template_sentences import Sentence, stated

KINDS = ("ioi", "distracted")


def names(seed: int = 0, count: int = 240, folds: int = 2, shift: int = 60) -> ContrastSource:
    """Indirect-object sentences as contrasts: the logit of the indirect object against that of the subject.

    In the counterfactual the three names are three others.

    Args:
        seed: of the sentences and of the cut.
        count: sentences of explore, the folds and sealed together.
        folds: of validate.
        shift: sentences of ``shift``: pairs of names, or names in templates, that training never had.
    """
    rng = Seed(seed).child("template", "names").numpy()
    inside, outside = _sentences("ioi", count, rng, False), _sentences("ioi", shift, rng, True)
    made = [_named(s, rng) for s in (*inside, *outside)]
    where = cut(made[:count], Seed(seed), folds=folds, explore=0.4, sealed=0.2)
    where["shift"] = tuple(range(count, len(made)))
    return ContrastSource(tuple(made), where, tokenizer(), special=1, padding=1)


def recall(seed: int = 0, folds: int = 2, planted: bool = True) -> ContrastSource:
    """Facts as contrasts: the logit of a fact's object against that of another country's.

    Every fact is asked in every template of its relation. ``shift`` holds the templates that training did not
    state the fact in; the other parts those that it did. Without ``planted`` the facts are those that training
    never stated, all of them in ``shift`` too.

    Args:
        seed: of the counterfactual's countries and of the cut.
        folds: of validate.
        planted: whether training stated the facts.
    """
    rng = Seed(seed).child("template", "recall").numpy()
    made, held = [], []
    for fact in LANGUAGE.facts:
        if fact.trained != planted:
            continue
        for template in range(len(words.RELATIONS[fact.relation][1])):
            others = [f for f in LANGUAGE.facts if f.relation == fact.relation and f.object != fact.object]
            other = others[int(rng.integers(len(others)))]
            mine, theirs = (stated(f, template) for f in (fact, other))
            a, b = (_until_answer(s) for s in (mine, theirs))
            made.append(Contrast(a[0], b[0], a[1], b[1]))
            held.append(template not in fact.templates)
    order = [i for i, h in enumerate(held) if not h] + [i for i, h in enumerate(held) if h]
    made = [made[i] for i in order]
    inside = len(held) - sum(held)
    where = {} if not inside else cut(made[:inside], Seed(seed), folds=folds, explore=0.4, sealed=0.2)
    where["shift"] = tuple(range(inside, len(made)))
    return ContrastSource(tuple(made), where, tokenizer(), special=1, padding=1)


def indirect_objects(
    part: str = "explore", rows: int = 64, seed: int = 0, kind: str = "ioi"
) -> IndirectObjects:
    """Indirect-object sentences with the place of every name, for measuring which head does what.

    Args:
        part: names the draw; ``shift`` has what training held out.
        rows: how many.
        seed: of the draws.
        kind: ``ioi``, or ``distracted`` for sentences with something between.

    Raises:
        BadInput: no such kind, or held-out sentences of a kind that has none.
    """
    if kind not in KINDS or (part == "shift" and kind != "ioi"):
        raise BadInput(f"{kind} sentences in {part}", "ioi in any part, distracted in all but shift")
    rng = Seed(seed).child("template", "indirect objects", kind, part).numpy()
    made = _sentences(kind, rows, rng, part == "shift")
    other = [_renamed(s, rng) for s in made]
    ids = tuple(Row(unit=i, document=f"{part} sentence {i}") for i in range(rows))
    clean, counterfactual = (_batch(sentences, ids) for sentences in (made, other))
    tokens = clean.tensors["input_ids"].numpy()
    at = {k: np.array([(s.marks or {})[k] + 1 for s in made]) for k in ("IO", "S1", "S2")}
    each = np.arange(rows)
    return IndirectObjects(
        clean,
        counterfactual,
        io=tokens[each, at["IO"]],
        s=tokens[each, at["S1"]],
        io_at=at["IO"],
        s1_at=at["S1"],
        s2_at=at["S2"],
    )


def _sentences(kind: str, count: int, rng: np.random.Generator, held: bool) -> list[Sentence]:
    return [LANGUAGE.sentence(kind, rng, held=held) for _ in range(count)]


def _renamed(sentence: Sentence, rng: np.random.Generator) -> Sentence:
    """The sentence with three other people at the three places."""
    free = [n for n in words.NAMES if n not in sentence.words]
    new = [free[i] for i in rng.permutation(len(free))[:3]]
    said, marks = list(sentence.words), sentence.marks or {}
    for mark, name in zip(("IO", "S1", "S2"), new, strict=True):
        said[marks[mark]] = name
    return Sentence(tuple(said), sentence.kind, sentence.order, sentence.template, marks)


def _until_answer(sentence: Sentence) -> tuple[tuple[int, ...], int]:
    """Token ids before the answer, and the answer's."""
    ids = token_rows([(sentence,)])[0][0].tolist()
    at = (sentence.marks or {})["answer"] + 1
    return tuple(ids[:at]), ids[at]


def _named(sentence: Sentence, rng: np.random.Generator) -> Contrast:
    clean, answer = _until_answer(sentence)
    other, _ = _until_answer(_renamed(sentence, rng))
    return Contrast(clean, other, answer, clean[(sentence.marks or {})["S1"] + 1])


def _batch(sentences: Sequence[Sentence], ids: tuple[Row, ...]) -> Batch:
    rows = [_until_answer(s)[0] for s in sentences]
    tokens = torch.full((len(rows), max(map(len, rows))), 1)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    real = torch.arange(tokens.shape[1]) < torch.tensor([[len(row)] for row in rows])
    special = torch.zeros_like(real)
    special[:, 0] = True
    return Batch({"input_ids": tokens, "attention_mask": real.long()}, real, ids, special)
