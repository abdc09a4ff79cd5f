"""Training a tuned lens: one translator for each site, all against the model's own prediction, on explore alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, Conflict, NotFinite, TooLittleData, Unsupported
from prosect.core.progress import step
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.lens.lens import stream_sites
from prosect.describe.lens.tuned import Translator, TunedLens, document_keys
from prosect.model.forward import settled
from prosect.model.model import Model
from prosect.model.unembed import Readout, readout
from prosect.store.tensors import load_tensors, save_tensors


@dataclass(frozen=True)
class Training:
    """How a lens is trained.

    Attributes:
        steps: batches used; those given are gone through again and again.
        positions: most positions of a batch that a step looks at, drawn by the step's own seed.
        rate: of Adam (Kingma & Ba 2015) at the first step; it falls to zero along a line.
        decay: of the weights towards the identity, as a share of the rate (Loshchilov & Hutter 2019).
        seed: of the draws.
        every: steps between checkpoints, where a place for them is given.
    """

    steps: int = 250
    positions: int = 512
    rate: float = 1e-3
    decay: float = 1e-3
    seed: int = 0
    every: int = 50

    def __post_init__(self) -> None:
        if min(self.steps, self.positions, self.every) < 1:
            raise BadInput(f"{self.steps} steps of {self.positions} positions", "at least 1 of each")
        if not (self.rate > 0 and self.decay >= 0):
            raise BadInput(f"a rate of {self.rate} and a decay of {self.decay}", "above 0, and at least 0")


@dataclass
class _State:
    """Where training stands: parameters, Adam's two moments, and the losses so far."""

    done: int
    parameters: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    losses: Tensor

    @classmethod
    def start(cls, sites: Sequence[str], width: int, steps: int, device: torch.device) -> _State:
        shapes = {f"weight.{s}": (width, width) for s in sites} | {f"bias.{s}": (width,) for s in sites}

        def zeros() -> dict[str, Tensor]:
            return {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}

        return cls(0, zeros(), zeros(), zeros(), torch.zeros(steps, len(sites), dtype=torch.float64))

    def save(self, path: Path, key: str) -> None:
        tensors = {"losses": self.losses}
        for kind in ("parameters", "first", "second"):
            tensors |= {f"{kind}/{name}": t for name, t in getattr(self, kind).items()}
        save_tensors(path, tensors, {"done": self.done, "key": key})

    @classmethod
    def load(cls, path: Path, key: str, device: torch.device) -> _State:
        tensors, about = load_tensors(path)
        if not isinstance(about, dict) or about.get("key") != key:
            raise Conflict(
                f"{path}, a checkpoint of another training",
                "the same model, sites and settings",
                "another path",
            )
        kinds: dict[str, dict[str, Tensor]] = {"parameters": {}, "first": {}, "second": {}}
        for name, tensor in tensors.items():
            kind, slash, rest = name.partition("/")
            if slash:
                kinds[kind][rest] = tensor.to(device)
        return cls(int(about["done"]), **kinds, losses=tensors["losses"])


def fit(
    model: Model,
    explore: Iterable[Batch],
    sites: Sequence[str] | None = None,
    training: Training | None = None,
    checkpoint: Path | None = None,
) -> TunedLens:
    """Train a translator for each site: minimise KL(model ‖ lens) over scored positions.

    Args:
        model: a language model; nothing about it changes.
        explore: batches of tokens that can be gone through several times, such as a list.
        sites: of the residual stream; by default what enters the first block and what leaves each but the
            last, whose logit lens is the model itself.
        training: how.
        checkpoint: a file to keep the state in; training that finds one goes on from it, and ends with the
            same numbers as if it had never stopped.

    Returns:
        The lens, with the documents it has seen.

    Raises:
        Unsupported: the model has no such readout, or a site is not of the stream.
        BadInput: batches that can be gone through only once.
        TooLittleData: no scored position.
        Conflict: the checkpoint is of another training.
        NotFinite: the loss became NaN or infinite.
    """
    how = training or Training()
    reader = readout(model)
    named = stream_sites(model, sites)
    if sites is None:
        named = tuple(s for s in named if s != f"resid_post.{(model.n_layers or 1) - 1}")
    if iter(explore) is explore:
        raise BadInput(
            "batches that can be gone through once", "ones that can be gone through again", "a list"
        )
    key = digest({"model": model.digest, "sites": named, "training": asdict(how)})
    state = _State.start(named, int(model.d_model or 0), how.steps, model.device)
    if checkpoint is not None and checkpoint.exists():
        state = _State.load(checkpoint, key, model.device)
    documents: set[str] = set()
    units: set[int] = set()
    with step("tuned lens", total=how.steps, unit="steps") as progress:
        at = 0
        while at < how.steps:
            found = False
            for given in explore:
                if at >= how.steps:
                    break
                batch = model.batch(given)
                if batch.count == 0:
                    continue
                found = True
                documents.update(document_keys(batch))
                units.update(batch.units.tolist())
                if at >= state.done:  # what a checkpoint holds is walked past, not done again
                    _step(model, reader, named, batch, state, how, at)
                    state.done = at + 1
                    if checkpoint is not None and (state.done % how.every == 0 or state.done == how.steps):
                        state.save(checkpoint, key)
                at += 1
                progress.advance()
            if not found:
                raise TooLittleData("no scored position to train on", "at least one", "more text")
    last = state.losses[-max(1, how.steps // 10) :].mean(dim=0).tolist()
    about: dict[str, Json] = {**asdict(how), "documents": len(documents), "units": len(units)}
    return TunedLens(
        {s: Translator(state.parameters[f"weight.{s}"], state.parameters[f"bias.{s}"]) for s in named},
        model.digest,
        about,
        dict(zip(named, last, strict=True)),
        frozenset(documents),
    )


def _step(
    model: Model,
    reader: Readout,
    sites: Sequence[str],
    batch: Batch,
    state: _State,
    how: Training,
    at: int,
) -> None:
    """One step of Adam for every site, on some of the batch's positions."""
    if "input_ids" not in batch.tensors:
        raise Unsupported(f"a lens over inputs of {model.name}", "batches of tokens")
    trace = model.run(batch, sites)
    chosen = Seed(how.seed).child("tuned lens", at).numpy().permutation(batch.count)[: how.positions]
    index = torch.from_numpy(np.sort(chosen)).to(model.device)
    final = batch.flat(trace.output)[index].float().log_softmax(dim=-1)
    rate = how.rate * (1 - at / how.steps)
    for column, site in enumerate(sites):
        x = batch.flat(trace[site])[index].float()
        names = (f"weight.{site}", f"bias.{site}")
        weight, bias = (state.parameters[n].detach().requires_grad_() for n in names)
        with settled(model.module, grad=True):
            logp = reader(Translator(weight, bias)(x).to(model.dtype)).float().log_softmax(dim=-1)
            loss = (final.exp() * (final - logp)).sum(dim=-1).mean()
            gradients = torch.autograd.grad(loss, (weight, bias))
        if not bool(torch.isfinite(loss)):
            raise NotFinite(
                f"a loss of {float(loss)} at {site} in step {at}", "a finite loss", "a lower rate"
            )
        state.losses[at, column] = float(loss.detach())
        for name, gradient in zip(names, gradients, strict=True):
            _adam(state, name, gradient, rate, how.decay, at + 1)


def _adam(state: _State, name: str, gradient: Tensor, rate: float, decay: float, t: int) -> None:
    """Adam's update with its usual constants; the decay is towards zero, which is the identity map."""
    first, second = state.first[name], state.second[name]
    first.mul_(0.9).add_(gradient, alpha=0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    size = (second / (1 - 0.999**t)).sqrt_().add_(1e-8)
    parameter = state.parameters[name]
    parameter.mul_(1 - rate * decay).addcdiv_(first / (1 - 0.9**t), size, value=-rate)
