"""Fits the formulas of `trigonometric` to neurons and to what they write.

For one frequency a squared sum of two waves is linear in nine products (a constant, both second harmonics,
and the four products of first harmonics), so least squares ranks every frequency in closed form. Phases and
amplitudes then start from the best rank-one part of the four products and are refined as four numbers by
Levenberg-Marquardt. Everything shown is cross-fitted on two disjoint sets of pairs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.records import Description
from prosect.core.seeds import Seed
from prosect.describe.explained import Explained
from prosect.describe.trigonometric import FORMS, Trigonometric, TrigonometricOutput, checked_pairs
from prosect.describe.wording import significant

METHOD = "trigonometric@1"
OUTPUT_METHOD = "trigonometric-output@1"
FLOOR = 0.5
"""Share of the variance, on pairs it was not fitted to, that one frequency must explain to be called found."""

FEWEST_PAIRS = 40
STEPS = 40
DIGITS = 9


class TrigonometricExplainer:
    """Explains neurons by a wave of their two inputs.

    Args:
        pairs: explored inputs, residues (n, 2).
        p: modulus.
        seed: for the two sets of pairs.
        form: ``square`` for squared hidden units, ``linear`` for what is squared.
        tensor: name of the batch's tensor.
        second: which pairs are in the second set, where that is given.

    Raises:
        BadInput: pairs are not residues, p is below 3, or there is no such form.
        TooLittleData: fewer than `FEWEST_PAIRS` pairs in all, or an empty set.
    """

    method = METHOD

    def __init__(
        self,
        pairs: Int[np.ndarray, "n 2"],
        p: int,
        seed: Seed,
        form: str = "square",
        tensor: str = "pairs",
        second: Bool[np.ndarray, " n"] | None = None,
    ) -> None:
        if p < 3 or form not in FORMS:
            raise BadInput(
                f"form {form!r} modulo {p}", f"one of {', '.join(FORMS)}, and a modulus of 3 or more"
            )
        self.pairs, self.p, self.form, self.tensor = checked_pairs(pairs, p), p, form, tensor
        if second is None:
            second = np.arange(len(pairs)) % 2 == 1
            seed.child("halves").numpy().shuffle(second)
        self._halves = (np.flatnonzero(~second), np.flatnonzero(second))
        if len(pairs) < FEWEST_PAIRS or min(map(len, self._halves)) < FEWEST_PAIRS // 4:
            raise TooLittleData(
                f"{len(pairs)} explored pairs in sets of {' and '.join(str(len(h)) for h in self._halves)}",
                f"{FEWEST_PAIRS} or more in two sets",
                "a larger explore part",
            )
        frequencies = np.arange(1, (p - 1) // 2 + 1)
        angle = 2 * math.pi * frequencies[:, None, None] * self.pairs[None] / p
        self._waves = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # (k, n, input, cos or sin)
        self._basis = _products(self._waves) if form == "square" else self._waves.reshape(*angle.shape[:2], 4)
        self._inverse = {
            name: np.linalg.pinv(np.einsum("kni,knj->kij", self._basis[:, at], self._basis[:, at]))
            for name, at in self._sets.items()
        }

    @property
    def _sets(self) -> dict[str, Int[np.ndarray, " m"]]:
        return {"first": self._halves[0], "second": self._halves[1], "all": np.arange(len(self.pairs))}

    def explain(self, activation: Float[np.ndarray, " _"]) -> Explained:
        """The formula for one neuron, or for a control in its place.

        Raises:
            ShapeMismatch: there is not one activation for each pair.
            NotFinite: one is NaN or infinite.
        """
        if activation.shape != (len(self.pairs),):
            raise ShapeMismatch(f"{len(activation)} activations", f"{len(self.pairs)} explored pairs")
        if not np.isfinite(activation).all():
            raise NotFinite("NaN or infinity in activations", "finite activations", "looking at the site")
        y = activation.astype(np.float64)
        fits = {name: self._fit(name, y) for name in self._sets}
        crossed = np.empty(len(y))
        constant = np.empty(len(y))
        for own, other in (("first", "second"), ("second", "first")):
            there = self._sets[other]
            crossed[there] = fits[own].at(self.pairs[there])
            constant[there] = y[self._sets[own]].mean()
        spread = float(((y - constant) ** 2).sum())
        explained = 1.0 - float(((y - crossed) ** 2).sum()) / spread if spread > 1e-12 * float(y @ y) else 0.0
        formula = _tidy(fits["all"])
        same = fits["first"].k == fits["second"].k == formula.k
        found = bool(explained >= FLOOR and same)
        wave = "a squared sum of waves" if self.form == "square" else "a sum of waves"
        about: dict[str, Json] = {
            "frequency": formula.k,
            "same frequency in both sets": same,
            "agreement": _correlation(*(fits[name].at(self.pairs) for name in ("first", "second"))),
        }
        words = (
            f"{wave} of frequency {formula.k} in both inputs, phases {formula.phi:.2f} and {formula.psi:.2f}"
            if found
            else f"no single frequency (nearest {formula.k})"
        )
        return Explained(
            Description(words=words, cause=formula.executable(), about=about),
            "cause",
            METHOD,
            found,
            {"R²": significant(explained), "correlation": _correlation(crossed, y)},
            _tidy(fits["second"]).executable(),
        )

    def _fit(self, name: str, y: Float[np.ndarray, " n"]) -> Trigonometric:
        at = self._sets[name]
        projected = np.einsum("kni,n->ki", self._basis[:, at], y[at])
        coefficients = np.einsum("kij,kj->ki", self._inverse[name], projected)
        k = int(np.argmax((projected * coefficients).sum(axis=1)))  # the largest explained sum of squares
        if self.form == "linear":
            return _formula(self.p, k + 1, coefficients[k], self.form, self.tensor)
        design = self._waves[k, at].reshape(len(at), 4)
        best = _refine(design, y[at], np.stack(_starts(coefficients[k])))
        return _formula(self.p, k + 1, best, self.form, self.tensor)


def _products(waves: Float[np.ndarray, "k n 2 2"]) -> Float[np.ndarray, "k n 9"]:
    (ca, sa), (cb, sb) = (np.moveaxis(waves[:, :, i], -1, 0) for i in range(2))
    harmonics = (ca * ca - sa * sa, 2 * sa * ca, cb * cb - sb * sb, 2 * sb * cb)
    return np.stack([np.ones_like(ca), *harmonics, ca * cb, ca * sb, sa * cb, sa * sb], axis=-1)


def _starts(coefficients: Float[np.ndarray, " 9"]) -> list[Float[np.ndarray, " 4"]]:
    """Where to start: weights (u, v) of cos and sin, so that the wave is u·(cos, sin) of a plus v·(cos, sin) of b.

    The four products have coefficients 2uvᵀ; the second harmonics tell the lengths, |u|²/2 and |v|²/2, and
    the directions up to sign.
    """
    first, second = coefficients[1:3], coefficients[3:5]
    left, size, right = np.linalg.svd(coefficients[5:].reshape(2, 2) / 2)
    lengths = [math.sqrt(2 * math.hypot(*harmonic)) for harmonic in (first, second)]
    product = lengths[0] * lengths[1]
    scale = math.sqrt(size[0] / product) if product > 0 else 1.0
    found = [np.concatenate([left[:, 0] * lengths[0] * scale, right[0] * lengths[1] * scale])]
    angles = [math.atan2(h[1], h[0]) / 2 for h in (first, second)]
    u, v = (n * np.array([math.cos(t), math.sin(t)]) for n, t in zip(lengths, angles, strict=True))
    return [*found, np.concatenate([u, v]), np.concatenate([u, -v])]


def _refine(
    design: Float[np.ndarray, "m 4"], y: Float[np.ndarray, " m"], starts: Float[np.ndarray, "s 4"]
) -> Float[np.ndarray, " 4"]:
    """Least squares of (design · w)² by Levenberg-Marquardt from every start at once; the best end."""
    weights, damping = starts.copy(), np.full(len(starts), 1e-3)
    wave = weights @ design.T
    loss = ((wave * wave - y) ** 2).sum(axis=1)
    going = np.ones(len(starts), dtype=bool)
    diagonal = np.arange(4)
    for _ in range(STEPS):
        at = np.flatnonzero(going)
        slope = 2 * wave[at, :, None] * design
        curvature = slope.transpose(0, 2, 1) @ slope
        pull = ((y - wave[at] * wave[at])[:, None, :] @ slope)[:, 0]
        own = curvature[:, diagonal, diagonal]
        curvature[:, diagonal, diagonal] += (
            damping[at, None] * (own + 1e-12 * own.sum(axis=1)[:, None]) + 1e-200
        )
        tried = weights[at] + np.linalg.solve(curvature, pull[..., None])[..., 0]
        there = tried @ design.T
        found = ((there * there - y) ** 2).sum(axis=1)
        better = found < loss[at]
        ended = np.where(better, loss[at] - found <= 1e-14 * loss[at], damping[at] * 8 > 1e8)
        damping[at] = np.where(better, damping[at] / 4, damping[at] * 8)
        kept = at[better]
        weights[kept], wave[kept], loss[kept] = tried[better], there[better], found[better]
        going[at[ended]] = False
        if not going.any():
            break
    best: Float[np.ndarray, " 4"] = weights[int(np.argmin(loss))]
    return best


def _formula(p: int, k: int, weights: Float[np.ndarray, " 4"], form: str, tensor: str) -> Trigonometric:
    """A cos(t + φ) = A cos φ cos t − A sin φ sin t."""
    a, phi = math.hypot(weights[0], weights[1]), math.atan2(-weights[1], weights[0])
    b, psi = math.hypot(weights[2], weights[3]), math.atan2(-weights[3], weights[2])
    return Trigonometric(p, k, phi, psi, a, b, form, tensor).canonical


def _tidy(formula: Trigonometric) -> Trigonometric:
    phi, psi, a, b = (significant(v, DIGITS) for v in (formula.phi, formula.psi, formula.a, formula.b))
    return Trigonometric(formula.p, formula.k, phi, psi, a, b, formula.form, formula.tensor)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if x.std() <= 1e-12 * max(np.abs(x).max(), 1e-300) or y.std() <= 1e-12 * max(np.abs(y).max(), 1e-300):
        return 0.0
    return significant(float(np.corrcoef(x, y)[0, 1]))


class TrigonometricOutputExplainer:
    """Explains what a component writes by a wave over the outputs, from what ablating it does on explore.

    Args:
        p: modulus, and number of outputs.
        cause: the formula of its activation, with which the stored effect predicts; None to use its mean.
    """

    method = OUTPUT_METHOD

    def __init__(self, p: int, cause: Trigonometric | None = None) -> None:
        if p < 3:
            raise BadInput(f"a modulus of {p}", "3 or more")
        self.p, self.cause = p, cause
        self._sums = np.zeros((2, p))  # Σ z · change of each output, for each of two sets
        self._squares = np.zeros(2)
        self._levels = np.zeros((2, 2))

    def update(self, z: Float[Tensor, " n"], delta: Float[Tensor, "n outputs"], second: bool = False) -> None:
        """Add some explored inputs.

        Args:
            z: the component's activation.
            delta: outputs with it ablated minus without.
            second: whether they belong to the second of two disjoint sets.

        Raises:
            ShapeMismatch: there are not p outputs.
            NotFinite: a number is NaN or infinite.
        """
        if delta.shape[1] != self.p:
            raise ShapeMismatch(f"changes of {delta.shape[1]} outputs", f"{self.p}")
        size, change = z.detach().cpu().double().numpy(), delta.detach().cpu().double().numpy()
        if not np.isfinite(size).all() or not np.isfinite(change).all():
            raise NotFinite(
                "NaN or infinity in activations or changes", "finite numbers", "checking the ablation"
            )
        self._sums[int(second)] += np.einsum("n,no->o", size, change)
        self._squares[int(second)] += float((size * size).sum())
        self._levels[int(second)] += len(size), float(size.sum())

    def explain(self) -> Explained:
        """The wave over outputs; its share of what the component writes, agreement between the two sets.

        Raises:
            TooLittleData: nothing was added.
        """
        count, total = self._levels.sum(axis=0)
        if not count:
            raise TooLittleData("no explored input", "some", "update() first")
        parts = [-s / q - (-s / q).mean() for s, q in zip(self._sums, self._squares, strict=True) if q > 0]
        agreement = _correlation(*parts) if len(parts) == 2 else None
        squares = float(self._squares.sum())
        weights = -self._sums.sum(axis=0) / squares if squares > 0 else np.zeros(self.p)
        level = float(total / count)
        found = written(weights, self.cause, level, {"agreement": agreement})
        if len(parts) < 2:
            return found
        return replace(found, second=written(parts[1], self.cause, level).executable)


def written(
    weights: Float[np.ndarray, " outputs"],
    cause: Trigonometric | None = None,
    level: float = 0.0,
    about: dict[str, Json] | None = None,
) -> Explained:
    """The wave over outputs that one row of weights holds: what an activation of 1 adds to each output.

    Args:
        weights: one for each output; their mean is not looked at, because a softmax does not see it.
        cause: as for `TrigonometricOutput`.
        level: likewise.
        about: what else to show.

    Raises:
        NotFinite: a weight is NaN or infinite.
        BadInput: there are fewer than three outputs.
    """
    if len(weights) < 3:
        raise BadInput(f"{len(weights)} outputs", "3 or more")
    if not np.isfinite(weights).all():
        raise NotFinite("NaN or infinity in output weights", "finite weights", "checking the weights")
    p, centred = len(weights), weights - weights.mean()
    spectrum = np.fft.rfft(centred)
    usable = np.arange(1, (p - 1) // 2 + 1)
    power = 2 * np.abs(spectrum[usable]) ** 2 / p
    total = float((centred**2).sum())
    best = int(np.argmax(power))
    # below this, what is left is rounding
    alive = total > 1e-20 * max(float((weights**2).sum()), 1e-300) and total > 0
    share = float(power[best]) / total if alive else 0.0
    wave = TrigonometricOutput(
        p,
        int(usable[best]),
        significant(float(np.angle(spectrum[usable[best]])), DIGITS) if alive else 0.0,
        significant(float(2 * np.abs(spectrum[usable[best]]) / p), DIGITS) if alive else 0.0,
        cause,
        significant(level, DIGITS),
    ).canonical
    found = share >= FLOOR
    words = (
        f"raises outputs as a wave of frequency {wave.k}, phase {wave.theta:.2f}"
        if found
        else f"no single frequency over the outputs (nearest {wave.k})"
    )
    return Explained(
        Description(words=words, effect=wave.executable(), about={"frequency": wave.k, **(about or {})}),
        "effect",
        OUTPUT_METHOD,
        found,
        {"share": significant(share)},
    )
