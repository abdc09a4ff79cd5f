"""Record the card of every organism on this platform: what it is, its hash, its metrics, and how long it takes to build.

    python scripts/record_cards.py            # every organism that is registered
    python scripts/record_cards.py NAME...    # these; the others' cards stay as they are

Cards of organisms that are no longer registered are dropped. A few minutes on one core.
"""

from __future__ import annotations

import sys

from prosect.core.progress import say, shown
from prosect.core.registries import ORGANISMS
from prosect.organisms.card import card
from prosect.organisms.recorded import FILE, cards, forget, record


def main() -> None:
    names = sys.argv[1:] or list(ORGANISMS)
    with shown():
        for name in names:
            made = card(name)
            record([made])
            (build,) = made.builds.values()
            say(f"{name}: {build.digest[:16]} in {build.seconds:.1f} s")
        forget(set(cards()) - set(ORGANISMS))
        say(f"written to {FILE}")


if __name__ == "__main__":
    main()
