"""Rules of neurons: from the loop's own explainer, and from a table of mean activations by token."""

from __future__ import annotations

import numpy as np
import torch

from prosect.bench.given import Answer, Given
from prosect.bench.tasks.tokens import batch_of
from prosect.core.seeds import Seed
from prosect.describe.contexts import Contexts
from prosect.describe.explainer import RuleExplainer
from prosect.describe.vocabulary import Vocabulary
from prosect.store.shelf import Shelf
from prosect.validate.truth import rule_tokens

LEAST = 0.1
"""Share of the variance that a table of tokens must hold to be called a rule."""
HALF = 0.5
"""Tokens count whose mean activation is at least this share of the largest."""
FEWEST = 3
"""Occurrences of a token below which its mean says nothing."""


def explainer(given: Given, seed: Seed) -> Answer:
    """`RuleExplainer`: the tokens that its rule's strongest case asks for."""
    batch, shelf = batch_of(given.tensors), Shelf()
    contexts = Contexts.of(Vocabulary(tuple(given.about["vocabulary"])), [batch], seed=seed)
    made = RuleExplainer(contexts, shelf)
    out = _empty(given)
    for neuron, x in enumerate(given.tensors["activations"].double().numpy().T):
        found = made.explain(np.ascontiguousarray(x))
        if found.found and found.description.cause is not None:
            now, before = rule_tokens(found.description.cause)
            out["current"][neuron, sorted(now)] = True
            out["previous"][neuron, sorted(before)] = True
    return out


def table(given: Given, seed: Seed) -> Answer:
    """Tokens with at least half of the largest mean activation, if tokens tell enough of the activation."""
    batch, out = batch_of(given.tensors), _empty(given)
    ids = batch.flat(given.tensors["input_ids"])
    x = given.tensors["activations"].double()
    tokens = out["current"].shape[1]
    count = torch.bincount(ids, minlength=tokens).double()
    total = torch.zeros((tokens, x.shape[1]), dtype=torch.float64).index_add_(0, ids, x)
    mean = total / count.clamp(min=1)[:, None]
    spread = (x - x.mean(dim=0)).square().sum(dim=0)
    between = (count[:, None] * (mean - x.mean(dim=0)).square()).sum(dim=0)
    by_chance = (count > 0).sum() / len(x)
    told = (between / spread.clamp(min=1e-12)) > LEAST + by_chance
    high = (mean >= HALF * mean.max(dim=0, keepdim=True).values) & (count >= FEWEST)[:, None] & (mean > 0)
    out["current"] = (high & told).T.contiguous()
    return out


def strongest(given: Given, seed: Seed) -> Answer:
    """The tokens at the ten strongest activations, whatever else: what browsing top examples shows."""
    batch, out = batch_of(given.tensors), _empty(given)
    ids = batch.flat(given.tensors["input_ids"])
    top = given.tensors["activations"].topk(10, dim=0)
    for neuron in range(top.indices.shape[1]):
        firing = top.values[:, neuron] > 0
        out["current"][neuron, ids[top.indices[firing, neuron]]] = True
    return out


def _empty(given: Given) -> dict[str, torch.Tensor]:
    shape = (given.tensors["activations"].shape[1], len(given.about["vocabulary"]))
    return {name: torch.zeros(shape, dtype=torch.bool) for name in ("current", "previous")}
