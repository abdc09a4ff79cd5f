"""A small network of which everything is known, a dictionary without a fault, and one fault for each limitation.

x = Σ s_i d_i with sparse s ≥ 0 and unit directions d_i that are linearly independent, so that the dual basis reads every
s_i exactly. Then one unit for each feature, relu(s_i - 0.1), and a readout F whose row i is what feature i does.
Feature 0 and 1 are parents: 2 and 3 occur only with 0, 4 and 5 only with 1. Two more dimensions hold a plane that no
feature lies in, for a concept that is no direction.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import nn

from prosect.core.seeds import Seed
from prosect.data.source import TableSource
from prosect.decompose.audit.case import Case, Effort
from prosect.decompose.audit.sample import encoded, sampled
from prosect.decompose.audit.wanted import wanted
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import Threshold, TopK
from prosect.decompose.streams import ArrayStream
from prosect.model.model import Model

FEATURES, WIDTH, OUTPUTS, ROWS = 24, 32, 48, 1200
PARENTS = {2: 0, 3: 0, 4: 1, 5: 1}
BAR = 0.1
EFFORT = Effort(latents=24, windows=500, clusters=1, permutations=30, rows=600)


def normal(*shape, seed):
    return torch.randn(*shape, generator=Seed(seed).child("faults").torch())


@dataclass(frozen=True)
class Network:
    """Its three matrices.

    Attributes:
        directions: of the features, (FEATURES, WIDTH), of length 1.
        dual: what reads each feature alone.
        does: what each feature does to the outputs, (FEATURES, OUTPUTS).
    """

    directions: torch.Tensor
    dual: torch.Tensor
    does: torch.Tensor


def network(function="none"):
    """Functions that have nothing to do with directions, follow them all along, or are shared by the nearest."""
    directions = normal(FEATURES, WIDTH, seed=1)
    if function == "local":
        directions = normal(FEATURES // 4, WIDTH, seed=2).repeat_interleave(4, dim=0) + 0.4 * directions
    directions[:, -2:] = 0.0  # the plane of `ring`
    directions = directions / directions.norm(dim=1, keepdim=True)
    does = normal(FEATURES, OUTPUTS, seed=3)
    if function == "global":
        does = directions @ normal(WIDTH, 64, seed=4)
    if function == "local":
        does = normal(FEATURES // 4, OUTPUTS, seed=5).repeat_interleave(4, dim=0)
    return Network(directions, torch.linalg.pinv(directions).T, 3.0 * does)


class Net(nn.Module):
    """The network as a module, with a module for each place that can be read."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(p) for p in (parts.directions, parts.dual, parts.does)])
        self.hidden, self.units, self.out = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, features, plane):
        directions, dual, does = self.parts
        x = features @ directions + torch.nn.functional.pad(plane, (WIDTH - 2, 0))
        h = self.units(torch.relu(self.hidden(x) @ dual.T - BAR))
        return self.out(h @ does)


def strengths(part, rows=ROWS, plane=0.0):
    """Features and plane of some rows."""
    g = Seed(0).child("strengths", part).torch()
    on = torch.rand(rows, FEATURES, generator=g) < 0.3
    for child, parent in PARENTS.items():
        on[:, child] &= on[:, parent]
    return on * (1.0 + torch.rand(rows, FEATURES, generator=g)), plane * torch.randn(rows, 2, generator=g)


@dataclass(frozen=True)
class Setting:
    """What is audited, and on what.

    Attributes:
        function: see `network`.
        plane: standard deviation of the plane that no feature lies in; 0 for none.
        labels: features that are wanted as concepts.
        ring: whether a concept is wanted that is no direction of that plane.
        make: the dictionary, from the network.
        others: from other seeds, likewise.
        following: a later one, likewise, or None.
    """

    function: str = "none"
    plane: float = 0.0
    labels: tuple = (0, 1, 6, 7, 8, 9)
    ring: bool = False
    make: object = None
    others: object = None
    following: object = None


@cache
def case_of(setting):
    """The case of a setting; everything is drawn from one seed."""
    parts = network(setting.function)
    made = {part: strengths(part, plane=setting.plane) for part in ("explore", "validate.0")}
    model = Model.of(Net(parts), "known", dict(zip(("features", "plane"), made["explore"], strict=True)))
    source = TableSource(
        lambda part: dict(zip(("features", "plane"), made[part], strict=True)),
        dict.fromkeys(made, ROWS),
        "faults",
    )
    right = {part: (made[part][0] - BAR).clamp(min=0) @ parts.does for part in made}["validate.0"].argmax(
        dim=1
    )

    def loss(output, batch):
        at = torch.tensor([row.unit for row in batch.rows])
        nats = -output.double().log_softmax(-1)[torch.arange(len(at)), right[at]]
        return torch.stack([torch.ones_like(nats), nats], dim=1)

    dictionary = (setting.make or faultless)(parts)
    others = tuple(reordered(dictionary) if setting.others is None else setting.others(parts))
    case = Case(
        model,
        dictionary,
        sampled(source, dict.fromkeys(made, ROWS), Seed(0)),
        Seed(7),
        others=others,
        following=setting.following(parts) if setting.following else None,
        loss=loss,
        effort=EFFORT,
    )
    features, plane = made["validate.0"]
    labels = {f"feature {i}": features[:, i] > 0 for i in setting.labels}
    if setting.ring:
        labels = {"ring": plane.norm(dim=1) > 1.18 * setting.plane, "corners": plane[:, 0] * plane[:, 1] > 0}
    return replace(case, wanted=wanted(case.seen, encoded(dictionary, case.seen), labels, Seed(8), most=99))


# -- dictionaries ----------------------------------------------------------------------------------


def made(encoder, decoder, reads="hidden", writes=None, bias=None, bar=BAR):
    latents, width = encoder.shape
    weights = Weights(
        encoder.float().contiguous(),
        torch.zeros(latents) if bias is None else bias,
        torch.zeros(width),
        decoder.float().contiguous(),
        torch.zeros(decoder.shape[1]),
        threshold=torch.full((latents,), float(bar)),
    )
    widths = {reads: width, writes or reads: decoder.shape[1]}
    return Dictionary(reads, latents, Threshold(), writes).with_weights(weights, widths)


def faultless(parts):
    """A latent for each feature: it reads the dual direction and writes the feature's."""
    return made(parts.dual, parts.directions)


def reordered(dictionary):
    """Two more seeds that found the same."""
    order, more = torch.arange(dictionary.latents).flip(0), dictionary.latents // 3
    read, written = dictionary.reads[0], dictionary.writes[0]
    return [
        made(dictionary.encoder_[o], dictionary.decoder_[o], read, written, dictionary.bias_[o])
        for o in (order, order.roll(more))
    ]


def inexact(parts):
    """L1: every latent fires where it should, and writes half of what it should and something else."""
    off = normal(FEATURES, WIDTH, seed=11)
    return made(parts.dual, 0.5 * parts.directions + 0.5 * off / off.norm(dim=1, keepdim=True))


def bloated(parts):
    """L2: four times as many latents, of which three quarters never fire."""
    dead = torch.zeros(3 * FEATURES, WIDTH)
    directions = normal(3 * FEATURES, WIDTH, seed=12)
    directions = directions / directions.norm(dim=1, keepdim=True)
    return made(torch.cat([parts.dual, dead]), torch.cat([parts.directions, directions]))


def absorbing(parts):
    """L4: a parent's latent is silent where a child is, and the child's latent writes the parent too."""
    encoder, decoder = parts.dual.clone(), parts.directions.clone()
    for child, parent in PARENTS.items():
        encoder[parent] -= 5.0 * parts.dual[child]
        decoder[child] += parts.directions[parent]
    return made(encoder, decoder)


def lacking(parts, dropped=(0, 1, 6, 7)):
    """L8: some wanted concepts have no latent."""
    encoder, decoder = parts.dual.clone(), parts.directions.clone()
    encoder[list(dropped)] = 0.0
    return made(encoder, decoder)


def trained(parts, dropped=()):
    """A dictionary trained on what the network is given, without what some features add."""
    features, _ = strengths("training", rows=150_000)
    features[:, list(dropped)] = 0.0
    asked = Dictionary(
        "hidden", FEATURES, TopK(8), recipe=Recipe(batch=150, rate=5e-3), seed=Seed(30).child("trained")
    )
    return asked.fit(ArrayStream({"hidden": features @ parts.directions}))


def strangers(parts):
    """L9: two more seeds that found other directions."""
    out = []
    for seed in (21, 22):
        other = normal(FEATURES, WIDTH, seed=seed)
        out.append(made(other, other / other.norm(dim=1, keepdim=True)))
    return out


def mechanical(parts):
    """A transcoder whose latents are the network's own units."""
    eye = torch.eye(FEATURES)
    return made(parts.dual, eye, "hidden", "units", torch.full((FEATURES,), -BAR), bar=0.0)


def descriptive(parts):
    """L7: a transcoder that fires on the same inputs and does not write what the units compute."""
    mixed = torch.eye(FEATURES).roll(1, dims=0)
    return made(parts.dual, mixed, "hidden", "units", torch.full((FEATURES,), -BAR), bar=0.0)


@dataclass(frozen=True)
class Fault:
    """One fault: the line that must leave its control interval, the setting with it, and the one without."""

    line: str
    name: str
    faulty: Setting
    sound: Setting = field(default_factory=Setting)


TRANSCODING = Setting(make=mechanical, others=lambda parts: [])
FAULTS = (
    Fault("L1", "writes something else", Setting(make=inexact)),
    Fault("L2", "four times as many latents, dead", Setting(make=bloated)),
    Fault("L3", "concepts of a ring and of corners", Setting(plane=3.0, ring=True)),
    Fault("L4", "parents absorbed by children", Setting(make=absorbing)),
    Fault("L5", "function follows all directions", Setting(function="global")),
    Fault("L5", "function shared by the nearest", Setting(function="local")),
    Fault("L7", "weights that compute something else", replace(TRANSCODING, make=descriptive), TRANSCODING),
    Fault("L8", "wanted concepts without a latent", Setting(make=lacking)),
    Fault("L9", "other seeds found others", Setting(others=strangers)),
)
"""L6 is about the model's modules, and is counted on transformers."""
