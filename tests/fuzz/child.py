"""One target in this process, which was made for it: libFuzzer chooses the inputs, and ends the process.

It does so by the lines of our Python code that each input runs (Atheris). An input that is a finding is kept and
the run goes on; one that ends or hangs the process is kept by libFuzzer.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import atheris

from tests.fuzz.target import Target
from tests.fuzz.trees import mutate
from tests.fuzz.watch import MEGABYTES, Finding, Watch

# Address space is more than memory: stacks of threads, and what allocators set aside.
_ASIDE = 1536 << 20
_TOLD_EVERY = 500


def fuzz(target: Target, home: Path, runs: int, seed: int) -> None:
    """Fuzz one target and write `facts.json` below `home`; the process ends after so many inputs."""
    corpus, seeds = home / "corpus", home / "seeds"
    watch = Watch(target)
    for path in (path for folder in (seeds, corpus) for path in sorted(folder.iterdir())):
        watch.give(path.read_bytes())  # what readers import when they are first used is no input's
    watch = Watch(target)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = size + (MEGABYTES << 20) + _ASIDE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    found: dict[str, dict[str, str]] = {}

    def tell() -> None:
        facts = {
            "inputs": watch.inputs,
            "slowest_s": watch.slowest,
            "peak_mb": watch.peak,
            "longest": watch.longest,
            "cpu_s": round(time.process_time()),
        }
        draft = home / "facts.tmp"
        draft.write_text(json.dumps(facts | {"found": found}, indent=1))
        draft.replace(home / "facts.json")

    def one(data: bytes) -> None:
        finding = watch.give(data)
        if finding is not None:
            keep(data, finding)
        if finding is not None or watch.inputs % _TOLD_EVERY == 0 or watch.inputs == runs:
            tell()
        if watch.inputs == runs:
            sys.stdout.flush()
            os._exit(0)

    def keep(data: bytes, finding: Finding) -> None:
        told = f"{finding.kind} {finding.where}"
        if told not in found or len(data) < int(found[told]["bytes"]):
            digest = hashlib.sha256(data).hexdigest()[:12]
            (home / "found" / digest).write_bytes(data)
            found[told] = {"input": digest, "bytes": str(len(data)), "text": finding.text}

    arguments = [
        f"-max_len={target.most}", f"-artifact_prefix={home / 'found'}/", f"-seed={seed}",
        "-timeout=300", "-rss_limit_mb=0", "-len_control=0", "-print_pcs=0", "-verbosity=1", str(corpus), str(seeds),
    ]  # fmt: skip
    if target.words:
        words = home / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        arguments.append(f"-dict={words}")
    atheris.Setup(["fuzz", *arguments], one, **({"custom_mutator": mutate} if target.trees else {}))
    atheris.Fuzz()


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode("utf-8", "surrogateescape"))
