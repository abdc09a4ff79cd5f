"""Inputs that are numbers, made to activate a unit: gradient ascent from several seeds, at a fixed length.

Feature visualisation (Olah et al. 2017) with its usual regularisers: waves for coordinates, small shifts of the
input at every step, a term that keeps the seeds apart. Such inputs show what a unit responds to most; whether
it responds to that on data is another question (Geirhos et al. 2023, "Don't trust your eyes"), so the best example
of the data and random inputs of the same length stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, NotFinite, Unsupported
from prosect.core.markup import card
from prosect.core.progress import step
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.averages import Averages, Wanted
from prosect.describe.synthesis.fourier import Waves
from prosect.describe.synthesis.unit import Example, Unit, best_example
from prosect.model.model import Model

STARTS = 16
"""Random inputs of which each seed begins with the one that activates the unit most: not where it is off."""
CONTROL = "random inputs drawn by the same seeds in the same way, at the same length"


@dataclass(frozen=True)
class Climb:
    """How inputs are made.

    Attributes:
        seeds: how many inputs; each starts elsewhere.
        steps: of Adam (Kingma & Ba 2015).
        rate: of Adam.
        waves: use waves as coordinates; None uses them for inputs with two or more axes.
        decay: how fast their amplitudes fall; see `fourier.Waves`.
        jitter: most places that the input is shifted by, around its edges, on every axis of space at every step.
        diversity: weight of the mean cosine between seeds, in units of the activation itself.
        norm: length of every input; None takes that of the examples, or √(numbers in an input) without any.
        random: random inputs for each seed, as a control.
        seed: root of the draws.
    """

    seeds: int = 4
    steps: int = 200
    rate: float = 0.05
    waves: bool | None = None
    decay: float = 1.0
    jitter: int = 0
    diversity: float = 0.0
    norm: float | None = None
    random: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.seeds, self.steps, self.random) < 1 or not self.rate > 0:
            raise BadInput(
                f"{self.seeds} seeds, {self.steps} steps, {self.random} random inputs, rate {self.rate}",
                "at least 1 of each, and a rate above 0",
            )
        if self.jitter < 0 or self.diversity < 0 or (self.norm is not None and not self.norm > 0):
            raise BadInput(
                f"jitter {self.jitter}, diversity {self.diversity}, norm {self.norm}",
                "none below 0, a norm above",
            )


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Inputs made for a unit.

    Attributes:
        model: its name.
        digest: of its configuration and weights.
        unit: in words.
        inputs: one for each seed, the most activating first.
        activations: of those, without any shift.
        activation: mean over seeds.
        control: mean over random inputs.
        beyond: ``activation`` minus ``control``, paired by seed.
        luckiest: the most that any random input reached.
        example: the best of the data; None where none was given.
        agreement: mean cosine between a seed's input and the others'; None with one seed.
        agreement_control: the same among random inputs.
        norm: length of every input.
        how: how they were made, what was decided included.
        decided: what was decided for the user, in words.
        n: seeds. Intervals are over seeds; those of a cosine treat a seed's mean with the others as its own.
    """

    model: str
    digest: str
    unit: str
    inputs: Float[Tensor, seeds * shape] = field(repr=False)
    activations: tuple[float, ...]
    activation: Measured
    control: Measured
    beyond: Measured
    luckiest: float
    example: Example | None
    agreement: Measured | None
    agreement_control: Measured | None
    norm: float
    how: Climb
    decided: tuple[str, ...]
    n: int

    def table(self) -> list[dict[str, Json]]:
        """One line for each seed, and those it stands beside."""
        lines: list[dict[str, Json]] = [
            {"input": f"seed {i}", "activation": a} for i, a in enumerate(self.activations)
        ]
        if self.example is not None:
            lines.append({"input": "best example", "activation": self.example.activation})
        lines.append({"input": "random, mean", "activation": self.control.estimate})
        lines.append({"input": "random, most", "activation": self.luckiest})
        return [{**line, "n": self.n} for line in lines]

    def record(self) -> Json:
        """As plain values, inputs included."""
        content = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "inputs"}
        return {**plain(content), "inputs": self.inputs.tolist()}

    def _repr_html_(self) -> Markup:
        rows = [(str(line["input"]), f"{line['activation']:.4g}") for line in self.table()]
        return card(f"inputs for {self.unit}", rows, "What it responds to most; not what it meets on data.")


def synthesise(
    model: Model, unit: Unit, climb: Climb | None = None, examples: Iterable[Batch] | None = None
) -> Synthesis:
    """Make inputs that activate a unit as much as inputs of that length can.

    Args:
        model: one whose inputs are one tensor of numbers.
        unit: what to activate.
        climb: how.
        examples: data to compare with, and to take the length from.

    Raises:
        Unsupported: the model reads tokens, or several tensors of numbers.
        BadInput: a unit that is not there.
        NotFinite: the activation became NaN or infinite.
    """
    how = climb or Climb()
    name, shape = _input(model)
    example = None if examples is None else best_example(model, unit, examples)
    decided: list[str] = []
    norm = how.norm
    if norm is None:
        norm = float(np.sqrt(np.prod(shape))) if example is None or example.size is None else example.size
        why = "√(numbers in an input)" if example is None else "the mean over the examples"
        decided.append(f"length {norm:.4g}: {why}")
    space = min(2, len(shape))
    waves = how.waves if how.waves is not None else len(shape) > 1
    if how.waves is None:
        decided.append(
            "coordinates: waves" if waves else "coordinates: the numbers themselves, which have no order"
        )
    to = Waves(shape, space, how.decay) if waves else None
    maker = _Maker(model, unit, name, shape, to, norm, space)
    roots = [Seed(how.seed).child("synthesis", i) for i in range(how.seeds)]
    drawn = [maker.random(root.child("random"), how.random) for root in roots]
    chance = [maker.activation(maker.inputs(x)) for x in drawn]
    made = maker.climb(torch.stack([maker.start(root) for root in roots]), how)
    found = maker.activation(made)
    return _result(
        model, unit, how, made, found, [maker.inputs(x) for x in drawn], chance, example, norm, tuple(decided)
    )


def _input(model: Model) -> tuple[str, tuple[int, ...]]:
    numbers = {k: t for k, t in model.example.tensors.items() if t.is_floating_point()}
    if len(numbers) != 1 or len(model.example.tensors) != 1:
        raise Unsupported(
            f"inputs {', '.join(model.example.tensors)} of {model.name}",
            "one tensor of numbers",
            "synthesis.tokens for a language model",
        )
    ((name, tensor),) = numbers.items()
    return name, tuple(tensor.shape[1:])


@dataclass(frozen=True)
class _Maker:
    """Turns coefficients into inputs and inputs into activations."""

    model: Model
    unit: Unit
    name: str
    shape: tuple[int, ...]
    waves: Waves | None
    norm: float
    space: int

    def random(self, seed: Seed, n: int) -> Tensor:
        size = self.shape if self.waves is None else self.waves.coefficients
        return torch.randn((n, *size), generator=seed.torch()).to(self.model.device)

    def inputs(self, x: Tensor) -> Tensor:
        made = x if self.waves is None else self.waves(x)
        length = made.flatten(1).norm(dim=1).clamp(min=1e-12)
        scaled: Tensor = made * (self.norm / length).reshape(-1, *[1] * (made.ndim - 1))
        return scaled

    def activation(self, made: Tensor) -> Tensor:
        return self.unit.measure(self.model, self.model.batch({self.name: made.to(self.model.dtype)})).cpu()

    def start(self, seed: Seed) -> Tensor:
        drawn = self.random(seed.child("start"), STARTS)
        return drawn[int(self.activation(self.inputs(drawn)).argmax())]

    def climb(self, x: Tensor, how: Climb) -> Tensor:
        x = x.clone().requires_grad_()
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        shifts = Seed(how.seed).child("synthesis", "jitter").numpy()
        with step("synthesis", total=how.steps, unit="steps") as progress:
            for t in range(1, how.steps + 1):
                with torch.enable_grad():
                    made = self.inputs(x)
                    moved = made
                    if how.jitter:
                        by = shifts.integers(-how.jitter, how.jitter + 1, self.space).tolist()
                        moved = torch.roll(made, by, dims=tuple(range(-self.space, 0)))
                    batch = self.model.batch({self.name: moved.to(self.model.dtype)})
                    trace = self.model.run(batch, [self.unit.capture(self.model)], grad=True, stop_early=True)
                    value = self.unit.value(self.model, trace)
                    aim = value.sum()
                    if how.diversity and len(x) > 1:
                        aim = aim - how.diversity * float(value.detach().abs().mean()) * _alike(made).sum()
                    (gradient,) = torch.autograd.grad(aim, x)
                if not bool(torch.isfinite(gradient).all()):
                    raise NotFinite(
                        f"a gradient at {self.unit.words} in step {t}", "finite numbers", "a lower rate"
                    )
                with torch.no_grad():
                    first.mul_(0.9).add_(gradient, alpha=0.1)
                    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                    size = (second / (1 - 0.999**t)).sqrt().add_(1e-12)
                    # the rate falls to a tenth, so that the climb settles
                    x.add_(first / (1 - 0.9**t) / size, alpha=how.rate * (1 - 0.9 * t / how.steps))
                progress.advance()
        return self.inputs(x.detach())


def _alike(made: Float[Tensor, n * shape]) -> Float[Tensor, " n"]:
    """Mean cosine of each input with the others."""
    unit = torch.nn.functional.normalize(made.flatten(1), dim=1)
    return ((unit @ unit.T).sum(dim=1) - 1.0) / max(len(made) - 1, 1)


def _result(
    model: Model,
    unit: Unit,
    how: Climb,
    made: Tensor,
    found: Tensor,
    drawn: list[Tensor],
    chance: list[Tensor],
    example: Example | None,
    norm: float,
    decided: tuple[str, ...],
) -> Synthesis:
    sums = Averages()
    for i, values in enumerate(chance):
        sums.add("made", found[i : i + 1].numpy(), np.array([i]))
        sums.add("random", values.numpy(), np.full(len(values), i))
        if len(made) > 1:
            sums.add("alike", _alike(made)[i : i + 1].double().cpu().numpy(), np.array([i]))
        if len(drawn[i]) > 1:
            sums.add("alike at random", _alike(drawn[i]).double().cpu().numpy(), np.full(len(drawn[i]), i))
    wanted = {name: Wanted((name,)) for name in ("made", "random", "alike", "alike at random")}
    got = sums.measure(wanted | {"beyond": Wanted(("made",), ("random",))}, Seed(how.seed).child("intervals"))
    several = len(made) > 1
    order = torch.argsort(found, descending=True, stable=True)
    return Synthesis(
        model.name,
        model.digest,
        unit.words,
        made[order.to(made.device)].cpu(),
        tuple(found[order].tolist()),
        got["made"],
        got["random"],
        got["beyond"],
        max(float(values.max()) for values in chance),
        example,
        got["alike"] if several else None,
        got["alike at random"] if several else None,
        norm,
        how,
        decided,
        len(made),
    )
