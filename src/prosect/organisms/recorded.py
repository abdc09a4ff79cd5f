"""The cards that ship: what every organism was when it was recorded, on each platform where that was done.

`scripts/record_cards.py` makes them. They are read without torch and without building anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from prosect.core.errors import BadInput, NewerSchema
from prosect.organisms.card import Build, Card
from prosect.store.atomic import write_json

SCHEMA = 1
FILE = Path(__file__).parent / "cards.json"


def cards(path: Path = FILE) -> dict[str, Card]:
    """Organism → its card; empty where none were recorded.

    Raises:
        NewerSchema: recorded by a newer prosect.
        BadInput: no record of cards.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if int(content["schema"]) > SCHEMA:
            raise NewerSchema(
                f"{path.name} of schema {content['schema']}", f"at most {SCHEMA}", "a newer prosect"
            )
        out = {}
        for name, said in content["cards"].items():
            builds = {where: Build(**made) for where, made in said.pop("builds").items()}
            out[name] = Card(organism=name, **said, builds=builds)
        return out
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"{path.name}, which cannot be read ({error})", "cards made by scripts/record_cards.py"
        ) from error


def record(made: Iterable[Card], path: Path = FILE) -> None:
    """Add cards to those recorded: words and truth are replaced, builds on other platforms stay.

    What another platform had built of another seed is left out.
    """
    found = cards(path)
    for one in made:
        before = found.get(one.organism)
        kept: Mapping[str, Build] = before.builds if before is not None and before.seed == one.seed else {}
        found[one.organism] = replace(one, builds={**kept, **one.builds})
    _write(found, path)


def forget(names: Iterable[str], path: Path = FILE) -> None:
    """Drop the cards of organisms that are no more."""
    gone = set(names)
    _write({name: one for name, one in cards(path).items() if name not in gone}, path)


def _write(found: Mapping[str, Card], path: Path) -> None:
    content = {}
    for name in sorted(found):
        said = asdict(found[name])
        said.pop("organism")
        content[name] = said
    write_json(path, {"schema": SCHEMA, "cards": content})
