"""A causal language model on text: the corpus cut by near-duplicate cluster, and the studies that were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from prosect.assay.opened import Opened, facts, opened_model, subject_of, use_of
from prosect.assay.spec import Spec
from prosect.assay.studies.attribution import AttributionStudy
from prosect.assay.studies.flow import FlowStudy
from prosect.assay.studies.heads import Heads
from prosect.assay.studies.latents import Latents
from prosect.assay.studies.lens import LensStudy
from prosect.assay.studies.probing import Probing
from prosect.assay.studies.steering import Steering
from prosect.assay.studies.synthesis import Synthesis
from prosect.assay.study import Study
from prosect.core.errors import BadInput, Unsupported
from prosect.core.exhibits import SplitFact
from prosect.core.progress import say
from prosect.data.corpus import Corpus, select, standard_library, text_files
from prosect.data.splits import Splits, cut
from prosect.data.tokens import TokenSource
from prosect.model import Model
from prosect.store.run import RunFolder


def language(spec: Spec, run: RunFolder) -> Opened:
    """A causal language model from the hub, a folder, or `pylm`, on text."""
    known = ("latents", "heads", "lens", "flow", "steering", "attribution", "synthesis", "probing")
    if not set(known).intersection(spec.studies):
        raise BadInput(f"studies {list(spec.studies)} of a language model", f"some of {', '.join(known)}")
    model = opened_model(spec)
    corpus, splits, source = text_for(spec, model)
    subject = subject_of(spec, run, model, source)
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
        site = spec.decompose.site or f"resid_post.{(model.n_layers or 0) // 2}"
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
    if "lens" in spec.studies:
        studies.append(LensStudy(spec, run, subject))
    if "flow" in spec.studies:
        studies.append(FlowStudy(spec, run, subject))
    if "steering" in spec.studies:
        studies.append(Steering(spec, run, subject))
    if "synthesis" in spec.studies:
        studies.append(Synthesis(spec, run, subject))
    if "probing" in spec.studies:
        studies.append(Probing(spec, run, subject))
    if "attribution" in spec.studies:
        studies.append(AttributionStudy(spec, run, subject))
    opened.studies = studies
    return opened


def text_for(spec: Spec, model: Model) -> tuple[Corpus, Splits, TokenSource]:
    """The text that a spec names, cut, as windows of a model's tokens.

    Raises:
        BadInput: the model has no tokenizer.
        Unsupported: it is no causal language model.
        TooLittleData: too few documents.
    """
    if model.tokenizer is None:
        raise BadInput(
            f"{spec.target}, which has no tokenizer",
            "a language model with its tokenizer",
            "saving one beside it",
        )
    if not model.n_layers or not model.vocab_size:
        raise Unsupported(f"{spec.target}, which is no causal language model", "a causal language model")
    from prosect.organisms import pylm

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
    return corpus, splits, source


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
