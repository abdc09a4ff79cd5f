"""Two runs of the whole loop that take seconds, and ways to start them as a user would."""

import subprocess
import sys

from prosect.cli import main

HEADS = """
target = "induction"
device = "cpu"
limit = 80
studies = ["heads"]
[describe]
heads = "best"
[validate]
rounds = 1
"""
"""Twelve claims about heads, some of which are refuted."""

LATENTS = """
target = "planted"
device = "cpu"
limit = 80
studies = ["latents"]
[decompose]
kind = "neurons"
site = "mlp_act.0"
[describe]
components = 3
chosen = 0
neurons = 0
effects = 3
untrained = 0
controls = 1
tokens = 2000
[validate]
rounds = 1
effect_rows = 4
"""
"""A dozen steps with tensors and JSON, and a few claims."""

START = "from prosect.cli import run; run()"


def call(capsys, *arguments):
    """Run the command line here: its exit code, what it printed, and what it complained of."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, " ".join(said.err.split())


def spawn(*arguments, code=START, **options):
    """Start the command line in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", **options
    )


def files(folder):
    """Every file below a folder with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
