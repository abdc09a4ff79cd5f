"""Every decomposition passes the contract suite, and the suite fails each way of breaking the contract."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from prosect.core.registries import DECOMPOSITIONS
from prosect.core.seeds import Seed
from prosect.decompose.base import OneSite
from prosect.decompose.check import ContractBroken, check_decomposition
from prosect.decompose.contract import Codes
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.linear import Heads, Ica, KMeans, Neurons, Nmf, Pca, RandomDirections, Svd
from prosect.decompose.objectives import L1, BatchTopK, Gated, JumpReLU, Matryoshka, Pursued
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream


def _stream(rows=640, seed=0):
    """Sparse non-Gaussian sources, mixed, at two sites, away from the origin, as activations are."""
    generator = Seed(seed).child("test").torch()
    sources = torch.empty(rows, 8).exponential_(generator=generator)
    mixing = torch.randn(8, 8, generator=generator)
    x = sources @ mixing + 5
    other = torch.relu(sources @ torch.randn(8, 5, generator=generator))
    return ArrayStream({"a": x, "b": other, "z.0.h0": x[:, :4], "z.0.h1": x[:, 4:]}, block=100)


SHORT = Recipe(batch=64, rate=3e-3)
CASES = {
    "neurons": (lambda: Neurons("a"), True),
    "heads": (lambda: Heads.of_layers(0, 2), False),
    "random": (lambda: RandomDirections.alike("a", 12, 0.1), False),
    "pca": (lambda: Pca("a"), True),
    "pca-few": (lambda: Pca("a", 3), False),
    "svd": (lambda: Svd("a"), True),
    "svd-few": (lambda: Svd("a", 2), False),
    "ica": (lambda: Ica("a"), True),
    "ica-few": (lambda: Ica("a", 5), False),
    "nmf": (lambda: Nmf("a", 6), False),
    "nmf-unsplit": (lambda: Nmf("b", 4, split=False), False),
    "kmeans": (lambda: KMeans("a", 5), False),
    "topk": (lambda: Dictionary("a", 16, TopK(3), recipe=SHORT), False),
    "topk-transcoder": (lambda: Dictionary("a", 16, TopK(3), "b", recipe=SHORT), False),
    "batchtopk": (lambda: Dictionary("a", 16, BatchTopK(3), recipe=SHORT), False),
    "matryoshka": (lambda: Dictionary("a", 32, Matryoshka(3), recipe=SHORT), False),
    "pursuit": (lambda: Dictionary("a", 16, Pursued(3), recipe=SHORT), False),
    "l1": (lambda: Dictionary("a", 16, L1(), recipe=SHORT), False),
    "gated": (lambda: Dictionary("a", 16, Gated(), recipe=SHORT), False),
    "jumprelu": (lambda: Dictionary("a", 16, JumpReLU(3.0), recipe=SHORT), False),
    "topk-crosscoder": (lambda: Dictionary(("a", "b"), 16, TopK(3), recipe=SHORT), False),
}


def test_every_registered_decomposition_is_here():
    assert {name.split("-")[0] for name in CASES} == set(DECOMPOSITIONS)
    for name in DECOMPOSITIONS:
        make, _ = CASES[name]
        assert type(make()) is DECOMPOSITIONS.get(name)
        assert make().kind == (Dictionary.kind if isinstance(make(), Dictionary) else name)


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_the_contract(name):
    make, exact = CASES[name]
    check_decomposition(make, _stream(), exact)


def test_a_skip_transcoder_keeps_the_contract():
    check_decomposition(lambda: Dictionary("a", 16, TopK(3), "b", skip=True, recipe=SHORT), _stream())


@dataclass(eq=False)
class Whole(OneSite):
    """Subtracts the mean: a correct decomposition, which the classes below break one promise at a time."""

    kind: ClassVar[str] = "whole"
    supports = frozenset({"decode", "directions", "unit", "signed", "streaming"})

    site: str = "a"
    widths_: dict[str, int] = field(init=False, repr=False)
    mean_: torch.Tensor = field(init=False, repr=False)

    @property
    def n_components(self):
        return self.width

    def _fit(self, stream):
        total = sum(block[self.site].double().sum(dim=0) for block in stream.blocks())
        if not torch.isfinite(total).all():
            from prosect.core.errors import NotFinite

            raise NotFinite("NaN", "numbers")
        self.mean_ = total / len(stream)

    def _encode(self, x):
        return Codes.of_dense(x["a"] - self.mean_.to(x["a"]))

    def _decode(self, codes):
        return {"a": codes.dense() + self.mean_.to(codes.values)}

    def _directions(self):
        return torch.eye(self.width)


class FitReturnsAnother(Whole):
    def fit(self, stream):
        super().fit(stream)
        return self.from_state(*self.state())


class EncodesUnfitted(Whole):
    def encode(self, x):
        return super().encode(x) if self.fitted else Codes.of_dense(x["a"])


class UnknownSupport(Whole):
    supports = Whole.supports | {"magic"}


class NeitherSigned(Whole):
    supports = Whole.supports - {"signed"}


class SaysNonnegative(Whole):
    supports = Whole.supports - {"signed"} | {"nonnegative"}


class DropsRows(Whole):
    def _encode(self, x):
        return Codes.of_dense(super()._encode(x).values[1:])


class WrongWidth(Whole):
    def _encode(self, x):
        codes = super()._encode(x)
        return Codes(codes.indices, codes.values, codes.width + 1)


class IndexOutside(Whole):
    def _encode(self, x):
        codes = super()._encode(x)
        return Codes(codes.indices + 1, codes.values, codes.width)


class IndexTwice(Whole):
    def _encode(self, x):
        codes = super()._encode(x)
        return Codes(codes.indices.clamp_min(1), codes.values, codes.width)


class CentresTheBatch(Whole):
    def _encode(self, x):
        return Codes.of_dense(x["a"] - x["a"].mean(dim=0))


class CodesByPlace(Whole):
    def _encode(self, x):
        codes = super()._encode(x)
        return Codes.of_dense(codes.values + torch.arange(len(codes.values))[:, None])


class Restless(Whole):
    calls = 0

    def _encode(self, x):
        type(self).calls += 1
        return Codes.of_dense(super()._encode(x).values + self.calls)


class LongDirections(Whole):
    def _directions(self):
        return 2 * torch.eye(self.width)


class DirectionsApart(Whole):
    def _directions(self):
        return torch.eye(self.width).roll(1, 0)


class Inexact(Whole):
    def _decode(self, codes):
        return {"a": codes.dense()}


class DecodesAnyWidth(Whole):
    def decode(self, codes):
        return self._decode(Codes(codes.indices, codes.values, self.width))


class TakesAnyWidth(Whole):
    def encode(self, x):
        return super().encode({"a": x["a"][:, : self.widths_["a"]]} if self.fitted else x)


class TakesNan(Whole):
    def encode(self, x):
        return super().encode({site: a.nan_to_num(0.0, 0.0, 0.0) for site, a in x.items()})


class FitsNan(Whole):
    def _fit(self, stream):
        clean = {"a": torch.cat([block["a"] for block in stream.blocks()]).nan_to_num(0.0, 0.0, 0.0)}
        super()._fit(ArrayStream(clean))


class LosesState(Whole):
    def state(self):
        tensors, about = super().state()
        return {"mean": tensors["mean"] + 1}, about


class Remembers(Whole):
    def _fit(self, stream):
        before = getattr(self, "mean_", 0.0)
        super()._fit(stream)
        self.mean_ = self.mean_ + before


class Undecided(Whole):
    made = 0

    def _fit(self, stream):
        super()._fit(stream)
        type(self).made += 1
        self.mean_ = self.mean_ + self.made


BROKEN = {
    FitReturnsAnother: "fit returns",
    EncodesUnfitted: "before fitting",
    UnknownSupport: "supports holds only",
    NeitherSigned: "nonnegative or signed",
    SaysNonnegative: "not negative",
    DropsRows: "one row of codes",
    WrongWidth: "as wide as",
    IndexOutside: "numbers of components",
    IndexTwice: "once in a row",
    CentresTheBatch: "do not depend on others",
    CodesByPlace: "permuting positions",
    Restless: "encoding twice",
    LongDirections: "norm 1",
    DirectionsApart: "adds up directions",
    Inexact: "gives activations back",
    DecodesAnyWidth: "codes of another width",
    TakesAnyWidth: "activations of another width",
    TakesNan: "activations with nan",
    FitsNan: "a stream with nan",
    LosesState: "bit-identical after",
    Remembers: "forgets",
    Undecided: "the same bits",
}


def test_the_whole_example_keeps_the_contract():
    check_decomposition(Whole, _stream(), exact=True)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda c: c.__name__)
def test_each_way_of_breaking_the_contract_is_found(broken):
    with pytest.raises(ContractBroken, match=BROKEN[broken]):
        check_decomposition(broken, _stream(), exact=True)
