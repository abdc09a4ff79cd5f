"""Decompositions that decode by a sum: codes times directions, and a mean where one was subtracted."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from prosect.decompose.base import OneSite
from prosect.decompose.contract import Codes


class Affine(OneSite):
    """x ≈ codes · directions + mean; subclasses say how the directions, and the codes, are found.

    Without more said, codes are (x − mean) · directions, as for an orthonormal set.
    """

    directions_: Tensor

    def _centre(self) -> Tensor | None:
        """What is subtracted; None where nothing is."""
        return getattr(self, "mean_", None)

    def _directions(self) -> Tensor:
        return self.directions_

    def _readers(self) -> Tensor:
        """What codes are read by, (components, width)."""
        return self._directions()

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        here, centre = x[self.site], self._centre()
        centred = here if centre is None else here - centre.to(here)
        return Codes.of_dense(centred @ self._readers().to(here).T)

    def _decode(self, codes: Codes) -> dict[str, Tensor]:
        dense, centre = codes.dense(), self._centre()
        written = dense @ self._directions().to(dense)
        return {self.site: written if centre is None else written + centre.to(dense)}
