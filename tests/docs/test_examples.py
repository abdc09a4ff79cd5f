"""Every example on every page of the documentation runs, in order, offline, in an empty folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
SKIP = re.compile(r"<!-- not run:(?P<why>[^>]*)-->\s*\Z")
SHELL = """
import json, os, sys
from prosect.cli import main
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    folder, words = json.loads(line)
    os.chdir(folder)
    code = main(words)
    sys.stdout.flush()
    print(code, file=answers, flush=True)
"""
RUN = [["run", "induction"], ["run", "induction", "--quiet"]]
"""Commands of several pages that make the same run, which is made once."""


@dataclass(frozen=True)
class Example:
    """One block of a page: its language, its text, the line it starts at, and why it is not run."""

    language: str
    body: str
    line: int
    skipped: str | None


def examples(page: Path) -> Iterator[Example]:
    """The blocks of a page that could run."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found["language"] not in ("python", "console"):
            continue
        skipped = SKIP.search(text[: found.start()])
        line = text[: found.start("body")].count("\n") + 1
        yield Example(found["language"], found["body"], line, skipped["why"].strip() if skipped else None)


def commands(body: str) -> Iterator[tuple[list[str], int]]:
    """The prosect commands of a console block, each with the exit code it should give.

    A line that starts with ``$`` is a command; ``# exit code N`` at its end says what it should give.
    """
    for line in body.splitlines():
        if not line.startswith("$ "):
            continue
        words, _, remark = line[2:].partition("#")
        code = re.search(r"exit code (\d+)", remark)
        yield shlex.split(words), int(code[1]) if code else 0


class Shell:
    """Runs the commands of all pages in one process of their own, so that they import what they need once."""

    def __init__(self, folder: Path) -> None:
        self.log, self.runs = folder / "shell.log", dict[str, Path]()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", SHELL],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def run(self, folder: Path, words: list[str]) -> str:
        """The exit code of a command in a folder; empty if the process died of it."""
        self.process.stdin.write(json.dumps([str(folder), words]) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def begun(self, folder: Path, words: list[str]) -> None:
        """Put a run that an earlier page made where the same command will find it finished."""
        run = Path("runs") / words[1]
        if words in RUN and run.name in self.runs and not (folder / run).exists():
            shutil.copytree(self.runs[run.name], folder / run)
            shutil.copy(self.runs[run.name].with_suffix(".head"), folder / run.with_suffix(".head"))

    def ended(self, folder: Path, words: list[str]) -> None:
        """Remember where a page made a run."""
        if words in RUN:
            self.runs.setdefault(words[1], folder / "runs" / words[1])

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    opened: list[Shell] = []

    def open_one() -> Shell:
        if not opened:
            opened.append(Shell(tmp_path_factory.mktemp("shell")))
        return opened[0]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_examples_run(page, tmp_path, monkeypatch, shell):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__example__"}
    for example in examples(page):
        if example.skipped is not None:
            continue
        if example.language == "python":
            source = "\n" * (example.line - 1) + example.body
            exec(compile(source, str(page), "exec"), names)  # as the reader would, one block after another
            continue
        for words, code in commands(example.body):
            assert words[0] == "prosect", f"{page.name}:{example.line}: {words[0]} is not run here"
            shell().begun(tmp_path, words[1:])
            got = shell().run(tmp_path, words[1:])
            shell().ended(tmp_path, words[1:])
            assert got == str(code), f"{shlex.join(words)} gave {got}: {shell().log.read_text()[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_what_is_not_run_says_why(page):
    for example in examples(page):
        assert example.skipped is None or len(example.skipped) > 8, f"{page.name}:{example.line}"


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_nothing_here_reaches_the_network():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
