"""Organisms of tokens that have no preset of their own: a run on the inputs that they were made for.

Inputs come from the source beside the organism's builder, strings from that source's vocabulary. Where the organism has targets,
the right output at each position is what a head is missed by; elsewhere it is the next token.
"""

from __future__ import annotations

from typing import NamedTuple

from prosect.assay.opened import Opened, facts, input_facts, subject_of
from prosect.assay.openings.organisms import folds_of, sized
from prosect.assay.spec import Spec
from prosect.assay.studies.heads import Heads
from prosect.assay.studies.latents import Latents
from prosect.assay.studies.synthesis import Synthesis
from prosect.assay.study import Study
from prosect.core.errors import BadInput, Unsupported
from prosect.core.truth import Truth
from prosect.data.source import Source
from prosect.model import Model
from prosect.organisms.found import Functions, functions
from prosect.store.run import RunFolder

STUDIES = ("latents", "heads", "synthesis")


class Generated(NamedTuple):
    """An organism of tokens with its inputs."""

    model: Model
    truth: Truth
    source: Source
    functions: Functions


def inputs_of(spec: Spec) -> Generated:
    """The organism that a spec names, built from the spec's seed.

    Raises:
        Unsupported: its inputs are not tokens with names; a device other than the CPU.
    """
    if spec.device not in ("auto", "cpu"):
        raise Unsupported(f"device {spec.device!r} for {spec.target}", "auto or cpu: it is small")
    name = spec.target.removeprefix("organism:")
    found = functions(name)
    if found.source is not None:
        source = found.source(spec.seed, folds=folds_of(spec), **sized(spec))
        if getattr(source, "vocabulary", None):
            model, truth = found.build(spec.seed)
            return Generated(model, truth, source, found)
    raise Unsupported(
        f"a run on organism:{name}, whose inputs are not tokens",
        "an organism of tokens, or one of the presets (prosect ls presets)",
        f"prosect.load('organism:{name}') and the methods themselves",
    )


def site_of(spec: Spec, model: Model) -> str:
    """The site to decompose: the spec's, or the stream in the middle of the network.

    Raises:
        BadInput: the spec names none, and the network has no layers with a stream between them.
    """
    if spec.decompose.site:
        return str(model.sites.resolve(spec.decompose.site))
    middle = f"resid_post.{(model.n_layers or 0) // 2}"
    if middle not in model.sites.names():
        raise BadInput(
            f"no site for {spec.target}, which has no {middle}",
            "decompose.site in a spec",
            f"prosect ls sites organism:{spec.target.removeprefix('organism:')}",
        )
    return middle


def generated(spec: Spec, run: RunFolder) -> Opened:
    """An organism of tokens, its latents, its heads, or strings for its units.

    Raises:
        BadInput: other studies; no site to decompose.
        Unsupported: its inputs are not tokens.
    """
    if not set(STUDIES).intersection(spec.studies):
        raise BadInput(f"studies {list(spec.studies)} of {spec.target}", f"some of {', '.join(STUDIES)}")
    model, truth, source, found = inputs_of(spec)
    subject = subject_of(spec, run, model, source)
    subject.answers = found.targets
    opened = Opened(
        studies=[],
        model=f"{model.name}: {truth.size}",
        data=f"generated inputs: {source.units['explore']} explored, each a {source.unit}",
        model_facts=facts(model),
        splits=input_facts(source),
    )
    studies: list[Study] = []
    if "latents" in spec.studies:
        site = site_of(spec, model)
        if not spec.decompose.site:
            opened.decisions.append(
                f"no site was named, so {site}, the middle of the network, was decomposed"
            )
        studies.append(Latents(spec, run, subject, site, truth=truth))
    if "heads" in spec.studies:
        heads = Heads(spec, run, subject, truth=truth)
        if heads.all:
            studies.append(heads)
        else:
            opened.decisions.append("this network has no attention to be read, so no head was examined")
    if "synthesis" in spec.studies:
        studies.append(Synthesis(spec, run, subject, truth=truth))
    if found.targets is not None:
        opened.decisions.append(
            "heads are missed by the right output at each position, not by the next token"
        )
    opened.studies = studies
    return opened
