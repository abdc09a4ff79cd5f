"""Is it superposition, or does something else explain the activations as well? Rival accounts at equal length.

Sparse dictionaries are one account of activations: many directions, few at work. A few dense directions are another, a
curved surface a third. Whichever leaves least unexplained in the same number of nats, dictionary included, describes them
best, and the difference is taken over seeds. That sparse directions win says that features are sparse; that there are more of
them than dimensions is read off how many are used. That they lose says nothing of accounts that were not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.contract import ActivationStream, Decomposition
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.evaluation.autoencoder import Autoencoder
from prosect.decompose.evaluation.description import DescriptionLength, error_at
from prosect.decompose.evaluation.seeds import over_seeds
from prosect.decompose.linear import Pca
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream

EPOCHS = 4
RECIPE = Recipe(batch=128, rate=2e-2)

Member = Callable[[Seed], Decomposition]
"""An unfitted decomposition for a seed."""


@dataclass(frozen=True)
class Rivals:
    """Errors of rival accounts at equal description length; one value for each seed.

    Attributes:
        nats: allowed for each position, the dictionary's share included.
        errors: for each account, the description that its best member gave of held-out activations.
    """

    nats: int | float
    errors: Mapping[str, tuple[DescriptionLength, ...]]

    def error(self, account: str) -> Measured:
        """Fraction of variance that an account leaves unexplained, mean over seeds."""
        return over_seeds([found.reached for found in self.errors[account]])

    def more(self, account: str, than: str) -> Measured:
        """What one account leaves unexplained beyond another, paired by seed."""
        pairs = zip(self.errors[account], self.errors[than], strict=True)
        return over_seeds([a.reached - b.reached for a, b in pairs])

    @property
    def preferred(self) -> str | None:
        """The account that leaves less unexplained than each other, with intervals that exclude 0; None if there is none."""
        for name in self.errors:
            lows = [self.more(other, name).low for other in self.errors if other != name]
            if all(low is not None and low > 0 for low in lows):
                return name
        return None


def rivals(
    draw: Callable[[Seed], tuple[ArrayStream, ArrayStream]],
    accounts: Mapping[str, Sequence[Member]],
    nats: int | float,
    seeds: Sequence[Seed],
) -> Rivals:
    """Fit every member of every account for each seed, choose one of each on what it was fitted on, measure on the rest.

    Args:
        draw: activations for a seed, to fit on and held out.
        accounts: name → its members, which differ in size; see `usual`.
        nats: allowed for each held-out position, the decoder included.
        seeds: independent runs; each draws its activations and every start anew.

    Raises:
        BadInput: fewer than two accounts.
        TooLittleData: fewer than two seeds, which have no interval.
        Unsupported: no member of an account is short enough.
    """
    if len(accounts) < 2:
        raise BadInput(f"{len(accounts)} accounts", "at least two to compare")
    if len(seeds) < 2:
        raise TooLittleData(f"{len(seeds)} seeds", "at least two, for an interval")
    found: dict[str, list[DescriptionLength]] = {name: [] for name in accounts}
    for seed in seeds:
        explore, held = draw(seed)
        for name, members in accounts.items():
            found[name].append(_best(name, members, explore, held, nats, seed.child(name)))
    return Rivals(nats, {name: tuple(each) for name, each in found.items()})


def usual(site: str, width: int) -> dict[str, list[Member]]:
    """The three accounts at a few sizes each: ``dense`` (PCA), ``sparse`` (TopK dictionaries), ``curved`` (autoencoders)."""
    few = sorted({max(1, width // 8), max(1, width // 4)})
    return {
        "dense": [partial(_dense, site, m) for m in (*few, width)],
        "sparse": [partial(_sparse, site, 3 * width, k) for k in few],
        "curved": [partial(_curved, site, m, 3 * width // 2) for m in few],
    }


def _dense(site: str, components: int, seed: Seed) -> Decomposition:
    return Pca(site, components)


def _sparse(site: str, latents: int, k: int, seed: Seed) -> Decomposition:
    return Dictionary(site, latents, TopK(k), recipe=RECIPE, seed=seed)


def _curved(site: str, codes: int, hidden: int, seed: Seed) -> Decomposition:
    return Autoencoder(site, codes, hidden, 600, rate=2e-2, seed=seed)


def _best(
    name: str,
    members: Sequence[Member],
    explore: ArrayStream,
    held: ActivationStream,
    nats: int | float,
    seed: Seed,
) -> DescriptionLength:
    """The held-out description by the member that describes best what it was fitted on."""
    best: tuple[float, Decomposition] | None = None
    refused = None
    for number, member in enumerate(members):
        own = seed.child("member", number)
        made = member(own).fit(explore.shuffled(own.child("order"), epochs=EPOCHS))
        try:
            error = error_at(made, explore, nats * len(explore)).reached
        except Unsupported as why:
            refused = why
            continue
        if best is None or error < best[0]:
            best = (error, made)
    if best is None:
        raise Unsupported(
            f"the account {name!r} at {nats:g} nats a position ({refused})", "a member that is short enough"
        )
    return error_at(best[1], held, nats * len(held))
