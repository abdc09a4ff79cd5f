"""Formulas for arithmetic modulo p: neurons that are waves of their two inputs, and write waves over outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prosect.core.canonical import Json
from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.data.batch import Batch
from prosect.describe.executables import parameters_of, reading
from prosect.store.shelf import Shelf

FORMS = ("square", "linear")


@dataclass(frozen=True)
class Trigonometric:
    """(A cos(2πka/p + φ) + B cos(2πkb/p + ψ))² of inputs a and b, or that without the square.

    The same function has many names: k and p − k with all phases negated, a negative amplitude and a phase
    turned by π, and, under the square, both phases turned by π at once. `canonical` picks one: k in
    1..(p−1)/2, amplitudes of 0 or more, phases in [0, 2π), and under the square φ in [0, π) (ψ in [0, π)
    where A is 0); a phase whose amplitude is 0 is 0.

    Attributes:
        p: modulus.
        k: frequency, in 1..p−1.
        phi: phase of the first input, in radians.
        psi: phase of the second.
        a: amplitude of the first.
        b: amplitude of the second.
        form: ``square`` or ``linear``.
        tensor: name of the batch's tensor, integers (n, 2).

    Raises:
        BadInput: p is below 3, k outside its range, a number is not finite, or there is no such form.
    """

    p: int
    k: int
    phi: float
    psi: float
    a: float = 1.0
    b: float = 1.0
    form: str = "square"
    tensor: str = "pairs"

    kind = "trigonometric"
    version = 1

    def __post_init__(self) -> None:
        if self.p < 3 or not 0 < self.k < self.p:
            raise BadInput(
                f"frequency {self.k} modulo {self.p}", "a modulus of 3 or more, a frequency below it"
            )
        if not all(math.isfinite(v) for v in (self.phi, self.psi, self.a, self.b)):
            raise BadInput("a wave with a phase or amplitude that is not finite", "finite numbers")
        if self.form not in FORMS:
            raise BadInput(f"form {self.form!r}", "'square' or 'linear'")

    @classmethod
    def read(cls, parameters: Json) -> Trigonometric:
        """The formula that its ``json`` says."""
        with reading(cls.kind):
            return cls(**parameters)

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> Trigonometric:
        """The formula that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        return cls.read(dict(parameters_of(executable, cls.kind, cls.version)))

    @property
    def json(self) -> Json:
        """As stored."""
        return {
            "p": self.p,
            "k": self.k,
            "phi": self.phi,
            "psi": self.psi,
            "a": self.a,
            "b": self.b,
            "form": self.form,
            "tensor": self.tensor,
        }

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored."""
        return Executable(kind=self.kind, version=self.version, parameters=self.json)

    @property
    def canonical(self) -> Trigonometric:
        """The same function under its one name."""
        k, phi, psi, a, b = self.k, self.phi, self.psi, self.a, self.b
        if 2 * k > self.p:
            k, phi, psi = self.p - k, -phi, -psi
        phi, psi = phi + math.pi * (a < 0), psi + math.pi * (b < 0)
        a, b = abs(a), abs(b)
        phi, psi = (_turn(phi) if a else 0.0), (_turn(psi) if b else 0.0)
        if self.form == "square" and (phi if a else psi) >= math.pi:
            phi, psi = (_turn(phi + math.pi) if a else 0.0), (_turn(psi + math.pi) if b else 0.0)
        return Trigonometric(self.p, k, phi, psi, a, b, self.form, self.tensor)

    def activation(self, batch: Batch) -> Float[np.ndarray, " n"]:
        """The predicted activation of every pair.

        Raises:
            BadInput: the batch has no such tensor of pairs below p.
        """
        return self.at(pairs_of(batch, self.tensor, self.p))

    def at(self, pairs: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
        """The value at pairs of residues."""
        turn = 2 * math.pi * self.k / self.p
        wave = self.a * np.cos(turn * pairs[:, 0] + self.phi) + self.b * np.cos(turn * pairs[:, 1] + self.psi)
        return np.asarray(wave * wave if self.form == "square" else wave)


@dataclass(frozen=True)
class TrigonometricOutput:
    """Removing the component changes output c by −z A cos(2πkc/p + θ), where z is its activation.

    Attributes:
        p: modulus, and number of outputs.
        k: frequency, in 1..p−1; `canonical` has k in 1..(p−1)/2, A of 0 or more and θ in [0, 2π).
        theta: phase, in radians.
        amplitude: A.
        cause: the formula that gives z; None where there is none.
        level: what z is without a formula: its mean.

    Raises:
        BadInput: p is below 3, k outside its range, or a number is not finite.
    """

    p: int
    k: int
    theta: float
    amplitude: float
    cause: Trigonometric | None = None
    level: float = 0.0

    kind = "trigonometric-output"
    version = 1

    def __post_init__(self) -> None:
        if self.p < 3 or not 0 < self.k < self.p:
            raise BadInput(
                f"frequency {self.k} modulo {self.p}", "a modulus of 3 or more, a frequency below it"
            )
        if not all(math.isfinite(v) for v in (self.theta, self.amplitude, self.level)):
            raise BadInput("a wave with a phase or amplitude that is not finite", "finite numbers")

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> TrigonometricOutput:
        """The effect that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = dict(parameters_of(executable, cls.kind, cls.version))
        with reading(cls.kind):
            cause = parameters.pop("cause")
            return cls(**parameters, cause=None if cause is None else Trigonometric.read(cause))

    def executable(self, shelf: Shelf | None = None) -> Executable:
        """As stored."""
        parameters: Json = {
            "p": self.p,
            "k": self.k,
            "theta": self.theta,
            "amplitude": self.amplitude,
            "cause": None if self.cause is None else self.cause.json,
            "level": self.level,
        }
        return Executable(kind=self.kind, version=self.version, parameters=parameters)

    @property
    def canonical(self) -> TrigonometricOutput:
        """The same function under its one name."""
        k, theta = (self.p - self.k, -self.theta) if 2 * self.k > self.p else (self.k, self.theta)
        theta = _turn(theta + math.pi * (self.amplitude < 0)) if self.amplitude else 0.0
        return TrigonometricOutput(self.p, k, theta, abs(self.amplitude), self.cause, self.level)

    @property
    def wave(self) -> Float[np.ndarray, " outputs"]:
        """What an activation of 1 adds to every output."""
        return np.asarray(
            self.amplitude * np.cos(2 * math.pi * self.k * np.arange(self.p) / self.p + self.theta)
        )

    def change(self, batch: Batch) -> Float[np.ndarray, "n outputs"]:
        """What removing the component does to every output.

        Raises:
            BadInput: the batch has no tensor of pairs that the cause can read.
        """
        z = np.full(len(batch), self.level) if self.cause is None else self.cause.activation(batch)
        return np.asarray(-z[:, None] * self.wave)


def pairs_of(batch: Batch, tensor: str, p: int) -> Int[np.ndarray, "n 2"]:
    """The pairs of residues in a batch.

    Raises:
        BadInput: there are none, or one lies outside 0..p−1.
    """
    if tensor not in batch.tensors or batch.mask is not None:
        raise BadInput(f"a batch of {', '.join(batch.tensors)}", f"{tensor!r}, pairs of residues (n, 2)")
    pairs = batch.tensors[tensor].detach().cpu().numpy()
    return checked_pairs(pairs, p)


def checked_pairs(pairs: np.ndarray, p: int) -> Int[np.ndarray, "n 2"]:
    """``pairs`` if they are pairs of residues.

    Raises:
        BadInput: they are not.
    """
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise BadInput(f"{pairs.dtype} of shape {pairs.shape}", "integers of shape (n, 2)")
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= p):
        raise BadInput(f"residues from {pairs.min()} to {pairs.max()}", f"0 to {p - 1}")
    return pairs.astype(np.int64)


def _turn(angle: float) -> float:
    """An angle in [0, 2π)."""
    turned = math.fmod(angle, 2 * math.pi)
    turned += 2 * math.pi * (turned < 0)
    return 0.0 if turned >= 2 * math.pi else turned
