"""Bad input, as the design lists it: what was got, what was expected, what to try, exit code 2, nothing half-written.

Tested elsewhere, each beside what refuses it:

- an unknown site, with near names: model/test_sitemap.py, model/test_edits.py
- a site that the architecture does not have: model/test_sitemap.py, model/test_check.py
- activations that are not finite, with site and batch: decompose/test_activations.py, model/test_run.py
- an empty part: decompose/test_activations.py, organisms/test_sources.py, data/test_corpus.py
- a dictionary made for another width: decompose/test_dictionary.py, contracts/; for another model:
  decompose/test_keep.py
- a pickle for safetensors: store/test_run.py; in a Hugging Face folder: model/test_load.py
- a model that needs remote code: model/test_load.py
- a spec with an unknown key: assay/test_spec.py
- an output folder with another spec or other files, a newer schema, paths outside the run: store/test_run.py,
  report/test_safety.py, cli/test_report.py
- a full disk while one file is written: store/test_run.py
- Ctrl-C: cli/test_run.py, store/test_run.py, decompose/test_activations.py
- a checkpoint of another dictionary, a fit resumed with another configuration, a full disk while harvesting or
  training, activations that no disk holds: decompose/test_together.py, decompose/test_fitting.py, cli/test_fit.py
- a claim outside its scope: validate/test_registration.py, validate/test_predict.py

Here they come through the command line, where a user meets them, with what was still missing.
"""

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from transformers import GPT2Config, GPT2LMHeadModel

from prosect.core.errors import BadInput, OutOfScope, ShapeMismatch, TooLittleData, UnsafeFile
from prosect.data.batch import Batch, Row
from prosect.data.behaviours import Pairs
from prosect.data.corpus import Corpus, Document
from prosect.data.splits import Splits, cut
from prosect.decompose.keep import load_decomposition, save_decomposition
from prosect.decompose.linear import Pca
from prosect.decompose.streams import ArrayStream
from prosect.organisms import induction
from prosect.store import atomic, index
from prosect.store import tensors as kept
from prosect.store.run import RunFolder
from prosect.store.verify import verify
from subjects import claim, constant_rule, head, subject_of
from tiny import LATENTS, call, files


def refused(capsys, *arguments, got, expected, hint=""):
    """Run a command that must be refused in words."""
    code, out, complaint = call(capsys, *arguments)
    assert (code, out) == (2, ""), complaint
    assert "Traceback" not in complaint
    complaint = complaint[complaint.index("prosect: got ") :]
    before, after = complaint.split("; expected ", 1)
    assert got in before, complaint
    assert expected in after, complaint
    assert hint in after.partition("; try ")[2], complaint
    return complaint


def says_what(error):
    """The three parts of a message raised in Python."""
    assert error.value.got and error.value.expected
    assert error.value.exit_code == 2
    return str(error.value)


def spec_file(folder, *changes):
    text = LATENTS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


@pytest.fixture
def folder(tmp_path):
    """A tiny language model as transformers saves it."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("old", "new", "got", "expected", "hint"),
    [
        ('"mlp_act.0"', '"mlp_atc.0"', "unknown site 'mlp_atc.0'", "mlp_act.0", ""),
        ('"mlp_act.0"', '"mlp_act.7"', "mlp_act.7", "layer", ""),
        ('"neurons"', '"neuron"', "unknown decomposition 'neuron'", "neurons", ""),
        ('["latents"]', '["latent"]', 'studies.0 = "latent"', "'latents'", ""),
        ('"cpu"', '"nonsense"', "device 'nonsense'", "auto or cpu", ""),
        ('"planted"', '"organism:plantd"', "unknown organism 'plantd'", "planted", ""),
        ('"planted"', '"./nowhere"', "./nowhere, which does not exist", "a folder, a hub id", ""),
        ("rounds = 1", "rounds = 0", "validate.rounds = 0", "greater than or equal to 1", ""),
        ("components = 3", "componets = 3", "unknown key 'describe.componets'", "describe.components", ""),
        ("limit = 80", "limit = 80\nlmit = 80", "unknown key 'lmit'", "limit", ""),
    ],
)
def test_a_spec_that_cannot_be_run_leaves_nothing(tmp_path, capsys, old, new, got, expected, hint):
    spec = spec_file(tmp_path, (old, new))
    refused(capsys, "run", spec, "--out", tmp_path / "run", got=got, expected=expected, hint=hint)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]


def test_specs_that_are_no_specs(tmp_path, capsys):
    refused(capsys, "run", tmp_path / "no.toml", got="does not exist", expected="TOML", hint="prosect spec")
    refused(capsys, "spec", tmp_path / "no.toml", got="does not exist", expected="TOML", hint="prosect spec")
    (tmp_path / "dir.toml").mkdir()
    refused(capsys, "spec", tmp_path / "dir.toml", got="is no file", expected="TOML", hint="prosect spec")
    (tmp_path / "bad.toml").write_text("seed = ")
    refused(capsys, "spec", tmp_path / "bad.toml", got="which is not TOML", expected="a spec in TOML")
    (tmp_path / "wide.toml").write_bytes("seed = 1\n".encode("utf-16"))
    refused(capsys, "spec", tmp_path / "wide.toml", got="which is not TOML", expected="a spec in TOML")
    (tmp_path / "empty.toml").write_text("")
    refused(capsys, "spec", tmp_path / "empty.toml", got="target", expected="field required")


def test_a_device_that_is_not_there(capsys, tmp_path):
    out = tmp_path / "run"
    refused(
        capsys, "run", "pylm", "--device", "nonsense", "--out", out, got="device 'nonsense'", expected="auto"
    )
    assert not out.exists()


def test_pairs_of_different_lengths():
    def batch(*lengths):
        mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
        rows = tuple(Row(unit=i) for i in range(len(lengths)))
        return Batch({"input_ids": torch.ones(len(lengths), 6, dtype=torch.long)}, mask, rows)

    targets = torch.full((2, 6), -1)
    Pairs(batch(6, 4), batch(6, 4), targets)
    for other, match in ((batch(6, 5), "row 1 of 4 positions .* of 5"), (batch(6), "2 clean rows and 1")):
        with pytest.raises(ShapeMismatch, match=match) as error:
            Pairs(batch(6, 4), other, targets)
        says_what(error)
    with pytest.raises(ShapeMismatch, match="targets"):
        Pairs(batch(6, 4), batch(6, 4), targets[:, :3])


def test_splits_that_overlap_or_are_empty():
    parts = {"explore": (0, 1), "explore.first": (0,), "explore.second": (1,), "validate.0": (2, 3)}
    Splits(parts, (0, 1, 2, 2), frozenset(), "d")
    with pytest.raises(BadInput, match=r"cluster 1 in explore and in validate\.0") as error:
        Splits(parts, (0, 1, 2, 1), frozenset(), "d")
    assert "try cut" in says_what(error)
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{j}" for j in rng.integers(0, 10**6, 60)) for _ in range(200)]
    corpus = Corpus("c", tuple(Document(f"{i}.txt", t) for i, t in enumerate(texts)))
    with pytest.raises(TooLittleData, match="none of them") as error:
        cut(corpus, explore=0.001)
    assert "larger share" in says_what(error)


def test_a_decomposition_of_another_model(tmp_path):
    stream = ArrayStream({"x": torch.randn(50, 4, generator=torch.Generator().manual_seed(0))})
    save_decomposition(tmp_path / "pca.safetensors", Pca("x", 2).fit(stream), model="a" * 64)
    with pytest.raises(ShapeMismatch, match="fitting it again") as error:
        load_decomposition(tmp_path / "pca.safetensors", model="b" * 64)
    says_what(error)
    found = load_decomposition(tmp_path / "pca.safetensors", model="a" * 64)
    with pytest.raises(ShapeMismatch, match="5") as error:
        found.encode({"x": torch.ones(3, 5)})
    says_what(error)


def test_pickled_weights(folder, tmp_path, capsys):
    torch.save(GPT2LMHeadModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    out = tmp_path / "run"
    refused(
        capsys,
        "run",
        folder,
        "--out",
        out,
        got="pickled weights",
        expected="safetensors",
        hint="allow_pickle",
    )
    refused(capsys, "ls", "sites", folder, got="pickled weights", expected="safetensors", hint="allow_pickle")
    assert not out.exists()
    # allowed, it gets as far as the next thing that is missing
    refused(capsys, "run", folder, "--out", out, "--allow-pickle", got="no tokenizer", expected="tokenizer")
    assert not out.exists()


def test_remote_code(folder, tmp_path, capsys):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise SystemExit('it ran')\n")
    out = tmp_path / "run"
    refused(
        capsys,
        "run",
        folder,
        "--out",
        out,
        got="comes with its own code",
        expected="transformers",
        hint="trust",
    )
    assert not out.exists()


def test_texts_that_are_not_there(tmp_path, capsys):
    out = tmp_path / "run"
    refused(
        capsys,
        "run",
        "pylm",
        "--text",
        tmp_path / "no",
        "--out",
        out,
        got="does not exist",
        expected="folder",
    )
    (tmp_path / "one.txt").write_text("a")
    refused(
        capsys, "run", "pylm", "--text", tmp_path / "one.txt", "--out", out, got="one file", expected="many", hint="jsonl"
    )  # fmt: skip
    assert not out.exists()


def test_a_folder_that_holds_something_else(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("x")
    before = files(tmp_path / "thesis")
    out = tmp_path / "thesis"
    refused(
        capsys, "run", "planted", "--out", out, got="other files", expected="an empty folder", hint="--out"
    )
    assert files(out) == before
    RunFolder.open(tmp_path / "run", {"seed": 1}, {}).close()
    before = files(tmp_path / "run")
    refused(
        capsys,
        "run",
        "planted",
        "--out",
        tmp_path / "run",
        got="another spec",
        expected="same spec",
        hint="--out",
    )
    assert files(tmp_path / "run") == before


def test_an_output_place_that_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    refused(capsys, "run", "planted", "--out", tmp_path / "file", got="file", expected="folder", hint="--out")
    assert (tmp_path / "file").read_text() == "x"


def test_links_that_lead_out_of_a_run(tmp_path, capsys):
    with RunFolder.open(tmp_path / "run", {"seed": 1}, {}) as run:
        (tmp_path / "elsewhere").mkdir()
        (run.path / "artefacts").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UnsafeFile) as error:
            run.json_step("x", {}, lambda: 1)
        says_what(error)
        with pytest.raises(UnsafeFile):
            run.tensor_step("x", {}, lambda: ({}, 1))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "secret.jsonl").write_text("{}\n")
    (run.path / "ledger.jsonl").symlink_to(tmp_path / "secret.jsonl")
    refused(capsys, "verify", run.path, got="ledger.jsonl", expected="inside the run folder")
    refused(capsys, "report", run.path, got="ledger.jsonl", expected="inside the run folder")


def test_a_run_of_a_newer_prosect(tmp_path, capsys):
    with RunFolder.open(tmp_path / "run", {"seed": 1}, {}) as run:
        run.finish({})
    for name in ("run.json", "done.json"):
        folder = tmp_path / name
        shutil.copytree(run.path, folder)
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "schema": 99}))
        before = files(folder)
        refused(
            capsys,
            "run",
            "planted",
            "--out",
            folder,
            got="schema 99",
            expected="at most",
            hint="a newer prosect",
        )
        assert files(folder) == before


@pytest.mark.slow
def test_a_full_disk_at_every_write(tmp_path, capsys, monkeypatch):
    """Each attempt has room for a few more files than the one before; the last ends as if there had been room."""
    spec, original = spec_file(tmp_path), atomic.os.fsync
    room = {"left": 0}

    def filling(handle):
        room["left"] -= 1
        if room["left"] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(handle)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "fsync", filling)
        for attempt in range(20):
            room["left"] = 3 + 9 * attempt
            code, out, complaint = call(capsys, "run", spec, "--out", tmp_path / "run", "--quiet", "--json")
            if code == 0:
                break
            assert code == 2 and "a full disk" in complaint and "resumes where it stopped" in complaint
            assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]
    assert attempt >= 2
    assert json.loads(out)["head"] == verify(tmp_path / "run").hash
    _, out, _ = call(capsys, "run", spec, "--out", tmp_path / "other", "--quiet", "--json")
    assert json.loads(out)["head"] == verify(tmp_path / "run").hash
    assert (tmp_path / "other" / "metrics.json").read_bytes() == (
        tmp_path / "run" / "metrics.json"
    ).read_bytes()


def test_a_full_disk_met_by_a_library(tmp_path, monkeypatch):
    """safetensors and SQLite have their own words for it."""

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def odd(*_, **__):
        raise SafetensorError("something else")

    import safetensors.torch

    path = tmp_path / "x.safetensors"
    kept.save_tensors(path, {"x": torch.zeros(2)})
    before = files(tmp_path)
    for instead, error in ((full, BadInput), (odd, SafetensorError)):
        with monkeypatch.context() as patched:
            patched.setattr(safetensors.torch, "save_file", instead)
            with pytest.raises(error, match=r"full disk|something else"):
                kept.save_tensors(path, {"x": torch.ones(2)})
        assert files(tmp_path) == before

    with RunFolder.open(tmp_path / "run", {"seed": 1}, {}) as run:
        many = "create table huge (x text); pragma max_page_count=2; pragma page_size=512;"
        with monkeypatch.context() as patched:
            patched.setattr(index, "TABLES", f"pragma max_page_count=2;{index.TABLES}{many}")
            with pytest.raises(BadInput, match=r"full disk while writing ledger\.sqlite"):
                run.finish({})
        assert not (run.path / "done.json").exists() and not (run.path / "ledger.sqlite").exists()
        run.finish({})
    assert (run.path / "done.json").exists()


def test_a_claim_about_another_model():
    mine = subject_of(induction.build(0)[0], induction.source(0, validate=40, explore=40))
    other = subject_of(induction.build(1)[0], induction.source(0, validate=40, explore=40))
    hypothesis = claim(mine, head(0, 0), cause=constant_rule())
    mine.check_scope(hypothesis)
    with pytest.raises(OutOfScope, match="made for model") as error:
        other.check_scope(hypothesis)
    assert "testing it anew" in says_what(error)
