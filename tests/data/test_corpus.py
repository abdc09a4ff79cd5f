"""Texts and how they are cut: near-duplicates stay together, training text never reaches validate or sealed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.core.errors import BadInput, TooLittleData
from prosect.data.corpus import Corpus, Document, select, standard_library, text_files
from prosect.data.duplicates import clusters, shingles
from prosect.data.splits import cut, disjoint
from texts import corpus, prose


def clustered(texts):
    return clusters([shingles(t) for t in texts])


@pytest.fixture(scope="module")
def library():
    return standard_library()


def test_the_standard_library_is_read_without_tests_or_undecodable_files(library):
    names = [d.name for d in library.documents]
    assert "json/decoder.py" in names
    assert len(names) > 400
    assert not any("/test" in f"/{n}" or "site-packages" in n or "_sysconfigdata" in n for n in names)
    assert names == sorted(names)


def test_code_pages_are_one_cluster(library):
    labels = clustered(d.text for d in library.documents)
    pages = {int(labels[i]) for i, d in enumerate(library.documents) if d.name.startswith("encodings/cp125")}
    assert len(pages) == 1
    assert labels.max() + 1 > 0.6 * len(library)  # and not everything is
    one = {d.name: int(labels[i]) for i, d in enumerate(library.documents)}
    assert one["json/decoder.py"] != one["asyncio/events.py"]


def test_copies_cluster_with_their_originals_and_strangers_do_not():
    labels = clustered(d.text for d in corpus(30, copies=5).documents)
    assert labels[:30].tolist() == list(range(30))
    assert labels[30:].tolist() == [0, 1, 2, 3, 4]


def test_a_shared_licence_does_not_make_two_documents_one():
    licence = prose("licence", 60)
    assert len(set(clustered(f"{licence} {prose(i, 400)}" for i in range(4)).tolist())) == 4


def test_tiny_documents_are_not_chained_together():
    tiny = ["from x import y", "import sys", "from x import z", "import sys"]
    labels = clustered(tiny)
    assert labels[1] == labels[3]
    assert len(set(labels.tolist())) == 3


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_clusters_do_not_depend_on_the_order_of_documents(seed):
    texts = [d.text for d in corpus(12, copies=4).documents]
    order = np.random.default_rng(seed).permutation(len(texts))
    one, two = clustered(texts), clustered(texts[i] for i in order)
    same_one = one[order][:, None] == one[order][None]
    assert np.array_equal(same_one, two[:, None] == two[None])


def test_shingles_of_the_same_text_are_the_same_whatever_the_white_space():
    assert np.array_equal(shingles("a b c d e f g"), shingles("a  b\nc d e\tf g"))
    assert len(shingles("")) == 1


def test_splits_are_disjoint_and_keep_duplicates_together():
    made = corpus(200, copies=40)
    splits = cut(made, folds=2)
    assert disjoint(splits)
    for part in ("validate.0", "validate.1"):
        assert splits.units(part) >= 40
    members = [i for p, m in splits.parts.items() if not p.startswith("explore.") for i in m]
    assert sorted(members) == list(range(240))
    halves = splits.parts["explore.first"] + splits.parts["explore.second"]
    assert sorted(halves) == sorted(splits.parts["explore"])
    for i in range(40):
        assert splits.unit[i] == splits.unit[200 + i]


def test_where_a_document_goes_depends_on_its_content_alone():
    made = corpus(220)
    renamed = Corpus(
        "other", tuple(Document(f"x{i}", d.text) for i, d in enumerate(reversed(made.documents)))
    )

    def place(c):
        splits = cut(c)
        return {c.documents[i].digest: p for p, m in splits.parts.items() for i in m}

    assert place(made) == place(renamed)


@pytest.mark.parametrize("by", ["name", "digest", "near-copy"])
def test_text_the_model_was_trained_on_is_only_ever_explored(by):
    made = corpus(300, copies=60)
    trained = [getattr(made.documents[i], "digest" if by == "digest" else "name") for i in range(60)]
    splits = cut(made, trained=trained)
    for part in ("validate.0", "validate.1", "sealed"):
        assert not set(splits.parts[part]) & (set(range(60)) | set(range(300, 360)))
    assert splits.trained == set(range(60)) | set(range(300, 360))


def test_training_text_under_another_name_is_found_by_its_sketch():
    made = corpus(200, words=2000)
    sketch = np.unique(np.concatenate([shingles(made.documents[i].text) for i in range(50)]))
    splits = cut(made, sketch=sketch[sketch % np.uint64(64) == 0], folds=1)
    assert splits.trained == set(range(50))


def test_too_few_documents_is_said():
    with pytest.raises(TooLittleData, match="at least 40"):
        cut(corpus(60))
    with pytest.raises(BadInput, match="leave something to validate"):
        cut(corpus(200), explore=0.7, sealed=0.3)
    with pytest.raises(BadInput, match="at least one fold"):
        cut(corpus(200), folds=0)


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("second\r\nline")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / ".hidden").write_text("no")
    (tmp_path / "empty.txt").write_text("  ")
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe\x00\x01")
    found = text_files(tmp_path)
    assert [(d.name, d.text) for d in found.documents] == [("a.md", "first"), ("sub/b.txt", "second\nline")]
    assert dict(found.skipped) == {"not UTF-8": 1, "empty": 1}


def test_json_lines(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"t{i}", "name": f"n{i}"}) for i in range(3)))
    assert [d.name for d in text_files(path).documents] == ["n0", "n1", "n2"]
    path.write_text('{"text": "x"}\n{"body": 1}')
    with pytest.raises(BadInput, match="line 2"):
        text_files(path)


def test_what_cannot_be_a_corpus_is_said(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        text_files(tmp_path / "nowhere")
    (tmp_path / "one.txt").write_text("all of it")
    with pytest.raises(TooLittleData, match="many documents"):
        text_files(tmp_path / "one.txt")
    (tmp_path / "dir").mkdir()
    with pytest.raises(TooLittleData, match="no readable text"):
        text_files(tmp_path / "dir")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(TooLittleData, match="empty"):
        text_files(tmp_path / "none.jsonl")
    with pytest.raises(TooLittleData, match="standard library"):
        standard_library(tmp_path)


def test_selection_keeps_what_it_is_told_and_does_not_depend_on_order():
    made = corpus(50)
    few = select(made, 10, keep=["0007.txt"])
    assert len(few) == 10
    assert "0007.txt" in [d.name for d in few.documents]
    assert select(made, 60) is made
