"""Contrasts: pairs that correspond, cut so that nothing is in two parts, and files that say what is wrong with them."""

import json

import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData, UnknownName
from prosect.core.seeds import Seed
from prosect.data.contrasts import HALVES, Contrast, ContrastSource, copied_blocks, cut, read_contrasts


class Letters:
    """A tokenizer whose tokens are words."""

    bos_token_id = 0
    words = ("<s>", "a", "b", "c", "d", "e", "f")

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [self.words.index(w) for w in text.split()]}

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids)


def source(count=120, **given):
    made = copied_blocks(range(1, 60), Seed(0), count=count, lead=(0,))
    return ContrastSource(made, cut(made, Seed(0), folds=2, explore=0.3, sealed=0.2), special=1, **given)


def test_copied_blocks_differ_in_one_token_and_in_their_answers():
    for c in copied_blocks(range(1, 60), Seed(1), count=40, length=8, lead=(0,)):
        assert len(c.clean) == len(c.counterfactual) == 1 + 8 + 7
        apart = [i for i, (a, b) in enumerate(zip(c.clean, c.counterfactual, strict=True)) if a != b]
        assert apart == [8]
        assert (c.clean[8], c.counterfactual[8]) == (c.answer, c.wrong)
        assert c.clean[9:] == c.clean[1:8] and len(set(c.clean[1:9])) == 8


def test_parts_are_disjoint_and_the_halves_are_explore():
    made = source()
    parts = {p: set(m) for p, m in made.parts.items()}
    assert parts[HALVES[0]] | parts[HALVES[1]] == parts["explore"] and not parts[HALVES[0]] & parts[HALVES[1]]
    names = ["explore", "validate.0", "validate.1", "sealed"]
    assert sum(len(parts[n]) for n in names) == len(set.union(*(parts[n] for n in names))) == 120
    assert [made.units[n] for n in names] == [36, 30, 30, 24]


def test_pairs_with_the_same_clean_input_are_one_unit():
    made = copied_blocks(range(1, 60), Seed(0), count=40)
    twice = (*made, *[Contrast(c.clean, c.clean[::-1], c.answer, c.wrong) for c in made])
    parts = cut(twice, Seed(0), folds=1, explore=0.5, sealed=0.0)
    assert sorted(len(parts[n]) for n in ("explore", "validate.0")) == [40, 40]
    for members in (parts["explore"], parts["validate.0"]):
        assert {i % 40 for i in members if i < 40} == {i % 40 for i in members if i >= 40}
    assert ContrastSource(twice, parts).units["explore"] == 20


def test_a_batch_has_its_counterfactuals_row_by_row():
    made = source()
    for batch in made.batches("validate.1", rows=7):
        other = made.counterfactual(batch)
        assert other.rows == batch.rows and torch.equal(other.mask, batch.mask)
        assert ((other.tensors["input_ids"] != batch.tensors["input_ids"]).sum(dim=1) == 1).all()
    with pytest.raises(UnknownName, match="validate"):
        next(made.batches("validate.7"))


def test_the_metric_reads_the_last_position_of_each_row():
    short, long = Contrast((1, 2), (1, 3), 4, 5), Contrast((1, 2, 3), (1, 2, 4), 5, 4)
    made = ContrastSource((short, long), {"explore": (0, 1)})
    (batch,) = made.batches("explore")
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    expected = [logits[0, 1, 4] - logits[0, 1, 5], logits[1, 2, 5] - logits[1, 2, 4]]
    assert torch.allclose(made.metric(logits, batch), torch.stack(expected))
    last = torch.stack([logits[0, 1], logits[1, 2]])[:, None]
    assert torch.allclose(made.metric(last, batch), torch.stack(expected))
    alone = ContrastSource((Contrast((1, 2), (1, 3), 4),), {"explore": (0,)})
    (batch,) = alone.batches("explore")
    assert torch.allclose(alone.metric(logits[:1, :2], batch), logits[:1, 1].log_softmax(-1)[:, 4])


def lines(tmp_path, *content):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(c if isinstance(c, str) else json.dumps(c) for c in content))
    return path


GOOD = {"clean": "a b c", "counterfactual": "a b d", "answer": "c", "wrong": "d"}


def test_a_file_of_pairs_is_read(tmp_path):
    (found,) = read_contrasts(lines(tmp_path, GOOD, ""), Letters())
    assert found == Contrast((0, 1, 2, 3), (0, 1, 2, 4), 3, 4)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ({**GOOD, "counterfactual": "a b"}, ShapeMismatch, "line 1 of pairs.jsonl: a clean text of 4 tokens"),
        ({**GOOD, "answer": "a b"}, BadInput, "answer 'a b', which is 2 tokens"),
        ({"clean": "a", "answer": "b"}, BadInput, "without counterfactual"),
        ({**GOOD, "anwser": "b"}, BadInput, "with anwser"),
        ({**GOOD, "wrong": 3}, BadInput, "an object of texts"),
        ("{", BadInput, "not JSON"),
        ("", BadInput, "without a pair"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, content, error, says):
    with pytest.raises(error, match=says):
        read_contrasts(lines(tmp_path, content), Letters())


def test_mixed_and_missing_files_are_refused(tmp_path):
    alone = {k: v for k, v in GOOD.items() if k != "wrong"}
    with pytest.raises(BadInput, match="all or none"):
        read_contrasts(lines(tmp_path, GOOD, alone), Letters())
    with pytest.raises(BadInput, match="no file"):
        read_contrasts(tmp_path / "nothing.jsonl", Letters())
    with pytest.raises(TooLittleData, match="4 different"):
        cut(copied_blocks(range(20), Seed(0), count=4), Seed(0), folds=2, explore=0.3, sealed=0.2)
    with pytest.raises(TooLittleData, match="5 tokens"):
        copied_blocks(range(5), Seed(0))
