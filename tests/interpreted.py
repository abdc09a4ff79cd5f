"""Triton's kernels on this processor: run as a program, because Triton decides on import whether to interpret them.

Prints, as JSON, how far each product is from what it should be, in units of the sum of the sizes of its terms.
"""

import json
import os
import sys
from dataclasses import replace

os.environ["TRITON_INTERPRET"] = "1"

import torch

from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.fused import products as fused
from prosect.decompose.fused.products import Fused
from prosect.decompose.kernels import Picks, decode, picked
from prosect.decompose.objectives import Matryoshka
from prosect.decompose.products import Products
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

CHUNK = 4  # so that small sums have several chunks
SIZES = {
    # positions, latents, at each position, width
    "one of each": (1, 1, 1, 1),
    "one latent at each": (5, 7, 1, 3),
    "all latents at each": (9, 6, 6, 17),
    "a latent that always fires": (9, 11, 4, 16),
    "wider than what is read at once": (3, 4, 2, 270),
    "more than are read at once": (3, 24, 21, 33),
    "many for one latent": (19, 3, 2, 5),
    "none": (4, 5, 0, 3),
    "ragged": (8, 7, None, 7),
    "nobody in the first rows": (8, 7, -4, 7),
}
DIFFERENCES = (
    "one latent at each",
    "all latents at each",
    "wider than what is read at once",
    "none",
    "ragged",
)
KINDS = {
    "topk": TopK(3),
    "matryoshka": Matryoshka(3, (4, 16)),
}


def drawn(size):
    """Picks, their values, a table with a row for each latent, and rows for each position."""
    n, width, k, d = SIZES[size]
    generator = Seed(0).child("interpreted", size).torch()
    if k is None or k < 0:
        there = torch.rand(n, width, generator=generator) < 0.4
        there[: -(k or 0)] = False
        picks = Picks.at(there.reshape(-1).nonzero().squeeze(1), n, width)
        picks.crowded = False
    else:
        order = torch.rand(n, width, generator=generator)
        if "always" in size:
            order[:, 3] = -1.0
        picks = Picks.fixed(order.argsort(dim=1)[:, :k], width)
    values = torch.randn(len(picks.rows), generator=generator)
    table, x = torch.randn(width, d, generator=generator), torch.randn(n, d, generator=generator)
    return picks, values, table, x


def products(size, short):
    """Each product beside the dense one in float64, of what is multiplied; and beside torch's."""
    picks, values, table, x = drawn(size)
    rounded = [t.bfloat16().double() if short else t.double() for t in (table, x)]
    made, plain = Fused(short), Products(short)
    dense = picks.dense(values.double())
    every = rounded[1] @ rounded[0].T
    expected = {
        "over_positions": (dense @ rounded[0], dense.abs() @ rounded[0].abs(), (values, table)),
        "over_latents": (dense.T @ rounded[1], dense.abs().T @ rounded[1].abs(), (values, x)),
        "dots": (
            every.reshape(-1)[picks.places],
            (rounded[1].abs() @ rounded[0].abs().T).reshape(-1)[picks.places],
            (x, table),
        ),
    }
    out = {}
    for name, (right, size_of_terms, given) in expected.items():
        found = getattr(made, name)(picks, *given)
        assert found.dtype == torch.float32 and found.shape == right.shape
        for against, value in (("dense", right), ("torch", getattr(plain, name)(picks, *given))):
            far = (found - value).abs() / size_of_terms.clamp_min(1e-30)
            out[f"{name}, {against}"] = float(far.max()) if far.numel() else 0.0
        if size in ("ragged", "many for one latent"):
            assert torch.equal(found, getattr(made, name)(picks, *given))  # to the bit
    return out


def gradients(size):
    """What autograd gives, beside differences: a loss that is linear in each argument has no others."""
    picks, values, table, x = drawn(size)
    picks.products = Fused()
    generator = Seed(1).torch()

    def directed(loss, *arguments):
        out = []
        for i, argument in enumerate(arguments):
            step = torch.randn(argument.shape, generator=generator)
            leaf = argument.clone().requires_grad_()
            here = loss(*(leaf if i == j else a for j, a in enumerate(arguments)))
            here.backward()
            there = loss(*(a + step if i == j else a for j, a in enumerate(arguments)))
            slope = (leaf.grad.double() * step.double()).sum()
            scale = (leaf.grad.abs() * step.abs()).sum().clamp_min(1.0) + here.detach().abs()
            out.append(float(((there - here).detach() - slope).abs() / scale))
        return out

    def of_codes(values, table):
        return (decode(picks, values, table) * x).sum()

    bias = table[:, 0].clone()
    given = torch.randn(len(values), generator=generator)

    def of_encoder(encoder, bias):
        pre = torch.addmm(bias, x, encoder.T).reshape(-1)[picks.places]
        return (picked(picks, pre.detach(), encoder, bias, x) * given).sum()

    by_code, by_table = directed(of_codes, values, table)
    by_encoder, by_bias = directed(of_encoder, table, bias)
    return {"codes": by_code, "decoder": by_table, "encoder": by_encoder, "bias": by_bias}


def training(kind, precision):
    """Losses and weights of a training, by Triton and by torch."""
    n, d, latents, steps = 8, 9, 16, 3
    generator = Seed(2).torch()
    s = (torch.rand(n * steps, 20, generator=generator) < 0.15) * torch.rand(
        n * steps, 20, generator=generator
    )
    x = s @ torch.randn(20, d, generator=generator) + 3
    recipe = Recipe(batch=n, rate=1e-2, dead_after=20, aux_latents=3, precision=precision)
    kept = {}
    for kernels in ("triton", "torch"):
        made = Dictionary("x", latents, KINDS[kind], recipe=replace(recipe, kernels=kernels))
        trainer = Trainer(made, {"x": d}, steps)
        trainer.start(ArrayStream({"x": x}))
        for rows in x.split(n):
            trainer.advance({"x": rows})
            trainer.note()
        kept[kernels] = (trainer.history, trainer.parameters(), trainer.products.words)
    (history, found, words), (plain, beside, _) = kept["triton"], kept["torch"]
    assert words == f"Triton in {precision}"
    assert [p["l0"] for p in history] == [p["l0"] for p in plain]
    return {
        "fvu": max(abs(a["fvu"] / b["fvu"] - 1) for a, b in zip(history, plain, strict=True)),
        "weights": max(
            float(
                (found[n] - beside[n]).detach().abs().max() / beside[n].detach().abs().max().clamp_min(1e-2)
            )
            for n in found
        ),
        "fell": history[0]["fvu"] - history[-1]["fvu"],
    }


def main():
    torch.set_num_threads(1)
    fused.CHUNK = CHUNK
    out = {"products": {}, "gradients": {}, "training": {}}
    for size in SIZES:
        if size in DIFFERENCES:
            out["gradients"][size] = gradients(size)
        for short in (False, True):
            out["products"][f"{size}, {'bfloat16' if short else 'float32'}"] = products(size, short)
    for kind in KINDS:
        for precision in ("float32", "bfloat16"):
            out["training"][f"{kind}, {precision}"] = training(kind, precision)
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
