"""Dictionaries written by hand, whose every latent is known."""

import torch

from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.sparsity import Threshold


def written(encoder, decoder, threshold=0.0, bias=None, offset=None, site="x"):
    """A dictionary with these rows; every latent fires above the same threshold."""
    latents, width = encoder.shape
    weights = Weights(
        encoder.float(),
        torch.zeros(latents) if bias is None else bias.float(),
        torch.zeros(width),
        decoder.float(),
        torch.zeros(width) if offset is None else offset.float(),
        threshold=torch.full((latents,), float(threshold)),
    )
    return Dictionary(site, latents, Threshold()).with_weights(weights, {site: width})


class Labelled:
    """Rows in memory with the strengths that made them."""

    def __init__(self, strengths, directions, block=1000):
        self.strengths, self.x, self.block = strengths, strengths @ directions, block

    sites = ("x",)
    digest = "labelled"

    @property
    def widths(self):
        return {"x": self.x.shape[1]}

    @property
    def features(self):
        return self.strengths.shape[1]

    def __len__(self):
        return len(self.x)

    def blocks(self):
        for block, _, _ in self.labelled():
            yield block

    def labelled(self):
        every = torch.arange(self.features)
        for x, s in zip(self.x.split(self.block), self.strengths.split(self.block), strict=True):
            yield {"x": x}, every.expand(len(s), -1), s
