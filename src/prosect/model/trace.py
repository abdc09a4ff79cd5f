"""What one pass gave: the output and every site that was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from markupsafe import Markup
from torch import Tensor

from prosect.core.errors import BadInput, UnknownName, Unsupported
from prosect.core.markup import card
from prosect.data.batch import Batch
from prosect.model.sitemap import SiteMap


@dataclass(frozen=True, eq=False)
class Trace:
    """One pass.

    ``trace["resid_post.3"]`` is the tensor itself, not a copy, on the model's device and in its dtype, after
    all edits; any name of the site will do. Heads are slices of the whole site.

    Attributes:
        batch: what was run, on the model's device.
        values: canonical name → tensor.
        grad: whether the tensors are in the graph of the output.
    """

    batch: Batch
    values: Mapping[str, Tensor] = field(repr=False)
    grad: bool
    _output: Tensor | None = field(repr=False)
    _map: SiteMap = field(repr=False)

    @property
    def output(self) -> Tensor:
        """The model's main output: logits (rows, positions, vocab) of a language model.

        Raises:
            BadInput: the pass stopped early.
        """
        if self._output is None:
            raise BadInput("the output of a pass that stopped early", "a full pass", "stop_early=False")
        return self._output

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that were read, in the order in which the model reached them."""
        return tuple(self.values)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor at a site.

        Raises:
            UnknownName: it was not captured.
            Unsupported: one head, with gradients: take them at the whole site.
        """
        site = self._map.site(name)
        whole = str(site.whole)
        if whole not in self.values:
            raise UnknownName("captured site", name, self.values, "naming it in capture=")
        value = self.values[whole]
        if site.head is None:
            return value
        if self.grad:
            raise Unsupported(
                f"gradients at {name}", f"gradients at {whole}", "slicing the gradient of the whole site"
            )
        axis = 1 if self._map.entry(site).info.layout == "pattern" else 2
        return value.select(axis, site.head)

    def flat(self, name: str) -> Tensor:
        """The tensor at real positions only, rows one after another: (count, ...). See `Batch.flat`."""
        return self.batch.flat(self[name])

    def __contains__(self, name: object) -> bool:
        return name in self._map and str(self._map.site(str(name)).whole) in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [("rows", len(self.batch)), ("positions", self.batch.count)]
        rows += [(name, f"{tuple(value.shape)} {value.dtype}") for name, value in self.values.items()]
        return card(f"one pass of {self._map.model}", rows)
