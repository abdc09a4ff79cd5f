"""Token strings and their classes."""

import keyword

import pytest
import torch

from prosect.core.errors import BadInput, UnknownName
from prosect.describe.vocabulary import CLASSES, PYTHON_KEYWORDS, Vocabulary
from prosect.store.shelf import Shelf


def classes_of(token, **kwargs):
    row = Vocabulary.of([token], **kwargs).classes[0]
    return {name for name, holds in zip(CLASSES, row, strict=True) if holds}


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("self", {"word"}),
        (" Self", {"word", "leading space", "capital"}),
        ("HTTP", {"word", "capital", "upper case"}),
        ("42", {"number"}),
        (" 1_000.5", {"number", "leading space"}),
        ("+=", {"punctuation"}),
        ("({", {"punctuation", "opening bracket"}),
        ("])", {"punctuation", "closing bracket"}),
        ("'", {"punctuation", "quote"}),
        ("\n", {"white space", "newline"}),
        ("\n    ", {"white space", "newline", "indent"}),
        (" ", {"white space"}),
        ("é", {"word"}),
        ("\ufffd", set()),
        ("", set()),
        ("x.y", set()),
    ],
)
def test_classes(token, expected):
    assert classes_of(token) == expected


def test_keywords_belong_to_a_language():
    assert "keyword" in classes_of(" return", language="python")
    assert "keyword" not in classes_of(" return")
    assert set(keyword.kwlist) == PYTHON_KEYWORDS
    with pytest.raises(UnknownName, match="language"):
        Vocabulary.of(["a"], language="pithon")


def test_a_special_token_is_nothing_else():
    assert classes_of("<|end|>", specials=[0]) == {"special"}
    with pytest.raises(BadInput, match="special token 3"):
        Vocabulary.of(["a"], specials=[3])
    with pytest.raises(BadInput, match="empty"):
        Vocabulary.of([])


def test_it_comes_back_from_the_shelf(tmp_path):
    first = Vocabulary.of([" a\n", "é\u202e", "\ud800x", "<s>"], [3], "python")
    key = first.store(Shelf(tmp_path))
    second = Vocabulary.load(key, Shelf(tmp_path))
    assert second.strings == first.strings and second.specials == first.specials
    assert second.language == "python" and first.strings[2] == "\ufffdx"
    assert second.store(Shelf()) == key
    shelf = Shelf()
    with pytest.raises(BadInput, match="no vocabulary"):
        Vocabulary.load(shelf.put(torch.tensor([1, 2], dtype=torch.uint8)), shelf)


class SpacePieces:
    """A tokenizer that marks a leading space and drops it when one token is decoded alone."""

    all_special_ids = (0,)

    def __len__(self):
        return 3

    def convert_ids_to_tokens(self, ids):
        return [["<s>", "▁the", "re"][i] for i in ids]

    def decode(self, ids):
        return ["<s>", "the", "re"][ids[0]]


def test_tokenizers_are_read_with_their_spaces():
    found = Vocabulary.of_tokenizer(SpacePieces(), size=5)
    assert found.strings == ("<s>", " the", "re", "", "") and found.specials == {0}


def test_a_real_byte_level_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    trained.train_from_iterator(["def f(self):\n    return self.x\n"] * 5, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<|end|>")
    found = Vocabulary.of_tokenizer(wrapped)
    text = "def f(self):\n    return self.x\n"
    assert "".join(found.strings[i] for i in wrapped(text)["input_ids"]) == text
    assert found.specials == {wrapped.eos_token_id}
