"""Plans for claims that are measured as they stand, row by row: a patch, a dose, a reading, a map, a string.

Each is one number beside the same number with what is claimed taken away; the test itself is `measured`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from prosect.assay.plans.made import aside, baseline, control, measurement
from prosect.assay.spec import Spec
from prosect.core.records import Executable, Rival, TestPlan


def patches(spec: Spec, fold: str, *, stranger: Executable) -> TestPlan:
    """What patching one place does, against the same patch from an unrelated row."""
    return measurement(
        spec,
        fold,
        "input",
        "patched",
        "effect of the patch, as a share of the gap between the runs on explore",
        control("unrelated-run", spec.patch.margin, stranger),
    )


def reads(spec: Spec, fold: str, *, logit: Executable, turned: Executable) -> TestPlan:
    """How near a tuned lens is to the model's prediction, against the logit lens and a stream turned at random."""
    return measurement(
        spec,
        fold,
        "cluster",
        "reads",
        "minus the divergence (KL, nats) of the lens from the model's own prediction",
        baseline("logit-lens", spec.lens.margin, logit),
        control("turned-stream", spec.lens.margin, turned),
    )


def flows(
    spec: Spec, fold: str, *, nearness: Executable, others: Sequence[Executable], moved: Executable
) -> TestPlan:
    """How a head's pattern ranks sources by what they do, against their distance and other heads' patterns.

    What the lengths of what it moves would give is shown: they know the head's values too, and decide nothing.
    """
    return measurement(
        spec,
        fold,
        "cluster",
        "flows",
        "rank correlation over sources with what taking each of them out does",
        baseline("nearness", spec.flow.margin, nearness),
        control("other-heads", spec.flow.margin, *others),
        aside(baseline("length-moved", 0.0, moved)),
    )


def steers(spec: Spec, fold: str, *, random: Sequence[Executable]) -> TestPlan:
    """What a dose of a direction does to a token's probability, against random directions of the same length."""
    return measurement(
        spec,
        fold,
        "cluster",
        "steers",
        "rise of the token's log-probability (nats)",
        control("random-direction", spec.steer.margin, *random),
    )


def tells(
    spec: Spec,
    fold: str,
    *,
    task: Executable,
    words: Executable,
    frequent: Executable,
    alone: Executable | None = None,
) -> TestPlan:
    """How often a probe tells a concept right, against the same probe on a control task and what needs no network.

    Args:
        spec: the run's.
        fold: to be opened.
        task: a probe fitted to labels drawn for each word, told on such labels.
        words: a table of which words the concept goes with.
        frequent: always what is most frequent.
        alone: the probe of the best single site, which a probe over several must beat.
    """
    margin = spec.probe.margin
    return measurement(
        spec,
        fold,
        "cluster",
        "tells",
        "share of positions at which the concept is told right",
        control("control-task", margin, task),
        baseline("words-alone", margin, words),
        baseline("most-frequent", margin, frequent),
        baseline("best-alone", margin, *([] if alone is None else [alone])),
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
    return measurement(
        spec,
        fold,
        unit,
        "activates",
        "activation, in standard deviations of the unit on explored text",
        baseline("most-in-unseen-text", spec.synthesise.margin, text),
        *_strings(spec.synthesise.margin, random, others, example),
    )


def carries(
    spec: Spec, fold: str, unit: str, *, random: Executable, others: Sequence[Executable], example: Executable
) -> TestPlan:
    """The rise of a unit's activation when a string is put into unseen text; arguments as of `activates`."""
    return measurement(
        spec,
        fold,
        unit,
        "carries",
        "rise of the activation, in standard deviations of the unit on explored text",
        *_strings(spec.synthesise.margin, random, others, example),
    )


def _strings(
    margin: float, random: Executable, others: Sequence[Executable], example: Executable
) -> tuple[Rival, ...]:
    return (
        control("random-strings", margin, random),
        control("other-units-strings", margin, *others),
        aside(baseline("best-explored-example", 0.0, example)),
    )


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
    return measurement(
        spec,
        fold,
        unit,
        "attributes",
        "rank correlation of the map with the effects of replacing each feature (Spearman)",
        control("random-weights", margin, *random_weights),
        control("random-order", margin, random_order),
        *(baseline(n, margin, e) for n, e in baselines),
    )
