"""What opening a target gives, and what all ways of opening share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prosect.assay.spec import Spec
from prosect.assay.study import Study
from prosect.core.exhibits import SplitFact
from prosect.core.registries import ORGANISMS
from prosect.core.seeds import Seed
from prosect.data.source import Source
from prosect.model import Model, load
from prosect.store.run import RunFolder
from prosect.store.shelf import Shelf
from prosect.validate.subject import Subject


@dataclass
class Opened:
    """What a run is about.

    Attributes:
        studies: in the order in which they run.
        model: words about the model or models.
        model_facts: their numbers.
        data: words about the data.
        splits: counts of each part.
        decisions: what was decided for the user.
        limits: what could not be ruled out.
    """

    studies: Sequence[Study]
    model: str
    data: str
    model_facts: dict[str, Any] = field(default_factory=dict)
    splits: list[SplitFact] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def opened_model(spec: Spec) -> Model:
    """The model that a spec names; presets stand for the organisms of their names."""
    ref = f"organism:{spec.target}" if spec.target in ORGANISMS else spec.target
    return load(
        ref,
        device=spec.device,
        trust_remote_code=spec.trust_remote_code,
        allow_pickle=spec.allow_pickle,
        seed=spec.seed,
    )


def subject_of(spec: Spec, run: RunFolder, model: Model, source: Source, rows: int = 32) -> Subject:
    return Subject(
        model=model,
        source=source,
        seed=Seed(spec.seed).child("subject"),
        shelf=Shelf(run.path / "tensors"),
        null=spec.null,
        rows=rows,
        cost=run.meter({}),
    )


USES = {
    "explore": "looked at freely: dictionaries, means, thresholds and descriptions",
    "validate": "opened once, to test the claims of one round",
    "sealed": "opened once, at the end",
    "shift": "inputs of another distribution, opened with the fold",
}


def use_of(part: str) -> str:
    """What a part of the data is for."""
    return USES.get(part.split(".")[0], "")


def input_facts(source: Source) -> list[SplitFact]:
    """Counts of every part of a generator or of sequences."""
    out = []
    for part, units in source.units.items():
        if part.startswith("explore."):
            continue
        out.append(SplitFact(name=part, use=use_of(part), documents=units, units=units, rows=units, tokens=0))
    return out


def facts(model: Model) -> dict[str, Any]:
    """Numbers of a model."""
    known = {
        "layers": model.n_layers,
        "width": model.d_model,
        "heads": model.n_heads,
        "vocabulary": model.vocab_size,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "weights digest": model.digest[:16],
    }
    return {k: v for k, v in known.items() if v is not None}
