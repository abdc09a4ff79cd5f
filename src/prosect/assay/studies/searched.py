"""What searches for strings found, to be shown: pictures over tokens, figures over seeds, and what limits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prosect.core.exhibits import Figure, FigureTable
from prosect.core.pictures import TokenMap, TokenValues
from prosect.core.records import Measured

Entry = Mapping[str, Any]
"""One unit as the study keeps it: its strings by seed, its best explored example, random strings, and their figures."""


def found_table(entries: Sequence[Entry], site: str) -> FigureTable:
    """What seeds reached beside random strings, and how far they agree; means and intervals over seeds."""
    rows = []
    for e in entries:
        named = [("strings found", e["activation"]), ("random strings", e["control"])]
        rows += [
            Figure(name=f"unit {e['index']}: {what}", measured=Measured.model_validate(m), unit="activation")
            for what, m in named
        ]
        if e["agreement"] is not None:
            rows.append(
                Figure(
                    name=f"unit {e['index']}: agreement of seeds",
                    measured=Measured.model_validate(e["agreement"]),
                    unit="share",
                    about=f"of what a string needs, the share that others have in the same place; random tokens: "
                    f"{e['agreement control']:.2g}",
                )
            )
    return FigureTable(
        title=f"What the searches at {site} found",
        about="alone, with the model and no text; means and intervals over seeds; no estimate of anything on text",
        rows=tuple(rows),
    )


def string_map(entry: Entry, site: str, strings: Sequence[str]) -> TokenMap:
    """A unit's strings, its best explored example and random strings, with the unit at every token."""

    def text(part: Entry, source: str, note: str) -> TokenValues:
        tokens = tuple(strings[t] for t in part["tokens"])
        return TokenValues(tokens=tokens, values=tuple(part["values"]), source=source, note=note)

    texts = []
    for i, s in enumerate(entry["seeds"], 1):
        settled = "no better one within one swap" if s["settled"] else "not every swap was tried"
        texts.append(text(s, f"string {i}", f"activation {s['activation']:.4g}; {settled}"))
    best = entry["example"]
    texts.append(text(best, best["document"], f"best explored example, {best['activation']:.4g}"))
    for r in entry["random"]:
        texts.append(text(r, "random string", f"activation {r['values'][-1]:.4g}"))
    agreement = entry["agreement"]
    alike = (
        ""
        if agreement is None
        else f" the seeds share {agreement['estimate']:.0%} of what they need (random tokens: "
        f"{entry['agreement control']:.1%});"
    )
    return TokenMap(
        title=f"Strings for unit {entry['index']} of {site}",
        about=f"one string from each seed, the most activating first;{alike} beside them the best of "
        f"{entry['positions']:,} explored positions, and random strings, of which the luckiest of all reached "
        f"{entry['luckiest']:.4g}",
        texts=tuple(texts),
        unit="activation",
    )


def limits_of(entries: Sequence[Entry]) -> list[str]:
    """What could not be ruled out."""
    settled = [s["settled"] for e in entries for s in e["seeds"]]
    limits = [
        "what activates a unit most need not be what it meets on text",
        "how far a string exceeds the mean of what unseen rows reach says nothing of the largest of all text",
    ]
    if not all(settled):
        limits.append(
            f"in {settled.count(False)} of {len(settled)} searches not every swap of one token was tried: a "
            "better string may be one token away (synthesise.budget)"
        )
    if len(entries) < 2:
        limits.append("with one unit there are no strings of other units to compare with")
    still = [str(e["index"]) for e in entries if not e["spread"] > 0]
    if still:
        limits.append(f"no claim was made about units that never vary on explored text: {', '.join(still)}")
    stuck = [str(e["index"]) for e in entries if not e["seeds"][0]["activation"] > e["luckiest"]]
    if stuck:
        limits.append(
            f"no search did better than random strings for units {', '.join(stuck)}: a unit that is off has no "
            "gradient to follow, and what it reads before its activation function may have (synthesise.site)"
        )
    if any(e["hints"] == "none" for e in entries):
        limits.append("the model has no embeddings to follow a gradient to, so swaps were drawn at random")
    return limits
