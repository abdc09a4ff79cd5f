"""L5: does what latents do follow from how their directions lie? Then the list of latents leaves that out.

What a latent does is causal: by how much the output changes at the positions where it fires when what it writes is taken
out. Pairs of latents are compared twice: cosine of their directions, cosine of what they do, both less what all latents
have in common. The number is the R² of
the second by the first, over all pairs (global) or over the nearest ones (local), whichever is larger, less the mean of
the same with latents permuted.

That close directions do similar things is no discovery where what follows is nearly linear: a random readout with the
same spectrum shows it too. So the control in which all function is geometry is just such a readout, and for the
linear proxy, cosines of direct effects on logits, the number is given less what a rotated unembedding gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.exhibits import Figure
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.effects import GROUPS, Effects, cosines, measure_effects, upper
from prosect.decompose.audit.lines import Line

CONTROLS = {
    "absent": "the same directions, effects drawn at random",
    "present": "the same directions, effects a random linear readout with the spectrum of the real ones",
    "null": "the same latents, their effects permuted",
}
NEAR, DRAWS = 0.2, 20


def function(case: Case) -> Line:
    """L5.

    Raises:
        TooLittleData: fewer than `LEAST` latents fire on the windows looked at.
    """
    seed = case.seed.child("L5")
    effects = measure_effects(case, seed)
    directions = case.dictionary.decoder_.detach().cpu().double()[effects.latents]
    own = explained(directions, effects, seed, case.effort.permutations)
    controls: dict[str, Measured] = {}
    flat = effects.mean
    unit = torch.nn.functional.normalize(flat, dim=1)
    spectrum = torch.linalg.svdvals(unit - unit.mean(dim=0))
    for name in ("absent", "present"):
        found = []
        for draw in range(DRAWS):
            g = seed.child(name, draw).torch()
            if name == "absent":
                made = torch.randn(flat.shape, generator=g, dtype=torch.float64)
            else:
                readout = torch.randn((directions.shape[1], len(spectrum)), generator=g, dtype=torch.float64)
                made = directions @ readout * spectrum
            found.append(excess(directions, made, seed.child("permuted"), case.effort.permutations).number)
        controls[name] = _spread(found, f"{DRAWS} draws")
    figures = (
        Figure(name="all pairs, R²", measured=Measured(estimate=own.whole.everywhere), unit="R²"),
        Figure(name="nearest fifth of pairs, R²", measured=Measured(estimate=own.whole.nearby), unit="R²"),
        Figure(name="p of the larger, latents permuted", measured=Measured(estimate=own.whole.p), unit="p"),
        Figure(
            name="what they do on half of the documents against the other half",
            measured=Measured(estimate=effects.reliability),
            unit="r over pairs",
            about="near 0, effects are noise and a small R² means nothing",
        ),
        _proxy(case, directions, seed),
    )
    return Line(
        "L5",
        own.measured,
        controls["absent"],
        controls["present"],
        own.whole.null,
        controls=CONTROLS,
        figures=figures,
        remarks=_remarks(own, controls["present"], effects),
    )


@dataclass(frozen=True)
class Excess:
    """R² over all pairs, over the nearest, the larger of both less its mean under permutation, and that mean."""

    everywhere: float
    nearby: float
    null: Measured
    p: float

    @property
    def number(self) -> float:
        """The larger R² beyond the null."""
        return max(self.everywhere, self.nearby) - (self.null.estimate or 0.0)


def excess(
    directions: Float[Tensor, "m width"], effects: Float[Tensor, "m outputs"], seed: Seed, permutations: int
) -> Excess:
    """How much of what latents do follows from how they lie."""
    near_by = cosines(directions)
    lies, does = upper(near_by), upper(cosines(effects))
    nearest = lies.abs() >= lies.abs().quantile(1.0 - NEAR)
    rows, columns = torch.triu_indices(len(directions), len(directions), 1)
    alike = cosines(effects)

    def both(order: Tensor | None) -> tuple[float, float]:
        found = does if order is None else alike[order[rows], order[columns]]
        return _r2(lies, found), _r2(lies[nearest], found[nearest])

    rng = seed.numpy()
    null = [max(both(torch.from_numpy(rng.permutation(len(directions))))) for _ in range(permutations)]
    everywhere, nearby = both(None)
    reached = sum(one >= max(everywhere, nearby) for one in null)
    spread = Measured(
        estimate=float(np.mean(null)),
        low=float(np.quantile(null, 0.025)),
        high=float(np.quantile(null, 0.975)),
        n=permutations,
        method="permutations, middle 95 %",
    )
    return Excess(everywhere, nearby, spread, (1 + reached) / (permutations + 1))


@dataclass(frozen=True)
class Explained:
    """The whole, and its number with an interval."""

    whole: Excess
    measured: Measured


def explained(directions: Tensor, effects: Effects, seed: Seed, permutations: int) -> Explained:
    """`excess`, with an interval that holds both draws: of documents and of latents.

    Two jackknives, one that leaves out groups of documents and one that leaves out groups of latents; their
    variances are added, which is wider than either.
    """
    from scipy.stats import t

    whole = excess(directions, effects.mean, seed.child("permuted"), permutations)
    few = max(permutations // 4, 20)
    groups = len(effects.sums)
    documents = [
        excess(directions, effects.without([g]), seed.child("permuted"), few).number for g in range(groups)
    ]
    m = len(directions)
    parts = [torch.arange(m)[torch.arange(m) % GROUPS != g] for g in range(GROUPS)]
    flat = effects.mean
    latents = [excess(directions[p], flat[p], seed.child("permuted"), few).number for p in parts]
    variance = sum(
        (len(v) - 1) / len(v) * float(np.square(np.array(v) - np.mean(v)).sum()) for v in (documents, latents)
    )
    reach = float(t.ppf(0.975, min(groups, GROUPS) - 1)) * variance**0.5
    measured = Measured(
        estimate=whole.number,
        low=whole.number - reach,
        high=whole.number + reach,
        n=effects.documents,
        method="jackknives over groups of documents and of latents, added",
    )
    return Explained(whole, measured)


def rotated(
    unembedding: Float[Tensor, "outputs width"], directions: Float[Tensor, "m width"], seed: Seed
) -> tuple[float, Measured]:
    """R² of cosines of direct effects by cosines of directions, and the same with the unembedding turned at random.

    Turning it leaves its spectrum; what the turned one shows as well is no fact about this model.
    """
    lies = upper(cosines(directions))
    real = _r2(lies, upper(cosines(directions @ unembedding.double().T)))
    turned = []
    for draw in range(DRAWS):
        g = torch.randn((directions.shape[1],) * 2, generator=seed.child(draw).torch(), dtype=torch.float64)
        q, r = torch.linalg.qr(g)
        turn = q * torch.sign(torch.diagonal(r))
        turned.append(_r2(lies, upper(cosines(directions @ turn @ unembedding.double().T))))
    return real, _spread(turned, f"{DRAWS} rotations")


def _proxy(case: Case, directions: Tensor, seed: Seed) -> Figure:
    name = "direct effects on logits, R² beyond a rotated unembedding"
    table = getattr(case.model, "unembedding", None)
    if table is None or len(case.dictionary.writes) != 1 or table.shape[1] != directions.shape[1]:
        note = "not run: it does not write one residual stream with an unembedding behind it"
        return Figure(name=name, measured=Measured(estimate=None, note=note), unit="R²")
    real, turned = rotated(table.detach().cpu(), directions, seed.child("rotated"))
    base = turned.estimate or 0.0
    low = None if turned.high is None else real - turned.high
    high = None if turned.low is None else real - turned.low
    measured = Measured(estimate=real - base, low=low, high=high, n=turned.n, method=turned.method)
    about = f"{real:.2f} by itself, {base:.2f} of it from the spectrum alone"
    return Figure(name=name, measured=measured, unit="R²", about=about)


def _remarks(own: Explained, present: Measured, effects: Effects) -> tuple[str, ...]:
    out = [
        f"{len(effects.latents)} latents drawn at random from those that fire, {effects.documents} documents"
    ]
    reached = own.measured.estimate or 0.0
    if present.estimate is not None and reached <= present.estimate and own.whole.p <= 0.05:
        out.append("what there is does not exceed what a random linear readout of the same spectrum shows")
    if effects.reliability < 0.3:
        out.append("effects differ between halves of the documents, so a small number may be noise")
    return tuple(out)


def _r2(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.square().sum() * b.square().sum())
    return float((a * b).sum()) ** 2 / size if size > 1e-24 else 0.0


def _spread(values: list[float], method: str) -> Measured:
    low, high = (float(np.quantile(values, q)) for q in (0.025, 0.975))
    return Measured(
        estimate=float(np.mean(values)), low=low, high=high, n=len(values), method=f"{method}, middle 95 %"
    )
