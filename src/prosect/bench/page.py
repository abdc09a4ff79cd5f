"""The leaderboards as one HTML file with nothing to fetch: a table for each task, intervals drawn on one scale."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from prosect.bench.leaderboard import Board, Line, shown
from prosect.bench.plan import Plan
from prosect.bench.task import Metric
from prosect.core.markup import element
from prosect.report.axis import Axis, axis_for
from prosect.report.drawings import axis_row, whisker
from prosect.report.page import asset, policy
from prosect.report.text import prose

STYLE = (
    ".bench td.fig{min-width:15rem}.bench td,.bench th{white-space:nowrap;padding:.25rem .7rem .25rem 0;"
    "text-align:left;font-variant-numeric:tabular-nums}.bench tr.reference{color:var(--muted)}"
    ".bench .why{white-space:normal;min-width:11rem}"
)
SAYS = (
    "Scores are means over organisms of means over their seeds; bars are 95 % intervals over seeds, and say nothing "
    "about other organisms. The upright line is what random answers score on average, in closed form. A case that a "
    "method failed on counts as that floor. The best baseline is chosen by these same scores, which makes it a little "
    "harder to beat than it is; p is that of sign flips over seeds after Holm's correction."
)


def page(plan: Plan, found: Sequence[Board]) -> str:
    """The file."""
    style, script = asset("style.css") + STYLE, ""
    seeds = "sealed seeds" if plan.sealed else "public seeds"
    body = [
        element(
            "header",
            element("p", "prosect bench", class_="kicker"),
            element("h1", f"{plan.suite}, {seeds}"),
            element("p", SAYS),
            element("p", f"Hash of the sealed seed: {plan.sealed}") if plan.sealed else None,
            class_="top",
        ),
        *(_board(b) for b in found),
    ]
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", f"prosect bench: {plan.suite}"),
        element("style", Markup(style)),
    )
    whole = element("html", head, element("body", element("main", body)), lang="en")
    return Markup("<!doctype html>\n") + whole + "\n"


def _about(metric: Metric) -> str:
    """What a metric is, and what it means by a feature."""
    meant = f" (a feature is a {metric.feature})" if metric.feature else ""
    return f"{metric.name}: {metric.about}{meant}"


def _board(board: Board) -> Markup:
    first = board.metrics[0]
    ends = [x for line in board.lines for m in [line.scores[first.name]] for x in (m.estimate, m.low, m.high)]
    axis = axis_for([x for x in (*ends, board.floor) if x is not None])
    organisms = ", ".join(f"{name} ({n} seeds)" for name, n in board.organisms.items())
    heads = [
        "",
        first.name,
        "",
        *(m.name for m in board.metrics[1:]),
        "beats the best baseline by",
        "p",
        "cost",
    ]
    rows = [_row(board, line, axis) for line in board.lines]
    foot = element("tr", element("td"), element("td", axis_row(axis), class_="fig"))
    reasons = [(line.name, why) for line in board.lines for why in line.reasons]
    return element(
        "section",
        element("h2", board.task),
        element("p", f"On {organisms}. ", "; ".join(_about(m) for m in board.metrics), "."),
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", [element("th", h) for h in heads])),
                element("tbody", rows, foot),
                class_="plain bench",
            ),
            class_="scroll wide",
        ),
        element("ul", [element("li", f"{name} failed: {prose(why, 600)}") for name, why in reasons])
        if reasons
        else None,
        id=board.task,
    )


def _row(board: Board, line: Line, axis: Axis) -> Markup:
    first = line.scores[board.metrics[0].name]
    kind = "control" if line.kind == "reference" else "baseline" if line.kind == "baseline" else "own"
    said = [line.kind if line.kind != "method" else "", "overlaps random" if line.at_random else ""]
    cost = f"{line.passes:.0f} passes, {line.seconds:.1f} s" if line.kind != "reference" else ""
    failed = f", {line.failed} of {line.cases} failed" if line.failed else ""
    against = line.against
    cells: list[object] = [
        element("td", whisker(axis, first, shape=kind, line=board.floor), class_="fig"),
        element("td", shown(first)),
        *(element("td", shown(line.scores[m.name])) for m in board.metrics[1:]),
        element(
            "td", "" if against is None else f"{shown(against.difference, signed=True)} ({against.baseline})"
        ),
        element("td", "" if against is None else f"{against.adjusted:.3f}"),
        element("td", cost + failed, class_="why"),
    ]
    name = element(
        "th", prose(line.name, 60), " ", element("small", ", ".join(s for s in said if s)), scope="row"
    )
    return element("tr", name, cells, class_="reference" if line.kind == "reference" else None)
