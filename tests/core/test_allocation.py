"""Keeping freed memory: a process that takes and frees large blocks touches new pages once, not every time."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from prosect.core.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch
torch.set_num_threads(1)
for _ in range(20):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again():
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("keep", "leave")
    }
    assert faults["keep"] < 1000
    assert faults["keep"] < faults["leave"] / 10
