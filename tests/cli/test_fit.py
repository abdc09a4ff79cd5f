"""`prosect fit`: figures and files, resuming after a kill, and what it refuses in words."""

import json
import os
import signal
import time

import pytest

from prosect.decompose.fit_record import read_record
from prosect.decompose.keep import load_decomposition
from tiny import call, spawn

SMALL = ("--site", "resid_post.0", "--tokens", 6000, "--latents", 32, "--set", "batch=256", "--quiet")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    from prosect.cli import main

    out = tmp_path_factory.mktemp("fit") / "a"
    sweep = ("--sweep", "k=3,5 seed=0,1")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PROSECT_HOME", str(tmp_path_factory.mktemp("home")))
        code = main([str(a) for a in ("fit", "induction", *SMALL, *sweep, "--out", out)])
    return out, sweep, code


def test_a_grid_is_trained_and_can_be_read(done):
    out, _, code = done
    assert code == 0
    names = [e["name"] for e in read_record(out)["dictionaries"]]
    assert names == [f"topk@resid_post.0-latents32-k{k}-seed{s}" for k in (3, 5) for s in (0, 1)]
    found = load_decomposition(out / f"{names[3]}.safetensors")
    assert (found.latents, found.sparsity.k, found.seed.root, found.recipe.batch) == (32, 5, 1, 256)


def test_again_it_says_that_it_is_done(done, capsys):
    out, sweep, _ = done
    arguments = ("fit", "induction", *SMALL[:-1], *sweep, "--out", out)
    code, printed, said = call(capsys, *arguments)
    assert code == 0 and "already done" in said
    assert "FVU" in printed and "topk@resid_post.0-latents32-k5-seed1" in printed
    code, printed, _ = call(capsys, *arguments, "--json")
    rows = json.loads(printed)
    assert [r["L0"] for r in rows] == [e["L0"] for e in read_record(out)["dictionaries"]]
    assert all(os.path.exists(r["file"]) for r in rows)  # noqa: PTH110  # as a script would


def test_something_else_in_the_same_folder_is_refused(done, capsys):
    out, _, _ = done
    code, printed, said = call(capsys, "fit", "induction", *SMALL, "--sweep", "k=3,5", "--out", out)
    assert (code, printed) == (2, "")
    assert "holds another fit" in said and "seed1" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--site", "resid_post.99"), "resid_post.99"),
        (("--k", 33), "33 of 32 latents"),
        (("--kind", "topq"), "topk"),
        (("--sweep", "latents"), "NAME=VALUE"),
        (("--sweep", "width=3"), "unknown setting 'width'"),
        (("--set", "rate=1,2"), "--sweep"),
        (("--store", "int8"), "float16"),
        (("--live", "--activations", "x"), "one of the two"),
        (("--memory", 0.000001), "GiB to be trained"),
        (("--writes", "resid_post.0", "--writes", "resid_pre.0"), "one for each"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, printed, said = call(capsys, "fit", "induction", *SMALL, *arguments)
    assert (code, printed) == (2, ""), said
    assert words in said
    assert not list(tmp_path.rglob("*.json"))


def test_a_corpus_too_short(tmp_path, capsys):
    (tmp_path / "text").mkdir()
    for i in range(5):
        (tmp_path / "text" / f"{i}.txt").write_text(f"document {i} " * 50)
    code, _, said = call(
        capsys, "fit", "pylm", "--text", tmp_path / "text", *SMALL, "--out", tmp_path / "out"
    )
    assert code == 2 and "clusters of documents" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_killed_in_training_it_goes_on_to_the_same_bits(done, tmp_path, capsys):
    out, sweep, _ = done
    other = tmp_path / "b"
    arguments = ("fit", "induction", *SMALL, *sweep, "--every", 2, "--out", other)
    process = spawn(*arguments)
    deadline = time.monotonic() + 120
    training = other / "work" / "training"
    while process.poll() is None and time.monotonic() < deadline:
        if training.exists() and len(list(training.glob("*.safetensors"))) == 4:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not read_record(other)["complete"]
    code, _, complaints = call(capsys, *arguments)
    assert code == 0, complaints
    files = sorted(p.name for p in out.glob("*.safetensors"))
    assert files == sorted(p.name for p in other.glob("*.safetensors")) and len(files) == 4
    assert [(other / f).read_bytes() for f in files] == [(out / f).read_bytes() for f in files]
