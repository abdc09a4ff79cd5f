"""Triton's kernels, interpreted on this processor, beside dense products in float64 and beside torch's sparse ones."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import prosect
from interpreted import DIFFERENCES, KINDS, SIZES

HERE = Path(__file__).parents[2]
FLOAT = 2.0**-21
"""A few roundings in float32, of the sum of the sizes of the terms."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed; it comes with torch for CUDA"
)


@pytest.fixture(scope="module")
def measured():
    source = Path(prosect.__file__).parents[1]
    paths = [str(source), str(HERE), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "interpreted.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_products_are_the_dense_ones_of_what_is_multiplied(measured, size, precision):
    """In bfloat16 too: rounding is all that it does, and what is rounded is rounded as torch's is."""
    found = measured["products"][f"{size}, {precision}"]
    assert len(found) == 6
    assert max(found.values()) < FLOAT, found


@pytest.mark.parametrize("size", DIFFERENCES)
def test_gradients_are_differences(measured, size):
    found = measured["gradients"][size]
    assert len(found) == 4
    assert max(found.values()) < 16 * FLOAT, found


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from prosect.decompose.fused import kernels

numbers = {"out": "*fp32", "values": "*fp32", "width": "i32", "PICKS": "constexpr", "COLUMNS": "constexpr"}
lists = dict.fromkeys(("index", "begins", "ends", "places"), "*i64")
for kernel in (kernels.sum_rows, kernels.dot_rows):
    for rows in ("*fp32", "*bf16"):
        known = {**numbers, **lists, "table": rows, "x": rows}
        signature = {name: known[name] for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs={"PICKS": 8, "COLUMNS": 256})
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert "atom" not in made.asm["ptx"] and "red.global" not in made.asm["ptx"]
        print(kernel.__name__, rows, len(made.asm["cubin"]))
"""


def test_they_compile_for_a_gpu_without_atomics(tmp_path):
    """For Hopper, with the assembler that Triton brings: no device is needed for that."""
    source = str(Path(prosect.__file__).parents[1])
    paths = [source, os.environ.get("PYTHONPATH", "")]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_has_the_losses_that_torchs_products_give(measured, kind, precision):
    found = measured["training"][f"{kind}, {precision}"]
    assert found["fell"] > 0.01  # it learned something
    assert found["fvu"] < 1e-4, found
    assert found["weights"] < 2e-3, found
