"""Fitting the decomposition that a run studies: activations harvested once to disk, streamed, then discarded."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from prosect.assay.spec import Spec
from prosect.assay.work import extent, upto
from prosect.core.errors import BadInput, UnknownName
from prosect.core.exhibits import Figure, FigureTable
from prosect.core.records import Measured
from prosect.core.registries import DECOMPOSITIONS
from prosect.core.seeds import Seed
from prosect.decompose.activations import harvest
from prosect.decompose.contract import Decomposition
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.linear import Ica, KMeans, Neurons, Nmf, Pca, RandomDirections, Svd
from prosect.decompose.objectives import OBJECTIVES, objective_named
from prosect.decompose.quality import measure
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.store.run import RunFolder
from prosect.validate.subject import Subject


def chosen(spec: Spec, site: str, width: int, seed: Seed, device: str) -> Decomposition:
    """The decomposition that a spec asks for, not fitted yet.

    Args:
        spec: the run's.
        site: to decompose.
        width: of the site.
        seed: of anything random in it.
        device: where a dictionary is trained.

    Raises:
        UnknownName: there is no decomposition of that kind for one site, or no such parameter of its objective.
        BadInput: parameters of an objective for what has none.
    """
    asked = spec.decompose
    if asked.objective and asked.kind not in OBJECTIVES:
        raise BadInput(
            f"decompose.objective for {asked.kind}, which is not trained",
            "no parameters",
            ", ".join(OBJECTIVES),
        )
    parts = min(asked.width, width)
    match asked.kind:
        case kind if kind in OBJECTIVES:
            recipe = Recipe(batch=asked.batch, rate=asked.rate or None)
            objective = objective_named(
                kind, asked.objective, {"k": asked.active, "target_l0": float(asked.active)}
            )
            return Dictionary(
                site,
                asked.width,
                objective.after,
                recipe=recipe,
                seed=seed,
                device=device,
                objective=None if kind == TopK.name else objective,
            )
        case "neurons":
            return Neurons(site)
        case "pca":
            return Pca(site, parts)
        case "svd":
            return Svd(site, parts)
        case "ica":
            return Ica(site, parts, seed=seed)
        case "nmf":
            return Nmf(site, parts, seed=seed)
        case "kmeans":
            return KMeans(site, asked.width, seed=seed)
        case "random":
            return RandomDirections(site, (asked.active / asked.width,) * asked.width, seed)
    raise UnknownName("decomposition of one site", asked.kind, [n for n in DECOMPOSITIONS if n != "heads"])


def fit(
    spec: Spec, run: RunFolder, subject: Subject, site: str, name: str
) -> tuple[Decomposition, FigureTable]:
    """Fit the decomposition on explore, as a step of the run that resumes inside training.

    Args:
        spec: the run's.
        run: where the step and its checkpoints are kept.
        subject: the model and its data.
        site: to decompose.
        name: of the step.

    Returns:
        The decomposition and its quality on explored activations.
    """
    seed = Seed(spec.seed).child("decompose", name)
    inputs = {"site": site, "seed": seed.integer, "kind": spec.decompose.kind}
    kind: list[type[Decomposition]] = []

    def make() -> tuple[dict[str, Tensor], Any]:
        workspace = run.workspace(name, inputs)
        stream = harvest(
            subject.model,
            subject.source,
            "explore",
            (site,),
            workspace / "activations",
            rows=subject.rows,
        )
        # counted and not metered: a harvest that was killed goes on where it stopped, and has cost as much
        subject.add("explore", extent(subject.batches("explore")).rows * upto(subject.model, [site]))
        blank = chosen(spec, site, stream.widths[site], seed, str(subject.model.device))
        epochs = max(1, math.ceil(spec.decompose.tokens / len(stream)))
        shuffled = stream.shuffled(seed.child("shuffle"), epochs=epochs)
        fitted = (
            blank.fit(shuffled, workspace=workspace / "training", every=100)
            if isinstance(blank, Dictionary)
            else blank.fit(stream)
        )
        found = measure(fitted, stream)
        run.discard(workspace)
        tensors, about = fitted.state()
        return tensors, {
            "state": about,
            "l0": found.l0,
            "fvu": next(iter(found.fvu.values()), None),
            "dead": found.dead,
            "positions": found.positions,
        }

    tensors, about = run.tensor_step(name, inputs, make)
    kind.append(
        type(chosen(spec, site, 1, seed, "cpu")) if spec.decompose.kind not in OBJECTIVES else Dictionary
    )
    fitted = kind[0].from_state(tensors, about["state"])
    n = about["positions"]
    rows = [
        Figure(
            name=label, measured=Measured(estimate=about[key], n=n, note="explored positions; no interval")
        )
        for label, key in (
            ("components active at a position (L0)", "l0"),
            ("variance left unexplained (FVU)", "fvu"),
            ("components that are never active", "dead"),
        )
    ]
    table = FigureTable(title=f"Quality of {fitted.name}", about="measured on explore", rows=tuple(rows))
    return fitted, table
