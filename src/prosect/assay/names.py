"""The circuit for indirect objects in any language model: classes of heads, what they add, and what backs them up."""

from __future__ import annotations

import torch

from prosect.assay.opened import facts
from prosect.assay.spec import Spec
from prosect.assay.untrained import fresh
from prosect.core.exhibits import Figure, FigureTable
from prosect.core.provenance import environment
from prosect.core.seeds import Seed
from prosect.data.indirect_objects import IndirectObjects
from prosect.data.names import named_sentences
from prosect.describe.name_heads import ANSWERING, CLASSES, ROUTES, NameHead, NameHeads, name_heads
from prosect.model import Model
from prosect.model.patching import RowScores
from prosect.report.circuits import CONTROL, LISTED, Account, few, percent

TEMPLATE = "organism:template"
"""The organism with sentences of its own."""
FRESH = 2
"""Networks with fresh weights that are asked the same."""


def sentences(model: Model, part: str, rows: int, seed: int) -> IndirectObjects:
    """Indirect-object sentences that the model can read: the organism's own, or English ones in its tokens.

    Raises:
        Unsupported: no tokenizer, or too few names that are single tokens.
    """
    if model.name == TEMPLATE:
        from prosect.organisms.template_questions import indirect_objects

        return indirect_objects(part, rows, seed)
    return named_sentences(model.tokenizer, part, rows, seed)


def names(model: Model, rows: int, spec: Spec) -> Account:
    """What was found of the circuit for indirect objects in a model."""
    choose, measure = (sentences(model, part, rows, spec.seed) for part in ("explore", "validate.0"))
    found = name_heads(model, choose, measure, spec.seed)
    others = [name_heads(twin, choose, measure, spec.seed) for twin in fresh(model, Seed(spec.seed), FRESH)]
    with torch.no_grad():
        output = model.run(measure.counterfactual).output
    assert output is not None
    three = measure.metric(output.detach(), measure.counterfactual).cpu().double().numpy()
    units = measure.clean.units
    neutral = RowScores(three, units, Seed(spec.seed).child("three names")).measured()
    task = [
        Figure(name="indirect object over subject", measured=found.difference, unit="logits"),
        Figure(
            name=f"{CONTROL}three other names",
            measured=neutral,
            unit="logits",
            about="nothing says which name comes",
        ),
        *(
            Figure(name=f"{CONTROL}fresh weights {i}", measured=o.difference, unit="logits")
            for i, o in enumerate(others)
        ),
    ]
    right = [
        Figure(name="indirect object preferred", measured=found.correct, unit="share of sentences"),
        *(
            Figure(name=f"{CONTROL}fresh weights {i}", measured=o.correct, unit="share of sentences")
            for i, o in enumerate(others)
        ),
    ]
    classed = [h for h in found.heads if h.classes][:LISTED]
    unclassed = sorted(
        (h for h in found.heads if not h.classes), key=lambda h: -abs(h.direct.estimate or 0.0)
    )
    beside = unclassed[: max(1, min(4, LISTED - len(classed)))]
    tables = [
        FigureTable(
            title="The task", about="logit of the indirect object less that of the subject", rows=tuple(task)
        ),
        FigureTable(
            title="How often it is right",
            about="sentences in which the indirect object is preferred",
            rows=tuple(right),
        ),
        *_class_tables(classed, beside),
        *_backup_tables(found),
    ]
    counts = [len([h for h in o.heads if h.classes]) for o in others]
    notes = [
        "a head is classed on explore, and measured on other sentences; a head may be in several classes",
        "attention counts beyond uniform attention, and makes a class where it is clearly above .1",
        *(f"fresh weights {i}: {n} of {len(found.heads)} heads in a class" for i, n in enumerate(counts)),
        *(
            []
            if found.backup
            else [
                f"no head is a {' or a '.join(ANSWERING)}, so there is nothing to take away and nothing to back it up"
            ]
        ),
    ]
    return Account(
        f"Indirect objects in {model.name}",
        _names_said(found),
        {**facts(model), "inputs": f"{rows} sentences with two names, and as many to choose on"},
        tuple(t for t in tables if t.rows),
        tuple(notes),
        environment(spec.device),
    )


ROUTE_OF = {
    "name mover": "END to IO",
    "negative name mover": "END to IO",
    "name copier": "END to IO",
    "subject suppressor": "END to S2",
    "S-inhibition": "END to S2",
    "duplicate token": "S2 to S1",
    "induction": "S2 to S1+1",
    "previous token": "S1+1 to S1",
}
"""Class → where its heads look."""


def _class_tables(classed: list[NameHead], beside: list[NameHead]) -> list[FigureTable]:
    """Where the heads of each class look, and what they add; heads of no class beside."""
    assert set(ROUTE_OF) == set(CLASSES) and set(ROUTE_OF.values()) <= set(ROUTES)
    looks = [
        Figure(
            name=f"{h.head}, {ROUTE_OF[kind]}",
            measured=h.attention[ROUTE_OF[kind]],
            unit="attention",
            about=kind,
        )
        for kind in CLASSES
        for h in classed
        if kind in h.classes
    ]
    routes = list(dict.fromkeys(ROUTE_OF[k] for k in CLASSES if any(k in h.classes for h in classed)))
    looks += [
        Figure(name=f"{CONTROL}{h.head}, {route}", measured=h.attention[route], unit="attention")
        for route in routes
        for h in beside[:1]
    ]
    adds = [
        Figure(
            name=h.head if h.classes else f"{CONTROL}{h.head}",
            measured=h.direct,
            unit="logits",
            about=", ".join(h.classes) or "in no class",
        )
        for h in (*classed, *beside)
    ]
    through = [
        Figure(name=h.head, measured=h.through, unit="logits", about=", ".join(h.classes) or "in no class")
        for h in (*classed, *beside)
        if h.through is not None
    ]
    return [
        FigureTable(title="Where they look", about="attention beyond uniform", rows=tuple(looks)),
        FigureTable(
            title="What they add directly",
            about="to the difference of the two logits; of the heads in no class those that add most",
            rows=tuple(adds),
        ),
        FigureTable(
            title="What they change by way of queries",
            about="change of the difference when their part in the answering heads' queries is the counterfactual's",
            rows=tuple(through),
        ),
    ]


def _backup_tables(found: NameHeads) -> list[FigureTable]:
    backup = found.backup
    if backup is None:
        return []
    gone = f"without {few(backup.gone)}"
    whole = (
        Figure(name="what they added directly", measured=backup.direct, unit="logits", about=gone),
        Figure(name="what is lost without them", measured=backup.lost, unit="logits", about=gone),
        Figure(name="what others make good", measured=backup.compensated, unit="logits", about=gone),
    )
    order = sorted(backup.heads, key=lambda h: -(backup.heads[h].estimate or 0.0))
    each = [
        Figure(
            name=h if h in backup.found else f"{CONTROL}{h}",
            measured=backup.heads[h],
            unit="logits",
            about="takes over" if h in backup.found else "",
        )
        for h in order[:LISTED]
    ]
    return [
        FigureTable(title="Backup", about=f"the difference {gone}", rows=whole),
        FigureTable(
            title="What takes over",
            about="how much more the difference needs each head once those are gone",
            rows=tuple(each),
        ),
    ]


def _names_said(found: NameHeads) -> tuple[str, ...]:
    low = found.correct.low
    does = low is not None and low > 0.5
    first = f"The indirect object is preferred in {percent(found.correct)} of the sentences" + (
        "."
        if does
        else ", which is not clearly more than half: the model does not do this task, and classes say little."
    )
    kinds = [f"{k}: {few(found.of(k))}" for k in CLASSES if found.of(k)]
    out = [first, "; ".join(kinds) + "." if kinds else "No head is in any class."]
    if found.backup is not None:
        taken = found.backup.found
        out.append(
            f"Without the answering heads {len(taken)} others matter more: {few(taken)}."
            if taken
            else "Without the answering heads no other matters clearly more."
        )
    return tuple(out)
