"""Labelled texts: tokens have a concept where they overlap a span, and what is no such file is refused by its line."""

import json

import pytest
import torch

from prosect.assay.labels import labelled
from prosect.core.errors import BadInput, TooLittleData
from prosect.model import load
from prosect.organisms import pylm


@pytest.fixture(scope="module")
def model():
    return load(pylm.FOLDER)


def written(tmp_path, *lines):
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_tokens_that_overlap_a_span_have_the_concept(model, tmp_path):
    first = "import os\nvalue = 3"
    path = written(
        tmp_path, {"text": first, "concepts": {"module": [[7, 9]]}}, "", {"text": "x = 1", "concepts": {}}
    )
    found = labelled(path, model)
    batch = next(found.batches("labelled"))
    ids = batch.flat(batch.tensors["input_ids"])
    assert len(found.labels["module"]) == len(ids) == batch.count
    said = [model.tokenizer.decode([i]) for i in ids[found.labels["module"]].tolist()]
    assert "os" in "".join(said) and len(said) <= 2
    assert not found.labels["module"][batch.flat_units == 1].any()  # a line that does not name it lacks it
    assert found.units == {"labelled": 2}
    assert batch.special is None or torch.equal(batch.special.any(dim=1), batch.special[:, 0])


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        {"text": "x"},
        {"text": "x", "concepts": {"a": [[0, 9]]}},
        {"text": "x", "concepts": {"a": [[1, 0]]}},
        {"text": 3, "concepts": {}},
        [],
    ],
)
def test_a_line_of_another_form_is_named(model, tmp_path, line):
    good = {"text": "x = 1", "concepts": {"a": [[0, 1]]}}
    with pytest.raises(BadInput, match="line 2"):
        labelled(written(tmp_path, good, line), model)


def test_files_without_texts_or_concepts_are_refused(model, tmp_path):
    with pytest.raises(TooLittleData):
        labelled(written(tmp_path, ""), model)
    with pytest.raises(TooLittleData):
        labelled(written(tmp_path, {"text": "x", "concepts": {}}), model)
    with pytest.raises(BadInput):
        labelled(tmp_path / "none.jsonl", model)
