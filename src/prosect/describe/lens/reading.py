"""A lens measured on text: how far each layer is from the model's own prediction, beside a control.

Figures are means over scored positions, with intervals over the documents that the positions come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from torch import Tensor

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput, Unsupported
from prosect.core.markup import card
from prosect.core.progress import step
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.averages import Averages, Wanted
from prosect.describe.lens.lens import Lens, LogitLens, Turned, stream_sites
from prosect.describe.lens.targets import Targets, targets_of
from prosect.describe.lens.view import NOTHING, LensView, divergence, placed, view
from prosect.model.forward import settled
from prosect.model.model import Model
from prosect.model.unembed import readout

NUMBERS = 1 << 22
"""Logits worked on at a time."""


@dataclass(frozen=True)
class LayerReading:
    """One lens at one site. Intervals are over documents.

    Attributes:
        site: canonical name.
        kl: KL(model ‖ lens), nats: 0 where the lens says what the model will say.
        agreement: share of positions at which lens and model have the same likeliest token.
        target: log-probability of the target, nats; without an estimate where no position had a target.
        first: share of positions at which no token is likelier than the target.
        control: ``kl`` of the same lens with the stream turned at random.
        beyond: ``control`` minus ``kl``, paired: what the directions of the stream say.
    """

    site: str
    kl: Measured
    agreement: Measured
    target: Measured
    first: Measured
    control: Measured
    beyond: Measured


@dataclass(frozen=True)
class Gain:
    """One lens against another at a site, on the same positions.

    Attributes:
        site: canonical name.
        kl: of the lens.
        other: of the other.
        less: ``other`` minus ``kl``, paired: above 0 where the lens is nearer to the model.
    """

    site: str
    kl: Measured
    other: Measured
    less: Measured


@dataclass(frozen=True)
class LensReading:
    """What a lens says about a model on some text.

    Attributes:
        model: its name.
        digest: of its configuration and weights.
        lens: name of the lens.
        layers: one for each site, in the order given.
        gains: against the other lens, if one was given.
        other: name of that lens; empty without one.
        targets: which token was asked about.
        n: documents.
        positions: scored positions.
        control: what the control is, in words.
        seed: of the control and the intervals.
        shown: some rows, position by position.
    """

    model: str
    digest: str
    lens: str
    layers: tuple[LayerReading, ...]
    gains: tuple[Gain, ...]
    other: str
    targets: str
    n: int
    positions: int
    control: str
    seed: int
    shown: tuple[LensView, ...] = ()

    def __getitem__(self, site: str) -> LayerReading:
        """The reading at one site.

        Raises:
            BadInput: it was not read.
        """
        for layer in self.layers:
            if layer.site == site:
                return layer
        raise BadInput(f"site {site!r}, which was not read", ", ".join(r.site for r in self.layers))

    def table(self) -> list[dict[str, Json]]:
        """One line for each site."""
        gains = {gain.site: gain for gain in self.gains}
        out: list[dict[str, Json]] = []
        for layer in self.layers:
            line: dict[str, Json] = {"site": layer.site, **_cells("KL", layer.kl)}
            line |= {
                "agreement": layer.agreement.estimate,
                "target log-probability": layer.target.estimate,
                "target first": layer.first.estimate,
                "control KL": layer.control.estimate,
            }
            if layer.site in gains:
                line[f"KL of {self.other}"] = gains[layer.site].other.estimate
                line |= _cells("less by", gains[layer.site].less)
            out.append({**line, "n": self.n})
        return out

    def record(self) -> Json:
        """As plain values."""
        content = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "shown"}
        return {**plain(content), "shown": [row.record() for row in self.shown]}

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [
            (r.site, f"KL {_shown(r.kl)}, control {_shown(r.control)}") for r in self.layers
        ]
        rows.append(("documents", f"{self.n}, {self.positions:,} positions"))
        return card(
            f"{self.lens} of {self.model}", rows, "Where the prediction can be read; not what causes it."
        )


def read(
    model: Model,
    batches: Iterable[Batch],
    lens: Lens | None = None,
    *,
    sites: Sequence[str] | None = None,
    against: Lens | None = None,
    targets: Targets = "next",
    seed: int = 0,
    shown: int = 4,
    top: int = 5,
) -> LensReading:
    """Measure a lens on batches of tokens.

    Args:
        model: a language model.
        batches: text; no position of padding or special tokens is scored.
        lens: the logit lens by default.
        sites: of the residual stream; by default what enters the first block and what leaves each.
        against: another lens to compare with, position by position.
        targets: which token's probability is asked for.
        seed: of the control's rotation and of the intervals' resamples.
        shown: rows to keep position by position.
        top: likeliest tokens to keep of those.

    Raises:
        Unsupported: the model has no such readout, a site is not of the stream, or the lens cannot read it.
        TooLittleData: no position is scored.
        ShapeMismatch: ``targets`` does not give one token for each position.
    """
    using: Lens = LogitLens() if lens is None else lens
    root = Seed(seed).child("lens")
    reader = readout(model)
    if sites is None:
        limits = [held for held in (using.sites, None if against is None else against.sites) if held]
        sites = next(iter(limits), None)
    named = stream_sites(model, sites)
    lenses: dict[str, Lens] = {"lens": using, "control": Turned(using, root)}
    if against is not None:
        lenses["other"] = against
    for one in lenses.values():
        _check_sites(one, named)
    sums, positions = Averages(), 0
    rows: list[LensView] = []
    with step("lens", unit="rows") as progress:
        for given in batches:
            batch = model.batch(given)
            if batch.mask is None or "input_ids" not in batch.tensors:
                raise Unsupported(f"a lens over inputs of {model.name}", "batches of tokens")
            trace = model.run(batch, named)
            asked = targets_of(targets, batch, trace.output)
            _add(sums, model, lenses, named, batch, trace.output, {s: trace[s] for s in named}, asked, reader)
            positions += batch.count
            rows += [
                view(model, reader, using, named, batch, asked, i, top)
                for i in range(min(shown - len(rows), len(batch)))
            ]
            progress.advance(len(batch))
    found = sums.measure(_wanted(named, against is not None), root.child("intervals"))
    return LensReading(
        model.name,
        model.digest,
        using.name,
        tuple(LayerReading(s, *(found[f"{s} {what}"] for what in FIGURES)) for s in named),
        tuple(
            Gain(s, found[f"{s} kl"], found[f"{s} other"], found[f"{s} less"])
            for s in (named if against is not None else ())
        ),
        "" if against is None else against.name,
        targets if isinstance(targets, str) else getattr(targets, "__name__", "a function of the batch"),
        len(sums.units),
        positions,
        lenses["control"].name,
        seed,
        tuple(rows),
    )


FIGURES = ("kl", "agreement", "target", "first", "control", "beyond")


def _check_sites(lens: Lens, sites: Sequence[str]) -> None:
    missing = [s for s in sites if lens.sites is not None and s not in lens.sites]
    if missing:
        raise Unsupported(
            f"{missing[0]} through the {lens.name}, which was made for {', '.join(lens.sites or ())}",
            "a site that it was made for",
        )


def _add(
    sums: Averages,
    model: Model,
    lenses: dict[str, Lens],
    sites: Sequence[str],
    batch: Batch,
    output: Tensor,
    streams: dict[str, Tensor],
    targets: Tensor,
    reader: Callable[[Tensor], Tensor],
) -> None:
    """Add every figure of one batch, so many positions at a time."""
    units, logits = batch.flat_units, batch.flat(output)
    flat = {s: batch.flat(x) for s, x in streams.items()}
    target = batch.flat(targets.to(output.device))
    for start in range(0, len(units), max(1, NUMBERS // output.shape[-1])):
        at = slice(start, start + max(1, NUMBERS // output.shape[-1]))
        final = logits[at].float().log_softmax(dim=-1)
        likeliest, unit = logits[at].argmax(dim=-1), units[at]
        told = (target[at] != NOTHING).cpu().numpy()
        for s in sites:
            for role, lens in lenses.items():
                with settled(model.module):
                    seen = reader(lens.translate(s, flat[s][at])).float()
                logp = seen.log_softmax(dim=-1)
                sums.add((s, role), divergence(final, logp).cpu().numpy(), unit)
                if role != "lens":
                    continue
                same = (seen.argmax(dim=-1) == likeliest).double()
                chance, rank = placed(seen, logp, target[at])
                sums.add((s, "agreement"), same.cpu().numpy(), unit)
                sums.add((s, "target"), chance.double().cpu().numpy()[told], unit[told])
                sums.add((s, "first"), (rank == 0).double().cpu().numpy()[told], unit[told])


def _wanted(sites: Sequence[str], compared: bool) -> dict[str, Wanted]:
    out: dict[str, Wanted] = {}
    for s in sites:
        out[f"{s} kl"] = Wanted(((s, "lens"),))
        out[f"{s} control"] = Wanted(((s, "control"),))
        out[f"{s} beyond"] = Wanted(((s, "control"),), ((s, "lens"),))
        for what in ("agreement", "target", "first"):
            out[f"{s} {what}"] = Wanted(((s, what),))
        if compared:
            out[f"{s} other"] = Wanted(((s, "other"),))
            out[f"{s} less"] = Wanted(((s, "other"),), ((s, "lens"),))
    return out


def _cells(name: str, found: Measured) -> dict[str, Json]:
    return {name: found.estimate, f"{name} low": found.low, f"{name} high": found.high}


def _shown(found: Measured) -> str:
    if found.estimate is None:
        return "unknown"
    if found.low is None or found.high is None:
        return f"{found.estimate:.3g}"
    return f"{found.estimate:.3g} ({found.low:.3g} to {found.high:.3g})"
