"""What every kind of description promises: it runs from its record alone, and refuses what it cannot read."""

import hashlib
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from describe.texts import contexts, documents, flat, names
from prosect.core.errors import BadInput, NewerSchema
from prosect.core.records import Executable
from prosect.core.registries import DESCRIPTIONS
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.additive import AdditiveTable
from prosect.describe.attribution.agreement import MapAgreement
from prosect.describe.effects import OutputSets
from prosect.describe.explainer import RuleExplainer
from prosect.describe.flow.agreement import FlowAgreement
from prosect.describe.head_outputs import HeadOutput
from prosect.describe.inputs import InputRule
from prosect.describe.lens.nearness import LensNearness
from prosect.describe.lens.tuned import Translator
from prosect.describe.patched import PatchEffect
from prosect.describe.polynomial import Polynomial
from prosect.describe.probes.concepts import Concept
from prosect.describe.probes.linear import LinearProbe
from prosect.describe.probes.reading import ConceptReading
from prosect.describe.roles import HeadRole, OffsetTable
from prosect.describe.steered import SteerEffect
from prosect.describe.surrogate import surrogates
from prosect.describe.synthesis.strings import RandomString, StringActivation
from prosect.describe.tables import FrequencyTable, PositionTable, TokenTable
from prosect.describe.trigonometric import Trigonometric, TrigonometricOutput
from prosect.describe.vocabulary import Vocabulary
from prosect.organisms import induction
from prosect.store.shelf import Shelf

DOCS = documents(count=30)
CURRENT, PREVIOUS = flat(DOCS)

UNLISTED = {"head-output": HeadOutput, "polynomial": Polynomial}
"""Kinds that the registry may not list."""

MEASURED = """
def measured(made):
    from prosect.core.seeds import Seed
    from prosect.data.contrasts import ContrastSource, copied_blocks, cut
    from prosect.organisms import induction

    model = induction.build(0)[0]
    pairs = copied_blocks(range(1, model.vocab_size), Seed(0), count=8, length=4, lead=(0,))
    source = ContrastSource(pairs, cut(pairs, Seed(0), folds=1, explore=0.5, sealed=0.0), special=1)
    return type(made).measure([made], model, next(source.batches("explore")), source)
"""
"""What runs kinds that are measured on a model, here and in the other process."""

RUN = (
    MEASURED
    + """
import hashlib, json, sys
from pathlib import Path
import torch
from prosect.core.records import Executable
from prosect.core.registries import DESCRIPTIONS
from prosect.data.batch import Batch, Row
from prosect.describe.head_outputs import HeadOutput
from prosect.describe.polynomial import Polynomial
from prosect.store.shelf import Shelf
unlisted = {"head-output": HeadOutput, "polynomial": Polynomial}
shelf = Shelf(Path(sys.argv[1]))
text = torch.tensor([[1, 2, 1, 3, 2, 1, 7, 7, 2, 9]])
token = Batch({"input_ids": text}, torch.ones_like(text, dtype=torch.bool), (Row(0),))
numeric = Batch({"s": torch.arange(12.0).reshape(2, 6) / 7}, None, (Row(0), Row(1)))
pairs = Batch({"pairs": torch.tensor([[0, 1], [4, 6], [3, 3]])}, None, (Row(0), Row(1), Row(2)))
inputs = {"token": token, "numeric": numeric, "pairs": pairs}
for line in sys.stdin:
    stored, batch, run = json.loads(line)
    cls = unlisted.get(stored["kind"]) or DESCRIPTIONS.get(stored["kind"])
    made = cls.of(Executable.model_validate(stored), shelf)
    got = (
        made.outputs() if run == "outputs"
        else measured(made) if run == "measure"
        else getattr(made, run)(inputs[batch])
    )
    raw = json.dumps(got).encode() if run == "outputs" else got.tobytes()
    print(stored["kind"], hashlib.sha256(raw).hexdigest())
"""
)


def every_kind(shelf):
    """One executable of each kind, with the input that it runs on and what it is asked for."""
    found = contexts(DOCS, names(50))
    activation = np.isin(CURRENT, (1, 7)) * 1.0 + 0.7 * (PREVIOUS == 2) + 0.01 * (CURRENT % 5)
    rule = RuleExplainer(found, shelf).explain(activation)
    classed = {
        "if": {"what": "class", "back": 0, "name": "word"},
        "then": {"value": 0.1},
        "else": {"value": 2},
    }
    text = Executable(
        kind="token-rule", parameters={"tree": classed}, tensors={"vocabulary": found.vocabulary.store(shelf)}
    )
    wave = Trigonometric(7, 2, 0.3, 1.7, 1.1, 0.4)
    yield rule.executable, "token", "activation"
    yield text, "token", "activation"
    for cls in (TokenTable, PositionTable, FrequencyTable, AdditiveTable):
        yield cls.fit(found, activation).executable(shelf), "token", "activation"
    yield HeadRole("induction").executable(), "token", "attention"
    yield OffsetTable(np.array([0.3, 0.9, 0.1])).executable(shelf), "token", "attention"
    yield HeadOutput(HeadRole("previous"), 0.7, 12).executable(), "token", "change"
    yield OutputSets((3, 1), (2,)).executable(), "token", "outputs"
    yield InputRule("s", (4, 1), (1.3, -0.2), -0.1).executable(), "numeric", "activation"
    x = np.random.default_rng(0).normal(size=(40, 6))
    for made in surrogates(x, x[:, 4] - x[:, 1] ** 2, "s", Seed(0)).values():
        yield made.executable(shelf), "numeric", "activation"
    yield wave.executable(), "pairs", "activation"
    yield Polynomial((0.5, -1.0, 2.0, 0.25)).executable(), "pairs", "activation"
    yield TrigonometricOutput(7, 3, 0.2, 1.4, wave).executable(), "pairs", "change"
    width = induction.build(0)[0].d_model
    draw = torch.Generator().manual_seed(0)
    pair = Translator(0.01 * torch.randn(width, width, generator=draw), torch.randn(width, generator=draw))
    yield PatchEffect("z.1.h2", 8, "noising", 1.5).executable(), "model", "measure"
    yield LensNearness("resid_post.0", "tuned", pair).executable(shelf), "model", "measure"
    yield FlowAgreement("z.0.h1", "pattern").executable(), "model", "measure"
    donors = torch.arange(1, 13).reshape(2, 6)
    yield MapAgreement("saliency", donors).executable(shelf), "model", "measure"
    steered = SteerEffect("resid_post.0", torch.randn(width, generator=draw), 0.5, 3)
    yield steered.executable(shelf), "model", "measure"
    words = Vocabulary.of([str(i) for i in range(induction.build(0)[0].vocab_size)])
    probe = LinearProbe(("resid_post.0",), torch.randn(width, generator=draw).double(), 0.1)
    yield ConceptReading(Concept("repeated", words), "probe", probe).executable(shelf), "model", "measure"
    string = StringActivation("z.1.h2", 0, "inserted", 0.5, random=RandomString(3, 8, (0,)))
    yield string.executable(), "model", "measure"


def test_every_kind_runs_from_its_record_alone_in_another_process(tmp_path):
    shelf = Shelf(tmp_path)
    made = list(every_kind(shelf))
    assert {e.kind for e, _, _ in made} == {*DESCRIPTIONS, *UNLISTED}
    namespace: dict[str, Any] = {}
    exec(MEASURED, namespace)
    lines = "\n".join(json.dumps([e.model_dump(mode="json"), batch, run]) for e, batch, run in made)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], input=lines, capture_output=True, text=True, check=True
    )
    text = torch.tensor([[1, 2, 1, 3, 2, 1, 7, 7, 2, 9]])
    inputs = {
        "token": Batch({"input_ids": text}, torch.ones_like(text, dtype=torch.bool), (Row(0),)),
        "numeric": Batch({"s": torch.arange(12.0).reshape(2, 6) / 7}, None, (Row(0), Row(1))),
        "pairs": Batch({"pairs": torch.tensor([[0, 1], [4, 6], [3, 3]])}, None, (Row(0), Row(1), Row(2))),
    }
    for (executable, batch, run), line in zip(made, done.stdout.split("\n"), strict=False):
        cls = UNLISTED.get(executable.kind) or DESCRIPTIONS.get(executable.kind)
        here = cls.of(executable, shelf)
        if run == "measure":
            got = namespace["measured"](here)
        else:
            got = here.outputs() if run == "outputs" else getattr(here, run)(inputs[batch])
        raw = json.dumps(got).encode() if run == "outputs" else got.tobytes()
        assert line == f"{executable.kind} {hashlib.sha256(raw).hexdigest()}"
        if run != "outputs":
            assert got.dtype == np.float64


def test_what_cannot_be_read_is_refused():
    shelf = Shelf()
    for executable, _, _ in every_kind(shelf):
        cls = UNLISTED.get(executable.kind) or DESCRIPTIONS.get(executable.kind)
        with pytest.raises(NewerSchema, match="version 2"):
            cls.of(executable.model_copy(update={"version": 2}), shelf)
        with pytest.raises(BadInput, match="kind"):
            cls.of(executable.model_copy(update={"kind": "other"}), shelf)
        with pytest.raises(BadInput):
            cls.of(executable.model_copy(update={"parameters": None}), shelf)
        if executable.kind not in ("token-table", "position-table", "frequency-table", "offset-table"):
            with pytest.raises(BadInput):
                cls.of(executable.model_copy(update={"parameters": {"nonsense": 1}}), shelf)
        if executable.tensors:
            with pytest.raises(BadInput):
                cls.of(executable, Shelf())


def test_an_explained_component_has_a_card_that_says_it_is_untested():
    found = contexts(DOCS, names(50))
    explained = RuleExplainer(found, Shelf()).explain(np.isin(CURRENT, (1, 7)) * 1.0)
    shown = str(explained._repr_html_())
    assert "nothing has been tested" in shown and "<script" not in shown
