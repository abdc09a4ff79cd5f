"""Pattern, flow and patch effect of each head side by side, and where they disagree.

An attention pattern is not a flow of information: a head may look at a place whose value its output matrix
takes to nothing, or write where nothing reads. For pairs (source, destination) of each head this compares

- pattern: the probability that the destination puts on the source;
- flow: the length of what is moved, ‖α · W_O v‖, through whatever norm follows (Kobayashi et al. 2020,
  "Attention is Not Only a Weight", equation 5), over the length of the stream there;
- patch: how far the model's output from the destination on moves (KL, nats) when just that is not moved: α · v
  of the pair is taken out of the head's z, or replaced by α times the head's mean value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from prosect.core.errors import BadInput
from prosect.core.intervals import Mean
from prosect.core.progress import step
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.describe.averages import Averages, Wanted
from prosect.describe.flow.cut import cut
from prosect.describe.flow.heads import Flow, HeadFlow
from prosect.describe.flow.moved import destinations_of, look
from prosect.describe.flow.ranks import correlation, ranks
from prosect.model.inputs import Inputs
from prosect.model.model import Model

ACCOUNTS = ("pattern", "flow", "patch")
PAIRS = (("pattern", "flow"), ("pattern", "patch"), ("flow", "patch"))
RULE = (
    "two accounts of a head disagree if one is nothing but rounding and the other is not, or if the mean over "
    "destinations of the rank correlation of what they say about its sources is not above 0 by its 95 % interval; "
    "at a destination where one of them says the same of every source, the correlation counts as 0"
)
CONTROL = "a random vector of the same length taken out of the head's z at the same place"


def compare(
    model: Model,
    inputs: Inputs,
    heads: Sequence[str] | None = None,
    *,
    destinations: int | Sequence[Sequence[int]] = 2,
    by: str = "zero",
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> Flow:
    """Compare what heads look at, what they move, and what depends on it.

    Cost: one pass for each layer, and two for each (head, destination slot, source) whose share is not lost in
    rounding, together over all rows.

    Args:
        model: a language model.
        inputs: rows of tokens.
        heads: names such as ``z.1.h3``; all by default.
        destinations: how many to draw in each row, or the positions for each row.
        by: take what is moved out (``zero``), or put the head's ``mean`` value in its place.
        seed: of destinations, control and intervals.
        budget_mb: of one pass of the sweep.

    Raises:
        Unsupported: attention cannot be read here, or is not linear behind its heads.
        BadInput: a head or position that is not there.
        TooLittleData: a row with fewer positions than destinations.
    """
    if by not in ("zero", "mean"):
        raise BadInput(f"by={by!r}", "zero or mean")
    batch, root = model.batch(inputs), Seed(seed).child("flow")
    asked = destinations if isinstance(destinations, int) else [list(d) for d in destinations]
    at = destinations_of(batch, asked, root)
    chosen = _heads(model, heads)
    values: dict[str, list[Float[np.ndarray, "rows slots sources"]]] = {a: [] for a in (*ACCOUNTS, "control")}
    noise, passes = 0.0, 0
    with step("flow", total=len(chosen), unit="heads") as progress:
        for number, which in chosen.items():
            layer = look(model, batch, number, at)
            cuts = cut(model, batch, layer, which, at, by, root, budget_mb)
            noise, passes = max(noise, cuts.noise), passes + cuts.passes
            for i, head in enumerate(which):
                values["pattern"].append(layer.pattern[:, :, head].cpu().numpy())
                values["flow"].append(layer.flow[:, :, head].cpu().numpy())
                values["patch"].append(cuts.effect[:, :, i])
                values["control"].append(cuts.control[:, :, i])
            progress.advance(len(which))
    before = np.arange(values["pattern"][0].shape[-1]) <= at.cpu().numpy()[:, :, None]
    stacked = {account: np.where(before, np.stack(x), np.nan) for account, x in values.items()}
    rounding = float(np.finfo(np.float32).eps)
    for account, floor in (("flow", rounding), ("patch", 2 * noise), ("control", 2 * noise)):
        stacked[account] = np.where(stacked[account] <= floor, 0.0, stacked[account])
    names = [f"z.{number}.h{head}" for number, which in chosen.items() for head in which]
    found = [
        _head(name, {a: x[i] for a, x in stacked.items()}, batch.units, root.child(name))
        for i, name in enumerate(names)
    ]
    return Flow(
        model.name,
        model.digest,
        tuple(found),
        RULE,
        CONTROL,
        by,
        noise,
        len(set(batch.units.tolist())),
        int(before.sum()),
        passes * len(batch),
        tuple(tuple(row) for row in at.tolist()),
        stacked,
        seed,
    )


def _heads(model: Model, names: Sequence[str] | None) -> dict[int, list[int]]:
    """Layer → heads."""
    if names is None:
        layers = [i for i in range(model.n_layers or 0) if f"z.{i}" in model.sites]
        names = [f"z.{i}.h{h}" for i in layers for h in range(model.sites.info(f"z.{i}").heads or 0)]
    out: dict[int, list[int]] = {}
    for name in names:
        site = model.sites.site(name)
        if site.kind != "z" or site.layer is None or site.head is None:
            raise BadInput(f"{name}, which is no head", "names such as z.1.h3")
        out.setdefault(site.layer, []).append(site.head)
    if not out:
        raise BadInput("no head", "a model with heads, and at least one of them")
    return out


def _head(
    name: str, values: dict[str, Float[np.ndarray, "rows slots sources"]], units: np.ndarray, seed: Seed
) -> HeadFlow:
    """Measure one head and apply the rule."""
    sums, pairs = Averages(), Averages(Mean(low=-1.0, high=1.0))
    rows, slots, _ = values["pattern"].shape
    for r in range(rows):
        for j in range(slots):
            told = {a: x[r, j][~np.isnan(x[r, j])] for a, x in values.items()}
            unit = units[r : r + 1]
            for account, x in told.items():
                sums.add(account, np.array([x.max() if account == "pattern" else x.sum()]), unit)
            told_ranks = {a: ranks(told[a]) for a in ACCOUNTS}
            for a, b in PAIRS:
                if told_ranks[a].any() or told_ranks[b].any():
                    pairs.add((a, b), np.array([correlation(told_ranks[a], told_ranks[b])]), unit)
    wanted = {a: Wanted((a,)) for a in values} | {"beyond": Wanted(("patch",), ("control",))}
    means = sums.measure(wanted, seed.child("means"))
    labels = {f"{a}~{b}": Wanted(((a, b),)) for a, b in PAIRS}
    nothing = Measured(estimate=None, note="both say the same of every source")
    found = pairs.measure(labels, seed.child("ranks")) if pairs.units else dict.fromkeys(labels, nothing)
    silent = tuple(a for a in ACCOUNTS if not np.nansum(values[a]) > 0)
    wrong = tuple(f"{a}~{b}" for a, b in PAIRS if _disagree(a in silent, b in silent, found[f"{a}~{b}"]))
    return HeadFlow(
        name,
        means["pattern"],
        means["flow"],
        means["patch"],
        means["control"],
        means["beyond"],
        found,
        silent,
        wrong,
        _words(silent, wrong),
    )


def _disagree(a_silent: bool, b_silent: bool, found: Measured) -> bool:
    if a_silent or b_silent:
        return a_silent != b_silent
    return found.estimate is not None and not (found.low is not None and found.low > 0)


def _words(silent: tuple[str, ...], wrong: tuple[str, ...]) -> str:
    if "flow" in silent:
        return (
            "looks, and moves nothing"
            if "patch" in silent
            else "moves nothing, and yet something depends on it"
        )
    if "patch" in silent:
        return "moves, and nothing depends on it"
    said = {
        "pattern~flow": "where it looks is not where it moves from",
        "pattern~patch": "where it looks is not what matters",
        "flow~patch": "where it moves from is not what matters",
    }
    return "; ".join(said[pair] for pair in wrong) or "none"
