"""What explore looks like to a study of a language model: its batches, contexts and activations, gathered once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import TooLittleData
from prosect.core.progress import step
from prosect.core.records import Component
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.data.tokens import TokenSource
from prosect.data.tokens import vocabulary as strings_of
from prosect.describe.contexts import Contexts
from prosect.describe.vocabulary import Vocabulary
from prosect.validate.subject import STATISTICAL, Subject, relink

HALVES = ("explore.first", "explore.second")


@dataclass
class Explored:
    """Explored text, at most so many positions of it, with what was seen there.

    Attributes:
        batches: in order, those of the first document set before those of the second.
        second: for each batch, whether it is of the second set.
        contexts: the columns that rules may look at.
        sites: what was captured, at scored positions: site → (positions, width).
    """

    batches: list[Batch]
    second: list[bool]
    contexts: Contexts
    sites: dict[str, Float[Tensor, "n _"]]

    @property
    def units(self) -> Int[np.ndarray, " n"]:
        """The unit of each position, numbered through both sets."""
        return np.asarray(self.contexts.unit)

    def activations(self, subject: Subject, components: Sequence[Component]) -> Float[np.ndarray, "n c"]:
        """Activations of components at every position, relinked under the statistical null.

        Positions that the null leaves without a partner count as inactive.
        """
        out = np.zeros((len(self.contexts), len(components)))
        at = 0
        for batch in self.batches:
            n = batch.count
            here = _Held(batch, {s: x[at : at + n] for s, x in self.sites.items()})
            values, valid = here.measure(subject, components)
            out[at : at + n][valid] = values[valid]
            at += n
        return out


@dataclass
class _Held:
    """Captured values of one batch, as `Subject.measure` wants a trace."""

    batch: Batch
    flat: dict[str, Tensor]

    def measure(self, subject: Subject, components: Sequence[Component]) -> tuple[np.ndarray, np.ndarray]:
        values = torch.zeros((self.batch.count, len(components)), dtype=torch.float64)
        by_name: dict[str, list[int]] = {}
        for i, c in enumerate(components):
            by_name.setdefault(c.decomposition, []).append(i)
        for name, places in by_name.items():
            decomposition = subject.decomposition(name)
            codes = decomposition.encode({s: self.flat[s] for s in decomposition.reads})
            values[:, places] = codes.columns([components[i].index for i in places]).double()
        if subject.null != STATISTICAL:
            return values.numpy(), np.ones(len(values), dtype=bool)
        source, valid = relink(self.batch, subject.seed.child("null"))
        return values[source].numpy(), valid.numpy()


def vocabulary(source: Source) -> Vocabulary:
    """The strings of a source's tokens; keywords are Python's where the text is."""
    if isinstance(source, TokenSource):
        tokenizer = source.tokenizer
        names = [d.name for d in source.corpus.documents]
        python = sum(n.endswith(".py") for n in names) > len(names) / 2
        return Vocabulary.of(strings_of(tokenizer), tokenizer.all_special_ids, "python" if python else "")
    return Vocabulary.of(source.vocabulary)  # type: ignore[attr-defined]


def thinned(source: Source, tokens: int, seed: Seed, rows: int) -> tuple[list[Batch], list[bool]]:
    """Explored batches, both document sets, with rows left out at random until about ``tokens`` remain.

    Raises:
        TooLittleData: explore is empty.
    """
    everything = [(b, part == HALVES[1]) for part in HALVES for b in source.batches(part, rows)]
    total = sum(b.count for b, _ in everything)
    if not total:
        raise TooLittleData("nothing to explore", "at least some text")
    share = min(1.0, tokens / total)
    batches: list[Batch] = []
    second: list[bool] = []
    for number, (batch, is_second) in enumerate(everything):
        draw = seed.child("thin", number).numpy().random(len(batch))
        kept = [i for i in range(len(batch)) if share >= 1 or draw[i] < share]
        if kept:
            batches.append(batch.select(kept) if len(kept) < len(batch) else batch)
            second.append(is_second)
    return batches, second


def explore(subject: Subject, words: Vocabulary, sites: Sequence[str], tokens: int, seed: Seed) -> Explored:
    """Run the model over explored text once and keep what is at some sites.

    A resumed run may have to do this again, so the caller counts what it cost, in the step that needs it
    first.

    Args:
        subject: the model and its data.
        words: the vocabulary.
        sites: to capture; empty runs no model.
        tokens: most positions.
        seed: of which rows are left out.
    """
    batches, second = thinned(subject.source, tokens, seed, subject.rows)
    kept: dict[str, list[Tensor]] = {s: [] for s in sites}
    with step("exploring", sum(b.count for b in batches), "positions") as shown:
        for batch in batches if sites else ():
            moved = batch.to(subject.model.device)
            trace = subject.model.run(moved, capture=tuple(sites), stop_early=True)
            for s in sites:
                x = moved.flat(trace[s])
                kept[s].append(x.detach().to("cpu", torch.float32).reshape(len(x), -1))
            shown.advance(batch.count)
    first = [b for b, is_second in zip(batches, second, strict=True) if not is_second]
    rest = [b for b, is_second in zip(batches, second, strict=True) if is_second]
    contexts = Contexts.of(words, first, rest)
    return Explored(batches, second, contexts, {s: torch.cat(x) for s, x in kept.items()})
