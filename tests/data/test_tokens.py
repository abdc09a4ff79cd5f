"""Token windows and behaviours."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.data.behaviours import repeated_block
from prosect.data.source import Source
from prosect.data.splits import cut
from prosect.data.tokens import TokenSource, tokenizer_digest, vocabulary
from texts import corpus


def tokenizer(bos=True):
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.train_from_iterator(
        [d.text for d in corpus(20).documents],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<b>", "<p>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    from tokenizers import decoders

    base.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="<p>", **({"bos_token": "<b>"} if bos else {})
    )


@pytest.fixture(scope="module")
def made():
    c = corpus(200)
    return c, cut(c)


@pytest.mark.parametrize("bos", [True, False])
def test_windows_come_from_their_documents(made, bos):
    c, splits = made
    tok = tokenizer(bos)
    source = TokenSource(c, splits, tok, context=32, windows={"explore": 2, "validate": 3, "sealed": 1})
    assert isinstance(source, Source)
    seen: dict[str, int] = {}
    for batch in source.batches("validate.0", rows=7):
        for i, row in enumerate(batch.rows):
            ids = batch.tensors["input_ids"][i][batch.mask[i]].tolist()
            assert len(ids) <= 32
            if bos:
                assert ids[0] == tok.bos_token_id
                assert batch.special[i, 0]
                ids = ids[1:]
            document = next(j for j, d in enumerate(c.documents) if d.name == row.document)
            whole = source.tokens(document)
            assert whole[row.offset : row.offset + len(ids)] == ids
            seen[row.document] = seen.get(row.document, 0) + 1
        assert torch.equal(batch.tensors["attention_mask"].bool(), batch.mask)
    assert set(seen.values()) == {3}
    assert len(seen) == len(splits.parts["validate.0"])


def test_units_are_numbered_within_the_part(made):
    c, splits = made
    source = TokenSource(c, splits, tokenizer(), context=32)
    units = np.concatenate([b.units for b in source.batches("validate.1")])
    assert set(units.tolist()) == set(range(source.units["validate.1"]))


def test_two_passes_give_the_same_batches(made):
    source = TokenSource(*made, tokenizer(), context=32)
    one = [b.tensors["input_ids"] for b in source.batches("explore.first")]
    again = [
        b.tensors["input_ids"] for b in TokenSource(*made, tokenizer(), context=32).batches("explore.first")
    ]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))


def test_the_digest_sees_what_changes_the_inputs(made):
    tok = tokenizer()
    one = TokenSource(*made, tok, context=32).digest
    assert one == TokenSource(*made, tokenizer(), context=32).digest
    assert one != TokenSource(*made, tok, context=33).digest
    assert tokenizer_digest(tok) != tokenizer_digest(tokenizer(bos=False))


def test_unknown_parts_and_silly_windows_are_refused(made):
    source = TokenSource(*made, tokenizer(), context=32)
    with pytest.raises(UnknownName, match=r"validate\.0"):
        next(iter(source.batches("validate.9")))
    with pytest.raises(BadInput, match="at least 8"):
        TokenSource(*made, tokenizer(), context=3)


def test_the_vocabulary_is_the_text_of_every_token():
    tok = tokenizer()
    words = vocabulary(tok)
    assert len(words) == len(tok)
    ids = tok("some text here", add_special_tokens=False)["input_ids"]
    assert "".join(words[i] for i in ids) == "some text here"
    assert words[0] == "<b>"


def test_a_repeated_block_repeats_and_its_counterfactual_does_not():
    behaviour = repeated_block(torch.arange(2, 50), length=10, shifted=5, bos=0, seed=3)
    pairs = behaviour.pairs("validate.0", 6)
    clean, other = pairs.clean.tensors["input_ids"], pairs.counterfactual.tensors["input_ids"]
    assert torch.equal(clean[:, 1:11], clean[:, 11:21])
    assert torch.equal(clean[:, 11:], other[:, 11:])
    assert not torch.equal(other[:, 1:11], other[:, 11:21])
    assert pairs.shown.sum(dim=1).tolist() == [9] * 6
    rows, columns = torch.nonzero(pairs.shown, as_tuple=True)
    assert torch.equal(pairs.targets[rows, columns], clean[rows, columns + 1])
    assert behaviour.pairs("shift", 2).clean.tensors["input_ids"].shape == (2, 11)
    assert torch.equal(behaviour.pairs("validate.0", 6).clean.tensors["input_ids"], clean)
    assert not torch.equal(behaviour.pairs("validate.1", 6).clean.tensors["input_ids"], clean)
    assert [len(p.clean) for p in behaviour.batches("explore", 70, size=32)] == [32, 32, 6]


def test_the_metric_is_the_mean_log_probability_of_the_targets():
    behaviour = repeated_block(torch.arange(2, 50), length=4, seed=0)
    pairs = behaviour.pairs("explore", 3)
    x = pairs.clean.tensors["input_ids"]
    sure = torch.full((*x.shape, 50), -30.0)
    sure[:, :-1].scatter_(-1, x[:, 1:, None], 30.0)
    assert torch.allclose(behaviour.metric(sure, pairs), torch.zeros(3), atol=1e-6)
    flat = torch.zeros(*x.shape, 50)
    assert torch.allclose(behaviour.metric(flat, pairs), torch.full((3,), -np.log(50.0).item()))


def test_documents_in_another_order_give_the_same_windows(made):
    source = TokenSource(*made, tokenizer(), context=32)
    part = "explore"

    def windows(source):
        return [
            (row.document, row.offset, tuple(batch.tensors["input_ids"][i][batch.mask[i]].tolist()))
            for batch in source.batches(part)
            for i, row in enumerate(batch.rows)
        ]

    plain, mixed = windows(source), windows(source.shuffled(part, Seed(1)))
    assert sorted(plain) == sorted(mixed) and plain != mixed
    assert mixed == windows(source.shuffled(part, Seed(1)))
    assert len({s.digest for s in (source, *(source.shuffled(part, Seed(i)) for i in range(3)))}) == 4
    assert source.shuffled(part, Seed(1)).tokens(0) is source.tokens(0)  # not tokenised again
    with pytest.raises(UnknownName, match="part"):
        source.shuffled("nowhere", Seed(1))
