"""Throughput of the judge: our client against a plain one, on one vLLM server.

    python -m benchmarks.judge [--clips 48] [--repeats 6] [--environment .venv-judge] [--out DIR]

Both ask the world rubric's questions about the same clips of the physics world, stored as a round stores
them. Ours is `rewards.judge` as a round uses it; the plain one sends the mp4 with each question, one request
at a time. The server samples mp4 files at 30 frames a second instead of vLLM's two, so that it sees 16 of the
17 frames (at two it would see four, and be faster at another task). Each repeat has clips of its own, and the
server's caches of prefixes, media and encoder outputs are emptied before each side; the order alternates.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.judge_sides import Answers, OurClient, PlainClient, StoredClip, judged_frames_only
from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from data.processes import descendants
from data.video import encode_mp4
from rewards.judge.judge import JudgeReward
from rewards.judge.processing import Processing
from rewards.judge.server import ManagedServer
from rewards.judge.settings import NAME, JudgeSettings, model_path

_KEY: Final = "VIDLOOP_BENCHMARK_KEY"
# As recipes/mini.yaml: two workers, shards of 16 clips.
_SHARD: Final = 16
_WORKERS: Final = 2
_ALLOWED: Final = 1e-4
_WARM_UP: Final = 4
_FPS: Final = 8.0
_SERVER_ARGS: Final = """--media-io-kwargs '{"video": {"num_frames": -1, "fps": 30}}'"""


@dataclass(frozen=True)
class Pass:
    """One side's way through one repeat's clips: seconds of the wall, and of all processors by process."""

    side: str
    seconds: float
    client_cpu_s: float
    server_cpu_s: float
    answers: Answers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; exit code 1 if the two sides do not agree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=48, help="of each repeat")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--environment", default=os.environ.get("VIDLOOP_JUDGE_VENV", ".venv-judge"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    result = compare(chosen.clips, chosen.repeats, chosen.environment)
    path = write(result, chosen.out)
    _show(result)
    print(path)
    return 0 if result.equality["largest_difference"] <= _ALLOWED else 1


def compare(clips: int, repeats: int, environment: str) -> Result:
    """Start a server, run both sides, end it. Raises ConfigError for want of an environment with vLLM."""
    sets = [rendered(clips, seed) for seed in range(1, repeats + 1)]
    with _server(environment) as server:
        os.environ[_KEY] = server.key
        served = httpx.get(f"{_root(server)}/version", trust_env=False, timeout=60).json()["version"]
        judge = JudgeReward(JudgeSettings(url=server.url, served_name=NAME, key_env=_KEY))
        ours = OurClient(judge, _SHARD, _WORKERS)
        ours.ask(rendered(_WARM_UP, 0))
        answer = judge.rubric.answer
        ids = Processing(model_path(judge.settings), "", judge.rubric).spelling_ids(
            [*answer.positive, *answer.negative]
        )
        plain = PlainClient(server.url, server.key, NAME, judge.rubric, ids)
        try:
            plain.ask(rendered(_WARM_UP, 0))
            sides = {"ours": ours.ask, "plain": plain.ask}
            passes = [
                _timed(name, sides[name], some, server)
                for place, some in enumerate(sets)
                for name in (sides if place % 2 == 0 else reversed(sides))
            ]
            exact = [judged_frames_only(clip, judge.rubric) for clip in sets[0]]
            sent_exactly = plain.ask(exact)
            _forget(server)
            again = ours.ask(sets[0])
        finally:
            plain.close()
            judge.close()
    return _result(clips, judge, passes, again, sent_exactly, served)


def rendered(count: int, seed: int) -> list[StoredClip]:
    """Clips of the physics world, half of which break a law, stored as a round does."""
    from miniature.world.corpus import sample_corpus
    from miniature.world.render import render

    corpus = sample_corpus(count, 0.5, seed)
    frames = render(corpus.scenes).numpy()
    return [
        StoredClip(f"{seed}-{i}", caption, encode_mp4(frames[i], _FPS))
        for i, caption in enumerate(corpus.captions)
    ]


@contextlib.contextmanager
def _server(environment: str) -> Iterator[ManagedServer]:
    """The server of a round, with the addresses that empty its caches."""
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    server = ManagedServer.start(JudgeSettings(environment=environment, server_args=_SERVER_ARGS))
    try:
        yield server
    finally:
        server.stop()


def _forget(server: ManagedServer) -> None:
    for cache in ("mm_cache", "encoder_cache", "prefix_cache"):
        reply = httpx.post(f"{_root(server)}/reset_{cache}", trust_env=False, timeout=60)
        reply.raise_for_status()


def _root(server: ManagedServer) -> str:
    return server.url.removesuffix("/v1")


def _timed(
    side: str,
    ask: Callable[[Sequence[StoredClip]], Answers],
    clips: Sequence[StoredClip],
    server: ManagedServer,
) -> Pass:
    _forget(server)
    served, client, begun = _server_cpu_s(), time.process_time(), time.perf_counter()
    answers = ask(clips)
    seconds = time.perf_counter() - begun
    found = Pass(side, seconds, time.process_time() - client, _server_cpu_s() - served, answers)
    print(f"    {side}: {60 * len(clips) / seconds:.0f} clips a minute", flush=True)
    return found


def _server_cpu_s() -> float:
    """User and system seconds of every process below this one."""
    ticks = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _differences(one: Answers, other: Answers) -> dict[str, Any]:
    return {
        "answers": len(one),
        "largest_difference": max(abs(one[place] - other[place]) for place in one),
        "labels_that_differ": sum((one[place] >= 0.5) != (other[place] >= 0.5) for place in one),
    }


def _result(
    clips: int, judge: JudgeReward, passes: Sequence[Pass], ours: Answers, plain_exact: Answers, served: str
) -> Result:
    speed = {
        side: [60 * clips / one.seconds for one in passes if one.side == side] for side in ("ours", "plain")
    }
    middle = {side: statistics.median(found) for side, found in speed.items()}
    stored: dict[str, Answers] = {
        side: {place: value for one in passes if one.side == side for place, value in one.answers.items()}
        for side in ("ours", "plain")
    }
    frames = judge.rubric.frames
    return Result(
        name="judge",
        device=device_name(),
        plain=middle["plain"],
        ours=middle["ours"],
        ratio=middle["ours"] / middle["plain"],
        unit="clips/min",
        shape={
            "clips": clips,
            "repeats": len(speed["ours"]),
            "frames_judged": frames.count,
            "frames_stored": 17,
            "pixels": [64, 64],
            "questions": len(judge.rubric.questions),
            "model": "miniature/weights/judge (Qwen2-VL, 3.3 M parameters, float32)",
            "ours": f"{_WORKERS} shards of {_SHARD} clips at a time, {judge.settings.concurrency} requests",
            "plain": "1 request at a time, the mp4 with each; one kept connection",
        },
        equality={
            **_differences(ours, plain_exact),
            "allowed": _ALLOWED,
            "how": (
                "untimed: the plain client sends an mp4 without loss (libx264rgb, crf 0) of the very frames "
                "that ours sends, so that both ask about the same pixels"
            ),
            "as_timed": {
                **_differences(stored["ours"], stored["plain"]),
                "why": (
                    "the plain side sends the stored mp4 whole; of its 17 frames vLLM takes the first 16, "
                    "ours 16 with the first and the last; and vLLM's decoder, OpenCV, rounds otherwise"
                ),
            },
        },
        command=command_line(),
        versions={**versions("httpx", "av"), "vllm": served},
        details={
            "caches": "media, encoder outputs, prefixes: emptied before each pass; new clips in each repeat",
            "order": [one.side for one in passes],
            "clips_per_minute": speed,
            "core_seconds_a_clip": {
                side: {
                    "client": statistics.median(x.client_cpu_s / clips for x in passes if x.side == side),
                    "server": statistics.median(x.server_cpu_s / clips for x in passes if x.side == side),
                }
                for side in ("ours", "plain")
            },
            "ratio_by_repeat": [a / b for a, b in zip(speed["ours"], speed["plain"], strict=True)],
            "load_average_at_the_end": os.getloadavg()[0],
        },
    )


def _show(result: Result) -> None:
    cores = result.details["core_seconds_a_clip"]
    show(
        f"The judge: {result.ratio:.2f} times as fast",
        ("", "plain", "ours"),
        [
            ("clips a minute, median", f"{result.plain:.0f}", f"{result.ours:.0f}"),
            *(
                (f"repeat {i + 1}", f"{plain:.0f}", f"{ours:.0f}")
                for i, (plain, ours) in enumerate(
                    zip(
                        result.details["clips_per_minute"]["plain"],
                        result.details["clips_per_minute"]["ours"],
                        strict=True,
                    )
                )
            ),
            *(
                (
                    f"core-ms a clip, {where}",
                    *(f"{1000 * cores[side][where]:.0f}" for side in ("plain", "ours")),
                )
                for where in ("client", "server")
            ),
            ("largest difference in P(yes)", "", f"{result.equality['largest_difference']:.1e}"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
