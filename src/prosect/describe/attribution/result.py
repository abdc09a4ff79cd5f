"""What an attribution found, with everything that is needed to judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from markupsafe import Markup

from prosect.core.canonical import Json
from prosect.core.errors import BadInput
from prosect.core.intervals import INTERVAL_DRAWS, Contrast, Mean, Resamples, Term
from prosect.core.markup import card
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.attribution.explicand import Cost
from prosect.describe.attribution.features import Features
from prosect.describe.attribution.first_order import FirstOrder
from prosect.describe.attribution.sanity import Sanity

MOST_SUMMED = 256


@dataclass(frozen=True)
class Importance:
    """One feature over all rows.

    Attributes:
        feature: its number.
        size: mean absolute value, with its interval over independent units.
        value: mean value.
        others: control: mean absolute value of a row's features, what each would get from a map that could
            not tell them apart.
        difference: size minus others.
    """

    feature: int
    size: Measured
    value: Measured
    others: Measured
    difference: Measured


@dataclass(frozen=True, eq=False)
class Attribution:
    """A number for each feature of each row.

    Attributes:
        method: its name.
        settings: of the method.
        values: (rows, features), in the metric's units unless ``value_function`` says otherwise; zero where
            a row has no such feature.
        present: which features are there.
        features: what they are.
        labels: the token of each feature, where features are tokens and the model has a tokenizer.
        value_function: what a value means.
        baseline: what absent features are replaced by, in words.
        output: the metric of each row.
        promised: what each row's values should add up to; None where the method promises nothing.
        completeness: |sum of values − promised| of each row; None likewise.
        errors: standard error of each value, where the method samples.
        stability: rank correlation between repeats, where the method repeats itself.
        joint: what replacing all features at once changes, where the method measures it.
        first_order: error against exact replacement, for gradient methods; None for others or if not asked.
        sanity: whether the map depends on the model.
        units: the independent unit of each row.
        notes: what was decided for the caller, and what the reader should know.
        seed: root of all draws.
        cost: rows that went through the model, all checks included.
        model: its digest.
    """

    method: str
    settings: Mapping[str, Json]
    values: Float[np.ndarray, "rows features"] = field(repr=False)
    present: Bool[np.ndarray, "rows features"] = field(repr=False)
    features: Features = field(repr=False)
    labels: tuple[tuple[str, ...], ...] | None = field(repr=False)
    value_function: str
    baseline: str
    output: Float[np.ndarray, " rows"] = field(repr=False)
    promised: Float[np.ndarray, " rows"] | None = field(repr=False)
    errors: Float[np.ndarray, "rows features"] | None = field(repr=False)
    stability: Measured | None
    joint: Float[np.ndarray, " rows"] | None = field(repr=False)
    first_order: FirstOrder | None = field(repr=False)
    sanity: Sanity = field(repr=False)
    units: np.ndarray = field(repr=False)
    notes: tuple[str, ...]
    seed: Seed
    cost: Cost
    model: str

    @property
    def n(self) -> int:
        """Independent units."""
        return len(np.unique(self.units))

    @property
    def completeness(self) -> Float[np.ndarray, " rows"] | None:
        """|sum of values − promised| of each row; None where the method promises nothing."""
        return None if self.promised is None else np.abs(self.values.sum(axis=1) - self.promised)

    def importance(self, features: Sequence[int] | None = None) -> tuple[Importance, ...]:
        """Features over all rows, where a number means the same feature in every row, in the order asked for.

        A feature picked because it came out largest here must be measured on other rows: what is chosen as
        the largest is overestimated.

        Args:
            features: their numbers; all by default.

        Raises:
            BadInput: more than 256 without naming them, or a number that is not there.
        """
        count = self.values.shape[1]
        if features is None and count > MOST_SUMMED:
            raise BadInput(f"{count} features", f"at most {MOST_SUMMED} at once", "features=[...]")
        chosen = list(range(count)) if features is None else list(features)
        absent = [f for f in chosen if not 0 <= f < count]
        if absent:
            raise BadInput(f"feature {absent[0]}", f"features from 0 to {count - 1}")
        unit, at = np.unique(self.units, return_inverse=True)

        def sums(there: np.ndarray, total: np.ndarray) -> np.ndarray:
            columns = (np.bincount(at, w, minlength=len(unit)) for w in (there.astype(float), total))
            return np.stack(list(columns), axis=1)

        size = np.abs(self.values)
        every = Term([sums(self.present.sum(axis=1), size.sum(axis=1))])
        terms = [every]
        for f in chosen:
            there = self.present[:, f]
            terms += [Term([sums(there, size[:, f])]), Term([sums(there, self.values[:, f])])]
        wanted = [Contrast(0)]
        for i in range(len(chosen)):
            wanted += [Contrast(2 * i + 1), Contrast(2 * i + 2), Contrast(2 * i + 1, 0)]
        draws = Resamples(len(unit), INTERVAL_DRAWS, self.seed.child("importance"))
        others, *found = (r.measured for r in draws.contrasts(terms, wanted, Mean()))
        return tuple(
            Importance(f, found[3 * i], found[3 * i + 1], others, found[3 * i + 2])
            for i, f in enumerate(chosen)
        )

    def summary(self) -> dict[str, Json]:
        """What a record or a table shows of it, as JSON: everything but the values themselves."""
        gap = self.completeness
        return {
            "method": self.method,
            "settings": dict(self.settings),
            "features": self.features.words,
            "place": self.features.place,
            "value function": self.value_function,
            "baseline": self.baseline,
            "rows": len(self.values),
            "n": self.n,
            "completeness error": None if gap is None else float(gap.max()),
            "sanity": self.sanity.verdict,
            "sanity in words": self.sanity.words,
            "labels": self.sanity.labels_words,
            "first order": None if self.first_order is None else self.first_order.words,
            "saturated": None if self.first_order is None else self.first_order.saturated,
            "notes": list(self.notes),
            "forward rows": self.cost.forwards,
            "backward rows": self.cost.backwards,
            "seed": self.seed.root,
            "model": self.model,
        }

    def _repr_html_(self) -> Markup:
        shown = self.summary()
        keys = ("features", "value function", "baseline", "n", "completeness error", "first order")
        rows: list[tuple[str, object]] = [(k, shown[k]) for k in keys if shown[k] is not None]
        rows.append(("sanity", f"{self.sanity.verdict}; {self.sanity.words}"))
        return card(f"{self.method} of {len(self.values)} rows", rows, "; ".join(self.notes))
