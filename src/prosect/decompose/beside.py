"""Several models side by side as one to harvest from, so that a crosscoder can compare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, UnknownName
from prosect.decompose.activations import Runs


@dataclass(frozen=True)
class Beside:
    """Models that are run on the same batches; a site is the model's name, a stroke, and its own site.

    Harvested together, their activations stay aligned position by position however they are shuffled. The
    models must take the same batches: for language models, share a tokenizer.

    Args:
        models: by name, such as ``{"base": ..., "tuned": ...}``, whose sites are then ``base/resid_post.2``.
    """

    models: Mapping[str, Runs]

    def __post_init__(self) -> None:
        if not self.models or any(not name or "/" in name for name in self.models):
            raise BadInput(f"models named {list(self.models)}", "at least one, each with a name without /")

    @property
    def digest(self) -> str:
        """Of the models and their names."""
        return digest({"beside": {name: model.digest for name, model in self.models.items()}})

    def run(self, batch: Any, capture: tuple[str, ...] = (), **options: Any) -> dict[str, Tensor]:
        """Run each model that has a site among ``capture``; gives what is at those sites.

        Raises:
            UnknownName: a site names no model.
        """
        wanted: dict[str, list[str]] = {}
        for site in capture:
            name, stroke, own = site.partition("/")
            if not stroke or name not in self.models:
                raise UnknownName("model of site", site, [f"{known}/" for known in self.models])
            wanted.setdefault(name, []).append(own)
        out: dict[str, Tensor] = {}
        for name, sites in wanted.items():
            trace = self.models[name].run(batch, capture=tuple(sites), **options)
            out |= {f"{name}/{site}": trace[site] for site in sites}
        return out
