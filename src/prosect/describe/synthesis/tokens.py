"""Tokens that activate a unit: a guided search from several seeds, beside the best example and random tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, Unsupported
from prosect.core.markup import card
from prosect.core.progress import step
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.averages import Averages, Wanted
from prosect.describe.synthesis.search import Search, needs
from prosect.describe.synthesis.unit import Example, Unit, best_example
from prosect.model.model import Model

STARTS = 64
"""Random sequences of which each seed begins with the best."""
NEED_DRAWS = 8
"""Random tokens tried at each position, to see whether what is there is needed."""
CONTROL = "sequences of tokens drawn at random by the same seeds"


@dataclass(frozen=True)
class Tokens:
    """How tokens are searched for.

    Attributes:
        length: tokens to find.
        prefix: tokens before them that stay, such as a beginning-of-text token.
        suffix: tokens after them that stay.
        allowed: tokens that may be used; all of the vocabulary by default.
        seeds: how many searches; each starts elsewhere.
        distinct: no search may use the tokens that earlier ones needed most, so that seeds differ.
        steps: most steps of one search.
        candidates: swaps run at each step.
        budget: most sequences run for one seed.
        random: random sequences for each seed, as a control.
        seed: root of the draws.
    """

    length: int = 4
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    allowed: tuple[int, ...] | None = None
    seeds: int = 4
    distinct: bool = False
    steps: int = 50
    candidates: int = 128
    budget: int = 20_000
    random: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.length, self.seeds, self.steps, self.random) < 1 or self.candidates < 2:
            raise BadInput(
                f"{self.length} tokens, {self.seeds} seeds, {self.steps} steps of {self.candidates} candidates",
                "at least 1 of each, and 2 candidates",
            )


@dataclass(frozen=True)
class Found:
    """One seed's tokens.

    Attributes:
        tokens: those searched for, without prefix and suffix.
        activation: with them.
        needs: how much is lost, on average, with a random token at each position.
        settled: every single swap was tried and none is better.
        sequences: how many were run.
    """

    tokens: tuple[int, ...]
    activation: float
    needs: tuple[float, ...]
    settled: bool
    sequences: int

    @property
    def needed(self) -> int:
        """The token whose place matters most."""
        return self.tokens[int(np.argmax(self.needs))]


@dataclass(frozen=True)
class TokenSynthesis:
    """Tokens found for a unit.

    Attributes:
        model: its name.
        digest: of its configuration and weights.
        unit: in words.
        seeds: what each found, the most activating first.
        activation: mean over seeds.
        control: mean over random sequences.
        beyond: ``activation`` minus ``control``, paired by seed.
        luckiest: the most that any random sequence reached.
        example: the best of the data, at any position; None where none was given.
        agreement: of each seed with the others: the share of what it needs that they have in the same place. None
            with one seed; low by design where seeds were kept distinct.
        agreement_control: the same for random tokens: one over how many are allowed.
        how: how they were searched for.
        hints: ``gradient``, or ``none`` where the model has no embeddings to follow one to.
        n: seeds. Intervals are over seeds.
    """

    model: str
    digest: str
    unit: str
    seeds: tuple[Found, ...]
    activation: Measured
    control: Measured
    beyond: Measured
    luckiest: float
    example: Example | None
    agreement: Measured | None
    agreement_control: float
    how: Tokens
    hints: str
    n: int

    @property
    def needed(self) -> tuple[int, ...]:
        """The token that each seed needs most, without repetition, the most activating first."""
        return tuple(dict.fromkeys(found.needed for found in self.seeds))

    def table(self, words: Sequence[str] | None = None) -> list[dict[str, Json]]:
        """One line for each seed, and those it stands beside; tokens as ``words`` where they are given."""

        def say(tokens: tuple[int, ...]) -> Json:
            return [int(t) if words is None else words[t] for t in tokens]

        lines: list[dict[str, Json]] = [
            {
                "input": f"seed {i}",
                "tokens": say(found.tokens),
                "activation": found.activation,
                "needs": list(found.needs),
                "best within one swap": found.settled,
            }
            for i, found in enumerate(self.seeds)
        ]
        if self.example is not None:
            shown = {"tokens": say(self.example.tokens), "activation": self.example.activation}
            lines.append({"input": "best example", **shown})
        lines.append({"input": "random, mean", "activation": self.control.estimate})
        lines.append({"input": "random, most", "activation": self.luckiest})
        return [{**line, "n": self.n} for line in lines]

    def record(self) -> Json:
        """As plain values."""
        return plain(self)

    def _repr_html_(self) -> Markup:
        rows = [
            (str(line["input"]), f"{line['activation']:.4g} {line.get('tokens', '')}")
            for line in self.table()
        ]
        return card(f"tokens for {self.unit}", rows, "What it responds to most; not what it meets on text.")


def synthesise_tokens(
    model: Model, unit: Unit, how: Tokens | None = None, examples: Iterable[Batch] | None = None
) -> TokenSynthesis:
    """Search for tokens that activate a unit.

    Args:
        model: a language model.
        unit: what to activate, at the last position by default.
        how: the search.
        examples: text to compare with.

    Raises:
        Unsupported: the model does not read tokens.
        BadInput: a token that is not there, a unit that is not there, no token left to use.
        UnknownName: no such site.
    """
    asked = how or Tokens()
    if not model.is_language_model or model.vocab_size is None:
        raise Unsupported(f"tokens for {model.name}", "a language model", "synthesis.continuous")
    allowed = (
        np.arange(model.vocab_size)
        if asked.allowed is None
        else np.unique(np.array(asked.allowed, dtype=int))
    )
    if not len(allowed):
        raise BadInput("no token allowed", "at least one")
    model.batch([[*asked.prefix, *(int(t) for t in allowed[[0, -1]]), *asked.suffix]])  # every token is there
    example = None if examples is None else best_example(model, unit, examples)
    roots = [Seed(asked.seed).child("tokens", i) for i in range(asked.seeds)]
    found: list[Found] = []
    chance: list[Float[np.ndarray, " random"]] = []
    usable, hints = np.arange(len(allowed)), "none"
    with step("tokens", total=asked.seeds, unit="seeds") as progress:
        for root in roots:
            if not len(usable):
                raise BadInput(
                    f"no token left for {asked.seeds} distinct seeds", "more allowed tokens, or fewer seeds"
                )
            search = Search(
                model,
                unit,
                asked.prefix,
                asked.suffix,
                allowed,
                asked.length,
                asked.candidates,
                asked.steps,
                asked.budget,
            )
            hints = "none" if search.table is None else "gradient"
            chance.append(search.values(_drawn(allowed, asked.random, asked.length, root.child("random"))))
            starts = _drawn(allowed[usable], STARTS, asked.length, root.child("start"))
            begun = search.values(starts)
            best = int(begun.argmax())
            tokens, value, settled = search.climb(
                starts[best], float(begun[best]), usable, root.child("swaps")
            )
            lost = needs(search, tokens, value, NEED_DRAWS, root.child("needs"))
            found.append(Found(tuple(tokens.tolist()), value, tuple(lost.tolist()), settled, search.used))
            if asked.distinct:
                usable = usable[allowed[usable] != found[-1].needed]
            progress.advance()
    return _result(model, unit, asked, found, chance, example, len(allowed), hints)


def _drawn(
    allowed: Int[np.ndarray, " allowed"], n: int, length: int, seed: Seed
) -> Int[np.ndarray, "n length"]:
    return np.asarray(seed.numpy().choice(allowed, (n, length)))


def _agreement(one: Found, others: Sequence[Found]) -> float:
    """The share of what one seed needs that others have in the same place, mean over others; 0 if it needs nothing."""
    weight = np.maximum(one.needs, 0.0)
    if not weight.any():
        return 0.0
    same = [np.array(one.tokens) == np.array(other.tokens) for other in others]
    return float(np.mean([(weight * s).sum() / weight.sum() for s in same]))


def _result(
    model: Model,
    unit: Unit,
    asked: Tokens,
    found: list[Found],
    chance: list[Float[np.ndarray, " random"]],
    example: Example | None,
    allowed: int,
    hints: str,
) -> TokenSynthesis:
    sums = Averages()
    for i, (one, values) in enumerate(zip(found, chance, strict=True)):
        unit_of = np.array([i])
        sums.add("made", np.array([one.activation]), unit_of)
        sums.add("random", values, np.full(len(values), i))
        if len(found) > 1:
            sums.add("alike", np.array([_agreement(one, found[:i] + found[i + 1 :])]), unit_of)
    wanted = {name: Wanted((name,)) for name in ("made", "random", "alike")}
    got = sums.measure(
        wanted | {"beyond": Wanted(("made",), ("random",))}, Seed(asked.seed).child("intervals")
    )
    return TokenSynthesis(
        model.name,
        model.digest,
        unit.words,
        tuple(sorted(found, key=lambda f: -f.activation)),
        got["made"],
        got["random"],
        got["beyond"],
        max(float(values.max()) for values in chance),
        example,
        got["alike"] if len(found) > 1 else None,
        1.0 / allowed,
        asked,
        hints,
        len(found),
    )
