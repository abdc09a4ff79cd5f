"""L2: what a dictionary costs beside the model it explains, counted and not estimated.

Weights that a cross-layer transcoder may not have are not counted. FLOPs are those of the matrix products of one pass,
two for each weight and position: the encoder's all weights, the decoder's only those of the latents present.
"""

from __future__ import annotations

from typing import Any

from prosect.core.exhibits import Figure
from prosect.core.records import Measured
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.lines import Line, exact, not_run
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.layers import cross_layer_masks

CONTROLS = {
    "absent": "the model's own neurons, which need no weights",
    "present": "a dictionary for every layer, together as large as the model",
    "null": "no null: it is a count",
}


def parameters(dictionary: Dictionary) -> int:
    """Numbers that make up a dictionary, those fixed at zero left out."""
    encoder, decoder, skip = dictionary.encoder_.numel(), dictionary.decoder_.numel(), 0
    if dictionary.skip:
        skip = dictionary.skip_.numel()
    if dictionary.cross_layer:
        masks = cross_layer_masks(
            dictionary.latents,
            {s: dictionary.widths_[s] for s in dictionary.reads},
            {s: dictionary.widths_[s] for s in dictionary.writes},
        )
        encoder, decoder = int(masks.encoder.sum()), int(masks.decoder.sum())
        skip = int(masks.skip.sum()) if dictionary.skip else 0
    rest = (dictionary.bias_, dictionary.centre_, dictionary.offset_, dictionary.threshold_)
    return encoder + decoder + skip + sum(t.numel() for t in rest)


def flops(dictionary: Dictionary, l0: float) -> float:
    """FLOPs to encode one position and to decode the latents present there."""
    reads, writes = dictionary.encoder_.shape[1], dictionary.decoder_.shape[1]
    around = 2.0 * reads * writes if dictionary.skip else 0.0
    return 2.0 * dictionary.latents * reads + 2.0 * l0 * writes + around


def cost(case: Case) -> Line:
    """L2. A dictionary of n sites counts as n layers' worth: the number is for all layers of the model."""
    own, dictionary = parameters(case.dictionary), case.dictionary
    module: Any = getattr(case.model, "module", None)
    if module is None:
        return not_run("L2", "the model's parameters cannot be counted")
    model = sum(p.numel() for p in module.parameters())
    layers = getattr(case.model, "n_layers", None) or 1
    sites = max(len(dictionary.reads), len(dictionary.writes))
    l0 = float(case.codes.active.double().mean())
    tables = [m.weight.numel() for m in module.modules() if type(m).__name__ == "Embedding"]
    per_token = 2.0 * max(model - sum(tables), 1)
    once = own / model
    figures = [
        _figure("parameters of the dictionary", float(own), "numbers"),
        _figure("parameters of the model", float(model), "numbers"),
        _figure("this dictionary alone, over the model", once, "ratio"),
        _figure(
            "FLOPs at a position, over the model's",
            flops(dictionary, l0) / per_token,
            "ratio",
            "lookups left out",
        ),
        _trained(case, "tokens", "tokens it was trained on", "tokens"),
        _trained(case, "seconds training", "seconds it was trained for", "s"),
    ]
    figures.append(_figure("latents present at a position (L0)", l0, "latents"))
    return Line(
        "L2",
        exact(once * max(layers, sites) / sites),
        exact(0.0),
        exact(1.0),
        Measured(estimate=None, note=CONTROLS["null"]),
        controls=CONTROLS,
        figures=tuple(figures),
        remarks=(
            f"{layers} layers; this dictionary describes {sites} of them"
            if sites == 1
            else f"{layers} layers; this dictionary spans {sites} sites",
        ),
        unit="none, it is a count",
    )


def _figure(name: str, value: float, unit: str, about: str = "") -> Figure:
    return Figure(name=name, measured=exact(float(value)), unit=unit, about=about)


def _trained(case: Case, key: str, name: str, unit: str) -> Figure:
    value = case.training.get(key)
    if value is None:
        nothing = Measured(estimate=None, note="not run: no record of its training was found")
        return Figure(name=name, measured=nothing, unit=unit)
    return _figure(name, float(value), unit)
