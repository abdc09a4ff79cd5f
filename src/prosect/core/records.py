"""The records of the loop: what is claimed, how it agreed to be judged, and what came out.

A claim is a `Hypothesis`: one side (cause or effect) of one component, with the tests it agrees to be
judged by, frozen under a hash before any of them runs. `Evidence` is the outcome of one test. What
follows from the evidence is never stored: `prosect.core.verdicts` computes it from the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prosect.core.canonical import Json, digest

Side = Literal["cause", "effect"]
Role = Literal["control", "baseline"]
Draw = Literal["random", "chosen", "all", "refined", "scripted"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """Immutable, with no unknown fields, no NaN, and one canonical form."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Component(Record):
    """One part of a model.

    Attributes:
        decomposition: name of the decomposition it belongs to, such as ``topk@resid_post.2`` or ``heads``.
        index: its number in that decomposition.
        reads: sites it reads.
        writes: sites it writes.
        width: numbers it carries at each position: 1 for a latent, d_head for a head.
    """

    decomposition: str
    index: int
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    width: int = 1

    @property
    def name(self) -> str:
        """``topk@resid_post.2/17``: how people and links refer to it."""
        return f"{self.decomposition}/{self.index}"


class Executable(Record):
    """One half of a description in a form that can be run: a registered kind and its parameters.

    Attributes:
        kind: a name in `prosect.core.registries.DESCRIPTIONS`.
        version: of that kind's meaning.
        parameters: JSON; everything small.
        tensors: name → digest of a tensor kept in the run folder.
    """

    kind: str
    version: int = 1
    parameters: Json = None
    tensors: dict[str, str] = Field(default_factory=dict)


class Description(Record):
    """What a component is claimed to do.

    Attributes:
        words: the claim as a sentence a person can read.
        cause: when it is active.
        effect: what it changes.
        about: what the explainer wants shown: rule length, coverage, token or context, and so on.
    """

    words: str
    cause: Executable | None = None
    effect: Executable | None = None
    about: dict[str, Json] = Field(default_factory=dict)


class Rival(Record):
    """What a component must beat in a test: a control or a baseline, frozen with it.

    Attributes:
        name: such as ``random-direction``, ``shuffled-labels``, ``unigram-table``.
        role: a control has the claimed link destroyed or absent; a baseline is a simpler account.
        decides: whether the claim fails if this one is not beaten; others are shown only.
        margin: by how much, in the metric's units, the component must exceed it.
        components: what is measured for this rival, each with the description fitted for it by the same
            explainer; empty where the rival is another prediction of the same component.
        descriptions: as above; one for each component, or one or more predictions for the claim's own.
    """

    name: str
    role: Role
    decides: bool = True
    margin: Finite = 0.0
    components: tuple[Component, ...] = ()
    descriptions: tuple[Executable, ...] = ()


class TestPlan(Record):
    """How a claim agrees to be judged; frozen with it.

    Attributes:
        name: unique within the hypothesis.
        kind: a name in `prosect.core.registries.TESTS`.
        level: which of the five kinds of validation this is (1 predict, 2 failures, 3 replacement,
            5 goal); None where it belongs to no level. Level 4 is earned by methods, not by claims.
        metric: the number that is measured, with its unit.
        rivals: what must be beaten.
        unit: what is resampled: ``cluster`` of documents, ``input``, ``seed``, ``network``.
        units_min: fewer than this many units, and the verdict is inconclusive.
        firing_min: likewise for units in which the component is active at all.
        draws: resamples, B; the smallest p that can come out is 1/(B+1).
        fold: the fold of data that will be opened for it.
        seed: of every random choice in the test.
        parameters: anything else the kind needs, frozen too.
    """

    __test__ = False  # the name starts with Test, and this is no test case

    name: str
    kind: str
    level: Literal[1, 2, 3, 5] | None
    metric: str
    rivals: tuple[Rival, ...]
    unit: Literal["cluster", "input", "seed", "network"]
    units_min: int
    firing_min: int = 0
    draws: int
    fold: str
    seed: int
    parameters: dict[str, Json] = Field(default_factory=dict)

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that this plan can give."""
        return 1.0 / (self.draws + 1)


class Scope(Record):
    """What a claim was tested on; it says nothing about anything else.

    Attributes:
        model: digest of the configuration and every named weight.
        data: digest of the corpus or of the generator's parameters.
        dtype: of the computation, such as ``float32``.
        tokenizer: digest of the tokenizer, or None.
    """

    model: str
    data: str
    dtype: str
    tokenizer: str | None = None


class Hypothesis(Record):
    """A description of one side of one component, plus the tests it agrees to be judged by.

    Attributes:
        round: which turn of the loop, from 1.
        component: what the claim is about.
        side: its cause or its effect.
        description: the claim.
        explainer: the method that made it, with its version: ``rules@1``.
        draw: how the component came to be looked at.
        tests: frozen plans.
        scope: what it holds for.
        parent: id of the refuted or undecided hypothesis it refines.
        explored: what the explore split seemed to say; shown beside the measured value, never as it.
    """

    round: int
    component: Component
    side: Side
    description: Description
    explainer: str
    draw: Draw
    tests: tuple[TestPlan, ...]
    scope: Scope
    parent: str | None = None
    explored: dict[str, Json] = Field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the hash of everything above."""
        return digest(self)[:16]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Hypothesis:
        """A copy, which has its own id."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("id", None)
        return copied


class Family(Record):
    """All claims of one round, closed before any test of it opens.

    Attributes:
        round: which turn of the loop.
        alpha: the share of the run's error budget that this round spends.
        hypotheses: ids, in order of registration.
        tests: how many tests that is; the m of Holm's correction.
    """

    round: int
    alpha: Finite
    hypotheses: tuple[str, ...]
    tests: int


class Measured(Record):
    """A number with its 95 % interval; None where it could not be computed, with the reason in ``note``.

    Attributes:
        estimate: the point estimate.
        low: lower end of the interval.
        high: upper end.
        n: independent units it rests on.
        method: how the interval was made.
        note: why a value is missing.
    """

    estimate: Finite | None
    low: Finite | None = None
    high: Finite | None = None
    n: int = 0
    method: str = ""
    note: str = ""


class Comparison(Record):
    """A component against one rival.

    Attributes:
        rival: its name.
        role: control or baseline.
        decides: whether the verdict depends on it.
        measured: the same number for the rival.
        difference: component minus rival.
        margin: what the difference had to exceed.
        p: one-sided p-value of "the difference is at most the margin"; None if it could not be computed.
    """

    rival: str
    role: Role
    decides: bool
    measured: Measured
    difference: Measured
    margin: Finite
    p: Finite | None


class Evidence(Record):
    """The outcome of one test of one hypothesis.

    Attributes:
        hypothesis: its id.
        test: the plan's name.
        measured: the metric for the component.
        comparisons: the same number for every rival.
        p: the largest p over the rivals that decide (all must be beaten); None if not computable.
        units: independent units used.
        firing: units in which the component was active.
        enough: whether both reached what the plan asked for.
        note: what the reader must know, such as why there was not enough.
        cost: counts (forward passes, tokens), never seconds, so that records are reproducible.
    """

    hypothesis: str
    test: str
    measured: Measured
    comparisons: tuple[Comparison, ...] = ()
    p: Finite | None = None
    units: int
    firing: int = 0
    enough: bool = True
    note: str = ""
    cost: dict[str, int] = Field(default_factory=dict)


class TruthCheck(Record):
    """Whether a claim is true of an organism whose mechanism is known; unknown is not false.

    Attributes:
        hypothesis: its id.
        holds: True, False, or None where the truth does not say.
        why: what the truth says instead.
    """

    hypothesis: str
    holds: bool | None
    why: str = ""


class Calibration(Record):
    """How often a method's supported claims are true, measured where the truth is known (level 4).

    Attributes:
        method: explainer with version.
        side: which side of a description it judged.
        organism: the kind of organism, with its size: transfer to larger models is unmeasured.
        supported: supported claims.
        true: how many of them the truth confirms.
        precision: share, with its interval over organism seeds.
        recall: share of the organism's true parts that were supported.
        seeds: organisms used.
        code: digest of the method's source, so that a changed method is "never measured".
        size: of the organism, in words.
        kind: what the components are: ``neurons``, ``heads``, ``latents``.
        components: how many of them one organism has.
    """

    method: str
    side: Side
    organism: str
    supported: int
    true: int
    precision: Measured
    recall: Measured
    seeds: int
    code: str
    size: str = ""
    kind: str = ""
    components: int | None = None

    @property
    def decade(self) -> str:
        """Power of ten that the number of components is in, such as ``10 to 99``; empty where it is not known."""
        if self.components is None:
            return ""
        low = 10 ** (len(str(self.components)) - 1)
        return f"{low} to {10 * low - 1}"


class Opening(Record):
    """A fold of unseen data was opened, by whom and for what."""

    fold: str
    data: str
    round: int
    hypotheses: int


class Note(Record):
    """Something the reader must know that is no claim: a decision made for the user, a repair, a skip."""

    about: str
    text: str
    data: dict[str, Json] = Field(default_factory=dict)
