"""Organisms whose inputs can be attributed: the network with a gradient that deceives, and the induction circuit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prosect.assay.opened import Opened, facts, input_facts, subject_of
from prosect.assay.spec import Spec
from prosect.assay.studies.attribution import AttributionStudy
from prosect.core.errors import BadInput, Unsupported
from prosect.data.source import Source
from prosect.model import Model
from prosect.store.run import RunFolder

INPUTS = 128
"""Rows of each part, where the spec does not say."""


def attributed(spec: Spec, run: RunFolder) -> Opened:
    """An organism with the inputs that it was made for.

    Raises:
        BadInput: another organism; studies beside attribution.
        Unsupported: a device other than the CPU.
    """
    from prosect.organisms import deceptive, induction

    if set(spec.studies) != {"attribution"}:
        raise BadInput(f"studies {list(spec.studies)} of {spec.target}", "attribution alone")
    name = spec.target.removeprefix("organism:")
    if name not in ("deceptive", "induction"):
        raise BadInput(
            f"{spec.target} for attribution",
            "a language model, organism:deceptive or organism:induction",
            "prosect.describe.attribution.attribute, with inputs and a metric of your own",
        )
    if spec.device not in ("auto", "cpu"):
        raise Unsupported(f"device {spec.device!r} for {spec.target}", "auto or cpu: it is small")
    if name == "deceptive":
        model, truth = deceptive.build(spec.seed)
        opened = of_source(spec, run, model, deceptive.source(spec.seed, folds=_folds(spec), **_sized(spec)))
        opened.data = "rows of eight numbers, each 1 or −1 with equal chance"
        opened.limits.append(
            "there are only 256 inputs, so validation has the ones that were explored: intervals say how the "
            "numbers would vary with the draw, not on inputs of another kind"
        )
    else:
        model, truth = induction.build(spec.seed)
        opened = of_source(spec, run, model, induction.source(spec.seed, folds=_folds(spec), **_sized(spec)))
        opened.data = "random blocks of tokens, most of them repeated"
    opened.model = f"{model.name}: {truth.size}"
    return opened


def of_source(spec: Spec, run: RunFolder, model: Model, source: Source) -> Opened:
    """Any opened model with generated inputs: token ids, or rows of numbers."""
    subject = subject_of(spec, run, model, source, rows=64)
    return Opened(
        studies=[AttributionStudy(spec, run, subject)],
        model=model.name,
        data=source.unit,
        model_facts=facts(model),
        splits=input_facts(source),
    )


def _folds(spec: Spec) -> int:
    return max(spec.data.folds, spec.validate_.rounds)


def _sized(spec: Spec) -> Mapping[str, Any]:
    most, floor = spec.limit or spec.data.inputs or INPUTS, spec.validate_.units_min
    return {
        "explore": max(most, 2 * floor),
        "validate": max(most, floor),
        "sealed": max(most, floor),
        "shift": max(most, floor),
    }
