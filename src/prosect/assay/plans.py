"""The test plans that claims are registered with, and the rivals each must beat.

Margins come from the spec. The number of resamples is raised at registration to what the corrected
threshold needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prosect.assay.spec import Spec
from prosect.core.records import Component, Executable, Rival, TestPlan
from prosect.core.seeds import Seed
from prosect.validate import attend, changes, matters, measured, predict, raises, replace

SECOND = "second-document-set"
"""What the same explainer finds in the second of the two explored document sets alone. It decides nothing: it shows
how much of a description depends on which documents were looked at (Bolukbasi et al. 2021)."""
DRAWS = 999
"""A lower bound; registration raises it."""

Fitted = tuple[Component, Executable]
"""A control component with the description that the same explainer found for it."""


def _plan(spec: Spec, fold: str, unit: str, **given: Any) -> TestPlan:
    return TestPlan(
        unit=unit,
        units_min=spec.validate_.units_min,
        draws=DRAWS,
        fold=fold,
        seed=Seed(spec.seed).child("test", given["name"]).integer,
        **given,
    )


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
        baselines: (name, whether the claim must beat it, table).
        untrained: components of untrained networks; shown, since a claim may be true of them too.
        second: the description found in the second document set alone; shown.
        firing: whether to ask for units in which the component is active.
    """
    margin = spec.validate_.margin
    rivals = [
        _fitted("random-direction", controls, margin),
        Rival(name="shuffled-labels", role="control", margin=margin, descriptions=(shuffled,)),
        *(
            Rival(
                name=name,
                role="baseline",
                decides=decides,
                margin=spec.validate_.margin_table if decides else 0.0,
                descriptions=(table,),
            )
            for name, decides, table in baselines
        ),
    ]
    if untrained:
        rivals.append(_fitted("untrained-networks", untrained, 0.0, decides=False))
    rivals += _second(second)
    return _plan(
        spec,
        fold,
        unit,
        name="predicts",
        kind=predict.KIND,
        level=1,
        metric=predict.METRIC,
        rivals=tuple(r for r in rivals if r.descriptions),
        firing_min=spec.validate_.firing_min if firing else 0,
    )


def _second(found: Executable | None) -> tuple[Rival, ...]:
    if found is None:
        return ()
    return (Rival(name=SECOND, role="control", decides=False, descriptions=(found,)),)


def _fitted(name: str, members: Sequence[Fitted], margin: float, *, decides: bool = True) -> Rival:
    return Rival(
        name=name,
        role="control",
        decides=decides,
        margin=margin,
        components=tuple(c for c, _ in members),
        descriptions=tuple(e for _, e in members),
    )


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
    return _plan(
        spec,
        fold,
        "cluster",
        name="raises",
        kind=raises.KIND,
        level=1,
        metric=raises.METRIC,
        rivals=(
            _fitted(raises.RANDOM, controls, margin),
            Rival(name=raises.SHUFFLED, role="control", margin=margin, descriptions=tuple(others)),
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
    return _plan(
        spec,
        fold,
        "cluster",
        name="attends",
        kind=attend.KIND,
        level=1,
        metric=attend.METRIC,
        rivals=(
            Rival(name=attend.OTHER_HEADS, role="control", margin=margin, components=tuple(others)),
            Rival(name=attend.SHUFFLED, role="control", margin=margin if content else 0.0, decides=content),
            Rival(
                name=attend.OFFSETS,
                role="baseline",
                margin=margin if content else 0.0,
                decides=content,
                descriptions=(offsets,),
            ),
            Rival(name=attend.UNIFORM, role="baseline", margin=margin),
            *_second(second),
        ),
        firing_min=spec.validate_.firing_min,
    )


def matters_where(spec: Spec, fold: str, *, others: Sequence[Component]) -> TestPlan:
    """A head's effect on the predictions its role is about, against other heads."""
    return _plan(
        spec,
        fold,
        "cluster",
        name="matters",
        kind=matters.KIND,
        level=1,
        metric=matters.METRIC,
        rivals=(
            Rival(
                name=attend.OTHER_HEADS,
                role="control",
                margin=spec.validate_.margin_loss,
                components=tuple(others),
            ),
        ),
        parameters={"rows": 1, "units": spec.validate_.effect_rows},
    )


def matters_together(
    spec: Spec, fold: str, *, heads: Sequence[tuple[int, int]], others: Sequence[Sequence[tuple[int, int]]]
) -> TestPlan:
    """The effect of several heads on repeated spans, against sets of as many others."""
    return _plan(
        spec,
        fold,
        "cluster",
        name="matters",
        kind=matters.KIND,
        level=1,
        metric="rise of the loss without the heads, on repeated spans (nats)",
        rivals=(Rival(name=OTHER_SETS, role="control", margin=spec.validate_.margin_loss),),
        parameters={
            "rows": 1,
            "repeated": True,
            "heads": [list(h) for h in heads],
            "others": [[list(h) for h in some] for some in others],
        },
    )


OTHER_SETS = "other-sets-of-heads"


def changes_outputs(
    spec: Spec, fold: str, *, others: Sequence[Executable], second: Executable | None = None
) -> TestPlan:
    """A unit's effect on every output, against other units' descriptions.

    ``second`` is what the second set of explored inputs alone gives; shown.
    """
    return _plan(
        spec,
        fold,
        "input",
        name="changes",
        kind=changes.KIND,
        level=1,
        metric=changes.METRIC,
        rivals=(
            Rival(
                name="other-units",
                role="control",
                margin=spec.validate_.margin_change,
                descriptions=tuple(others),
            ),
            *_second(second),
        ),
    )


def patches(spec: Spec, fold: str, *, stranger: Executable) -> TestPlan:
    """What patching one place does, against the same patch from an unrelated row."""
    return _plan(
        spec,
        fold,
        "input",
        name="patched",
        kind=measured.KIND,
        level=1,
        metric="effect of the patch, as a share of the gap between the runs on explore",
        rivals=(
            Rival(name="unrelated-run", role="control", margin=spec.patch.margin, descriptions=(stranger,)),
        ),
    )


def reads(spec: Spec, fold: str, *, logit: Executable, turned: Executable) -> TestPlan:
    """How near a tuned lens is to the model's prediction, against the logit lens and a stream turned at random."""
    margin = spec.lens.margin
    return _plan(
        spec,
        fold,
        "cluster",
        name="reads",
        kind=measured.KIND,
        level=1,
        metric="minus the divergence (KL, nats) of the lens from the model's own prediction",
        rivals=(
            Rival(name="logit-lens", role="baseline", margin=margin, descriptions=(logit,)),
            Rival(name="turned-stream", role="control", margin=margin, descriptions=(turned,)),
        ),
    )


def flows(
    spec: Spec, fold: str, *, nearness: Executable, others: Sequence[Executable], moved: Executable
) -> TestPlan:
    """How a head's pattern ranks sources by what they do, against their distance and other heads' patterns.

    What the lengths of what it moves would give is shown: they know the head's values too, and decide nothing.
    """
    margin = spec.flow.margin
    return _plan(
        spec,
        fold,
        "cluster",
        name="flows",
        kind=measured.KIND,
        level=1,
        metric="rank correlation over sources with what taking each of them out does",
        rivals=(
            Rival(name="nearness", role="baseline", margin=margin, descriptions=(nearness,)),
            *(
                (Rival(name="other-heads", role="control", margin=margin, descriptions=tuple(others)),)
                if others
                else ()
            ),
            Rival(name="length-moved", role="baseline", decides=False, descriptions=(moved,)),
        ),
    )


def steers(spec: Spec, fold: str, *, random: Sequence[Executable]) -> TestPlan:
    """What a dose of a direction does to a token's probability, against random directions of the same length."""
    return _plan(
        spec,
        fold,
        "cluster",
        name="steers",
        kind=measured.KIND,
        level=1,
        metric="rise of the token's log-probability (nats)",
        rivals=(
            Rival(
                name="random-direction",
                role="control",
                margin=spec.steer.margin,
                descriptions=tuple(random),
            ),
        ),
    )


def activates(
    spec: Spec,
    fold: str,
    unit: str,
    *,
    text: Executable,
    random: Executable,
    others: Sequence[Executable],
    example: Executable,
) -> TestPlan:
    """A unit's activation with a string alone.

    Args:
        spec: the run's.
        fold: to be opened.
        unit: what is resampled: ``cluster`` or ``input``.
        text: the largest activation in each unseen row, which must be beaten.
        random: strings as long, drawn anew for each row.
        others: the strings that were searched for other units.
        example: the end of the best explored example, as many tokens of it; shown.
    """
    margin = spec.synthesise.margin
    return _plan(
        spec,
        fold,
        unit,
        name="activates",
        kind=measured.KIND,
        level=1,
        metric="activation, in standard deviations of the unit on explored text",
        rivals=(
            Rival(name="most-in-unseen-text", role="baseline", margin=margin, descriptions=(text,)),
            *_strings(margin, random, others, example),
        ),
    )


def carries(
    spec: Spec, fold: str, unit: str, *, random: Executable, others: Sequence[Executable], example: Executable
) -> TestPlan:
    """The rise of a unit's activation when a string is put into unseen text; arguments as of `activates`."""
    return _plan(
        spec,
        fold,
        unit,
        name="carries",
        kind=measured.KIND,
        level=1,
        metric="rise of the activation, in standard deviations of the unit on explored text",
        rivals=_strings(spec.synthesise.margin, random, others, example),
    )


def _strings(
    margin: float, random: Executable, others: Sequence[Executable], example: Executable
) -> tuple[Rival, ...]:
    rivals = (
        Rival(name="random-strings", role="control", margin=margin, descriptions=(random,)),
        Rival(name="other-units-strings", role="control", margin=margin, descriptions=tuple(others)),
        Rival(name="best-explored-example", role="baseline", decides=False, descriptions=(example,)),
    )
    return tuple(r for r in rivals if r.descriptions)


def attributes(
    spec: Spec,
    fold: str,
    unit: str,
    *,
    random_weights: Sequence[Executable],
    random_order: Executable,
    baselines: Sequence[tuple[str, Executable]],
) -> TestPlan:
    """How well a map orders features by what replacing them does.

    Args:
        spec: the run's.
        fold: to be opened.
        unit: ``input`` or ``cluster``.
        random_weights: the same method on networks with random weights, held against the effects in this one.
        random_order: features in an order by chance.
        baselines: (name, order) that look at no network; the map must beat each.
    """
    margin = spec.attribute.margin
    return _plan(
        spec,
        fold,
        unit,
        name="attributes",
        kind=measured.KIND,
        level=1,
        metric="rank correlation of the map with the effects of replacing each feature (Spearman)",
        rivals=(
            Rival(name="random-weights", role="control", margin=margin, descriptions=tuple(random_weights)),
            Rival(name="random-order", role="control", margin=margin, descriptions=(random_order,)),
            *(Rival(name=n, role="baseline", margin=margin, descriptions=(e,)) for n, e in baselines),
        ),
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
    return _plan(
        spec,
        fold,
        unit,
        name="replaces",
        kind=replace.KIND,
        level=3,
        metric=replace.METRIC,
        rivals=(
            Rival(name=replace.ABLATED, role="control", margin=0.1),
            Rival(name=replace.INTACT, role="baseline", margin=-keep),
            Rival(name=replace.FIT, role="baseline", margin=-keep, descriptions=(fit,)),
            Rival(name=replace.FIT_SHIFT, role="baseline", margin=0.0, descriptions=(fit,)),
        ),
    )
