"""Tokenizers of two kinds that have names as single tokens, and a tiny language model with one."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from prosect.data.names import NAMES, TEMPLATES


def by_spaces(names=NAMES):
    """Every word is a token, without the space; text begins with <bos> and ends with <eos>."""
    words = sorted({w for t in TEMPLATES for w in t.format(a="", b="", s="").replace(",", " , ").split()})
    vocabulary = {w: i for i, w in enumerate(["<bos>", "<eos>", "<unk>", "with", *words, *names])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def by_bytes():
    """As GPT-2's: a space belongs to the word after it, and nothing is put first. Only some names are single tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    text = [f"with {n} and" for n in NAMES[:20]] * 20 + [t.format(a="x", b="y", s="z") for t in TEMPLATES]
    made.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made)


def saved(folder, tokenizer):
    """A tiny GPT-2 with random weights, in a folder."""
    sizes = {"n_positions": 48, "n_embd": 16, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
