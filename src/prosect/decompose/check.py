"""The contract suite: what every decomposition must do, as one call that anyone can run on theirs.

    check_decomposition(lambda: Pca("resid_post.0"), stream, exact=True)

It raises `ContractBroken` at the first promise that does not hold, and says which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from prosect.core.canonical import canonical_json
from prosect.core.errors import BadInput, NotFinite, ProsectError, ShapeMismatch, Unsupported
from prosect.decompose.contract import ActivationStream, Codes, Decomposition
from prosect.decompose.streams import ArrayStream, first
from prosect.store.tensors import load_tensors, save_tensors

SUPPORTS = frozenset({"decode", "directions", "unit", "sparse", "nonnegative", "signed", "streaming"})
ROWS = 257


class ContractBroken(ProsectError, AssertionError):
    """A decomposition does not do what every decomposition must."""


def check_decomposition(
    make: Callable[[], Decomposition],
    stream: ActivationStream,
    exact: bool = False,
    tolerance: float = 1e-4,
) -> None:
    """Check a decomposition against the contract.

    Args:
        make: gives a new unfitted one, the same each time.
        stream: activations that it can be fitted on in little time; at least 16 positions.
        exact: whether decoding its codes must give the activations back.
        tolerance: relative size of a rounding error.

    Raises:
        ContractBroken: at the first promise that does not hold.
    """
    x = {site: a[:ROWS] for site, a in first(stream, ROWS).arrays.items()}
    n = len(x[stream.sites[0]])
    fitted = _check_fit(make, stream, x)
    codes = _check_codes(fitted, x, n)
    _check_rows(fitted, x, codes, tolerance)
    _check_directions(fitted)
    _check_decode(fitted, x, codes, exact, tolerance)
    _check_refusals(fitted, x)
    _check_storage(fitted, x, codes)
    _check_repeats(make, stream, fitted)


def _check_fit(
    make: Callable[[], Decomposition], stream: ActivationStream, x: dict[str, Tensor]
) -> Decomposition:
    made = make()
    _refuses(BadInput, lambda: made.encode(x), "encoding before fitting", made)
    fitted = made.fit(stream)
    _must(fitted is made, "fit returns the decomposition itself", made)
    _must(bool(made.name) and bool(made.reads) and bool(made.writes), "it has a name, reads and writes", made)
    _must(made.n_components >= 1, "it has components", made)
    _must(made.supports <= SUPPORTS, f"supports holds only {sorted(SUPPORTS)}", made)
    _must(len(made.supports & {"nonnegative", "signed"}) == 1, "codes are either nonnegative or signed", made)
    names = {made.component(i).name for i in range(made.n_components)}
    _must(len(names) == made.n_components, "each component has a name of its own", made)
    _refuses(BadInput, lambda: made.component(made.n_components), "a component that is not there", made)
    return fitted


def _check_codes(d: Decomposition, x: dict[str, Tensor], n: int) -> Codes:
    codes = d.encode(x)
    _must(len(codes) == n, "one row of codes for each position", d)
    _must(codes.indices.shape == codes.values.shape, "indices and values have one shape", d)
    _must(codes.width == d.n_components, "codes are as wide as there are components", d)
    inside = (codes.indices >= 0) & (codes.indices < codes.width)
    _must(bool(inside.all()), "indices are numbers of components", d)
    _must(bool(torch.isfinite(codes.values).all()), "codes are finite", d)
    present = codes.values != 0
    marked = torch.where(present, codes.indices, codes.width + torch.arange(codes.indices.shape[1]))
    _must(bool((marked.sort(dim=1).values.diff(dim=1) != 0).all()), "a component occurs once in a row", d)
    if "nonnegative" in d.supports:
        _must(bool((codes.values >= 0).all()), "codes are not negative, as supports says", d)
    dense = codes.dense()
    wanted = list(range(d.n_components))[::-3]
    _must(torch.equal(codes.columns(wanted), dense[:, wanted]), "columns are columns of the dense codes", d)
    _must(torch.equal(codes.firing(), (dense != 0).sum(dim=0)), "firing counts nonzero codes", d)
    _must(torch.equal(d.encode(x).dense(), dense), "encoding twice gives the same codes", d)
    _must(not codes.values.requires_grad, "codes carry no gradient", d)
    return codes


def _check_rows(d: Decomposition, x: dict[str, Tensor], codes: Codes, tolerance: float) -> None:
    """Each position is encoded by itself."""
    n = len(codes)
    order = torch.arange(n).roll(n // 3).flip(0)
    permuted = d.encode({site: a[order] for site, a in x.items()}).dense()
    _must(_near(permuted, codes.dense()[order], tolerance), "permuting positions permutes codes", d)
    part = d.encode({site: a[: n // 2] for site, a in x.items()}).dense()
    _must(_near(part, codes.dense()[: n // 2], tolerance), "a position's codes do not depend on others", d)
    none = d.encode({site: a[:0] for site, a in x.items()})
    _must(none.dense().shape == (0, d.n_components), "no positions give no codes", d)


def _check_directions(d: Decomposition) -> None:
    if "directions" not in d.supports:
        _refuses(Unsupported, lambda: d.directions, "directions, which supports lacks,", d)
        return
    directions = d.directions
    _must(len(directions) == d.n_components, "a direction for each component", d)
    _must(bool(torch.isfinite(directions).all()), "directions are finite", d)
    if "unit" in d.supports:
        norms = directions.double().norm(dim=1)
        _must(_near(norms, torch.ones_like(norms), 1e-5), "directions have norm 1, as supports says", d)


def _check_decode(
    d: Decomposition, x: dict[str, Tensor], codes: Codes, exact: bool, tolerance: float
) -> None:
    if "decode" not in d.supports:
        _refuses(Unsupported, lambda: d.decode(codes), "decode, which supports lacks,", d)
        return
    made = d.decode(codes)
    _must(tuple(made) == d.writes, "decode gives the sites it writes, in order", d)
    _must(all(len(y) == len(codes) for y in made.values()), "a position for each row of codes", d)
    if exact:
        _must(
            all(_near(made[s], x[s], tolerance) for s in d.writes), "decoding codes gives activations back", d
        )
    if "directions" in d.supports:
        dense = codes.dense()
        nothing = d.decode(Codes.of_dense(torch.zeros_like(dense[:1])))[d.writes[0]]
        linear = nothing + dense @ d.directions.to(dense)
        _must(_near(made[d.writes[0]], linear, tolerance), "decoding adds up directions times codes", d)
    wide = Codes(codes.indices, codes.values, codes.width + 1)
    _refuses(ShapeMismatch, lambda: d.decode(wide), "codes of another width", d)


def _check_refusals(d: Decomposition, x: dict[str, Tensor]) -> None:
    for site in d.reads:
        wide = {**x, site: torch.cat([x[site], x[site][:, :1]], dim=1)}
        _refuses(ShapeMismatch, partial(d.encode, wide), "activations of another width", d)
        for bad in (float("nan"), float("inf")):
            spoiled = {**x, site: x[site].clone()}
            spoiled[site][len(x[site]) // 2, 0] = bad
            _refuses(NotFinite, partial(d.encode, spoiled), f"activations with {bad}", d)
            _check_spoiled_fit(d, ArrayStream(spoiled), bad)
        missing = {s: a for s, a in x.items() if s != site}
        _refuses(BadInput, partial(d.encode, missing), "activations without a site", d)


def _check_spoiled_fit(d: Decomposition, spoiled: ArrayStream, bad: float) -> None:
    """Refused, unless there is nothing to learn and so nothing was learned from it."""
    fresh = type(d).from_state(*d.state())
    try:
        fresh.fit(spoiled)
    except NotFinite:
        return
    _must(_same_state(fresh, d), f"a stream with {bad} must be refused", d)


def _check_storage(d: Decomposition, x: dict[str, Tensor], codes: Codes) -> None:
    tensors, about = d.state()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decomposition.safetensors"
        save_tensors(path, tensors, about)
        back = type(d).from_state(*load_tensors(path))
    _must(
        back.name == d.name and back.reads == d.reads and back.writes == d.writes,
        "a name survives storage",
        d,
    )
    again = back.encode(x)
    same = torch.equal(again.indices, codes.indices) and torch.equal(again.values, codes.values)
    _must(same, "codes are bit-identical after a round trip to disk", d)
    _must(_same_state(back, d), "state is bit-identical after a round trip to disk", d)


def _check_repeats(make: Callable[[], Decomposition], stream: ActivationStream, d: Decomposition) -> None:
    _must(_same_state(make().fit(stream), d), "fitting twice gives the same bits", d)
    other = ArrayStream(
        {site: 2 * a.roll(1, dims=1) for site, a in first(stream, len(stream)).arrays.items()}
    )
    again = make()
    again.fit(other)
    _must(_same_state(again.fit(stream), d), "fitting again forgets what was learned before", d)


def _same_state(a: Decomposition, b: Decomposition) -> bool:
    (first_tensors, first_about), (second_tensors, second_about) = a.state(), b.state()
    return (
        first_tensors.keys() == second_tensors.keys()
        and all(torch.equal(t, second_tensors[name]) for name, t in first_tensors.items())
        and canonical_json(first_about) == canonical_json(second_about)
    )


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    scale = max(float(b.double().square().mean().sqrt()), 1e-12) if b.numel() else 1.0
    return bool(((a.double() - b.double()).abs() <= tolerance * scale).all())


def _must(holds: bool, promise: str, d: Decomposition) -> None:
    if not holds:
        raise ContractBroken(f"{type(d).__name__} breaks the contract: {promise}")


def _refuses(error: type[Exception], work: Callable[[], object], what: str, d: Decomposition) -> None:
    try:
        work()
    except error:
        return
    except Exception as other:
        raise ContractBroken(
            f"{type(d).__name__} breaks the contract: {what} must raise {error.__name__}, "
            f"not {type(other).__name__} ({other})"
        ) from other
    raise ContractBroken(f"{type(d).__name__} breaks the contract: {what} must be refused")
