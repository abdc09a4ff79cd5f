"""A model and its data without a study: for what only learns from explore."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from prosect.assay.opened import opened_model
from prosect.assay.openings.language import text_for
from prosect.assay.spec import Spec, dump
from prosect.core.provenance import environment
from prosect.core.registries import ORGANISMS, PRESETS
from prosect.data.source import Source
from prosect.model import Model
from prosect.store.run import RunFolder


class Unstudied(NamedTuple):
    """What there is to learn from: a model, inputs cut into parts, rows of a batch, and the site of the run."""

    model: Model
    source: Source
    rows: int
    site: str


def unstudied(spec: Spec) -> Unstudied:
    """What a spec's run would open, and the site that it would decompose; no site where it has none.

    An organism of tokens comes with its own inputs, as a preset's does; anything else is a language model on text.

    Raises:
        ProsectError: whatever opening refuses.
    """
    if spec.target in PRESETS and spec.target != "pylm":
        from prosect.assay.opening import open_target
        from prosect.assay.studies.features import SITE, Features

        with (
            tempfile.TemporaryDirectory(prefix="prosect-") as folder,
            RunFolder.open(Path(folder) / "open", dump(spec), environment(spec.device)) as run,
        ):
            study = open_target(spec, run).studies[0]
        site = SITE if isinstance(study, Features) else spec.decompose.site
        return Unstudied(study.subject.model, study.subject.source, study.subject.rows, site)
    if spec.target.removeprefix("organism:") in set(ORGANISMS) - {"pylm"}:
        from prosect.assay.openings.generated import inputs_of

        made = inputs_of(spec)
        middle = f"resid_post.{(made.model.n_layers or 0) // 2}"
        return Unstudied(made.model, made.source, 32, spec.decompose.site or middle)
    model = opened_model(spec)
    site = spec.decompose.site or f"resid_post.{(model.n_layers or 0) // 2}"
    return Unstudied(model, text_for(spec, model)[2], 32, site)
