"""Subjects with known answers, and claims about them, for tests of validation."""

from functools import cache

import torch

from prosect.core.records import Component, Description, Executable, Hypothesis, Rival, TestPlan
from prosect.core.seeds import Seed
from prosect.decompose.random import RandomDirections
from prosect.decompose.streams import ArrayStream
from prosect.decompose.units import Neurons
from prosect.describe.roles import HeadRole
from prosect.organisms import induction, modular, planted
from prosect.store.shelf import Shelf
from prosect.validate.subject import Subject

P = 31


@cache
def _modular(seed):
    return modular.build(seed)


@cache
def _induction(seed):
    return induction.build(seed)


@cache
def _planted(seed):
    return planted.build(seed)


def subject_of(model, source, **given):
    return Subject(model=model, source=source, seed=Seed(0), shelf=Shelf(), **given)


def modular_subject(**given):
    """The analytic network for addition modulo 31, its truth, and its neurons."""
    model, truth = _modular(0)
    subject = subject_of(model, modular.source(0), rows=256, **given)
    width = model.sites.info("hidden").width
    neurons = Neurons("hidden").fit(ArrayStream({"hidden": torch.zeros(1, width)}))
    subject.decompositions[neurons.name] = neurons
    subject.task = lambda batch: batch.tensors["pairs"].sum(dim=1) % P
    explored = torch.cat([model.run(b, capture=("hidden",))["hidden"] for b in subject.batches("explore")])
    subject.means["hidden"] = explored.mean(dim=0)
    return subject, truth, neurons


def induction_subject(units=64, **given):
    """The hand-wired induction network and its truth."""
    model, truth = _induction(0)
    subject = subject_of(model, induction.source(0, validate=units, explore=40), **given)
    subject.task = induction.targets
    for layer in range(2):
        z = [b.flat(model.run(b, capture=(f"z.{layer}",))[f"z.{layer}"]) for b in subject.batches("explore")]
        subject.means[f"z.{layer}"] = torch.cat(z).mean(dim=0)
    return subject, truth


def planted_subject(**given):
    """Neurons with planted rules, their truth, and random directions beside them."""
    model, truth = _planted(0)
    subject = subject_of(model, planted.source(0), **given)
    site = "mlp_act.0"
    x = torch.cat([b.flat(model.run(b, capture=(site,))[site]) for b in subject.batches("explore")])
    neurons = Neurons(site).fit(ArrayStream({site: x}))
    controls = RandomDirections(site, (0.02,) * 4, Seed(3)).fit(ArrayStream({site: x}))
    subject.decompositions |= {neurons.name: neurons, controls.name: controls}
    return subject, truth, neurons, controls


def formula(variable):
    """A planted neuron's formula as a description."""
    v = variable.parameters
    amplitude = v["amplitude"]
    return Executable(
        kind="trigonometric",
        parameters={
            "p": P,
            "k": v["frequency"],
            "phi": v["phase_a"],
            "psi": v["phase_b"],
            "a": amplitude,
            "b": amplitude,
            "form": "square",
            "tensor": "pairs",
        },
    )


def plan(name="t", kind="predict-activations", rivals=(), fold="validate.0", **given):
    base = {"level": 1, "metric": "m", "unit": "input", "units_min": 40, "draws": 999, "seed": 1}
    return TestPlan(name=name, kind=kind, rivals=tuple(rivals), fold=fold, **{**base, **given})


def claim(subject, component, *, cause=None, effect=None, tests=(), round=1, parent=None, explainer="test@1"):
    return Hypothesis(
        round=round,
        component=component,
        side="cause" if cause is not None else "effect",
        description=Description(words="a claim", cause=cause, effect=effect),
        explainer=explainer,
        draw="random",
        tests=tuple(tests),
        scope=subject.scope,
        parent=parent,
    )


def constant_rule(value=1.0):
    """A token rule that says the same everywhere."""
    return Executable(kind="token-rule", parameters={"tree": {"value": value}})


def token_rule(current, previous=None, value=1.0):
    """A token rule for a set of tokens, after another set if given."""
    tree = {"value": value}
    for back, tokens in ((1, previous), (0, current)):
        if tokens is not None:
            asked = {"what": "token", "back": back, "tokens": sorted(tokens)}
            tree = {"if": asked, "then": tree, "else": {"value": 0.0}}
    return Executable(kind="token-rule", parameters={"tree": tree})


def head(layer, number, width=64):
    site = f"z.{layer}.h{number}"
    return Component(
        decomposition=f"heads@z.{layer}", index=number, reads=(site,), writes=(site,), width=width
    )


def role(name, **given):
    return HeadRole(name, **given).executable()


def control(name, margin=0.1, decides=True, components=(), descriptions=()):
    return Rival(
        name=name,
        role="control",
        margin=margin,
        decides=decides,
        components=tuple(components),
        descriptions=tuple(descriptions),
    )


def heads_of(truth, kind):
    """(layer, head) of every head of a role."""
    out = []
    for v in truth.variables:
        if v.parameters.get("role") == kind:
            _, layer, number = v.site.split(".")
            out.append((int(layer), int(number[1:])))
    return out
