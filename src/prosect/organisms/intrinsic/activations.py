"""Networks with sparse activation functions and their dense twins, on features that are known.

``topk-mlp``, ``solu-mlp`` (a LayerNorm after SoLU, as it was published), ``solu-bare-mlp`` (none); ``relu-mlp`` and
``gelu-mlp`` are the twins: same seed, same inputs, same first weights. ``single-mlp`` is the control of the test for
hidden superposition: SoLU and LayerNorm again, and a readout through which every feature has to have its own neuron.

Known by construction: the features, their directions where they enter (``embed``), and in ``single-mlp`` which
neuron is which feature's. What the other hidden layers hold was learned; it is measured, not declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prosect.core.seeds import Seed
from prosect.core.truth import FeatureDirections, Truth, Variable
from prosect.organisms.intrinsic import sparse_features as task
from prosect.organisms.intrinsic.readable import (
    ACTIVE,
    TWIN,
    Readable,
    fresh,
    loss_of,
    loss_with_loudest,
    trained,
)
from prosect.organisms.opened import opened
from prosect.organisms.sources import StreamedSource

if TYPE_CHECKING:
    from prosect.model import Model

NULLS = {
    "other-input": "hidden layers are paired with other inputs: no unit says anything about a feature",
    "untrained": "the hidden weights are drawn anew: units mix all features, and nothing was learned",
}


def known(kind: str, name: str, seed: int) -> tuple[Readable, Truth]:
    """A trained network and its truth.

    Quantities, nats per input on inputs it was not trained on: ``loss``, ``loss of the twin``, their difference
    ``cost``, ``loss with the loudest`` (only as many activations left as the input has features) and
    ``loss knowing nothing`` (how often features occur, and no more); ``share lost`` says how much of what it knows the quiet activations carried.
    """
    module = trained(kind, seed)
    loss, twin = loss_of(module, seed), loss_of(trained(TWIN[kind], seed), seed)
    loud, nothing = loss_with_loudest(module, seed), task.FEATURES * task.ignorance()
    frequency = np.full(task.FEATURES, task.CHANCE)
    neurons = module.inner.out_features
    truth = Truth(
        organism=name,
        features=(FeatureDirections("embed", task.directions(seed), frequency),),
        variables=tuple(Variable("act", j, "feature", {"feature": j}) for j in range(neurons))
        if kind == "single"
        else (),
        quantities={
            "loss": loss,
            "loss of the twin": twin,
            "cost": loss - twin,
            "loss with the loudest": loud,
            "loss knowing nothing": nothing,
            "share lost": (loud - loss) / (nothing - loss),
            **({"active at once": float(ACTIVE)} if kind == "topk" else {}),
        },
        nulls=NULLS,
        size=f"{task.FEATURES} features in {task.WIDTH} dimensions, {neurons} neurons",
    )
    return module, truth


def redrawn(kind: str, seed: int) -> Readable:
    """The network of another start, never trained: the same directions in front of it."""
    return fresh(kind, seed, Seed(seed).child("intrinsic", "untrained"))


def source_topk(seed: int = 0, folds: int = 2, **sizes: int) -> StreamedSource:
    """Inputs for all of them: `sparse_features.source`."""
    return task.source(seed, folds, **sizes)


source_solu = source_bare = source_relu = source_gelu = source_single = source_topk


def network_topk(seed: int = 0) -> tuple[Readable, Truth]:
    """TopK in place of ReLU, trained."""
    return known("topk", "topk-mlp", seed)


def network_solu(seed: int = 0) -> tuple[Readable, Truth]:
    """SoLU with a LayerNorm, trained."""
    return known("solu", "solu-mlp", seed)


def network_bare(seed: int = 0) -> tuple[Readable, Truth]:
    """SoLU without a LayerNorm, trained."""
    return known("bare", "solu-bare-mlp", seed)


def network_relu(seed: int = 0) -> tuple[Readable, Truth]:
    """ReLU, trained."""
    return known("relu", "relu-mlp", seed)


def network_gelu(seed: int = 0) -> tuple[Readable, Truth]:
    """GELU, trained."""
    return known("gelu", "gelu-mlp", seed)


def network_single(seed: int = 0) -> tuple[Readable, Truth]:
    """SoLU with a LayerNorm and one neuron for each feature, trained."""
    return known("single", "single-mlp", seed)


def build_topk(seed: int = 0) -> tuple[Model, Truth]:
    """An MLP whose activation function keeps the four largest of 48 units.

    Trained for 600 steps to say which of 24 features a mixture of their directions contains. TopK is that of
    Makhzani & Frey 2014. The directions are known; what each neuron learned is not claimed. ``cost`` is the loss
    above that of ``relu-mlp`` of the same seed.
    """
    return opened(network_topk(seed), source_topk(seed))


def build_solu(seed: int = 0) -> tuple[Model, Truth]:
    """An MLP with softmax linear units and a LayerNorm after them.

    SoLU and its LayerNorm are those of Elhage et al. 2022. The softmax makes all but the largest activations small,
    the LayerNorm makes an input without a large one as long as any other, and training uses it: features are written
    in many small activations. ``share lost`` measures that. ``cost`` is the loss above ``gelu-mlp``.
    """
    return opened(network_solu(seed), source_solu(seed))


def build_bare(seed: int = 0) -> tuple[Model, Truth]:
    """An MLP with softmax linear units and no LayerNorm: small activations stay small.

    The control of ``solu-mlp`` (Elhage et al. 2022): what the LayerNorm gave back in loss is missing here, and so is
    most of what hid in small activations. ``cost`` is the loss above ``gelu-mlp``.
    """
    return opened(network_bare(seed), source_bare(seed))


def build_relu(seed: int = 0) -> tuple[Model, Truth]:
    """The dense twin of ``topk-mlp``: the same first weights and inputs, and ReLU.

    There are two neurons for every feature, and it shares them all the same. The directions of the features are
    known where they enter; what each neuron learned is not claimed.
    """
    return opened(network_relu(seed), source_relu(seed))


def build_gelu(seed: int = 0) -> tuple[Model, Truth]:
    """The dense twin of the networks with SoLU: the same inputs and the same first weights but for their scale.

    The directions of the features are known where they enter; what each neuron learned is not claimed.
    """
    return opened(network_gelu(seed), source_gelu(seed))


def build_single(seed: int = 0) -> tuple[Model, Truth]:
    """An MLP with SoLU, LayerNorm and one neuron for each feature: nothing can hide in it.

    Neuron f is all that logit f reads, whatever training does, so each feature has a neuron to itself. The control
    of the test for hidden superposition, which must stay silent here and fire on ``solu-mlp``.
    """
    return opened(network_single(seed), source_single(seed))


def untrained_topk(seed: int = 0) -> Readable:
    """``topk-mlp`` before training."""
    return redrawn("topk", seed)


def untrained_solu(seed: int = 0) -> Readable:
    """``solu-mlp`` before training."""
    return redrawn("solu", seed)


def untrained_bare(seed: int = 0) -> Readable:
    """``solu-bare-mlp`` before training."""
    return redrawn("bare", seed)


def untrained_relu(seed: int = 0) -> Readable:
    """``relu-mlp`` before training."""
    return redrawn("relu", seed)


def untrained_gelu(seed: int = 0) -> Readable:
    """``gelu-mlp`` before training."""
    return redrawn("gelu", seed)


def untrained_single(seed: int = 0) -> Readable:
    """``single-mlp`` before training."""
    return redrawn("single", seed)
