"""The one call: a map over features, with its checks attached."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.attribution import first_order as error
from prosect.describe.attribution.expected import ExpectedGradients
from prosect.describe.attribution.explicand import Explicand, refuse_quantised
from prosect.describe.attribution.features import Features, choose
from prosect.describe.attribution.gradcam import GradCam
from prosect.describe.attribution.gradients import InputGradient, Saliency, first_order
from prosect.describe.attribution.integrated import IntegratedGradients
from prosect.describe.attribution.lime import Lime
from prosect.describe.attribution.method import Method, Scores
from prosect.describe.attribution.occlusion import Occlusion
from prosect.describe.attribution.ranks import over_rows
from prosect.describe.attribution.reference import Baseline, reference
from prosect.describe.attribution.result import Attribution
from prosect.describe.attribution.sanity import Randomisation, Retrain, Sanity, check
from prosect.describe.attribution.shapley import Shapley
from prosect.model.inputs import Inputs
from prosect.model.model import Model
from prosect.model.sweep import Metric

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS: dict[str, Callable[[], Method]] = {
    "saliency": Saliency,
    "input-x-gradient": InputGradient,
    "integrated-gradients": IntegratedGradients,
    "expected-gradients": ExpectedGradients,
    "shapley": Shapley,
    "lime": Lime,
    "occlusion": Occlusion,
    "gradcam": GradCam,
}
"""Names of methods with their default settings."""

INCOMPLETE = 0.01
"""Share of the largest difference from which on a completeness error is worth a note."""


def attribute(
    model: Model,
    batch: Inputs,
    metric: Metric,
    method: str | Method = "integrated-gradients",
    *,
    features: str | None = None,
    site: str | None = None,
    groups: Tensor | None = None,
    baseline: Baseline | None = None,
    background: Tensor | Batch | None = None,
    sanity: Randomisation | None = Randomisation(),  # noqa: B008  (frozen)
    retrain: Retrain | None = None,
    pairs: int = 64,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> Attribution:
    """How much each feature of each row counts towards a metric.

    Args:
        model: opened.
        batch: the rows.
        metric: (output, batch) → one number for each row, from that row alone; differentiable for methods
            that take gradients.
        method: a name from `METHODS`, or a method with settings of its own.
        features: ``tokens``, ``positions`` or ``cells`` of a site, or ``inputs``; by default tokens where
            there are token ids, and cells for Grad-CAM. See `features.choose`.
        site: the site of positions or cells, or the name of the input tensor.
        groups: which feature each number of an input belongs to, whole numbers of the shape of a row.
        baseline: what an absent feature is replaced by. See `reference.reference`.
        background: several points to average over instead.
        sanity: how weights are randomised to see whether the map depends on them; None to leave it out.
        retrain: trains the same architecture on permuted labels, if there is a recipe.
        pairs: of a row and a feature that gradient methods are held against exact replacement on; 0 for none.
        seed: root of all draws.
        budget_mb: memory that one pass may take, as estimated.

    Returns:
        The values, with their completeness error, checks and costs.

    Raises:
        UnknownName: no such method, kind of features, site or input.
        Unsupported: gradients through a quantised model; features that this model does not have.
        ShapeMismatch: a baseline, groups or a metric of the wrong shape.
        BadInput: arguments that contradict each other; a metric without a gradient.
        NotFinite: NaN or infinity on the way.
    """
    chosen = _method(method)
    if pairs < 0:
        raise BadInput(f"{pairs} pairs", "0 or more")
    if chosen.gradient:
        refuse_quantised(model)
    rows = model.batch(batch)
    kind = "cells" if features is None and isinstance(chosen, GradCam) else features
    cut, present = choose(model, rows, kind, site, groups)
    explicand = Explicand(model, rows, metric, cut, present, budget_mb)
    used = reference(explicand, baseline, background, chosen.several)
    root = Seed(seed).child("attribution", chosen.name)
    scores = checked(chosen(explicand, used, root.child("map")), explicand, chosen)
    against = None
    if chosen.gradient and pairs:
        estimates = scores.values if scores.replaces else first_order(explicand, used)
        against = error.measure(explicand, used, estimates, pairs, root.child("first order"))

    def again(of: Explicand, which: list[int]) -> np.ndarray:
        """The map as it was made, on the model as it is now, with other draws."""
        whole = Explicand(of.model, rows, metric, cut, present, budget_mb, of.cost)
        moved = reference(whole, baseline, background, chosen.several).rows(which)
        return checked(chosen(of, moved, root.child("again")), of, chosen).values

    if sanity is None:
        found = Sanity("not run", "not run: switched off by the caller")
    else:
        found = check(explicand, scores.values, again, sanity, retrain, root.child("sanity"))
    digest, nameless = _named(model)
    return Attribution(
        method=chosen.name,
        settings=_settings(chosen),
        values=scores.values,
        present=present.numpy(),
        features=cut,
        labels=_labels(model, rows, cut),
        value_function=chosen.words,
        baseline=used.words,
        output=explicand.itself().numpy(),
        promised=scores.promised,
        errors=scores.errors,
        stability=_stability(scores, rows, root),
        joint=scores.joint,
        first_order=against,
        sanity=found,
        units=rows.units,
        notes=(
            *nameless,
            *cut.decided,
            *used.decided,
            *_looked_at(sanity, len(rows)),
            *_gap(scores),
            *scores.notes,
        ),
        seed=Seed(seed),
        cost=explicand.cost,
        model=digest,
    )


def checked(scores: Scores, explicand: Explicand, method: Method) -> Scores:
    """``scores``, if they are what a method owes.

    Raises:
        ShapeMismatch: not one value for each row and feature.
        NotFinite: a value is NaN or infinite.
    """
    shape = (len(explicand), explicand.features.count)
    if scores.values.shape != shape:
        raise ShapeMismatch(f"{scores.values.shape} from {method.name}", f"{shape}: rows and features")
    if not np.isfinite(scores.values).all():
        raise NotFinite(f"NaN or infinity from {method.name}", "finite values")
    return scores


def _method(given: object) -> Method:
    if isinstance(given, str):
        if given not in METHODS:
            raise UnknownName("attribution method", given, METHODS)
        return METHODS[given]()
    if not isinstance(given, Method):
        raise BadInput(
            f"a {type(given).__name__} as method", "a name, or an object with the fields of Method"
        )
    return given


def _settings(method: Method) -> dict[str, Json]:
    settings = {name: getattr(method, name) for name in getattr(method, "__dataclass_fields__", ())}
    own = {k: v for k, v in settings.items() if k not in ("name", "gradient", "several", "words")}
    plain: dict[str, Json] = json.loads(json.dumps(own, default=str))
    return plain


def _stability(scores: Scores, rows: Batch, root: Seed) -> Measured | None:
    if scores.stability is None:
        return None
    return over_rows(scores.stability, rows.units, root.child("stability"), -1.0, 1.0)


def _named(model: Model) -> tuple[str, tuple[str, ...]]:
    """The model's digest; empty, with a note, where its state is more than tensors (packed quantised weights)."""
    if all(isinstance(t, Tensor) for t in model.module.state_dict().values()):
        return model.digest, ()
    return "", ("the model has no digest: its state holds more than tensors",)


def _gap(scores: Scores) -> tuple[str, ...]:
    if scores.promised is None or len(scores.promised) == 0:
        return ()
    error, scale = np.abs(scores.values.sum(axis=1) - scores.promised).max(), np.abs(scores.promised).max()
    if error <= INCOMPLETE * scale or error < 1e-9:
        return ()
    return (f"completeness error up to {error:.2g} of differences up to {scale:.2g}: more steps or samples",)


def _looked_at(sanity: Randomisation | None, rows: int) -> tuple[str, ...]:
    if sanity is None or rows <= sanity.rows:
        return ()
    return (f"sanity checks look at the first {sanity.rows} of {rows} rows",)


def _labels(model: Model, rows: Batch, cut: Features) -> tuple[tuple[str, ...], ...] | None:
    ids = rows.tensors.get("input_ids")
    if cut.kind != "tokens" or model.tokenizer is None or not isinstance(ids, Tensor):
        return None
    return tuple(tuple(model.tokenizer.decode([i]) for i in row) for row in ids.tolist())
