"""A token network whose neurons follow planted rules: what a method says about a neuron can be marked.

One block. A head carries which sets the previous token belongs to; four more carry pseudo-random noise: each
attends from every position to one place at least five tokens back, which depends on the position in no regular
way, and adds that token's entry in a random table, whose mean is zero under every topic. No rule over the
tokens nearby predicts it. Each of the 48 neurons (site ``mlp_act.0``) is one of:

- *token*: fires on a few tokens, with a strength for each;
- *context*: likewise, if the token before is in another set;
- *noisy*: a token rule plus noise, such that rule and activation correlate at .9, .7 or .5;
- *silent*: a token or context rule, and no output;
- *unreadable*: fires on noise alone, and has an output;
- *noise*: fires on noise alone, no output;
- *dead*: never fires, though its output weights look like any other's.

A neuron with an output raises the logits of eight tokens and lowers those of eight others, each by its own
weight times the activation; without neurons the logits are the log frequencies of the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from prosect.core.canonical import Json
from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable
from prosect.organisms.decoder import Decoder
from prosect.organisms.documents import BOS, LONGEST, SHORTEST, TOPICS, VOCAB, VOCABULARY, Language
from prosect.organisms.opened import opened
from prosect.organisms.redrawn import redrawn
from prosect.organisms.sources import SequenceSource, parts
from prosect.organisms.wiring import Wiring

if TYPE_CHECKING:
    from prosect.model import Model

POSITIONS = LONGEST + 1
SORTS = {
    "token": 12,
    "context": 12,
    "noisy 0.9": 3,
    "noisy 0.7": 3,
    "noisy 0.5": 3,
    "silent": 4,
    "unreadable": 5,
    "noise": 3,
    "dead": 3,
}
"""How many neurons of each sort."""
NOISE_HEADS = 4
NEAREST = 5  # noise comes from at least this many tokens back
HEAD = 32
SHARPNESS = 120.0
LOUD = (
    6.0  # how much louder than others the noise is that writes nothing: most of what a random direction hears
)
GUARD = 0.5  # how far below zero a neuron stays where its rule does not hold
BAR = 1.3  # noise, in standard deviations, above which a neuron fires on noise alone
FIRING = (0.6, 0.9)  # share of documents in which a rule holds somewhere
SIDE = 8  # outputs raised, and as many lowered
CALIBRATION = 100  # documents, of no part, on which noise is scaled


@dataclass(frozen=True)
class Neuron:
    """What one neuron is.

    Attributes:
        sort: one of `SORTS`.
        current: tokens it fires on, and strength on each; empty without a rule.
        strengths: as above.
        previous: tokens one of which must come before; None where any may.
        noise: factor on its noise; 0 without.
        channel: which channel of the noise it hears; None without.
        weights: what it adds to the logits for an activation of 1; zero where it writes nothing.
    """

    sort: str
    current: tuple[int, ...]
    strengths: tuple[float, ...]
    previous: tuple[int, ...] | None
    noise: float
    channel: int | None
    weights: Float[np.ndarray, " vocab"]

    @property
    def correlation(self) -> float:
        """Of the rule with the activation, as it was planted."""
        return float(self.sort.split()[1]) if self.sort.startswith("noisy") else 1.0


def network(seed: int = 0) -> tuple[Decoder, Truth]:
    """The network and its truth: a Variable at ``mlp_act.0`` for every neuron.

    Parameters of a ``token-rule``: ``current`` tokens with their ``strengths``, ``previous`` tokens or None, and
    ``correlation`` of the rule with the activation. The kind of all others is ``nothing``, with their ``sort``.
    Effects: ``raises`` and ``lowers``, token ids with the largest weight first, and ``raises_by`` and
    ``lowers_by``, the change of each of those logits for an activation of 1; empty where there is no effect.

    Args:
        seed: chooses the language, the rules, the outputs, their order and every basis.
    """
    language = Language.of(seed)
    noise = Noise.of(seed, language)
    neurons = _neurons(seed, language, noise)
    wired = _wire(seed, language, noise, neurons)
    truth = Truth(
        organism="planted",
        variables=tuple(_variable(j, neuron) for j, neuron in enumerate(neurons)),
        quantities={"neurons": float(len(neurons)), "vocabulary": float(VOCAB)},
        nulls={
            "other-document": "activations are paired with the tokens of other documents: no rule holds",
            "shuffled-outputs": "the columns of the logits are permuted: no neuron raises or lowers what it "
            "is said to",
        },
        size=f"1 layer, {len(neurons)} neurons, {VOCAB} tokens",
    )
    return wired.turned(Seed(seed).child("planted", "turn").numpy()).decoder(), truth


def build(seed: int = 0) -> tuple[Model, Truth]:
    """Token network whose neurons follow planted rules and raise planted outputs, decoys among them.

    One block wired by hand over a synthetic language and turned into a random basis. Known of each of its 48
    neurons: on which tokens it fires, after which, how strongly, and which outputs it raises and lowers; some
    follow their rule only so far, some follow none.
    """
    return opened(network(seed), source(seed))


def untrained(seed: int = 0) -> Decoder:
    """The model null: the sizes of the network of the same seed, weights as large and random."""
    return redrawn(network(seed)[0], Seed(seed).child("planted", "untrained"))


def source(
    seed: int = 0, folds: int = 2, explore: int = 240, validate: int = 96, sealed: int = 96, shift: int = 80
) -> SequenceSource:
    """Documents for the network of the same seed; those of ``shift`` are on topics no other part has.

    Args:
        seed: that of the network.
        folds: validation folds.
        explore: documents in ``explore``.
        validate: documents in each fold.
        sealed: documents in ``sealed``.
        shift: documents in ``shift``.
    """
    units = parts(explore, validate, folds, sealed, shift)
    make = Language.of(seed).document
    return SequenceSource.of("planted", seed, make, units, VOCABULARY, unit="document")


@dataclass(frozen=True)
class Noise:
    """Pseudo-random numbers that depend on several earlier tokens of a document.

    Attributes:
        picks: for each noise head and position, the position it takes a token from; 0, where the token
            says nothing, for the first few.
        tables: for each noise head, token and channel, the number that token stands for.
    """

    picks: Int[np.ndarray, "heads positions"]
    tables: Float[np.ndarray, "heads vocab channels"]

    @classmethod
    def of(cls, seed: int, language: Language) -> Noise:
        """Unit variance, and mean zero under every topic, so that no topic betrays it."""
        rng = Seed(seed).child("planted", "noise").numpy()
        last = np.maximum(np.arange(POSITIONS) - NEAREST, 0)
        picks = np.minimum(1 + np.floor(rng.random((NOISE_HEADS, POSITIONS)) * last).astype(int), last)
        tables = rng.standard_normal((NOISE_HEADS, VOCAB, HEAD))
        tables[:, BOS] = 0.0
        basis = np.linalg.qr(language.topics.T)[0]
        tables -= np.einsum("vt,wt,hwc->hvc", basis, basis, tables)
        variance = np.einsum("v,hvc->c", language.frequency, tables**2)
        return cls(picks, tables / np.sqrt(variance))

    def of_document(self, ids: Int[np.ndarray, " length"]) -> Float[np.ndarray, "length channels"]:
        """The noise at each position of a document."""
        return np.asarray(sum(t[ids[p[: len(ids)]]] for t, p in zip(self.tables, self.picks, strict=True)))


def _neurons(seed: int, language: Language, noise: Noise) -> list[Neuron]:
    """The neurons in order, each that hears noise with a channel of its own."""
    root = Seed(seed).child("planted", "neurons")
    sorts = [sort for sort, n in SORTS.items() for _ in range(n)]
    sorts = [sorts[i] for i in root.child("order").numpy().permutation(len(sorts))]
    documents = [language.document("calibration", i) for i in range(CALIBRATION)]
    tokens = np.concatenate(documents)
    heard = np.concatenate([noise.of_document(d) for d in documents])
    neurons: list[Neuron] = []
    channels = iter(range(HEAD))
    for j, sort in enumerate(sorts):
        rng = root.child(j).numpy()
        current: tuple[int, ...] = ()
        previous: tuple[int, ...] | None = None
        factor, channel = 0.0, None
        if sort == "context" or (sort == "silent" and rng.random() < 0.5):
            current, previous = _rule(rng, language, int(rng.integers(3, 6)), int(rng.integers(5, 9)))
        elif sort == "token" or sort == "silent" or sort.startswith("noisy"):
            current, _ = _rule(rng, language, int(rng.integers(1, 5)), 0)
        strengths = rng.uniform(0.5, 2.0, len(current))
        if sort.startswith("noisy"):
            rule, channel = np.zeros(VOCAB), next(channels)
            rule[list(current)] = strengths
            factor = _loudness(rule[tokens], heard[:, channel], float(sort.split()[1]))
        elif sort in ("unreadable", "noise"):
            loud = LOUD if sort == "noise" else 1.0
            factor, channel = loud * float(rng.uniform(0.5, 2.0)), next(channels)
        weights = np.zeros(VOCAB)
        if sort not in ("silent", "noise"):
            touched = 1 + rng.permutation(VOCAB - 1)[: 2 * SIDE]
            weights[touched] = np.repeat([1.0, -1.0], SIDE) * rng.uniform(0.5, 2.0, 2 * SIDE)
        neurons.append(Neuron(sort, current, tuple(strengths.tolist()), previous, factor, channel, weights))
    return neurons


def _rule(
    rng: np.random.Generator, language: Language, now: int, before: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Random sets of ``now`` current and ``before`` previous tokens that meet in `FIRING` of all documents.

    Frequent tokens are drawn more often. Of some hundred draws the first that fits is taken, or else the
    nearest.
    """
    rank = np.log(np.maximum(language.frequency, 1e-300))
    drawn = np.argsort(-(rank + rng.gumbel(size=(2, 256, VOCAB))), axis=-1)
    current, previous = drawn[0, :, :now], drawn[1, :, :before]
    usual = language.topics[:TOPICS]
    chance = usual[:, current].sum(axis=-1) * (usual[:, previous].sum(axis=-1) if before else 1.0)
    lengths = np.arange(SHORTEST, LONGEST + 1)[:, None, None]
    firing = 1.0 - ((1.0 - chance) ** lengths).mean(axis=(0, 1))
    missed = np.maximum(np.maximum(FIRING[0] - firing, firing - FIRING[1]), 0.0)
    best = int(missed.argmin())
    return tuple(sorted(current[best].tolist())), tuple(sorted(previous[best].tolist()))


def _loudness(rule: Float[np.ndarray, " n"], noise: Float[np.ndarray, " n"], correlation: float) -> float:
    """The factor on the noise with which rule and activation correlate as asked, by bisection."""
    low, high = 0.0, 16.0
    centred = (rule - rule.mean()) / rule.std()
    for _ in range(16):
        middle = (low + high) / 2
        activation = _fires(rule, middle * noise, middle)
        found = (centred * activation).mean() / activation.std()
        low, high = (middle, high) if found > correlation else (low, middle)
    return (low + high) / 2


def _fires(
    rule: Float[np.ndarray, " n"], noise: Float[np.ndarray, " n"], bar: float
) -> Float[np.ndarray, " n"]:
    """A noisy neuron's activation: noise counts from ``bar`` up, and the rule lifts it over the bar."""
    return np.asarray(np.maximum(rule + bar * (rule > 0) + noise - bar, 0.0))


def _wire(seed: int, language: Language, noise: Noise, neurons: list[Neuron]) -> Wiring:
    """The weights in a basis with one dimension for each thing.

    Subspaces of the residual stream: the current token, the position, whether the previous token is in each
    context neuron's set, the channels of the noise, and what each neuron writes.
    """
    sizes = {"token": VOCAB, "position": POSITIONS, "before": HEAD, "noise": HEAD, "logits": len(neurons)}
    ends = np.cumsum(list(sizes.values()))
    space = {name: slice(int(end) - n, int(end)) for (name, n), end in zip(sizes.items(), ends, strict=True)}
    w = Wiring.blank(VOCAB, POSITIONS, int(ends[-1]), 1, 1 + NOISE_HEADS, HEAD, len(neurons))
    rng = Seed(seed).child("planted", "weights").numpy()
    w.tokens[:, space["token"]], w.positions[:, space["position"]] = np.eye(VOCAB), np.eye(POSITIONS)
    w.unembed[space["token"]] = np.log(np.maximum(language.frequency, 1e-6))

    order = rng.permutation(1 + NOISE_HEADS)
    codes = _codes(rng)
    before = np.maximum(np.arange(POSITIONS) - 1, 0)
    for head, looks in zip(order, (before, *noise.picks), strict=True):
        w.query[0, head, space["position"]] = SHARPNESS * codes[looks]
        w.key[0, head, space["position"]] = codes
        w.out[0, head, :, space["before" if looks is before else "noise"]] = np.eye(HEAD)
    for head, table in zip(order[1:], noise.tables, strict=True):
        w.value[0, head, space["token"]] = table

    contexts = iter(range(HEAD))
    for j, neuron in enumerate(neurons):
        up = w.up[0, :, j]
        bar = GUARD
        if neuron.channel is not None:
            bar = neuron.noise * (1.0 if neuron.current else BAR)
            up[space["noise"]][neuron.channel] = neuron.noise
        up[space["token"]][list(neuron.current)] = np.array(neuron.strengths) + bar
        w.bias[0, j] = -bar
        if neuron.sort == "dead":
            up[space["token"]], w.bias[0, j] = rng.uniform(0.0, 1.0, VOCAB), -1.0 - GUARD
        if neuron.previous is not None:
            gate, context = max(neuron.strengths) + GUARD, next(contexts)
            w.value[0, order[0], space["token"], context][list(neuron.previous)] = 1.0
            up[space["before"]][context] = gate
            w.bias[0, j] -= gate
        if neuron.weights.any():
            w.down[0, j, space["logits"]][j] = 1.0
            w.unembed[space["logits"]][j] = neuron.weights
    return w


def _codes(rng: np.random.Generator) -> Float[np.ndarray, "positions head"]:
    """Unit vectors, one for each position; of some random sets the one whose members are least alike."""
    best, alike = np.empty((0, HEAD)), np.inf
    for _ in range(6):
        codes = rng.standard_normal((POSITIONS, HEAD))
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        found = float((np.einsum("ic,jc->ij", codes, codes) - 2 * np.eye(POSITIONS)).max())
        if found < alike:
            best, alike = codes, found
    return best


def _variable(j: int, neuron: Neuron) -> Variable:
    effect: dict[str, Json] = {}
    if neuron.weights.any() and neuron.sort != "dead":
        for name, sign in (("raises", -1.0), ("lowers", 1.0)):
            touched = np.argsort(sign * neuron.weights, kind="stable")[:SIDE]
            effect[name] = touched.tolist()
            effect[f"{name}_by"] = neuron.weights[touched].tolist()
    if not neuron.current:
        return Variable("mlp_act.0", j, "nothing", {"sort": neuron.sort}, effect)
    rule: dict[str, Json] = {
        "current": list(neuron.current),
        "strengths": list(neuron.strengths),
        "previous": None if neuron.previous is None else list(neuron.previous),
        "correlation": neuron.correlation,
        "sort": neuron.sort,
    }
    return Variable("mlp_act.0", j, "token-rule", rule, effect)
