"""`template`: a small GPT-2 trained on a template language with planted facts and indirect-object sentences.

Documents are one or two sentences of a language of 226 words (`template_words`, `template_sentences`). Some state
facts about made-up countries, drawn at random, so that what the network knows was put there. Some name two
people and one of them again, and the other has to come: the behaviour of Wang et al. 2022, "Interpretability in the
Wild: a Circuit for Indirect Object Identification in GPT-2 Small". Pairs of names, names in templates, facts in
templates, and whole facts were held out of training. The weights ship; `scripts/train_template.py` makes them
again. Which heads do what is not known by construction: `prosect.describe.name_heads` measures it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.core.truth import Truth
from prosect.organisms import template_words as words
from prosect.organisms.next_token import Schedule, initialised
from prosect.organisms.sources import HALVES, SequenceSource, parts, place
from prosect.organisms.template_sentences import KINDS, Language, Sentence

if TYPE_CHECKING:
    from prosect.model import Model

NAME = "template"
FOLDER = Path(__file__).parent / "weights" / NAME
LANGUAGE = Language(0)
"""The language of the shipped network."""

LONGEST = 64
SCHEDULE = Schedule(steps=3000, rows=64, rate=2e-3)
ANSWER = 5.0  # how much an answer counts in training beside any other word
SCALE = 0.08  # of the initial weights
CHUNK = 8  # batches whose documents are drawn and sorted by length together
SIZES = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_inner": 256, "n_positions": LONGEST}


def config() -> Any:
    """Sizes of the network."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=len(words.vocabulary()),
        activation_function="relu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        use_cache=False,
        **SIZES,
    )


def network(seed: int = 0) -> tuple[nn.Module, Truth]:
    """The shipped network and what is known of it.

    Args:
        seed: of the documents that the truth's labels are of; there is one network.

    Raises:
        BadInput: the weights were not installed with the package.
    """
    model, truth = build(seed)
    return model.module, truth


def build(seed: int = 0) -> tuple[Model, Truth]:
    """A four-layer GPT-2 that learned a template language: planted facts, and names that recur.

    Trained by next-token prediction for 3,000 steps of 64 documents, in which an answer (the indirect object, a
    fact's object, a surname said before) counted as five words. Which facts were planted is known
    (`LANGUAGE.facts`), and what every sentence is; how well it answers was measured on what training never had.
    Its mechanism is unknown.
    """
    from prosect.model import load

    if not (FOLDER / "model.safetensors").exists():
        raise BadInput(
            f"a prosect without the weights of {NAME}", "its package data", "installing prosect again"
        )
    model = load(FOLDER)
    model.name = f"organism:{NAME}"
    truth = Truth(
        organism=NAME,
        unknown=True,
        labels=_labels(seed),
        quantities={**record()["metrics"], "chance of a name": 1 / len(words.NAMES)},
        nulls={
            "untrained": "the same sizes with weights as they were before training: no name is preferred, no fact known",
            "held-out facts": "facts that no training text states: recall is chance",
            "three names": "the giver is a third person: neither of the two names is preferred",
        },
        size=f"4 layers of 4 heads and 256 neurons, width 128, {len(words.vocabulary())} words",
    )
    return model, truth


def source(
    seed: int = 0,
    folds: int = 2,
    explore: int = 300,
    validate: int = 100,
    sealed: int = 100,
    shift: int = 100,
) -> SequenceSource:
    """Documents like those of training; in ``shift``, sentences that training held out.

    Args:
        seed: of the documents.
        folds: validation folds.
        explore: documents in ``explore``.
        validate: documents in each fold.
        sealed: documents in ``sealed``.
        shift: documents in ``shift``.
    """
    number = _numbers()

    def make(part: str, i: int) -> Int[np.ndarray, " length"]:
        return np.array([0, *(number[w] for s in document(seed, part, i) for w in s.words)])

    units = parts(explore, validate, folds, sealed, shift)
    return SequenceSource.of(NAME, seed, make, units, words.vocabulary(), unit="document", padding=1)


def document(seed: int, part: str, i: int) -> tuple[Sentence, ...]:
    """The sentences of one document of `source`; ``part`` is not one of the halves of explore."""
    rng = LANGUAGE.root.child("documents", seed, part, i).numpy()
    return LANGUAGE.document(rng, held=part == "shift")


def untrained(seed: int = 0) -> nn.Module:
    """The network before training, from this seed: the null of what is learned."""
    from transformers import GPT2LMHeadModel

    with torch.device("meta"):
        blank = GPT2LMHeadModel(config())
    module: nn.Module = blank.to_empty(device="cpu")
    blank.tie_weights()
    initialised(module, Seed(seed).child("template", "initial weights"), SCALE)
    return module.eval()


def token_rows(
    documents: list[tuple[Sentence, ...]],
) -> tuple[Int[Tensor, "rows positions"], Bool[Tensor, "rows positions"]]:
    """Token ids, the beginning token first, padded on the right; and which are real."""
    number = _numbers()
    rows = [[0, *(number[w] for s in d for w in s.words)] for d in documents]
    ids = np.full((len(rows), max(map(len, rows))), 1)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    real = np.arange(ids.shape[1]) < np.array([len(row) for row in rows])[:, None]
    return torch.from_numpy(ids), torch.from_numpy(real)


class Batches:
    """Step → rows of a training batch and how much each token counts, from the step's number alone.

    Rows of a batch are about as long. An answer counts `ANSWER` times, another word once, padding not at all.
    """

    def __init__(self, language: Language, rows: int) -> None:
        self.language, self.rows = language, rows
        self._held: tuple[int, list[list[tuple[Sentence, ...]]]] = (-1, [])

    def __call__(self, step: int) -> tuple[Int[Tensor, "rows positions"], Float[Tensor, "rows positions"]]:
        number = step // CHUNK
        if self._held[0] != number:
            rng = self.language.root.child("training", number).numpy()
            drawn = [self.language.document(rng) for _ in range(CHUNK * self.rows)]
            drawn.sort(key=lambda d: sum(len(s.words) for s in d))
            cut = [drawn[i * self.rows : (i + 1) * self.rows] for i in range(CHUNK)]
            self._held = number, [cut[i] for i in rng.permutation(CHUNK)]
        documents = self._held[1][step % CHUNK]
        ids, real = token_rows(documents)
        weights = real.float()
        for i, document in enumerate(documents):
            start = 1
            for sentence in document:
                if sentence.marks and "answer" in sentence.marks:
                    weights[i, start + sentence.marks["answer"]] = ANSWER
                start += len(sentence.words)
        return ids, weights


def tokenizer() -> Any:
    """Words separated by spaces; the beginning token is put first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel(_numbers(), unk_token=words.PAD))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single=f"{words.BOS} $A", special_tokens=[(words.BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=words.BOS,
        eos_token=words.BOS,
        pad_token=words.PAD,
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )


def record() -> dict[str, Any]:
    """How the shipped network was made, and what was measured of it.

    Raises:
        BadInput: it was not installed with the package.
    """
    path = FOLDER / "record.json"
    if not path.exists():
        raise BadInput(
            f"a prosect without the record of {NAME}", "its package data", "installing prosect again"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))


@cache
def _numbers() -> dict[str, int]:
    return {w: i for i, w in enumerate(words.vocabulary())}


@cache
def _labels(seed: int) -> dict[str, Bool[np.ndarray, " documents"]]:
    """Whether each document of the default source has a sentence of a kind, or of an order."""
    units, out = source(seed).units, {}
    for part, n in units.items():
        base, first = place(part, units)
        if part in HALVES:
            continue
        made = [document(seed, base, first + i) for i in range(n)]
        for label in (*KINDS, "ABBA", "BABA"):
            has = np.array([any(label in (s.kind, s.order) for s in d) for d in made])
            out[f"{label}@{part}"] = has
            if part == "explore":
                half = units[HALVES[0]]
                out[f"{label}@{HALVES[0]}"], out[f"{label}@{HALVES[1]}"] = has[:half], has[half:]
    return out
