"""Numbers and outcomes in words. What a verdict is called depends on its state, and nothing is ever "proved"."""

from __future__ import annotations

import math
from collections.abc import Mapping

from prosect.core.records import Measured
from prosect.core.verdicts import Outcome, Verdict

OUTCOMES: tuple[Outcome, ...] = ("supported", "refuted", "inconclusive", "not tested")
WORDS: Mapping[str, str] = {
    "supported": "supported",
    "refuted": "refuted",
    "inconclusive": "could not be judged",
    "not tested": "not tested",
}
LETTERS: Mapping[str, str] = {"supported": "s", "refuted": "r", "inconclusive": "i", "not tested": "n"}
LEVELS: Mapping[int, tuple[str, str]] = {
    1: ("Predicts", "unseen data, better than every control"),
    2: ("Explains failures", "names the inputs where the model goes wrong"),
    3: ("Replaces", "its own code stands in for the component"),
    4: ("Method checked", "its method is right where the truth is known"),
    5: ("Reaches a goal", "beats other tools at equal budget"),
}
UNITS: Mapping[str, str] = {
    "cluster": "cluster of near-duplicate documents",
    "input": "independent input",
    "seed": "seed",
    "network": "network",
}


def number(value: object) -> str:
    """A number as people read it: about three digits, a real minus sign; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "not finite"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e7 or size < 1e-4:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}·10{_superscript(int(exponent))}".replace("-", "−")
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 1 - math.floor(math.log10(size))
    return fixed(value, digits)


def fixed(value: float, digits: int) -> str:
    """With so many decimals, and a real minus sign unless that is all that is left of it."""
    out = f"{value:,.{digits}f}"
    return out[1:] if not out.strip("-0.,") and out.startswith("-") else out.replace("-", "−")


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def short(value: float) -> str:
    """A number somebody chose, such as a margin, as they wrote it."""
    return f"{value:g}".replace("-", "−")


def chance(p: float | None) -> str:
    """A p-value to two digits."""
    if p is None:
        return "–"
    return number(p) if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def percent(value: float) -> str:
    """A share as per cent, without the sign; one decimal where a whole number would hide it."""
    scaled = 100 * value
    if 0 < scaled < 1 or 99 < scaled < 100:
        return f"{scaled:.1f}"
    return f"{scaled:.0f}"


def share_words(share: Measured) -> str:
    """``24 %, interval 19 to 29``."""
    if share.estimate is None:
        return "nothing to count"
    out = f"{percent(share.estimate)} %"
    if share.low is None or share.high is None:
        return out
    return f"{out}, interval {percent(share.low)} to {percent(share.high)}"


def estimate(measured: Measured | None) -> str:
    """``0.81 [0.77, 0.85]``, or why there is no number."""
    if measured is None:
        return "not measured"
    if measured.estimate is None:
        return measured.note or "not measured"
    if measured.low is None and measured.high is None:
        return number(measured.estimate)
    low = "−∞" if measured.low is None else as_precise(measured.low, measured)
    high = "∞" if measured.high is None else as_precise(measured.high, measured)
    return f"{as_precise(measured.estimate, measured)} [{low}, {high}]"


def as_precise(value: float, measured: Measured) -> str:
    """``value`` to the decimals that the interval's width bears, the same for estimate and ends."""
    if measured.low is None or measured.high is None or measured.high <= measured.low:
        return number(value)
    width = measured.high - measured.low
    if width >= 1e7 or width < 1e-6:
        return number(value)
    return fixed(value, max(0, 1 - math.floor(math.log10(width))))


def count(n: int, one: str, many: str = "") -> str:
    """``1 claim``, ``2,048 claims``."""
    return f"{n:,} {one if n == 1 else many or plural(one)}"


def plural(noun: str) -> str:
    """The plural of a noun, or of the first noun of ``cluster of files``."""
    head, of, rest = noun.partition(" of ")
    return f"{head}{'es' if head.endswith(('s', 'x', 'ch')) else 's'}{of}{rest}"


def level_four(verdict: Verdict) -> Outcome:
    """Level 4 as an outcome: earned, wholly below the floor, in between, or never measured."""
    if verdict.earned:
        return "supported"
    if not verdict.method:
        return "not tested"
    return "refuted" if any(_below(c.precision) for c in verdict.method) else "inconclusive"


def _below(precision: Measured) -> bool:
    from prosect.core.verdicts import LEVEL_FOUR_FLOOR

    return precision.high is not None and precision.high < LEVEL_FOUR_FLOOR


def levels(verdict: Verdict) -> dict[int, Outcome]:
    """The outcome at each of the five levels; ``not tested`` where the claim has no test."""
    out: dict[int, Outcome] = {n: verdict.levels.get(n, "not tested") for n in LEVELS}
    out[4] = level_four(verdict)
    return out
