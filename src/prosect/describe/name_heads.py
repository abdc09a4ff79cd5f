"""Which heads say the indirect object, which say where it is not, and what takes over when they are gone.

The classes of Wang et al. 2022, "Interpretability in the Wild: a Circuit for Indirect Object Identification in
GPT-2 Small" (section 3), each as something measured, and two of our own (*):

- *name mover*: from the last place it attends to the indirect object, and adds to its logit over the subject's;
- *negative name mover*: attends to it likewise and takes from that difference;
- *name copier* (*): attends to it likewise and raises its logit over the average word's, whatever it does to
  the subject's;
- *subject suppressor* (*): attends from the last place to the second subject, and adds to the difference;
- *S-inhibition*: attends from the last place to the second subject, and the difference falls when what it
  gives to the queries of name movers and suppressors is that of the counterfactual;
- *duplicate token*: from the second subject to the first; *induction*: from there to the place after the first;
- *previous token*: from the place after the first subject to the first.

Attention counts beyond uniform attention. Heads are classed on one set of sentences, and every figure comes from
another. A head may be in several classes or in none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prosect.core.errors import Unsupported
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.indirect_objects import IndirectObjects
from prosect.describe.lens.direct import attribute
from prosect.model.edits import Edit, patch
from prosect.model.model import Model
from prosect.model.patching import RowScores, path_patching

FLOOR = 0.1
"""A head attends somewhere if the lower end of its interval there, beyond uniform attention, is above this."""
LARGE = 0.05
"""An effect is large if its interval lies beyond this share of the whole difference, either way."""

ROUTES = {
    "END to IO": ("END", "IO"),
    "END to S1": ("END", "S1"),
    "END to S2": ("END", "S2"),
    "S2 to S1": ("S2", "S1"),
    "S2 to S1+1": ("S2", "S1+1"),
    "S1+1 to S1": ("S1+1", "S1"),
}
ANSWERING = ("name mover", "subject suppressor")
"""Classes that make the difference directly; what is taken away to see what backs them up."""
CLASSES = (
    "name mover",
    "negative name mover",
    "name copier",
    "subject suppressor",
    "S-inhibition",
    "duplicate token",
    "induction",
    "previous token",
)


@dataclass(frozen=True)
class NameHead:
    """One head; intervals over sentences.

    Attributes:
        head: its site.
        classes: those of `CLASSES` that it was put into on the sentences of choosing.
        attention: route (`ROUTES`) → attention beyond uniform.
        direct: what it adds directly to the logit difference.
        raises: what it adds directly to the indirect object's logit over the mean of all words'.
        through: change of the difference when its part in the queries of the answering heads is the
            counterfactual's; None where no such head comes after it.
    """

    head: str
    classes: tuple[str, ...]
    attention: Mapping[str, Measured]
    direct: Measured
    raises: Measured
    through: Measured | None


@dataclass(frozen=True)
class Backup:
    """What happens when the answering heads (`ANSWERING`) are gone.

    Attributes:
        gone: the heads that were taken away together.
        direct: what they added directly to the logit difference, beyond what they add with three names.
        lost: by how much the difference fell.
        compensated: ``direct`` minus ``lost``: what others made good.
        heads: each other head → how much more the difference needs it once they are gone.
    """

    gone: tuple[str, ...]
    direct: Measured
    lost: Measured
    compensated: Measured
    heads: Mapping[str, Measured]

    @property
    def found(self) -> tuple[str, ...]:
        """Heads whose importance rises clearly, the most important first."""
        clear = {h: m for h, m in self.heads.items() if m.low is not None and m.low > 0}
        return tuple(sorted(clear, key=lambda h: -(clear[h].estimate or 0.0)))


@dataclass(frozen=True)
class NameHeads:
    """What was found.

    Attributes:
        difference: logit of the indirect object minus that of the subject.
        correct: share of sentences in which it is above zero.
        heads: every head of the model.
        backup: with the answering heads taken away; None where there are none.
    """

    difference: Measured
    correct: Measured
    heads: tuple[NameHead, ...]
    backup: Backup | None

    def of(self, kind: str) -> tuple[str, ...]:
        """The heads of a class."""
        return tuple(h.head for h in self.heads if kind in h.classes)


def name_heads(model: Model, choose: IndirectObjects, measure: IndirectObjects, seed: int = 0) -> NameHeads:
    """Class the heads on ``choose``; measure them, and what backs the answering ones up, on ``measure``.

    Args:
        model: a language model with attention.
        choose, measure: different sentences.
        seed: of the intervals.

    Raises:
        Unsupported: a model whose attention weights are not named sites.
    """
    layers = [i for i in range(model.n_layers or 0) if f"probs.{i}" in model.sites]
    if not layers:
        raise Unsupported(
            f"attention weights of {model.name}", "a model with the sites probs.0, probs.1, ..."
        )
    root = Seed(seed).child("name heads")
    first = _looks(model, choose, layers, root)
    early = {head: _classes(first, head, None) for head in first.direct}
    answering = tuple(head for head, found in early.items() if set(found) & set(ANSWERING))
    held = _through(model, choose, answering, seed)
    again = _looks(model, measure, layers, root)
    through = _through(model, measure, answering, seed)
    heads = tuple(
        NameHead(
            head,
            _classes(first, head, held.get(head)),
            again.attention[head],
            again.direct[head],
            again.raises[head],
            through.get(head),
        )
        for head in first.direct
    )
    correct = RowScores(again.rows, measure.clean.units, root).positive()
    backup = _backup(model, measure, answering, again, root) if answering else None
    return NameHeads(again.whole, correct, heads, backup)


@dataclass(frozen=True, eq=False)
class _Looks:
    """Where heads look and what they add directly, on some sentences."""

    attention: Mapping[str, Mapping[str, Measured]]
    direct: Mapping[str, Measured]
    raises: Mapping[str, Measured]
    contributions: Mapping[str, Float[np.ndarray, " rows"]]
    rows: Float[np.ndarray, " rows"]
    whole: Measured


def _looks(model: Model, sentences: IndirectObjects, layers: list[int], seed: Seed) -> _Looks:
    batch, units, places = sentences.clean, sentences.clean.units, sentences.places
    run = model.run(batch, capture=[f"probs.{i}" for i in layers])
    split = _direct(model, batch, sentences, sentences.s.tolist())
    over_mean = _direct(model, batch, sentences, "mean")
    names = [f"z.{layer}.h{h}" for layer in layers for h in range(model.n_heads or 0)]
    each, attention = np.arange(len(batch)), {}
    for name in names:
        layer, h = _numbers(name)
        probs = run[f"probs.{layer}"][:, h].detach().cpu().double().numpy()
        attention[name] = {
            route: RowScores(probs[each, places[a], places[b]] - 1 / (places[a] + 1), units, seed).measured()
            for route, (a, b) in ROUTES.items()
        }
    direct, raises = (
        {name: RowScores(found[name], units, seed).measured() for name in names}
        for found in (split, over_mean)
    )
    whole = sum(
        split.values(), np.zeros(len(batch))
    )  # exact: `attribute` refuses a sum that misses the logit
    return _Looks(attention, direct, raises, split, whole, RowScores(whole, units, seed).measured())


def _direct(
    model: Model, batch: Batch, sentences: IndirectObjects, against: list[int] | str
) -> dict[str, Float[np.ndarray, " rows"]]:
    """What every part adds directly to the indirect object's logit at the last place."""
    found = attribute(model, batch, sentences.io.tolist(), against=against, positions=-1)
    return {part: np.asarray(x) for part, x in zip(found.parts, found.contributions.T, strict=True)}


def _numbers(head: str) -> tuple[int, int]:
    """Layer and number of a head."""
    _, layer, number = head.split(".")
    return int(layer), int(number.removeprefix("h"))


def _classes(looks: _Looks, head: str, through: Measured | None) -> tuple[str, ...]:
    large = LARGE * abs(looks.whole.estimate or 0.0)
    attention, direct = looks.attention[head], looks.direct[head]

    def to(route: str) -> bool:
        low = attention[route].low
        return low is not None and low > FLOOR

    def beyond(measured: Measured | None, sign: int) -> bool:
        end = None if measured is None else measured.low if sign > 0 else measured.high
        return end is not None and sign * end > large

    known = {
        "name mover": to("END to IO") and beyond(direct, 1),
        "negative name mover": to("END to IO") and beyond(direct, -1),
        "name copier": to("END to IO") and beyond(looks.raises[head], 1),
        "subject suppressor": to("END to S2") and beyond(direct, 1),
        "S-inhibition": to("END to S2") and beyond(through, -1),
        "duplicate token": to("S2 to S1"),
        "induction": to("S2 to S1+1"),
        "previous token": to("S1+1 to S1"),
    }
    return tuple(name for name in CLASSES if known[name])


def _through(
    model: Model, sentences: IndirectObjects, answering: tuple[str, ...], seed: int
) -> dict[str, Measured]:
    """Of every head before an answering one: the effect by way of the answering heads' queries."""
    last = max((_numbers(head)[0] for head in answering), default=0)
    senders = [f"z.{i}.h{h}" for i in range(last) for h in range(model.n_heads or 0)]
    if not senders:
        return {}
    found = path_patching(
        model,
        sentences.clean,
        sentences.counterfactual,
        sentences.metric,
        senders,
        [f"q.{head.removeprefix('z.')}" for head in answering],
        through_mlps=True,
        control=False,
        seed=seed,
    )
    return {sender: found.effect(sender) for sender in senders}


def _backup(
    model: Model, sentences: IndirectObjects, answering: tuple[str, ...], looks: _Looks, seed: Seed
) -> Backup:
    """Each head's ablation with and without the answering ones: at the last place it gets its three-name value."""
    others = [head for head in looks.direct if head not in answering]
    sites = list(dict.fromkeys(head.rpartition(".")[0] for head in looks.direct))
    donor = model.run(sentences.counterfactual, capture=sites)

    def given(head: str) -> Edit:
        site = head.rpartition(".")[0]
        return patch(site, donor[site], heads=_numbers(head)[1], positions=-1)

    gone = [given(head) for head in answering]
    lists = [[], gone, *([given(h)] for h in others), *([*gone, given(h)] for h in others)]
    found = model.sweep(lists, sentences.clean, sentences.metric)
    base, without = found[0], found[1]
    alone, after = found[2 : 2 + len(others)], found[2 + len(others) :]
    more = (without - after) - (base - alone)
    there = _direct(model, sentences.counterfactual, sentences, sentences.s.tolist())
    direct = sum((looks.contributions[h] - there[h] for h in answering), np.zeros(len(base)))

    def measured(values: Float[np.ndarray, " rows"]) -> Measured:
        return RowScores(values, sentences.clean.units, seed).measured()

    return Backup(
        answering,
        measured(direct),
        measured(base - without),
        measured(direct - (base - without)),
        {head: measured(more[i]) for i, head in enumerate(others)},
    )
