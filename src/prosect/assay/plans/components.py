"""Plans for claims about components: when they are active, what they do, and code in their place."""

from __future__ import annotations

from collections.abc import Sequence

from prosect.assay.plans.made import Fitted, aside, baseline, control, fitted, plan
from prosect.assay.spec import Spec
from prosect.core.records import Component, Executable, Rival, TestPlan
from prosect.validate import attend, changes, matters, predict, raises, replace

SECOND = "second-document-set"
"""What the same explainer finds in the second of the two explored document sets alone. It decides nothing: it shows
how much of a description depends on which documents were looked at (Bolukbasi et al. 2021)."""
OTHER_SETS = "other-sets-of-heads"


def predicts(
    spec: Spec,
    fold: str,
    unit: str,
    *,
    controls: Sequence[Fitted],
    shuffled: Executable,
    baselines: Sequence[tuple[str, bool, Executable]],
    untrained: Sequence[Fitted] = (),
    second: Executable | None = None,
    firing: bool = True,
) -> TestPlan:
    """A cause: predicted against measured activation.

    Args:
        spec: the run's.
        fold: to be opened.
        unit: what is resampled: ``cluster`` or ``input``.
        controls: random directions at a matched firing rate.
        shuffled: the description of this component's activations shuffled over documents.
        baselines: (name, whether the claim must beat it, a plainer account of the same activations).
        untrained: components of untrained networks; shown, since a claim may be true of them too.
        second: the description found in the second document set alone; shown.
        firing: whether to ask for units in which the component is active.
    """
    margin, plain = spec.validate_.margin, spec.validate_.margin_table
    rivals = (
        fitted("random-direction", controls, margin),
        control("shuffled-labels", margin, shuffled),
        *(baseline(n, plain, e) if decides else aside(baseline(n, 0.0, e)) for n, decides, e in baselines),
        aside(fitted("untrained-networks", untrained, 0.0)),
        *_second(second),
    )
    return plan(
        spec,
        fold,
        unit,
        name="predicts",
        kind=predict.KIND,
        metric=predict.METRIC,
        rivals=tuple(r for r in rivals if r.descriptions),
        firing_min=spec.validate_.firing_min if firing else 0,
    )


def _second(found: Executable | None) -> tuple[Rival, ...]:
    return () if found is None else (aside(control(SECOND, 0.0, found)),)


def raises_outputs(
    spec: Spec,
    fold: str,
    *,
    controls: Sequence[Fitted],
    others: Sequence[Executable],
    scale: float,
    second: Executable | None = None,
) -> TestPlan:
    """An effect on named outputs.

    Args:
        spec: the run's.
        fold: to be opened.
        controls: random directions, each with the outputs found for it.
        others: outputs claimed of other components: the labels, shuffled.
        scale: size of the removal that effects are expressed for, in the site's units.
        second: the outputs named from the second document set alone; shown.
    """
    margin = spec.validate_.margin_effect
    return plan(
        spec,
        fold,
        "cluster",
        name="raises",
        kind=raises.KIND,
        metric=raises.METRIC,
        rivals=(
            fitted(raises.RANDOM, controls, margin),
            control(raises.SHUFFLED, margin, *others),
            *_second(second),
        ),
        firing_min=spec.validate_.firing_min,
        parameters={"scale": scale, "rows": spec.validate_.effect_rows},
    )


def attends(
    spec: Spec,
    fold: str,
    *,
    others: Sequence[Component],
    offsets: Executable,
    content: bool,
    second: Executable | None = None,
) -> TestPlan:
    """A head's attention.

    Args:
        spec: the run's.
        fold: to be opened.
        others: heads to compare with.
        offsets: the head's own mean attention by distance.
        content: whether the role depends on the text; such a role must beat distance and shuffled text,
            a role by position must beat evenly spread attention.
        second: the head's best role in the second document set alone; shown.
    """
    margin = spec.validate_.margin_attention
    of_content = control(attend.SHUFFLED, margin), baseline(attend.OFFSETS, margin, offsets)
    shuffled, distance = of_content if content else tuple(map(aside, of_content))
    return plan(
        spec,
        fold,
        "cluster",
        name="attends",
        kind=attend.KIND,
        metric=attend.METRIC,
        rivals=(
            _others(attend.OTHER_HEADS, margin, others),
            shuffled,
            distance,
            baseline(attend.UNIFORM, margin),
            *_second(second),
        ),
        firing_min=spec.validate_.firing_min,
    )


def _others(name: str, margin: float, components: Sequence[Component]) -> Rival:
    return Rival(name=name, role="control", margin=margin, components=tuple(components))


def matters_where(spec: Spec, fold: str, *, others: Sequence[Component]) -> TestPlan:
    """A head's effect on the predictions its role is about, against other heads."""
    return plan(
        spec,
        fold,
        "cluster",
        name="matters",
        kind=matters.KIND,
        metric=matters.METRIC,
        rivals=(_others(attend.OTHER_HEADS, spec.validate_.margin_loss, others),),
        parameters={"rows": 1, "units": spec.validate_.effect_rows},
    )


def matters_together(
    spec: Spec, fold: str, *, heads: Sequence[tuple[int, int]], others: Sequence[Sequence[tuple[int, int]]]
) -> TestPlan:
    """The effect of several heads on repeated spans, against sets of as many others."""
    return plan(
        spec,
        fold,
        "cluster",
        name="matters",
        kind=matters.KIND,
        metric="rise of the loss without the heads, on repeated spans (nats)",
        rivals=(control(OTHER_SETS, spec.validate_.margin_loss),),
        parameters={
            "rows": 1,
            "repeated": True,
            "heads": [list(h) for h in heads],
            "others": [[list(h) for h in some] for some in others],
        },
    )


def changes_outputs(
    spec: Spec, fold: str, *, others: Sequence[Executable], second: Executable | None = None
) -> TestPlan:
    """A unit's effect on every output, against other units' descriptions.

    ``second`` is what the second set of explored inputs alone gives; shown.
    """
    return plan(
        spec,
        fold,
        "input",
        name="changes",
        kind=changes.KIND,
        metric=changes.METRIC,
        rivals=(control("other-units", spec.validate_.margin_change, *others), *_second(second)),
    )


def replaces(spec: Spec, fold: str, unit: str, *, fit: Executable) -> TestPlan:
    """Level 3: parts replaced by code.

    Args:
        spec: the run's.
        fold: to be opened, together with the registered shift.
        unit: ``input`` or ``cluster``.
        fit: the same parts replaced by a simple fit with no more free parameters.
    """
    keep = spec.validate_.margin_replacement
    return plan(
        spec,
        fold,
        unit,
        name="replaces",
        kind=replace.KIND,
        level=3,
        metric=replace.METRIC,
        rivals=(
            control(replace.ABLATED, 0.1),
            baseline(replace.INTACT, -keep),
            baseline(replace.FIT, -keep, fit),
            baseline(replace.FIT_SHIFT, 0.0, fit),
        ),
    )
