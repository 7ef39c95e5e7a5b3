"""The libraries compute with the kernels that the numerical tests are run with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernels import KERNELS, NUMERICAL, ROOT, Kernels, environment, lacks

# The first line is PyTorch's, the second NumPy's features beyond its baseline, the rest MKL's own words.
ASK = """
import numpy.lib.introspect, torch
torch.ones(9, 9) @ torch.ones(9, 9)
print("torch", torch.backends.cpu.get_cpu_capability())
print("numpy", numpy.lib.introspect.opt_func_info("^add$", "float64")["add"]["ddd"]["current"])
"""
ANSWERS = {
    "SSE": ("torch DEFAULT", "CNR:COMPATIBLE"),
    "AVX2": ("torch AVX2",),
    "AVX2 of Intel": ("torch AVX2", "Vector Extensions 2"),
    "AVX-512 of Intel": ("torch AVX512", "Vector Extensions 512"),
}


@pytest.mark.parametrize("kernels", KERNELS, ids=[one.name for one in KERNELS])
def test_the_libraries_take_the_kernels_they_are_told(kernels: Kernels, tmp_path: Path) -> None:
    if why := lacks(kernels):
        pytest.skip(why)
    found = subprocess.run(
        [sys.executable, "-c", ASK], env=environment(kernels, tmp_path) | {"MKL_VERBOSE": "1"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for words in ANSWERS[kernels.name]:
        assert words in found
    (numpy,) = (line for line in found.splitlines() if line.startswith("numpy"))
    assert any(part in numpy for part in (*kernels.numpy, "baseline")), numpy


def test_kernels_that_cannot_run_say_why() -> None:
    assert lacks(replace(KERNELS[0], flag="avx9000")) == "the processor has no avx9000"


def test_what_is_numerical_is_there() -> None:
    assert all((ROOT / place).exists() for place in NUMERICAL)
