"""Throughput of the judge: our client against a plain one, on one vLLM server.

    python -m benchmarks.judge [--clips 48] [--repeats 6] [--environment .venv-judge] [--out DIR]

Both ask the world rubric's questions about the same clips of the physics world, stored as a round stores
them. Ours is `rewards.judge` as a round uses it; the plain one sends the mp4 with each question, one request
at a time. The server samples mp4 files at 30 frames a second instead of vLLM's two, so that it sees 16 of the
17 frames (at two it would see four, and be faster at another task). Each repeat has clips of its own, and the
server's caches of prefixes, media and encoder outputs are emptied before each side; the order alternates.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx

from benchmarks.harness import Result, in_turn, options, write
from benchmarks.judge_sides import Answers, PlainClient, StoredClip, ask_ours, judged_frames_only
from data.processes import descendants
from data.video import encode_mp4
from miniature.world.corpus import sample_corpus
from miniature.world.render import render
from rewards.judge.judge import JudgeReward
from rewards.judge.processing import Processing, single_tokens
from rewards.judge.server import ManagedServer
from rewards.judge.settings import NAME, JudgeSettings, model_path

_KEY: Final = "VIDLOOP_JUDGE_KEY_BENCHMARK"
# As miniature/recipes/mini.yaml: two workers, shards of 16 clips.
_SHARD: Final = 16
_WORKERS: Final = 2
_ALLOWED: Final = 1e-4
_WARM_UP: Final = 4
_FPS: Final = 8.0
_JUDGE: Final[dict[str, Any]] = {"model": "miniature/weights/judge", "rubric": "miniature/rubrics/world.yaml"}
_SERVER_ARGS: Final = """--media-io-kwargs '{"video": {"num_frames": -1, "fps": 30}}'"""
SIDES: Final = ("ours", "plain")


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
    parser = options(__doc__, device=False)
    parser.add_argument("--clips", type=int, default=48, help="of each repeat")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--environment", default=os.environ.get("VIDLOOP_JUDGE_VENV", ".venv-judge"))
    asked = parser.parse_args(arguments)
    result = compare(asked.clips, asked.repeats, asked.environment)
    write(result, asked.out)
    return 0 if result.equality["largest_difference"] <= _ALLOWED else 1


def compare(clips: int, repeats: int, environment: str) -> Result:
    """Start a server, run both sides, end it. Raises ConfigError for want of an environment with vLLM."""
    sets = [rendered(clips, seed) for seed in range(1, repeats + 1)]
    with _server(environment) as server, contextlib.ExitStack() as stack:
        os.environ[_KEY] = server.key
        served = httpx.get(f"{_root(server)}/version", trust_env=False, timeout=60).json()["version"]
        judge = JudgeReward(JudgeSettings(**_JUDGE, url=server.url, served_name=NAME, api_key_env=_KEY))
        stack.callback(judge.close)
        answer = judge.rubric.answer
        spellings = [*answer.positive, *answer.negative]
        ids = single_tokens(spellings, Processing(model_path(judge.settings), "", judge.rubric).encode)
        plain = PlainClient(server.url, server.key, NAME, judge.rubric, ids)
        stack.callback(plain.close)
        ours = partial(ask_ours, judge, _SHARD, _WORKERS)
        sides: dict[str, Callable[[Sequence[StoredClip]], Answers]] = {"ours": ours, "plain": plain.ask}
        for ask in sides.values():
            ask(rendered(_WARM_UP, 0))
        passes = [_timed(side, sides[side], sets[repeat], server) for repeat, side in in_turn(SIDES, repeats)]
        sent_exactly = plain.ask([judged_frames_only(clip, judge.rubric) for clip in sets[0]])
        _forget(server)
        again = ours(sets[0])
    return _result(clips, judge, passes, _differences(again, sent_exactly), served)


def rendered(count: int, seed: int) -> list[StoredClip]:
    """Clips of the physics world, half of which break a law, stored as a round does."""
    scenes = sample_corpus(count, 0.5, seed)
    frames = render(scenes).numpy()
    return [
        StoredClip(f"{seed}-{i}", scene.caption, encode_mp4(frames[i], _FPS))
        for i, scene in enumerate(scenes)
    ]


@contextlib.contextmanager
def _server(environment: str) -> Iterator[ManagedServer]:
    """The server of a round, with the addresses that empty its caches."""
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    server = ManagedServer(JudgeSettings(**_JUDGE, venv=environment, server_args=_SERVER_ARGS)).wait()
    try:
        yield server
    finally:
        server.stop()


def _forget(server: ManagedServer) -> None:
    for cache in ("mm_cache", "encoder_cache", "prefix_cache"):
        httpx.post(f"{_root(server)}/reset_{cache}", trust_env=False, timeout=60).raise_for_status()


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
    print(f"    {side}: {60 * len(clips) / seconds:.0f} clips a minute", flush=True)
    return Pass(side, seconds, time.process_time() - client, _server_cpu_s() - served, answers)


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
    clips: int, judge: JudgeReward, passes: Sequence[Pass], same: dict[str, Any], served: str
) -> Result:
    of = {side: [one for one in passes if one.side == side] for side in SIDES}
    speed = {side: [60 * clips / one.seconds for one in found] for side, found in of.items()}
    stored = {side: {k: v for one in found for k, v in one.answers.items()} for side, found in of.items()}
    return Result(
        "judge",
        median(speed["plain"]),
        median(speed["ours"]),
        "clips/min",
        more_is_better=True,
        libraries=("httpx", "av"),
        served={"vllm": served},
        shape={
            "clips": clips,
            "repeats": len(of["ours"]),
            "frames_judged": judge.rubric.frames.count,
            "frames_stored": 17,
            "pixels": [64, 64],
            "questions": len(judge.rubric.questions),
            "model": "miniature/weights/judge (Qwen2-VL, 3.3 M parameters, float32)",
            "ours": f"{_WORKERS} shards of {_SHARD} clips at a time, {judge.settings.concurrency} requests",
            "plain": "1 request at a time, the mp4 with each; one kept connection",
        },
        equality={
            **same,
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
        details={
            "caches": "media, encoder outputs, prefixes: emptied before each pass; new clips in each repeat",
            "order": [one.side for one in passes],
            "clips_per_minute": speed,
            "core_seconds_a_clip": {
                side: {
                    "client": median(one.client_cpu_s / clips for one in found),
                    "server": median(one.server_cpu_s / clips for one in found),
                }
                for side, found in of.items()
            },
            "ratio_by_repeat": [a / b for a, b in zip(speed["ours"], speed["plain"], strict=True)],
            "load_average_at_the_end": os.getloadavg()[0],
        },
    )


if __name__ == "__main__":
    sys.exit(main())
