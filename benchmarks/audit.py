"""Can an audit tell? Dictionaries with one fault each: the line it belongs to must move out, and what else moves is shown.

A network of which everything is known (tests/faults.py), a dictionary without a fault, and one fault for each limitation.
For every fault and line: where the number lies between its controls, 0 where the limitation is absent and 1 where it is
there, and the word. A fault's own line must leave its control interval; without faults every line must stay inside. What
other lines do under a fault is printed and has no bar: some faults are more than one thing, and a line that moved with
everything would be of no use.

    python benchmarks/audit.py [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faults import FAULTS, TRANSCODING, Setting, case_of
from figures import Figure, report
from prosect.core.progress import shown
from prosect.decompose.audit.audit import audit
from prosect.decompose.audit.lines import Line

SHORT = {"inside": "in", "outside": "OUT", "undecided": "?", "cannot tell": "blind", "not run": "-"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with shown(quiet=True):
        sound = {True: lines(TRANSCODING), False: lines(Setting())}
        found = [(fault, lines(fault.faulty)) for fault in FAULTS]
    ids = list(sound[False])
    rows = [("without a fault", sound[False]), ("without a fault, transcoder", sound[True])]
    rows += [(f"{fault.line}: {fault.name}", there) for fault, there in found]
    print("position between the controls, and the word; the line that should move is marked\n")
    print(f"{'':42}" + "".join(f"{id:>12}" for id in ids))
    for name, there in rows:
        cells = [f"{'>' if name.startswith(f'{id}:') else ''}{cell(there[id])}" for id in ids]
        print(f"{name[:41]:42}" + "".join(f"{c:>12}" for c in cells))
    print()

    figures = []
    for name, there in rows[:2]:
        run = [line for line in there.values() if line.word not in ("not run", "cannot tell")]
        inside = sum(line.word == "inside" for line in run)
        figures.append(Figure(f"lines inside, {name}, of {len(run)}", inside, "lines", f">= {len(run)}"))
    for fault, there in found:
        before = sound[fault.sound is TRANSCODING]
        figures.append(
            Figure(
                f"{fault.line} outside: {fault.name}", float(there[fault.line].word == "outside"), "", ">= 1"
            )
        )
        figures.append(
            Figure(
                f"{fault.line} moved by", moved(before[fault.line], there[fault.line]), "of the way", ">= 0.2"
            )
        )
        others = [moved(before[id], there[id]) for id in ids if id != fault.line]
        most = max((x for x in others if x == x), default=0.0)
        figures.append(Figure(f"{fault.line} fault, the most that another line moved", most, "of the way"))
    return 0 if report(figures, asked.json) else 1


def lines(setting: Setting) -> dict[str, Line]:
    return {line.id: line for line in audit(case_of(setting))}


def cell(line: Line) -> str:
    return SHORT[line.word] if line.position is None else f"{line.position:.2f} {SHORT[line.word]}"


def moved(before: Line, after: Line) -> float:
    """How far a line moved between its controls; NaN where it was not run on both sides."""
    if before.position is None or after.position is None:
        return float("nan")
    return after.position - before.position


if __name__ == "__main__":
    sys.exit(main())
