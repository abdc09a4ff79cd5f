"""What a report may show: plain records, so that it rebuilds from a run folder without any model.

An exhibit is an illustration, never evidence: verdicts come from the ledger alone. The assay writes one
`Exhibit` for each component it examined (``exhibits/<slug>.json``) and one `Findings` for the run
(``findings.json``); `prosect.report` reads them.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from prosect.core.canonical import Json
from prosect.core.pictures import Picture
from prosect.core.records import Component, Finite, Measured, Record

Stratum = Literal["top", "middle", "near miss", "random"]


class TokenExample(Record):
    """A window of text around one position.

    Attributes:
        documents: which of the disjoint document sets it comes from: ``first`` or ``second``.
        stratum: how it was drawn: from the top of the activations, their middle, just under the
            threshold (positions where the rule fires or nearly so and the component does not), or at random.
        source: document name.
        tokens: decoded tokens, white space kept.
        measured: activation at each token.
        predicted: what the description predicts at each token; empty if it predicts nothing there.
        centre: index of the token the example was drawn for.
    """

    documents: Literal["first", "second"]
    stratum: Stratum
    source: str
    tokens: tuple[str, ...]
    measured: tuple[Finite, ...]
    predicted: tuple[Finite, ...] = ()
    centre: int


class InputExample(Record):
    """One input without tokens: its words, and measured against predicted activation."""

    documents: Literal["first", "second"]
    stratum: Stratum
    words: str
    measured: Finite
    predicted: Finite | None = None


class AttentionExample(Record):
    """Where one query looks: attention over the tokens before it, and where the role says it should look.

    Attributes:
        tokens: decoded tokens up to and including the query.
        query: index of the query.
        attention: weight on each token.
        predicted: weight the description puts on each token; all zero where it says nothing.
        source: document name.
    """

    tokens: tuple[str, ...]
    query: int
    attention: tuple[Finite, ...]
    predicted: tuple[Finite, ...]
    source: str = ""


class Scatter(Record):
    """Measured against predicted on unseen data, a random sample of points, with a control's behind it."""

    predicted: tuple[Finite, ...]
    measured: tuple[Finite, ...]
    control_predicted: tuple[Finite, ...] = ()
    control_measured: tuple[Finite, ...] = ()
    population: int = 0
    unit: str = "activation"


class Grid(Record):
    """Two small images over the same two inputs: measured and predicted activation."""

    rows: str
    columns: str
    measured: tuple[tuple[Finite, ...], ...]
    predicted: tuple[tuple[Finite, ...], ...]


class OutputEffect(Record):
    """One output that a component was predicted to raise or lower, and what ablating it did.

    Attributes:
        output: the output in words, such as a decoded token.
        direction: what was predicted.
        explored: the effect seen on explore, in the metric's units; None where explore was not looked at,
            as when the output was named from weights.
        measured: the effect on unseen data.
    """

    output: str
    direction: Literal["raises", "lowers"]
    explored: Finite | None = None
    measured: Measured | None = None


class Exhibit(Record):
    """Everything a component's card may show.

    Attributes:
        component: which one.
        kind: ``latent``, ``neuron``, ``head``, ``direction``: for filters.
        site: where it lives; layer is -1 where that means nothing.
        facts: small named numbers and words: firing rate, norm, rule length, coverage, beats the unigram table.
        agreement: how alike the descriptions found on two disjoint document sets are, in [-1, 1].
        units_drawn: the population the shown examples were drawn from, in words.
    """

    component: Component
    kind: str
    site: str
    layer: int = -1
    tokens: tuple[TokenExample, ...] = ()
    inputs: tuple[InputExample, ...] = ()
    attention: tuple[AttentionExample, ...] = ()
    scatter: Scatter | None = None
    grid: Grid | None = None
    effects: tuple[OutputEffect, ...] = ()
    facts: dict[str, Json] = Field(default_factory=dict)
    agreement: Finite | None = None
    units_drawn: str = ""

    @property
    def slug(self) -> str:
        """A file name for it."""
        return slug(self.component.name)


def slug(name: str) -> str:
    """``name`` with everything but letters, digits, dots and hyphens replaced, for file names and links."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")


class SiteCell(Record):
    """One place of the map of the model: how much was there and how much was looked at.

    Attributes:
        layer: row of the map; -1 for places outside layers.
        place: column of the map: ``heads``, ``neurons``, ``dictionary on resid_post``.
        components: how many components are there.
        examined: how many had a claim registered.
    """

    layer: int
    place: str
    components: int
    examined: int = 0


class Figure(Record):
    """A named number with its interval, in words: quality of a decomposition, a rate, a recovery score."""

    name: str
    measured: Measured
    unit: str = ""
    about: str = ""


class FigureTable(Record):
    """Figures side by side: one row for each method or group, the plain baselines among them."""

    title: str
    about: str
    rows: tuple[Figure, ...]


class SplitFact(Record):
    """One part of the data: documents or inputs, clusters of near-duplicates, rows, tokens, and its use."""

    name: str
    use: str
    documents: int
    units: int
    rows: int
    tokens: int


class Findings(Record):
    """What the run as a whole has to say beside its ledger.

    Attributes:
        title: of the page.
        question: what was asked, one sentence.
        model: words about the model; ``model_facts`` are its numbers.
        data: words about the data.
        map: every place of the model, examined or not.
        splits: counts.
        tables: figures that belong to no single claim.
        pictures: what explore looked like.
        decisions: what was decided for the user, one sentence each.
        limits: what could not be ruled out.
        cost: counts, such as forward passes and tokens.
        partial: words if the run was limited on purpose.
        command: what reproduces it.
        unit: what one independent unit is, in words: "cluster of near-duplicate files".
        sealed: what the sealed split said, in words; openings by earlier runs included.
    """

    title: str
    question: str
    model: str
    model_facts: dict[str, Json] = Field(default_factory=dict)
    data: str
    map: tuple[SiteCell, ...] = ()
    splits: tuple[SplitFact, ...] = ()
    tables: tuple[FigureTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    decisions: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    cost: dict[str, int] = Field(default_factory=dict)
    partial: str = ""
    command: str = ""
    unit: str = "independent input"
    sealed: str = ""
