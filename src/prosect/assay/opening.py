"""From a spec to studies: models opened and data cut; nothing is measured yet.

A target that is a preset's organism is opened with its truth; the truth goes to the studies for checking
claims after they were tested, never to a method. Anything else is a language model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prosect.assay.spec import Spec
from prosect.assay.studies.features import Features
from prosect.assay.studies.heads import Heads
from prosect.assay.studies.latents import Latents
from prosect.assay.studies.residues import Residues
from prosect.assay.study import Study
from prosect.core.errors import BadInput, Unsupported
from prosect.core.exhibits import SplitFact
from prosect.core.progress import say
from prosect.core.registries import DECOMPOSITIONS, PRESETS
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.corpus import select, standard_library, text_files
from prosect.data.source import Source
from prosect.data.splits import Splits, cut
from prosect.data.tokens import TokenSource
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


def open_target(spec: Spec, run: RunFolder) -> Opened:
    """Open what the spec names.

    Raises:
        ProsectError: whatever opening refuses.
    """
    DECOMPOSITIONS.get(spec.decompose.kind)  # an unknown one is refused before anything is read
    if spec.target in PRESETS and spec.target != "pylm":
        if spec.device not in ("auto", "cpu"):
            raise Unsupported(f"device {spec.device!r} for {spec.target}", "auto or cpu: it is small")
        builder: Callable[[Spec, RunFolder], Opened] = PRESETS.get(spec.target)
        return builder(spec, run)
    return language(spec, run)


def _subject(spec: Spec, run: RunFolder, model: Model, source: Source, rows: int = 32) -> Subject:
    return Subject(
        model=model,
        source=source,
        seed=Seed(spec.seed).child("subject"),
        shelf=Shelf(run.path / "tensors"),
        null=spec.null,
        rows=rows,
        cost=run.meter({}),
    )


def language(spec: Spec, run: RunFolder) -> Opened:
    """A causal language model from the hub, a folder, or `pylm`, on text."""
    from prosect.organisms import pylm

    if not {"latents", "heads"}.intersection(spec.studies):
        raise BadInput(f"studies {list(spec.studies)} of a language model", "latents, heads, or both")
    ref = "organism:pylm" if spec.target == "pylm" else spec.target
    model = load(
        ref,
        device=spec.device,
        trust_remote_code=spec.trust_remote_code,
        allow_pickle=spec.allow_pickle,
        seed=spec.seed,
    )
    if model.tokenizer is None:
        raise BadInput(
            f"{spec.target}, which has no tokenizer",
            "a language model with its tokenizer",
            "saving one beside it",
        )
    if not model.n_layers or not model.vocab_size:
        raise Unsupported(f"{spec.target}, which is no causal language model", "a causal language model")
    folder = pylm.FOLDER if spec.target == "pylm" else Path(spec.target)
    trained, sketch = training_text(folder)
    corpus = text_files(Path(spec.data.text)) if spec.data.text else standard_library()
    most = min(spec.data.documents, spec.limit or spec.data.documents)
    corpus = select(corpus, most)
    splits = cut(
        corpus,
        folds=max(spec.data.folds, spec.validate_.rounds),
        explore=spec.data.explore,
        sealed=spec.data.sealed,
        trained=trained,
        sketch=sketch,
        units_min=spec.validate_.units_min,
    )
    context = min(spec.data.context, model.max_positions or spec.data.context)
    source = TokenSource(
        corpus,
        splits,
        model.tokenizer,
        context=context,
        windows={
            "explore": spec.data.explore_windows,
            "validate": spec.data.validate_windows,
            "sealed": spec.data.validate_windows,
        },
    )
    subject = _subject(spec, run, model, source)
    opened = Opened(
        studies=[],
        model=f"{model.name}: {model.n_layers} layers, {model.d_model} wide, {model.n_heads} heads",
        data=f"{corpus.name}: {len(corpus)} documents in {sum(splits.units(p) for p in plain(splits))} clusters",
        model_facts=facts(model),
        splits=text_facts(source, splits),
    )
    if not spec.data.text:
        opened.decisions.append(
            "no text was named, so the source code of this machine's Python standard library was read"
        )
    if corpus.skipped:
        opened.decisions.append(
            "left out of the corpus: " + ", ".join(f"{n} files {why}" for why, n in corpus.skipped)
        )
    if splits.trained:
        opened.decisions.append(
            f"{len(splits.trained)} documents that the model was trained on (or near-copies of such) may be "
            "explored only"
        )
    elif spec.target != "pylm":
        opened.limits.append(
            "what this model was trained on is not known here: validation text may be among it"
        )
    studies: list[Study] = []
    if "latents" in spec.studies:
        site = spec.decompose.site or f"resid_post.{model.n_layers // 2}"
        site = model.sites.resolve(site)
        if not spec.decompose.site:
            opened.decisions.append(
                f"no site was named, so {site}, the middle of the network, was decomposed"
            )
            say(f"decomposing {site}")
        studies.append(Latents(spec, run, subject, site))
    if "heads" in spec.studies:
        heads = Heads(spec, run, subject)
        if heads.all:
            studies.append(heads)
        else:
            opened.decisions.append("this architecture's attention cannot be read, so no head was examined")
    opened.studies = studies
    return opened


def training_text(folder: Path) -> tuple[set[str], np.ndarray | None]:
    """Names and digests of the documents a model was trained on, and a sketch of them, if they lie beside it."""
    names: set[str] = set()
    listed, sketched = folder / "training_files.json", folder / "training_sketch.safetensors"
    if listed.is_file():
        content = json.loads(listed.read_text(encoding="utf-8"))
        names = {*content, *(str(v) for v in content.values())}
    if not sketched.is_file():
        return names, None
    from safetensors.numpy import load_file

    return names, load_file(sketched)["shingles"]


def plain(splits: Splits) -> list[str]:
    """Parts that are not halves of another."""
    return [p for p in splits.parts if not p.startswith("explore.")]


USES = {
    "explore": "looked at freely: dictionaries, means, thresholds and descriptions",
    "validate": "opened once, to test the claims of one round",
    "sealed": "opened once, at the end",
    "shift": "inputs of another distribution, opened with the fold",
}


def use_of(part: str) -> str:
    """What a part of the data is for."""
    return USES.get(part.split(".")[0], "")


def text_facts(source: TokenSource, splits: Splits) -> list[SplitFact]:
    """Counts of every part of a corpus."""
    out = []
    for part in plain(splits):
        rows = tokens = 0
        for batch in source.batches(part, 64):
            rows, tokens = rows + len(batch), tokens + batch.count
        out.append(
            SplitFact(
                name=part,
                use=use_of(part),
                documents=len(splits.parts[part]),
                units=splits.units(part),
                rows=rows,
                tokens=tokens,
            )
        )
    return out


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


def induction(spec: Spec, run: RunFolder) -> Opened:
    """The hand-wired network that repeats what followed a token before."""
    from prosect.organisms import induction as organism

    model, truth = organism.build(spec.seed)
    source = organism.source(spec.seed, folds=_folds(spec), **_sized(spec))
    subject = _subject(spec, run, model, source)
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
    from prosect.organisms import grokked
    from prosect.organisms import modular as analytic

    p = 31
    studies: list[Study] = []
    splits: list[SplitFact] = []
    words: list[str] = []
    numbers: dict[str, Any] = {}
    for name, build, make in (
        ("modular", analytic.build, analytic.source),
        ("modular-grokked", analytic.build_grokked, grokked.source_grokked),
    ):
        model, truth = build(spec.seed)
        source = make(spec.seed, folds=_folds(spec), p=p)
        subject = _subject(spec, run, model, source, rows=256)
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
    from prosect.organisms import superposition as organism
    from prosect.organisms.toy import source_pentagon

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
            organism.source(spec.seed, folds=_folds(spec), **_sized(spec)),
        ),
        (
            "pentagon",
            small,
            organism.build_pentagon,
            source_pentagon(spec.seed, folds=_folds(spec), **_sized(spec)),
        ),
    ):
        model, truth = build(spec.seed)
        subject = _subject(spec, run, model, source, rows=1024)
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
    source = organism.source(spec.seed, folds=_folds(spec), **_sized(spec))
    subject = _subject(spec, run, model, source)
    return Opened(
        studies=[Latents(spec, run, subject, site, truth=truth)],
        model=f"{model.name}: {truth.size}",
        data="synthetic documents of Zipf-distributed tokens on several topics",
        model_facts=facts(model),
        splits=input_facts(source),
    )


def _folds(spec: Spec) -> int:
    return max(spec.data.folds, spec.validate_.rounds)


def _sized(spec: Spec) -> dict[str, int]:
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
