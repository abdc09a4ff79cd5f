"""The self-check: a model proves its map of sites, and what does not hold is refused by name.

Run when a model is opened, on one tiny batch: two rows of random tokens, A and B. The right tensor under a
name has consequences that a wrong one does not have:

- identical: reading sites changes nothing, to the last bit.
- contributions: the stream before a block plus what attention and MLP add is the stream after it.
- streams: putting B's stream at one place of run A gives B's output.
- reads, writes: giving every sublayer of run A what B's read (or had before its projection) makes it add
  what B's added.
- linear: what heads and neurons give is followed by a linear map, so halfway between A and B gives halfway.
- attention: the function that can be tapped gives the model's own output, its probabilities sum to 1, its
  heads' output is what the projection reads, and B's queries, keys, values, scores or probabilities in run A
  give B's heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from markupsafe import Markup
from torch import Tensor

from prosect.core.markup import card
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.anatomy import STARTS
from prosect.model.apply import Block, Bound
from prosect.model.boundary import main_output
from prosect.model.edits import Edit, patch
from prosect.model.forward import settled
from prosect.model.sites import KINDS, SUBLAYERS

if TYPE_CHECKING:
    from prosect.model.model import Model

BARS = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest relative error, by dtype; 3e-2 for shorter ones."""


@dataclass
class CheckReport:
    """What was measured.

    Attributes:
        model: its name.
        bar: the largest error that was let pass, relative to the largest number compared.
        errors: proof → site → error.
        failed: site → proof that it failed.
    """

    model: str
    bar: float
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def identical(self) -> bool:
        """Whether reading sites left the output the same to the last bit."""
        return not any(self.errors.get("identical", {}).values())

    @property
    def passed(self) -> bool:
        """Whether every site holds and reading changed nothing."""
        return self.identical and not self.failed

    def worst(self) -> dict[str, float]:
        """The largest error of each proof."""
        return {proof: max(found.values()) for proof, found in self.errors.items() if found}

    def lines(self) -> list[str]:
        """One line for each thing that does not hold."""
        said = [
            f"{self.model}: {site} is refused: {proof} off by {self.errors[proof][site]:.2g} (at most {self.bar:g})"
            for site, proof in self.failed.items()
        ]
        if not self.identical:
            said.append(
                f"{self.model}: two passes over the same inputs differ, so no two runs can be compared"
            )
        return said

    def measure(self, proof: str, site: str, got: Tensor, expected: Tensor) -> None:
        """Compare what was found with what the name promises."""
        self.note(proof, site, relative(got, expected))

    def note(self, proof: str, site: str, error: float) -> None:
        """Keep the largest error; the first proof that a site fails is the one it is refused for."""
        found = self.errors.setdefault(proof, {})
        found[site] = max(error, found.get(site, 0.0))
        if error > self.bar:
            self.failed.setdefault(site, proof)

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [(proof, f"{error:.2g}") for proof, error in self.worst().items()]
        return card(f"self-check of {self.model}, at most {self.bar:g}", rows, "; ".join(self.lines()))


def relative(got: Tensor | None, expected: Tensor) -> float:
    """The largest difference over the largest number expected; infinite if the two cannot be compared."""
    if got is None or got.shape != expected.shape:
        return math.inf
    a, b = got.detach().double(), expected.detach().double()
    if b.numel() == 0:
        return 0.0
    error = float((a - b).abs().max()) / (float(b.abs().max()) or 1.0)
    return math.inf if math.isnan(error) else error


def check(model: Model) -> CheckReport:
    """Prove the map of sites of ``model``; sites that fail are refused by name from then on.

    Returns:
        Every error that was measured. A model without named sites has only ``identical``.
    """
    report = CheckReport(model.name, BARS.get(model.dtype, 3e-2))
    pair = _pair(model)
    _Check(model, report, pair).all()
    for site, proof in report.failed.items():
        model.sites.refuse(site, f"it failed the self-check: {proof} off by {report.errors[proof][site]:.2g}")
    return report


def _pair(model: Model) -> Batch:
    """Two rows to compare: random tokens for a language model, else the first rows of its example."""
    example = model.example
    ids = example.tensors.get("input_ids")
    if ids is None or set(example.tensors) - {"input_ids", "attention_mask"}:
        return example
    vocabulary = model.vocab_size or int(ids.max()) + 1
    length = min(6, model.max_positions or 6)
    generator = Seed(0).child("self-check").torch()
    made = torch.randint(vocabulary, (2, length), generator=generator)
    if vocabulary > 1 and length > 1:
        made[1] = torch.where(made[0] == made[1], (made[1] + 1) % vocabulary, made[1])
    return model.batch({"input_ids": made})


class _Check:
    """One self-check under way."""

    def __init__(self, model: Model, report: CheckReport, pair: Batch) -> None:
        self.model, self.report, self.pair = model, report, pair
        self.runner, self.sites = model.runner, model.sites
        self.layers = range(model.n_layers or 0)
        entries = {n: self.sites.entry(self.sites.site(n)) for n in self.sites.names()}
        self.entries = {n: entry for n, entry in entries.items() if entry.info.kind in KINDS}

    def all(self) -> None:
        """Every proof that this model's sites allow."""
        inside = [n for n, entry in self.entries.items() if entry.place.inside]
        boundary = [n for n in self.entries if n not in inside]
        with settled(self.model.module):
            bare = main_output(self.runner.forward(self.runner.forward.arguments(self.pair)))
        natural = self.runner.go(self.pair, self._plain(), boundary)
        if bare is None or natural.output is None or not bare.is_floating_point():
            return
        equal = torch.equal(bare, natural.output)
        self.report.errors["identical"] = {"output": 0.0 if equal else relative(natural.output, bare)}
        values = dict(natural.values)
        if inside:
            tapped = self.runner.go(self.pair, self._plain(), inside)
            values.update(tapped.values)
            self._attention(values, inside, relative(tapped.output, bare))
        if len(self.pair) == 2:
            first = self.pair.select([0])
            self._streams(first, values, bare)
            self._contributions(values)
            self._sublayers(first, values)
            self._inside(first, values)
        else:
            self._contributions(values)

    def _plain(self) -> list[tuple[Block, list[Bound]]]:
        return [(Block.of(self.pair), [])]

    def _streams(self, first: Batch, values: dict[str, Tensor], output: Tensor) -> None:
        """B's stream at one place of run A gives B's output.

        Blocks may be handed other things than the stream: what an encoder gave, or the embeddings once more.
        A stream that does not give B's output for that is held to the converse: in run B with A's stream put
        before its first block, B's stream at this place gives B's output again.
        """
        sums = tuple(f"{name}_sum" for name in SUBLAYERS)
        names = self._kinds("embeddings", "resid_pre", "resid_cross", "resid_mid", "resid_post", *sums)
        names += self._kinds("final_norm")
        results = self._under(first, [[patch(n, values[n][1:])] for n in names], [])
        errors = {n: relative(got, output[1:]) for n, (got, _) in zip(names, results, strict=True)}
        wrong = [n for n, error in errors.items() if error > self.report.bar]
        mended = self._mended(wrong, values, output)
        for name, error in errors.items():
            better = mended.get(name, math.inf)
            if better <= self.report.bar:
                self.report.note("streams mended", name, better)
            else:
                self.report.note("streams", name, error)

    def _mended(self, names: list[str], values: dict[str, Tensor], output: Tensor) -> dict[str, float]:
        """Error of run B's output where A's stream enters the first block, and B's is put back at each place.

        For the stream that enters the first block itself, B's is put back behind that block: what it adds up to
        is proved by contributions. Without the mending the output must have changed.
        """
        pairs = {}
        for name in names:
            layer = (
                self.layers[-1] if self.entries[name].info.layer is None else self.entries[name].info.layer
            )
            first = max((s for s in self.sites.starts if s <= (layer or 0)), default=0)
            begin, after = f"resid_pre.{first}", f"resid_post.{first}"
            if name != "embeddings" and begin in self.entries and after in self.entries:
                here = self.entries[name].place == self.entries[begin].place
                pairs[name] = (begin, after if here else name)
        lists = []
        for spoiled, mending in pairs.values():
            bad = patch(spoiled, values[spoiled][:1])
            lists += [[bad], [bad, patch(mending, values[mending][1:])]]
        errors = [relative(got, output[1:]) for got, _ in self._under(self.pair.select([1]), lists, [])]
        return {
            name: errors[2 * i + 1]
            for i, name in enumerate(pairs)
            if errors[2 * i] > self.report.bar  # else nothing was spoiled, and nothing shown
        }

    def _contributions(self, values: dict[str, Tensor]) -> None:
        """What attention and MLP add leads from the stream before the block to the stream after it.

        Streams that are already known to be wrong prove nothing about what is added to them.
        """
        right = {n: v for n, v in values.items() if n not in self.report.failed}
        for layer in self.layers:
            every = {name: right.get(f"{name}_out_post.{layer}") for name in SUBLAYERS}
            added = {name: x for name, x in every.items() if x is not None}
            pre, mid, post = (right.get(f"resid_{at}.{layer}") for at in ("pre", "mid", "post"))
            if pre is None or post is None or not added:
                continue
            if any(f"{name}_sum.{layer}" in values for name in added):
                self._normed(layer, added, right, pre)
                continue
            mlps = [x for name, x in added.items() if name.startswith("mlp")]
            mlp = sum(mlps[1:], mlps[0]) if mlps else None
            before = [x for name, x in added.items() if not name.startswith("mlp")]
            total = pre + sum(added.values())
            whole = relative(total, post) <= self.report.bar
            if mid is not None and before and mlp is not None:
                if whole:  # what is added is right, so that the stream between must be too
                    self.report.measure("contributions", f"resid_mid.{layer}", mid, pre + sum(before))
                else:
                    for name in added:
                        got, expected = (
                            (mid + mlp, post) if name.startswith("mlp") else (pre + sum(before), mid)
                        )
                        self.report.measure("contributions", f"{name}_out_post.{layer}", got, expected)
            if whole or mid is None or not before or mlp is None:
                for name in added:
                    self.report.measure("contributions", f"{name}_out_post.{layer}", total, post)

    def _normed(self, layer: int, added: dict[str, Tensor], right: dict[str, Tensor], pre: Tensor) -> None:
        """Where a norm lies on the stream after each sum: what is added leads to what that norm reads."""
        for name, part in added.items():
            start = right.get(f"{STARTS[name]}.{layer}", pre)
            total = right.get(f"{name}_sum.{layer}", right.get(f"resid_post.{layer}"))
            if total is not None:
                self.report.measure("contributions", f"{name}_out_post.{layer}", start + part, total)

    def _attention(self, values: dict[str, Tensor], inside: list[str], error: float) -> None:
        """The function that can be tapped is the model's own attention, and `z` is what it gives."""
        for name in inside:
            self.report.note("attention", name, error)
        if error > self.report.bar:
            return
        for layer in self.layers:
            probs, v, z = (values.get(f"{kind}.{layer}") for kind in ("probs", "v", "z"))
            if probs is None:
                continue
            over = probs.double().sum(dim=-1) - 1
            if getattr(self.entries[f"probs.{layer}"].place.module, "sinks", None) is not None:
                over = over.clamp_min(0)  # sinks take weight and give nothing
            self.report.note("sum to 1", f"probs.{layer}", float(over.abs().max()))
            if v is not None and z is not None:
                spread = v.repeat_interleave(probs.shape[1] // v.shape[2], dim=2)
                mixed = torch.einsum("rhqk,rkhd->rqhd", probs, spread)
                self.report.measure("heads", f"z.{layer}", z, mixed)

    def _sublayers(self, first: Batch, values: dict[str, Tensor]) -> None:
        """Every sublayer of run A given what B's had adds what B's added; halfway gives halfway."""
        b = {n: v[1:] for n, v in values.items()}
        middle = {n: (v[:1] + v[1:]) / 2 for n, v in values.items()}
        plans = (
            ("reads", b, tuple(f"{name}_in" for name in SUBLAYERS)),
            ("writes", b, tuple(f"{name}_out" for name in SUBLAYERS)),
            ("writes", b, ("z", "mlp_act")),
            ("linear", middle, ("z", "mlp_act")),
        )
        names = [self._kinds(*kinds) for _, _, kinds in plans]
        lists = [[patch(n, of[n]) for n in chosen] for chosen, (_, of, _) in zip(names, plans, strict=True)]
        if not any(lists):
            return
        # what attention to an encoder reads beside the stream: what the encoder gave
        given = [f"resid_post.{start - 1}" for start in self.sites.starts[1:]]
        lists[0] += [patch(n, b[n]) for n in given if n in self.entries]
        after = self._kinds(*(f"{name}_out{end}" for name in SUBLAYERS for end in ("", "_post")))
        results = self._under(first, lists, after)
        for (proof, expected, _), chosen, (_, got) in zip(plans, names, results, strict=True):
            for name in chosen:
                kind, _, layer = name.partition(".")
                added = {"z": "attn", "mlp_act": "mlp"}.get(kind, kind.rpartition("_")[0]) + "_out"
                target = f"{added}.{layer}" if proof == "linear" else f"{added}_post.{layer}"
                aside = kind == "z" and self.entries[name].place.inside  # a gate or norm may follow the heads
                if target in got and not aside:
                    self.report.measure(proof, name, got[target], expected[target])

    def _inside(self, first: Batch, values: dict[str, Tensor]) -> None:
        """B's queries, keys and values in run A, or its pattern and values, give B's heads."""
        groups = (("q", "k", "v"), ("scores", "v"), ("probs", "v"))
        lists = [[patch(n, values[n][1:]) for n in self._kinds(*group)] for group in groups]
        if not any(lists):
            return
        for group, (_, got) in zip(groups, self._under(first, lists, self._kinds("z")), strict=True):
            for layer in self.layers:
                for kind in group if group[0] == "q" else group[:1]:
                    if f"z.{layer}" in got and f"{kind}.{layer}" in values:
                        expected = values[f"z.{layer}"][1:]
                        self.report.measure("attention", f"{kind}.{layer}", got[f"z.{layer}"], expected)

    def _kinds(self, *kinds: str) -> list[str]:
        return [n for n, entry in self.entries.items() if entry.info.kind in kinds]

    def _under(
        self, first: Batch, lists: Sequence[list[Edit]], capture: Sequence[str]
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Output and captured sites of row A under each list of edits, all in one pass."""
        count = len(lists)
        tensors = {k: t.expand(count, *t.shape[1:]) for k, t in first.tensors.items()}
        mask = None if first.mask is None else first.mask.expand(count, -1)
        batch = replace(first, tensors=tensors, mask=mask, rows=first.rows * count)
        blocks = [
            (replace(Block.of(first), at=slice(i, i + 1)), self.runner.bind(edits, first))
            for i, edits in enumerate(lists)
        ]
        if not blocks:
            return
        passed = self.runner.go(batch, blocks, capture)
        assert passed.output is not None
        for i in range(count):
            yield passed.output[i : i + 1], {n: v[i : i + 1] for n, v in passed.values.items()}
