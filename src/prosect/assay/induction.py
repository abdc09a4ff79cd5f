"""The induction circuit in any language model: its heads, their scores, and what goes without them, beside controls."""

from __future__ import annotations

import torch

from prosect.assay.opened import facts
from prosect.assay.spec import Spec
from prosect.assay.untrained import fresh
from prosect.core.errors import BadInput
from prosect.core.exhibits import Figure, FigureTable
from prosect.core.provenance import environment
from prosect.core.seeds import Seed
from prosect.data.behaviours import Behaviour, repeated_block
from prosect.describe.induction_heads import InductionHeads, induction_heads
from prosect.model import Model
from prosect.report.circuits import CONTROL, LISTED, Account, few, percent
from prosect.report.words import count

FRESH = 2
"""Networks with fresh weights that are asked the same."""


def repeated(model: Model, length: int, seed: int) -> Behaviour:
    """Random blocks that come twice, of tokens that are not special; what starts a text stands before them.

    Raises:
        BadInput: two blocks are longer than the model reads.
    """
    tokenizer, vocabulary = model.tokenizer, model.vocab_size or 0
    special = [] if tokenizer is None else list(tokenizer.all_special_ids)
    bos = 0 if tokenizer is None else tokenizer.bos_token_id
    most = model.max_positions
    if most is not None and 2 * length + (bos is not None) > most:
        raise BadInput(
            f"two blocks of {length} tokens", f"at most {most} positions, which is what the model reads"
        )
    free = [i for i in range(vocabulary) if i not in {*special, bos}]
    return repeated_block(torch.tensor(free), length=length, shifted=length, bos=bos, seed=seed)


def induction(model: Model, rows: int, length: int, spec: Spec) -> Account:
    """What was found of induction in a model."""
    behaviour = repeated(model, length, spec.seed)
    found = induction_heads(model, behaviour, rows=rows, seed=spec.seed)
    others = [
        induction_heads(twin, behaviour, rows=rows, seed=spec.seed)
        for twin in fresh(model, Seed(spec.seed), FRESH)
    ]
    mine, before = found.of("induction"), found.of("previous")
    rest = [h for h in found.heads if h.kind == "other"]
    kept = [h for k in ("induction", "previous") for h in found.heads if h.kind == k]
    top = sorted(rest, key=lambda h: -(h.prefix.estimate or 0.0))
    listed = [*kept, *top][:LISTED]
    loss = [
        Figure(
            name="gain of a repeated token",
            measured=found.gain,
            unit="nats",
            about="log-probability that repetition adds",
        ),
        *(
            Figure(name=f"{CONTROL}the same in fresh weights {i}", measured=o.gain, unit="nats")
            for i, o in enumerate(others)
        ),
    ]
    lost = [
        Figure(
            name=f"without {count(len(mine), 'induction head')}",
            measured=found.lost,
            unit="share of the gain lost",
        )
    ]
    lost += [
        Figure(
            name=f"{CONTROL}without {len(heads)} at random, set {i}",
            measured=m,
            unit="share of the gain lost",
            about=few(heads),
        )
        for i, (heads, m) in enumerate(found.random)
    ]
    scores = [
        FigureTable(
            title=title,
            about=f"{about}; chosen on explore, measured on inputs drawn anew",
            rows=tuple(
                Figure(
                    name=h.head if h.kind != "other" else f"{CONTROL}{h.head}",
                    measured=getattr(h, field),
                    unit=unit,
                    about=h.kind,
                )
                for h in listed
            ),
        )
        for title, field, unit, about in (
            (
                "Prefix matching",
                "prefix",
                "attention",
                "attention to what followed this token the last time, beyond that where nothing repeats",
            ),
            (
                "Copying",
                "copying",
                "logits",
                "what a head adds directly to the token that comes, beyond a random token",
            ),
            (
                "Looking back",
                "previous",
                "attention",
                "attention to the place before, beyond uniform attention",
            ),
        )
    ]
    notes = [
        "a head is an induction head if on explore its prefix matching is clearly above .1 and it copies",
        "heads are ablated at all positions by what they have where nothing repeats",
        *_missing(found, len(rest)),
        *(f"fresh weights {i}: {len(o.of('induction'))} induction heads" for i, o in enumerate(others)),
        *(
            [f"{len(found.heads) - len(listed)} heads with less prefix matching are not listed"]
            if len(found.heads) > len(listed)
            else []
        ),
    ]
    return Account(
        f"Induction heads of {model.name}",
        _induction_said(found, len(before)),
        {
            **facts(model),
            "inputs": f"{rows} blocks of {length} random tokens, each twice, and as many to choose on",
        },
        (
            FigureTable(
                title="What repetition adds",
                about="where the second copy of a block is predicted from the first",
                rows=tuple(loss),
            ),
            FigureTable(
                title="What goes without them",
                about="the share of that gain that goes when heads are ablated together",
                rows=tuple(lost),
            ),
            *scores,
        ),
        tuple(notes),
        environment(spec.device),
    )


def _induction_said(found: InductionHeads, before: int) -> tuple[str, ...]:
    mine = found.of("induction")
    if not mine:
        return (f"No induction head was found; {before} heads look back one place.",)
    gone = f"{count(len(mine), 'induction head')} ({few(mine)}) and {before} that look back one place; without the former {percent(found.lost)} of the gain from repetition is gone"
    if not found.random:
        return (f"{gone}. There are no other heads to ablate beside them.",)
    most = max((m for _, m in found.random), key=lambda m: m.estimate or 0.0)
    return (f"{gone}, and at most {percent(most)} without as many random others.",)


def _missing(found: InductionHeads, others: int) -> list[str]:
    """What random sets there could not be."""
    mine = len(found.of("induction"))
    if mine and not others:
        return [
            "every other head looks back one place, and is part of the circuit: there is no head left to ablate at random, so "
            "that control is missing; fresh weights are the one there is"
        ]
    if mine > others:
        return [
            f"there are {others} other heads and {mine} induction heads: random sets are smaller, which favours them"
        ]
    return []
