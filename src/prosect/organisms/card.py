"""The card of an organism: what a reader should know before using it, made of what is there already.

The words come from the registry and from the builder's docstring, the rest from the truth and from the weights. No organism
writes a card of its own. Nothing here needs torch until a card is made.
"""

from __future__ import annotations

import inspect
import math
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from markupsafe import Markup

from prosect.core.canonical import Json
from prosect.core.errors import BadInput, VerificationFailed
from prosect.core.markup import card as markup
from prosect.core.registries import ORGANISMS
from prosect.core.truth import Truth

COUNTED = ("variables", "features", "labels")
EDGES = "edges under "
NEAR, FAR = 0.02, 0.1
"""How far a metric may be off on another platform: this much, and this share of it."""


@dataclass(frozen=True)
class Build:
    """An organism as it came out on one platform.

    Attributes:
        digest: SHA-256 over its named weights.
        metrics: `Truth.quantities`, by name.
        seconds: that building and opening it took.
    """

    digest: str
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Card:
    """What an organism is.

    Attributes:
        organism: its name.
        about: what it is, in one line.
        how: how it was made and what is known of it; paragraphs.
        seed: which variant.
        size: in words.
        known: how much: ``variables``, ``features``, ``labels``, ``edges under KIND``.
        unknown: whether nobody knows the mechanism.
        nulls: name → what it destroys.
        builds: platform → what came out there.
    """

    organism: str
    about: str
    how: str
    seed: int
    size: str
    known: Mapping[str, int]
    unknown: bool
    nulls: Mapping[str, str]
    builds: Mapping[str, Build] = field(default_factory=dict)

    def build(self, where: str | None = None) -> Build | None:
        """What came out on a platform; where it was never built, and by default, what came out first."""
        return self.builds.get(where or "") or next(iter(self.builds.values()), None)

    def says(self) -> str:
        """What is known, in a few words."""
        said = ["mechanism unknown"] if self.unknown else []
        said += [f"{self.known[what]:,} {what}" for what in COUNTED if what in self.known]
        edges = {k.removeprefix(EDGES): n for k, n in self.known.items() if k.startswith(EDGES)}
        if edges:
            said.append("edges: " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(edges.items())))
        return ", ".join(said) or "nothing"

    def rows(self) -> list[tuple[str, Json]]:
        """Name and value of everything, for a table."""
        out: list[tuple[str, Json]] = [
            ("organism", self.organism),
            ("about", self.about),
            ("made", self.how),
            ("size", self.size),
            ("known", self.says()),
            *((f"null: {name}", what) for name, what in self.nulls.items()),
            ("seed", self.seed),
        ]
        for where, made in self.builds.items():
            out.append((f"hash on {where}", f"{made.digest[:16]}, built in {made.seconds:.2f} s"))
        first = self.build()
        metrics = {} if first is None else first.metrics
        return [*out, *((f"metric: {name}", f"{value:.4g}") for name, value in metrics.items())]

    def verify(self, recorded: Card) -> str:
        """That what was built here is what was recorded; both cards are of one build and one organism.

        Returns:
            ``same hash``, or ``metrics match`` where the record has other platforms only.

        Raises:
            VerificationFailed: another hash on the same platform, with both; or a metric that is off on another.
            BadInput: the card of another organism or seed, or of nothing that was built.
        """
        if (self.organism, self.seed) != (recorded.organism, recorded.seed) or len(self.builds) != 1:
            raise BadInput(
                f"{self.organism} with seed {self.seed}, built on {len(self.builds)} platforms",
                f"{recorded.organism} with seed {recorded.seed}, just built",
            )
        ((where, made),) = self.builds.items()
        before = recorded.build(where)
        if before is None:
            raise BadInput(f"a record of {recorded.organism} without a build", "one build or more")
        named = f"{self.organism} with seed {self.seed}"
        if where in recorded.builds:
            if made.digest != before.digest:
                raise VerificationFailed(
                    f"{named} came out as {made.digest[:16]}, recorded is {before.digest[:16]} ({where})"
                )
            return "same hash"
        for name in sorted({*made.metrics, *before.metrics}):
            now, then = made.metrics.get(name), before.metrics.get(name)
            if now is None or then is None or not _close(now, then):
                raise VerificationFailed(
                    f"{named} has {name} = {now} here, recorded is {then} on {next(iter(recorded.builds))} "
                    f"(hashes {made.digest[:16]} and {before.digest[:16]})"
                )
        return "metrics match"

    def _repr_html_(self) -> Markup:
        return markup(self.organism, self.rows()[1:])


def _close(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return abs(a - b) <= NEAR + FAR * max(abs(a), abs(b))


def card(name: str, seed: int = 0) -> Card:
    """Build an organism and write its card.

    The seconds are those of building and opening it; importing what it needs is not counted.

    Raises:
        UnknownName: there is no such organism.
    """
    import torch

    import prosect.model  # noqa: F401
    from prosect.core.canonical import digest_tensors

    build = ORGANISMS.get(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # which sums are added first depends on it, and with it the last bit
    try:
        start = time.perf_counter()
        model, truth = build(seed)
        seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    made = Build(digest_tensors(model.module.state_dict()), dict(truth.quantities), round(seconds, 3))
    return Card(
        organism=name,
        about=ORGANISMS.about(name),
        how=_how(build),
        seed=seed,
        size=truth.size,
        known=_known(truth),
        unknown=truth.unknown,
        nulls=dict(truth.nulls),
        builds={here(): made},
    )


def here() -> str:
    """This platform by name: system, processor and torch's version. Same name, same weights from the same seed.

    Libraries choose how to add up by the processor's model, so machines that can do the same may differ in the last bit.
    """
    import torch

    version = ".".join(torch.__version__.split(".")[:2])
    capability = torch.backends.cpu.get_cpu_capability()
    said = f"{platform.system()} {platform.machine()} {_processor()} {capability} torch{version}"
    return re.sub(r"[^a-z0-9._]+", "-", re.sub(r"\((r|tm)\)|@.*?hz", "", said.lower()))


def _processor() -> str:
    """The processor's model, where the system says it."""
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", said, re.MULTILINE)
    return found[1] if found else platform.processor()


def _how(build: object) -> str:
    """A builder's docstring from its second paragraph on, up to its arguments; the first line where there is no more."""
    text = inspect.getdoc(build.func if isinstance(build, partial) else build) or ""
    first, *rest = re.split(r"\n\n(?:Args|Returns|Raises):\n", text)[0].split("\n\n")
    return "\n".join(re.sub(r"\s+", " ", p).strip() for p in rest or [first])


def _known(truth: Truth) -> dict[str, int]:
    counts = {
        "variables": len(truth.variables),
        "features": max((len(f.directions) for f in truth.features), default=0),
        "labels": len({name.split("@")[0] for name in truth.labels}),
        **{f"{EDGES}{kind}": len(found) for kind, found in truth.edges.items()},
    }
    return {what: n for what, n in counts.items() if n}
