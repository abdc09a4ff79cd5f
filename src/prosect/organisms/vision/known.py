"""What is known of a network behind a bank: its channels, its images' classes, and what each channel is good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.truth import Truth
from prosect.organisms.sources import HALVES
from prosect.organisms.vision import bank, convnet
from prosect.organisms.vision.bank import Detector
from prosect.organisms.vision.convnet import ConvNet

NULLS = {
    "other-input": "channels are paired with other images: none detects anything",
    "shuffled-pixels": "the pixels of every image are permuted alike: no channel has an orientation",
}
Seen = tuple[Float[Tensor, "n 1 height width"], Int[Tensor, " n"]]
"""Images and their classes."""


def truth_of(
    organism: str,
    module: ConvNet,
    detectors: tuple[Detector, ...],
    seen: Mapping[str, Seen],
    classes: Sequence[str],
) -> Truth:
    """A Variable at ``bank`` for every channel, whose index is that of the channel axis, and labels ``CLASS@PART``.

    Quantities: accuracy, in ``shift`` and, on ``explore``, without each channel of the bank.

    Args:
        organism: its name.
        module: the trained network.
        detectors: what every channel is.
        seen: what is in each part of the source.
        classes: name of each.
    """
    whole, *without = convnet.accuracies(module, *seen["explore"], each=True)
    size = module.bank.kernel_size[0]
    return Truth(
        organism=organism,
        variables=bank.variables("bank", detectors),
        labels={
            f"{name}@{part}": (there == number).numpy()
            for part, (_, there) in seen.items()
            if part not in HALVES
            for number, name in enumerate(classes)
        },
        quantities={
            "accuracy": whole,
            "accuracy in shift": convnet.accuracies(module, *seen["shift"])[0],
            "chance": 1 / len(classes),
            **{f"accuracy without channel {c}": left for c, left in enumerate(without)},
        },
        nulls=NULLS,
        size=f"{len(detectors)} channels of {size}×{size}, twice {convnet.HIDDEN} of 3×3, {len(classes)} classes",
    )
