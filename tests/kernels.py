"""The numerical tests, once for each family of kernels that this processor can run (`make test-numbers`).

    python tests/kernels.py [arguments of pytest, other files or folders too]

PyTorch, MKL, oneDNN, NumPy and OpenBLAS each choose their kernels by the processor, and each kernel has its order
of sums. What is equal to the last bit on one processor may differ by rounding on another; a test that claims the
one and means the other passes here and fails there. So the same tests run with the kernels of other processors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

ROOT: Final = Path(__file__).resolve().parents[1]

# Where two ways of computing are compared, and where numbers decide: sampling, training, the gate.
NUMERICAL: Final = ("tests/models",)

# MKL takes Intel's kernels on Intel's processors only; this answers its question with yes.
_AS_INTEL: Final = (
    "int mkl_serv_intel_cpu_true(void) { return 1; }\nint mkl_serv_intel_cpu(void) { return 1; }\n"
)


@dataclass(frozen=True)
class Kernels:
    """A family of kernels.

    Attributes:
        flag: of the processor, as /proc/cpuinfo names it; without it these kernels cannot run.
        numpy: part of the names of NumPy's features that are left on beside its baseline.
        environment: for the other libraries.
        intel: whether MKL must take the processor for one of Intel's.
    """

    name: str
    flag: str
    numpy: tuple[str, ...]
    environment: dict[str, str]
    intel: bool = False


KERNELS: Final = (
    Kernels(
        "SSE", "sse4_1", (),
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE",
         "OPENBLAS_CORETYPE": "Prescott"},
    ),
    Kernels(
        "AVX2", "avx2", ("V3", "AVX2", "FMA3"),
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Zen"},
    ),
    Kernels(
        "AVX2 of Intel", "avx2", ("V3", "AVX2", "FMA3"),
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
         "OPENBLAS_CORETYPE": "Haswell"},
        intel=True,
    ),
    Kernels(
        "AVX-512 of Intel", "avx512f", ("V3", "AVX2", "FMA3", "V4", "AVX512"),
        {"ATEN_CPU_CAPABILITY": "avx512", "OPENBLAS_CORETYPE": "SkylakeX"},
        intel=True,
    ),
)  # fmt: skip


def lacks(kernels: Kernels) -> str | None:
    """Why these kernels cannot run here; None if they can."""
    cpuinfo = Path("/proc/cpuinfo")
    words = cpuinfo.read_text().split() if cpuinfo.exists() else []
    if kernels.flag not in words:
        return f"the processor has no {kernels.flag}"
    if kernels.intel and "GenuineIntel" not in words and shutil.which("cc") is None:
        return "there is no C compiler (cc) to tell MKL that this is one of Intel's"
    return None


def environment(kernels: Kernels, folder: Path) -> dict[str, str]:
    """The environment in which the libraries choose these kernels; `folder` is for what must be built."""
    features = np.show_config(mode="dicts")["SIMD Extensions"]["found"]  # type: ignore[call-overload,index]
    off = [name for name in features if not any(part in name for part in kernels.numpy)]
    found = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(off)}
    if kernels.intel:
        source, library = folder / "as_intel.c", folder / "as_intel.so"
        if not library.exists():
            source.write_text(_AS_INTEL)
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        found["LD_PRELOAD"] = str(library)
    return found | kernels.environment


def main(arguments: list[str]) -> int:
    """Run them all, say how each went, and return 1 if a test failed with any."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow and not gpu", *arguments]
    if not any((ROOT / argument).exists() for argument in arguments):
        command += NUMERICAL
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kernels in KERNELS:
            why = lacks(kernels)
            if why:
                print(f"== {kernels.name}: left out, {why}", flush=True)
                continue
            print(f"== {kernels.name}", flush=True)
            start = time.monotonic()
            code = subprocess.run(
                command, cwd=ROOT, env=environment(kernels, Path(folder)), check=False
            ).returncode
            print(f"== {kernels.name}: exit code {code}, {time.monotonic() - start:.0f} s", flush=True)
            failed = failed or code != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
