"""What an audit says: a line for each limitation, with its number, what controls give, and a word.

Every number is oriented so that more is worse. Two controls are built on the user's own model and text: one in which
the limitation is absent, one in which it is there. The control interval reaches from the first a declared share of the
way to the second. The word says where the whole interval of the number lies. Where the two controls cannot be told
apart, the instrument is blind here, and no word is given however good the number looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, UnknownName
from prosect.core.exhibits import Figure
from prosect.core.records import Measured
from prosect.decompose.audit.limitations import LIMITATIONS, Limitation

Word = Literal["inside", "outside", "undecided", "cannot tell", "not run"]
SCHEMA = 1
EXACT = "exact count"


@dataclass(frozen=True)
class Line:
    """One limitation, measured.

    Attributes:
        id: a key of `LIMITATIONS`.
        measured: the number, with a 95 % interval; no estimate where it was not run.
        absent: the same number where the limitation is absent by construction (negative control).
        present: the same where it is there by construction (positive control).
        null: the same where the link that it measures is destroyed.
        controls: what the two controls and the null are, in words, by name.
        figures: what else was measured on the way.
        remarks: what must be known to read it.
        why: why it was not run; empty where it was.
        unit: what one independent unit of the interval is.
        share: as `Limitation.share`, unless the user set another.
    """

    id: str
    measured: Measured
    absent: Measured
    present: Measured
    null: Measured
    controls: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    remarks: tuple[str, ...] = ()
    why: str = ""
    unit: str = "document"
    share: float = -1.0

    def __post_init__(self) -> None:
        if self.id not in LIMITATIONS:
            raise UnknownName("limitation", self.id, LIMITATIONS)
        if self.share < 0:
            object.__setattr__(self, "share", LIMITATIONS[self.id].share)

    @property
    def about(self) -> Limitation:
        """The limitation."""
        return LIMITATIONS[self.id]

    @property
    def limit(self) -> float | None:
        """Upper end of the control interval; None without controls."""
        absent, present = self.absent.estimate, self.present.estimate
        return None if absent is None or present is None else absent + self.share * (present - absent)

    @property
    def position(self) -> float | None:
        """Where the number lies between its controls: 0 where the limitation is absent, 1 where it is there."""
        absent, present, found = self.absent.estimate, self.present.estimate, self.measured.estimate
        if absent is None or present is None or found is None or present <= absent:
            return None
        return (found - absent) / (present - absent)

    @property
    def tells(self) -> bool:
        """Whether the controls can be told apart: the intervals do not touch, and present is above absent."""
        absent, present = self.absent, self.present
        if absent.estimate is None or present.estimate is None:
            return False
        highest = absent.estimate if absent.high is None else absent.high
        lowest = present.estimate if present.low is None else present.low
        return lowest > highest

    @property
    def word(self) -> Word:
        """Where the whole interval of the number lies.

        ``inside``: at or below the limit; ``outside``: above it; ``undecided``: on both sides, or without an
        interval; ``cannot tell``: the controls give the same here; ``not run``: there is no number.
        """
        limit = self.limit
        if self.why or self.measured.estimate is None:
            return "not run"
        if limit is None or not self.tells:
            return "cannot tell"
        if self.measured.high is not None and self.measured.high <= limit:
            return "inside"
        if self.measured.low is not None and self.measured.low > limit:
            return "outside"
        return "undecided"


@dataclass(frozen=True)
class Scorecard:
    """The lines of one dictionary, and what they were measured on.

    Attributes:
        dictionary: its name.
        facts: numbers and words about it, the model and the text.
        lines: in the order of `LIMITATIONS`.
        notes: decisions and doubts, one sentence each.
        provenance: versions, machine, seeds.
    """

    dictionary: str
    facts: Mapping[str, Json]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Json] = field(default_factory=dict)

    def line(self, id: str) -> Line:
        """One of its lines.

        Raises:
            UnknownName: there is none of this id.
        """
        found = {line.id: line for line in self.lines}
        if id not in found:
            raise UnknownName("line", id, found)
        return found[id]


def line_of(
    id: str,
    four: Mapping[str, Measured],
    controls: Mapping[str, str],
    figures: tuple[Figure, ...] = (),
    remarks: tuple[str, ...] = (),
) -> Line:
    """A line from its four numbers by name: ``measured``, ``absent``, ``present`` and ``null``."""
    return Line(
        id,
        four["measured"],
        four["absent"],
        four["present"],
        four["null"],
        controls=controls,
        figures=figures,
        remarks=remarks,
    )


def not_run(id: str, why: str, figures: tuple[Figure, ...] = ()) -> Line:
    """A line without a number, and why."""
    nothing = Measured(estimate=None, note=why)
    return Line(id, nothing, nothing, nothing, nothing, figures=figures, why=why)


def exact(value: float) -> Measured:
    """A number that was counted: it has no error."""
    return Measured(estimate=value, low=value, high=value, method=EXACT)


def as_json(card: Scorecard) -> Json:
    """A scorecard for ``audit.json``: what `read` reads, with words and limits beside it."""
    lines = []
    for line in card.lines:
        about = line.about
        lines.append(
            {
                **plain(line),
                "limitation": about.name,
                "number": about.number,
                "limit": line.limit,
                "position": line.position,
                "word": line.word,
            }
        )
    return plain(
        {
            "schema": SCHEMA,
            "dictionary": card.dictionary,
            "facts": card.facts,
            "lines": lines,
            "notes": card.notes,
            "provenance": card.provenance,
        }
    )


def read(content: Json) -> Scorecard:
    """The scorecard that `as_json` wrote; words are computed anew from its numbers.

    Raises:
        BadInput: it is no scorecard.
    """
    try:
        if content["schema"] != SCHEMA:
            raise BadInput(f"a scorecard of schema {content['schema']}", f"schema {SCHEMA}")
        return Scorecard(
            content["dictionary"],
            content["facts"],
            tuple(_line(entry) for entry in content["lines"]),
            tuple(content["notes"]),
            content["provenance"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"no scorecard ({type(error).__name__}: {error})", "what prosect audit wrote"
        ) from error


def _line(entry: Json) -> Line:
    four = {k: Measured.model_validate(entry[k]) for k in ("measured", "absent", "present", "null")}
    return Line(
        id=entry["id"],
        **four,
        controls=entry["controls"],
        figures=tuple(Figure.model_validate(f) for f in entry["figures"]),
        remarks=tuple(entry["remarks"]),
        why=entry["why"],
        unit=entry["unit"],
        share=entry["share"],
    )
