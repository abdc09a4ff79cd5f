"""A causal language model on pairs of inputs: the user's, or random blocks that are copied."""

from __future__ import annotations

from pathlib import Path

from prosect.assay.opened import Opened, facts, input_facts, opened_model, subject_of
from prosect.assay.spec import Spec
from prosect.assay.studies.patching import Patching
from prosect.core.errors import BadInput, Unsupported
from prosect.core.seeds import Seed
from prosect.data.contrasts import ContrastSource, copied_blocks, cut, read_contrasts
from prosect.store.run import RunFolder


def contrasted(spec: Spec, run: RunFolder) -> Opened:
    """A causal language model on pairs of inputs: the user's, or copied random blocks.

    Raises:
        BadInput: a pair that does not fit; other studies beside the one of pairs.
        Unsupported: no causal language model.
    """
    if set(spec.studies) != {"patching"}:
        raise BadInput(f"studies {list(spec.studies)}", "patching alone: it has data of its own")
    model = opened_model(spec)
    if not model.n_layers or not model.vocab_size:
        raise Unsupported(f"{spec.target}, which is no causal language model", "a causal language model")
    tokenizer, decisions = model.tokenizer, []
    if spec.patch.pairs:
        if tokenizer is None:
            raise BadInput(
                f"{spec.target}, which has no tokenizer", "one, to read pairs with", "saving one beside it"
            )
        made = read_contrasts(Path(spec.patch.pairs), tokenizer)
        data = f"{len(made)} pairs of {Path(spec.patch.pairs).name}"
    else:
        special = [] if tokenizer is None else list(tokenizer.all_special_ids)
        first = None if tokenizer is None else tokenizer.bos_token_id
        lead = [first] if first is not None else [0] if tokenizer is None else []
        free = [i for i in range(model.vocab_size) if i not in {*special, *lead}]
        made = copied_blocks(free, Seed(spec.seed), lead=lead)
        data = f"{len(made)} random blocks, each repeated up to its last token, which is the answer"
        decisions.append("no pairs were named, so the behaviour examined is copying a random block")
    if spec.limit:
        made = made[: spec.limit]
        decisions.append(f"of the pairs the first {len(made)} were taken")
    folds = max(1, spec.validate_.rounds)
    parts = cut(made, Seed(spec.seed), folds=folds, explore=spec.data.explore, sealed=spec.data.sealed)
    source = ContrastSource(
        made, parts, tokenizer, special=1 if made[0].clean[:1] == made[-1].clean[:1] else 0
    )
    subject = subject_of(spec, run, model, source)
    return Opened(
        studies=[Patching(spec, run, subject)],
        model=f"{model.name}: {model.n_layers} layers, {model.d_model} wide, {model.n_heads} heads",
        data=data,
        model_facts=facts(model),
        splits=input_facts(source),
        decisions=decisions,
    )
