"""From a spec to studies: models opened and data cut; nothing is measured yet.

A target that is an organism is opened with its inputs and its truth; the truth goes to the studies for checking
claims after they were tested, never to a method. Anything else is a language model.
"""

from __future__ import annotations

from collections.abc import Callable

from prosect.assay.opened import Opened
from prosect.assay.spec import Spec
from prosect.core.errors import Unsupported
from prosect.core.registries import DECOMPOSITIONS, ORGANISMS, PRESETS
from prosect.store.run import RunFolder

TEXT_ALONE = frozenset({"lens", "flow", "steering", "probing"})
"""Studies that read text, which organisms but `pylm` have none of."""


def open_target(spec: Spec, run: RunFolder) -> Opened:
    """Open what the spec names.

    Raises:
        ProsectError: whatever opening refuses.
    """
    DECOMPOSITIONS.get(spec.decompose.kind)  # an unknown one is refused before anything is read
    if "patching" in spec.studies:
        from prosect.assay.openings.contrasts import contrasted

        return contrasted(spec, run)
    if "attribution" in spec.studies and spec.target.removeprefix("organism:") in set(ORGANISMS) - {"pylm"}:
        from prosect.assay.openings.attributed import attributed

        return attributed(spec, run)
    name = spec.target.removeprefix("organism:")
    if name in ORGANISMS and name != "pylm" and TEXT_ALONE.intersection(spec.studies):
        asked = ", ".join(sorted(TEXT_ALONE.intersection(spec.studies)))
        raise Unsupported(f"{asked} of organism:{name}", "a language model with its tokenizer", "pylm")
    if spec.target in PRESETS and spec.target != "pylm":
        if spec.device not in ("auto", "cpu"):
            raise Unsupported(f"device {spec.device!r} for {spec.target}", "auto or cpu: it is small")
        builder: Callable[[Spec, RunFolder], Opened] = PRESETS.get(spec.target)
        return builder(spec, run)
    if name in ORGANISMS and name != "pylm":
        from prosect.assay.openings.generated import generated

        return generated(spec, run)
    from prosect.assay.openings.language import language

    return language(spec, run)
