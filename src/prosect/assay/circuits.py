"""Two circuits that everyone knows, looked for in any language model: induction, and indirect objects.

Heads are chosen on one draw of inputs; every figure is measured on another, beside controls, and beside networks of the
same shape with fresh weights. The folder holds ``circuit.json`` and ``circuit.html``; the same question again reads what
is there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosect.assay.induction import induction
from prosect.assay.names import names
from prosect.assay.opened import opened_model
from prosect.assay.presets import resolve
from prosect.assay.spec import Spec
from prosect.core.canonical import plain
from prosect.core.errors import BadInput, Conflict, Unsupported
from prosect.core.progress import say, step
from prosect.model import Model
from prosect.report.circuits import Account, page
from prosect.store.atomic import write_bytes
from prosect.store.lock import LOCK, locked

CIRCUITS = ("induction", "names")
FILE, PAGE = "circuit.json", "circuit.html"


@dataclass(frozen=True)
class Wanted:
    """What is asked.

    Attributes:
        circuit: ``induction`` or ``names``.
        target: what opens the model.
        rows: inputs that heads are chosen on, and as many that they are measured on.
        length: of a repeated block, tokens.
        changes: of the spec, such as ``device``.
    """

    circuit: str
    target: str
    rows: int = 64
    length: int = 16
    changes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Reproduced:
    """A finished reproduction: its folder, what was found, what its JSON holds, whether it was made just now."""

    folder: Path
    account: Account
    content: dict[str, Any]
    fresh: bool


def reproduced(wanted: Wanted, out: Path) -> Reproduced:
    """Open the model, measure the circuit, write the folder.

    Raises:
        Unsupported: no language model with attention weights that can be read; for names, no tokenizer or too few
            names in it.
        BadInput: a circuit of another name, fewer than eight rows, or blocks that the model is too short for.
        Conflict: the folder holds something else.
    """
    if wanted.circuit not in CIRCUITS:
        raise BadInput(f"the circuit {wanted.circuit}", " or ".join(CIRCUITS))
    if wanted.rows < 8:
        raise BadInput(f"{wanted.rows} rows", "8 or more, so that intervals mean something")
    spec = resolve(wanted.target, dict(wanted.changes))
    with locked(Path(out)):
        with step("opening"):
            model = opened_model(spec)
        if not model.n_layers or not model.vocab_size or "probs.0" not in model.sites:
            raise Unsupported(
                f"{wanted.target}, in which no attention can be read", "a language model with attention"
            )
        asked = plain({**asdict(wanted), "model": model.digest, "seed": spec.seed})
        there = _found(Path(out), asked)
        if there is not None:
            say(f"already done: {out}")
            return Reproduced(Path(out), Account.read(there), there, fresh=False)
        with step("measuring"):
            account = _measured(model, wanted, spec)
        content = {**account.content(), "asked": asked}
        text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
        write_bytes(Path(out) / FILE, text.encode() + b"\n")
        write_bytes(Path(out) / PAGE, page(account).encode("utf-8", "replace"))
        return Reproduced(Path(out), account, content, fresh=True)


def _measured(model: Model, wanted: Wanted, spec: Spec) -> Account:
    if wanted.circuit == "names":
        return names(model, wanted.rows, spec)
    return induction(model, wanted.rows, wanted.length, spec)


def _found(out: Path, asked: Any) -> dict[str, Any] | None:
    """What the same question wrote before; None where there is nothing."""
    others = sorted(p.name for p in out.iterdir() if p.name not in (FILE, PAGE, LOCK))
    if others:
        raise Conflict(
            f"{out}, which holds {', '.join(others[:4])}",
            "an empty folder or the same question",
            "another --out",
        )
    if not (out / FILE).exists():
        return None
    try:
        content: dict[str, Any] = json.loads((out / FILE).read_bytes())
        before = content["asked"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{out / FILE}, which is unreadable", "what prosect wrote", "another --out") from error
    if before != json.loads(json.dumps(asked)):
        raise Conflict(f"{out}, which holds another question", "the same one", "another --out")
    return content if (out / PAGE).exists() else None
