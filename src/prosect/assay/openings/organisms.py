"""The presets' organisms, each with its data, its truth and its study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prosect.assay.opened import Opened, facts, input_facts, subject_of
from prosect.assay.spec import Spec
from prosect.assay.studies.features import Features
from prosect.assay.studies.heads import Heads
from prosect.assay.studies.latents import Latents
from prosect.assay.studies.residues import Residues
from prosect.assay.studies.synthesis import Synthesis
from prosect.assay.study import Study
from prosect.core.errors import BadInput
from prosect.core.exhibits import SplitFact
from prosect.data.batch import Batch
from prosect.store.run import RunFolder


def induction(spec: Spec, run: RunFolder) -> Opened:
    """The hand-wired network that repeats what followed a token before."""
    _without_strings(spec)
    from prosect.organisms import induction as organism

    model, truth = organism.build(spec.seed)
    source = organism.source(spec.seed, folds=folds_of(spec), **sized(spec))
    subject = subject_of(spec, run, model, source)
    subject.task = organism.targets
    heads = Heads(
        spec,
        run,
        subject,
        truth=truth,
        scripted=spec.scripted,
        replacement="replacement" in spec.studies,
    )
    return Opened(
        studies=[heads],
        model=f"{model.name}: {truth.size}",
        data="random blocks of tokens, most of them repeated",
        model_facts=facts(model),
        splits=input_facts(source),
        decisions=["of one head the role that explore thinks least of was claimed, on purpose"]
        if spec.scripted
        else [],
    )


def modular(spec: Spec, run: RunFolder) -> Opened:
    """Addition modulo 31: the analytic network and the one that learned it."""
    _without_strings(spec)
    from prosect.organisms import grokked
    from prosect.organisms import modular as analytic

    p = 31
    studies: list[Study] = []
    splits: list[SplitFact] = []
    words: list[str] = []
    numbers: dict[str, Any] = {}
    for name, build, make in (
        ("modular", analytic.build, analytic.source),
        ("modular-grokked", grokked.build_grokked, grokked.source_grokked),
    ):
        model, truth = build(spec.seed)
        source = make(spec.seed, folds=folds_of(spec), p=p)
        subject = subject_of(spec, run, model, source, rows=256)
        subject.task = _sums(p)
        studies.append(
            Residues(spec, run, subject, p, name, truth=truth, scripted=spec.scripted and name == "modular")
        )
        splits += [s.model_copy(update={"name": f"{name}: {s.name}"}) for s in input_facts(source)]
        words.append(f"{model.name}: {truth.size}" if truth.size else model.name)
        numbers |= {f"{name} {k}": v for k, v in facts(model).items()}
    return Opened(
        studies=studies,
        model="; ".join(words),
        data=f"pairs of residues modulo {p}",
        model_facts=numbers,
        splits=splits,
        decisions=["one neuron was claimed to have another's frequency, on purpose"] if spec.scripted else [],
    )


def _sums(p: int) -> Callable[[Batch], Any]:
    def task(batch: Batch) -> Any:
        return batch.tensors["pairs"].sum(dim=1) % p

    return task


def superposition(spec: Spec, run: RunFolder) -> Opened:
    """Sparse features in superposition, and the pentagon."""
    _without_strings(spec)
    from prosect.organisms import superposition as organism
    from prosect.organisms.toy import build_pentagon, source_pentagon

    studies: list[Study] = []
    splits: list[SplitFact] = []
    words: list[str] = []
    numbers: dict[str, Any] = {}
    small = spec.model_copy(
        update={
            "decompose": spec.decompose.model_copy(
                update={"width": 5, "active": 1, "tokens": 400_000, "batch": 512}
            )
        }
    )
    for name, own, build, source in (
        (
            "superposition",
            spec,
            organism.build,
            organism.source(spec.seed, folds=folds_of(spec), **sized(spec)),
        ),
        (
            "pentagon",
            small,
            build_pentagon,
            source_pentagon(spec.seed, folds=folds_of(spec), **sized(spec)),
        ),
    ):
        model, truth = build(spec.seed)
        subject = subject_of(spec, run, model, source, rows=1024)
        studies.append(Features(own, run, subject, name, truth=truth))
        splits += [s.model_copy(update={"name": f"{name}: {s.name}"}) for s in input_facts(source)]
        words.append(f"{model.name}: {truth.size}" if truth.size else model.name)
        numbers |= {f"{name} {k}": v for k, v in facts(model).items()}
    return Opened(
        studies=studies,
        model="; ".join(words),
        data="independent sparse inputs, drawn as they are read",
        model_facts=numbers,
        splits=splits,
    )


def planted(spec: Spec, run: RunFolder) -> Opened:
    """Neurons that follow planted rules, decoys among them."""
    from prosect.organisms import planted as organism

    model, truth = organism.build(spec.seed)
    site = model.sites.resolve(spec.decompose.site or "mlp_act.0")
    source = organism.source(spec.seed, folds=folds_of(spec), **sized(spec))
    subject = subject_of(spec, run, model, source)
    studies: list[Study] = []
    if "latents" in spec.studies or "synthesis" not in spec.studies:
        studies.append(Latents(spec, run, subject, site, truth=truth))
    if "synthesis" in spec.studies:
        studies.append(Synthesis(spec, run, subject, truth=truth))
    return Opened(
        studies=studies,
        model=f"{model.name}: {truth.size}",
        data="synthetic documents of Zipf-distributed tokens on several topics",
        model_facts=facts(model),
        splits=input_facts(source),
    )


def _without_strings(spec: Spec) -> None:
    """Refuse a study of strings where there is none, rather than do another.

    Raises:
        BadInput: the spec asks for one.
    """
    if "synthesis" in spec.studies:
        raise BadInput(
            f"synthesis for {spec.target}, which is not opened for it",
            "a causal language model, or the organism planted",
        )


def folds_of(spec: Spec) -> int:
    """Folds of validate: at least one for each round."""
    return max(spec.data.folds, spec.validate_.rounds)


def sized(spec: Spec) -> dict[str, int]:
    """Sizes of an organism's parts, where the spec sets or limits them."""
    most = spec.limit or spec.data.inputs
    if not most:
        return {}
    floor = spec.validate_.units_min
    return {
        "explore": max(most, 2 * floor),
        "validate": max(most, floor),
        "sealed": max(most, floor),
        "shift": max(most, floor),
    }
