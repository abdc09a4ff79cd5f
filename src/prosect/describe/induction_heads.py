"""Which heads repeat what followed a token before, and whether the repetition rests on them.

On a random block that comes twice (`prosect.data.behaviours.repeated_block`) each head has three scores (Olsson
et al. 2022, "In-context Learning and Induction Heads", "Head activation evaluators"):

- *prefix matching*: attention from the second copy to the token after the first copy's, beyond what the head
  puts on the same places where the first copy is another block;
- *copying*: what it adds, directly, to the logit of the token that comes, beyond what it adds to a random token's;
- *previous token*: attention to the place before, beyond uniform attention.

Heads are chosen on one part of the data; every figure that is reported comes from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from prosect.core.errors import TooLittleData, Unsupported
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.behaviours import Behaviour, Pairs
from prosect.describe.lens.direct import attribute
from prosect.describe.roles import HeadRole
from prosect.model.model import Model
from prosect.model.patching import RowScores, joint_effects

FLOOR = 0.1
"""A head matches prefixes, or looks back, if the lower end of that score's interval is above this."""
SETS = 5
"""Random sets of other heads that are ablated beside."""


@dataclass(frozen=True)
class HeadScores:
    """What one head does on repeated blocks; intervals over rows.

    Attributes:
        head: its site.
        kind: ``induction``, ``previous`` or ``other``, chosen on the first part.
        prefix: prefix matching, from -1 to 1.
        copying: in logits.
        previous: previous token, from -1 to 1.
    """

    head: str
    kind: str
    prefix: Measured
    copying: Measured
    previous: Measured


@dataclass(frozen=True)
class InductionHeads:
    """What was found.

    Attributes:
        heads: every head of the model.
        gain: log-probability (nats a token) that repetition adds to what is repeated.
        lost: share of the gain that goes with the induction heads; without estimate where there are none.
        random: heads of neither kind, as many as the induction heads, and the share that goes with them.
    """

    heads: tuple[HeadScores, ...]
    gain: Measured
    lost: Measured
    random: tuple[tuple[tuple[str, ...], Measured], ...]

    def of(self, kind: str) -> tuple[str, ...]:
        """The heads of a kind."""
        return tuple(h.head for h in self.heads if h.kind == kind)


def induction_heads(
    model: Model,
    behaviour: Behaviour,
    *,
    rows: int = 64,
    choose: str = "explore",
    measure: str = "validate.0",
    seed: int = 0,
) -> InductionHeads:
    """Find the heads, and take them away.

    Heads are ablated by giving them, at all positions, what they had where the first copy was another block; at
    random, sets of as many heads that are neither induction nor previous-token heads.

    Args:
        model: a language model with attention.
        behaviour: a repeated block.
        rows: of each part.
        choose, measure: the part on which heads are chosen, and the one on which all is measured.
        seed: of the random sets and the intervals.

    Raises:
        Unsupported: a model whose attention weights are not named sites.
        TooLittleData: fewer than four rows.
    """
    if rows < 4:
        raise TooLittleData(f"{rows} rows", "4 or more")
    layers = [i for i in range(model.n_layers or 0) if f"probs.{i}" in model.sites]
    if not layers:
        raise Unsupported(
            f"attention weights of {model.name}", "a model with the sites probs.0, probs.1, ..."
        )
    root = Seed(seed).child("induction heads")
    kinds = [_kind(*scores) for scores in _scores(model, behaviour.pairs(choose, rows), layers, root)]
    pairs = behaviour.pairs(measure, rows)
    names = [f"z.{layer}.h{head}" for layer in layers for head in range(model.n_heads or 0)]
    heads = tuple(
        HeadScores(name, kind, *scores)
        for name, kind, scores in zip(names, kinds, _scores(model, pairs, layers, root), strict=True)
    )
    found, others = ([h.head for h in heads if h.kind == k] for k in ("induction", "other"))
    sets = {"induction": found} if found else {names[0]: [names[0]]}
    draw = root.child("random sets").numpy()
    for i in range(SETS if found and others else 0):
        drawn = draw.permutation(len(others))[: len(found)]
        sets[f"random {i}"] = sorted(others[j] for j in drawn)
    effects = joint_effects(
        model,
        pairs.clean,
        pairs.counterfactual,
        lambda output, batch: _gain(output, batch, pairs),
        sets,
        control=False,
        seed=seed,
    )
    gain = effects.base.minus(effects.other).measured()
    none = Measured(estimate=None, note="no induction head was found")
    lost = effects.share("induction") if found else none
    random = tuple((tuple(sets[s]), effects.share(s)) for s in sets if s.startswith("random"))
    return InductionHeads(heads, gain, lost, random)


def _kind(prefix: Measured, copying: Measured, previous: Measured) -> str:
    if prefix.low is not None and prefix.low > FLOOR and copying.low is not None and copying.low > 0:
        return "induction"
    return "previous" if previous.low is not None and previous.low > FLOOR else "other"


def _scores(
    model: Model, pairs: Pairs, layers: Sequence[int], seed: Seed
) -> list[tuple[Measured, Measured, Measured]]:
    """Prefix matching, copying and previous token of every head."""
    shown = pairs.shown.cpu().numpy()
    batch, units = pairs.clean, pairs.clean.units
    sites = [f"probs.{layer}" for layer in layers]
    mine, others = (model.run(b, capture=sites) for b in (batch, pairs.counterfactual))
    prefix = HeadRole("induction").eligible(batch) & shown[:, :, None]
    before = HeadRole("previous").eligible(batch) & _plain(batch)[:, :, None]
    even = before / (np.arange(before.shape[1]) + 1)[None, :, None]
    last = shown.shape[1] - 1 - np.argmax(shown[:, ::-1], axis=1)
    targets = pairs.targets.cpu().numpy()[np.arange(len(batch)), last].tolist()
    direct = attribute(
        model, batch, targets, against="mean", positions=last.tolist(), seed=seed.integer % 2**31
    )
    copying = {share.part: share.beyond for share in direct.shares}
    out = []
    for layer, site in zip(layers, sites, strict=True):
        seen, other = (run[site].detach().cpu().double().numpy() for run in (mine, others))
        for head in range(seen.shape[1]):
            here = _mass(seen[:, head], prefix) - _mass(other[:, head], prefix)
            back = _mass(seen[:, head], before) - _mass(even, before)
            scores = RowScores(np.stack([here, back]), units, seed)
            out.append((scores.measured(0), copying[f"z.{layer}.h{head}"], scores.measured(1)))
    return out


def _plain(batch: Batch) -> Bool[np.ndarray, "rows positions"]:
    """Real positions that are not special."""
    assert batch.mask is not None
    special = batch.special
    return np.asarray((batch.mask if special is None else batch.mask & ~special).cpu().numpy())


def _mass(
    attention: Float[np.ndarray, "rows queries keys"], keys: Bool[np.ndarray, "rows queries keys"]
) -> Float[np.ndarray, " rows"]:
    """Mean weight on the keys, over the queries that have any; NaN where none has."""
    asked = keys.any(axis=2).sum(axis=1)
    total = (attention * keys).sum(axis=(1, 2))
    return np.asarray(np.divide(total, asked, out=np.full(len(asked), np.nan), where=asked > 0))


def _gain(
    output: Float[Tensor, "rows positions vocab"], batch: Batch, pairs: Pairs
) -> Float[Tensor, " rows"]:
    """Mean log-probability of the repeated tokens, for some of the rows."""
    number = {row: i for i, row in enumerate(pairs.clean.rows)}
    targets = pairs.targets[[number[row] for row in batch.rows]].to(output.device)
    logp = output.log_softmax(dim=-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    shown = targets >= 0
    return (logp * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)
