"""`audited`: from the names of dictionaries to a scorecard in a folder.

The folder holds ``audit.json`` and ``audit.html``. The same question again reads what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from prosect.assay.dictionaries import Named, Sorted, named, on, sort
from prosect.assay.explored import vocabulary
from prosect.assay.labels import labelled
from prosect.assay.openings.unstudied import Unstudied, unstudied
from prosect.assay.presets import resolve
from prosect.core.canonical import Json, digest, plain
from prosect.core.errors import BadInput, Conflict, ProsectError
from prosect.core.progress import say, step
from prosect.core.provenance import environment
from prosect.core.seeds import Seed
from prosect.decompose.audit.audit import audit
from prosect.decompose.audit.case import Case, Effort
from prosect.decompose.audit.lines import Scorecard, as_json, read
from prosect.decompose.audit.sample import encoded, sampled, see
from prosect.decompose.audit.wanted import Wanted, token_classes, wanted
from prosect.decompose.quality import measure
from prosect.report.scorecard import page
from prosect.store.atomic import write_bytes
from prosect.store.lock import LOCK, locked

FILE, PAGE = "audit.json", "audit.html"
PART, LEARN = "validate.0", "explore"


@dataclass(frozen=True)
class Question:
    """What is to be audited, and on what.

    Attributes:
        dictionaries: paths or hub ids; the first is audited, the others are compared with it.
        model: what opens the model; empty for what the files say.
        next: a dictionary of a later site.
        concepts: file of labelled texts.
        scaling: file of a scaling curve, JSON: a list of {"compute": ..., "loss": ...}.
        changes: of the spec, such as ``data.text``.
        positions: most positions of each part.
        only: ids of limitations.
        effort: how much is looked at.
        options: of `load_dictionary`.
        seed: of every draw of the audit; None for that of the spec.
    """

    dictionaries: tuple[str, ...]
    model: str = ""
    next: str = ""
    concepts: Path | None = None
    scaling: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    positions: int = 6000
    only: tuple[str, ...] = ()
    effort: Effort = field(default_factory=Effort)
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class Audited:
    """A finished audit.

    Attributes:
        folder: where it is.
        card: the scorecard.
        content: what ``audit.json`` holds.
        fresh: whether anything was measured; False where it was there already.
    """

    folder: Path
    card: Scorecard
    content: Json
    fresh: bool


def audited(question: Question, out: Path) -> Audited:
    """Open dictionaries, model and text; measure every line; write the folder.

    Raises:
        Conflict: the folder holds another audit, or other files.
        ProsectError: whatever opening refuses.
    """
    out = Path(out)
    if not question.dictionaries:
        raise BadInput("no dictionary", "at least one")
    with locked(out):
        _refuse_others(out)
        found = sort([d for where in question.dictionaries for d in named(where, question.options)])
        target = question.model or found.own.target
        if not target:
            raise BadInput(
                f"{found.own.name}, whose files do not name its model",
                "a model",
                "--model with a folder or a hub id",
            )
        changes = {**found.own.changes, **{k: v for k, v in question.changes.items() if v is not None}}
        spec = resolve(target, changes)
        following = named(question.next, question.options) if question.next else []
        if len(following) > 1:
            raise BadInput(f"{len(following)} dictionaries in {question.next}", "one", "naming its file")
        with step("opening"):
            opened = unstudied(spec)
        model = opened.model
        own, *rest = (on(model, d) for d in (found.own, *found.seeds, *found.compared, *following))
        root = spec.seed if question.seed is None else question.seed
        asked = _asked(question, [own, *rest], opened, root)
        there = _found(out, asked)
        if there is not None:
            say(f"already done: {out}")
            return Audited(out, read(there), there, fresh=False)
        case, notes = _case(question, own, rest, found, opened, Seed(root).child("audit"))
        card = Scorecard(
            own.dictionary.name,
            _facts(own, case, opened),
            audit(case, question.only),
            (*notes, *_held_out(own, opened)),
            environment(spec.device),
        )
        content = plain({**as_json(card), "asked": asked})
        html = page(read(content))
        write_bytes(
            out / FILE, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        )
        write_bytes(out / PAGE, html.encode("utf-8", "replace"))
        return Audited(out, read(content), content, fresh=True)


def scaling_curve(path: Path) -> tuple[tuple[float, float], ...]:
    """Compute and loss of models of one family.

    Raises:
        BadInput: the file is no list of {"compute": ..., "loss": ...}.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple((float(entry["compute"]), float(entry["loss"])) for entry in content)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path}, no scaling curve ({type(error).__name__}: {error})",
            'a JSON list such as [{"compute": 1e18, "loss": 3.1}, {"compute": 1e19, "loss": 2.8}]',
        ) from error


def _case(
    question: Question, own: Named, rest: Sequence[Named], found: Sorted, opened: Unstudied, seed: Seed
) -> tuple[Case, list[str]]:
    model, notes = opened.model, []
    others = tuple(d.dictionary for d in rest)
    n, m = len(found.seeds), len(found.compared)
    sample = sampled(
        opened.source, {PART: question.positions, LEARN: question.positions}, seed.child("sample")
    )
    tokens = any("input_ids" in b.tensors for b in sample.held[PART][:1])
    case = Case(
        model,
        own.dictionary,
        sample,
        seed,
        PART,
        LEARN,
        others=others[:n],
        compared=others[n : n + m],
        following=others[n + m] if len(others) > n + m else None,
        curve=() if question.scaling is None else scaling_curve(question.scaling),
        training=own.training,
        predicts=bool(tokens and model.vocab_size),
        effort=question.effort,
    )
    about, why = _concepts(question, case, opened)
    notes += [f"{own.name}: {said}" for said in own.folded]
    if question.changes.get("limit"):
        notes.append(f"partial: at most {question.changes['limit']} documents were read, as asked")
    return replace(case, wanted=about, unwanted=why), notes


def _concepts(question: Question, case: Case, opened: Unstudied) -> tuple[Wanted | None, str]:
    """Labelled concepts where there are some, classes of tokens else; or why there are none."""
    seed = case.seed.child("concepts")
    try:
        if question.concepts is not None:
            given = labelled(question.concepts, opened.model)
            seen = see(case.runs, given, "labelled", case.sites, case.effort.rows)
            return wanted(
                seen, encoded(case.dictionary, seen), given.labels, seed, most=len(given.labels)
            ), ""
        if case.seen.tokens is None:
            return None, "inputs are no tokens, and no labels were given"
        labels = token_classes(case.seen, vocabulary(opened.source).strings)
        return wanted(case.seen, case.codes, labels, seed), ""
    except ProsectError as error:
        if question.concepts is not None:
            raise
        return None, str(error)


def _facts(own: Named, case: Case, opened: Unstudied) -> dict[str, Json]:
    dictionary, model, seen = own.dictionary, opened.model, case.seen
    quality = measure(dictionary, seen.stream)
    return {
        "file": own.name,
        "latents": dictionary.latents,
        "reads": ", ".join(dictionary.reads),
        "writes": ", ".join(dictionary.writes),
        "latents at a position (L0)": round(quality.l0, 3),
        "variance unexplained": {s: v if v is None else round(v, 5) for s, v in quality.fvu.items()},
        "latents that never fire here": round(quality.dead, 4),
        "model": model.name,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "weights digest": model.digest[:16],
        "text": f"{PART}: {len(seen):,} positions in {seen.units:,} independent units (unit: {opened.source.unit})",
    }


def _held_out(own: Named, opened: Unstudied) -> list[str]:
    """Whether the text was held out from the dictionary's training, as far as anyone knows."""
    first = f"every number is from {PART}; means and random directions are from {LEARN}"
    if own.data is None:
        return [
            first,
            "what text this dictionary was trained on is not known here, so it may have seen the text of this audit",
        ]
    if own.data == opened.source.digest and own.part.split(".")[0] == LEARN:
        return [
            first,
            f"the record of its training says that it was fitted on {own.part} of the same cut: {PART} was held out",
        ]
    return [
        first,
        "its record names another text or another cut than the one read here, so what was held out is not known",
    ]


def _asked(question: Question, found: Sequence[Named], opened: Unstudied, seed: int) -> Json:
    files = {
        name: None if path is None else digest(Path(path).read_bytes())
        for name, path in (("concepts", question.concepts), ("scaling", question.scaling))
        if path is None or Path(path).is_file()
    }
    return plain(
        {
            "dictionaries": [d.digest for d in found],
            "next": bool(question.next),
            "model": opened.model.digest,
            "data": opened.source.digest,
            "positions": question.positions,
            "only": sorted(question.only),
            "effort": asdict(question.effort),
            "seed": seed,
            "files": files,
        }
    )


def _refuse_others(out: Path) -> None:
    others = [
        p.name for p in out.iterdir() if p.name not in (FILE, PAGE, LOCK) and not p.name.startswith(".audit.")
    ]
    if others:
        raise Conflict(
            f"{out}, which holds {', '.join(sorted(others)[:4])}",
            "an empty folder or an audit",
            "another --out",
        )


def _found(out: Path, asked: Json) -> Json | None:
    """What the same audit wrote before; None where there is nothing."""
    if not (out / FILE).exists():
        return None
    try:
        content = json.loads((out / FILE).read_bytes())
        before = content["asked"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{out / FILE}, which is unreadable", "what prosect audit wrote", "another --out"
        ) from error
    if before != asked:
        changed = sorted(k for k in asked if before.get(k) != asked[k])
        raise Conflict(
            f"{out}, which holds another audit ({', '.join(changed)} differ)", "the same one", "another --out"
        )
    return content if (out / PAGE).exists() else None
