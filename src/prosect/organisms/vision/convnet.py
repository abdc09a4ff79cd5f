"""The convolutional network of both organisms, and how what comes after the bank is trained.

``bank`` (written down) → ``act`` → ``pool`` → ``conv`` → ``conv_act`` → ``mix`` → ``features`` → mean over the image
→ ``head``. Since the head is linear in that mean, what each place of ``features`` adds to a class is exact: class activation mapping (Zhou et
al. 2016, "Learning Deep Features for Discriminative Localization") is no approximation here.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prosect.core.seeds import Seed
from prosect.organisms.filled import filled
from prosect.organisms.redrawn import redrawn
from prosect.organisms.training import descend

HIDDEN = 32
ROWS, RATE, DECAY = 64, 1e-2, 1e-3


class ConvNet(nn.Module):
    """images (n, 1, height, width) → logits (n, classes)."""

    def __init__(self, channels: int, size: int, pool: int, classes: int) -> None:
        super().__init__()
        self.bank = nn.Conv2d(1, channels, size, padding=size // 2, bias=False)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(pool)
        self.conv = nn.Conv2d(channels, HIDDEN, 3, padding=1)
        self.conv_act = nn.ReLU()
        self.mix = nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1)
        self.features = nn.ReLU()
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n classes"]:
        return self.after(self.pool(self.act(self.bank(images))))

    def after(self, pooled: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        """What follows the bank, which is all that is trained."""
        features = self.features(self.mix(self.conv_act(self.conv(pooled))))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def fresh(bank: Float[np.ndarray, "channels 1 size size"], pool: int, classes: int, seed: Seed) -> ConvNet:
    """The network with this bank and everything after it drawn anew."""
    with torch.device("meta"):
        module = ConvNet(len(bank), bank.shape[-1], pool, classes)
    state = {"bank.weight": bank}
    for name, weights in module.state_dict().items():
        if name != "bank.weight":
            reads = int(np.prod(weights.shape[1:])) if weights.ndim > 1 else 0
            state[name] = np.full(weights.shape, (2 / reads) ** 0.5 if reads else 0.0)
    return redrawn(filled(module, state), seed, lambda name: name == "bank.weight")


def train(
    module: ConvNet,
    images: Float[Tensor, "n 1 height width"],
    classes: Int[Tensor, " n"],
    read: Bool[np.ndarray, " channels"],
    epochs: int,
    seed: Seed,
) -> ConvNet:
    """Cross-entropy, AdamW, a rate that falls linearly to zero; the bank stays as it is.

    Args:
        module: changed in place.
        images, classes: to learn.
        read: channels of the bank that may be read; the weights on the others are zero and stay so.
        epochs: passes over the images.
        seed: of the order of the images.
    """
    with torch.no_grad():
        pooled = module.pool(module.act(module.bank(images)))
        pooled[:, ~torch.from_numpy(read)] = 0.0
        module.conv.weight[:, ~torch.from_numpy(read)] = 0.0
    learned = [p for name, p in module.named_parameters() if name != "bank.weight"]
    each = len(images) // ROWS
    order = torch.zeros(0, dtype=torch.long)

    def loss(step: int) -> Tensor:
        nonlocal order
        epoch, batch = divmod(step, each)
        if batch == 0:
            order = torch.randperm(len(images), generator=seed.child(epoch).torch())
        rows = order[batch * ROWS : (batch + 1) * ROWS]
        return nn.functional.cross_entropy(module.after(pooled[rows]), classes[rows])

    descend(learned, epochs * each, RATE, loss, decay=DECAY)
    return module


def accuracies(
    module: ConvNet, images: Float[Tensor, "n 1 height width"], classes: Int[Tensor, " n"], each: bool = False
) -> list[float]:
    """Share of images with the right class; with ``each`` also without each channel of the bank, one after another."""
    with torch.no_grad():
        pooled = module.pool(
            module.act(module.bank(images))
        )  # a channel of zeros is one of zeros when pooled
        right = [module.after(pooled)]
        for channel in range(pooled.shape[1] if each else 0):
            kept = torch.arange(pooled.shape[1]) != channel
            right.append(module.after(pooled * kept[:, None, None]))
    return [float((logits.argmax(dim=1) == classes).double().mean()) for logits in right]
