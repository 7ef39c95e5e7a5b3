"""A finished round in a real store: Parquet parts, mp4 files, a curation, a summary. Only the clips are drawn."""

import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from data.curation import CurateSettings, curate
from data.records import Clip, Evaluation, Policy, Score, clip_id, prompt_id
from data.store import Store
from data.video import encode_mp4

CATEGORIES = (
    "deformable objects",
    "directional movement",
    "falling down",
    "multiple objects",
    "object removal",
)
KINDS = "fffffbbssrrr"  # of a category's 12 held-out clips: fixed, broken, still failing, still right
BASE, TUNED = "b" + "0" * 24, "p" + "1" * 24
ROUND = "20260101T000000Z-abc123"
HOSTILE = "a \"red\" ball <img src=x onerror=alert(1)></script><script>alert(1)</script> & 'falls' $\\frac{ {{ 7*7 }}"

Wanted = tuple[str, str, int, bool]
"""Prompt, category, seed, and whether the clip obeys physics."""


def ball(falls: bool, seed: int) -> np.ndarray:
    """17 frames of a disc that falls, or that floats where it is."""
    rng = np.random.default_rng(seed)
    colour = tuple(int(c) for c in rng.integers(40, 230, 3))
    x, y = int(rng.integers(16, 48)), int(rng.integers(10, 20))
    frames = np.full((17, 64, 64, 3), 235, np.uint8)
    for t, frame in enumerate(frames):
        drop = min(0.16 * t * t, 52 - y) if falls else 0
        cv2.circle(frame, (x, round(y + drop)), 8, colour, -1, cv2.LINE_AA)
    return frames


def judge(clip: Clip, falls: bool) -> list[Score]:
    """Two rewards, each of which fails on some clips."""
    rng = np.random.default_rng(clip.seed)
    lost = clip.seed == 51 and clip.category == "falling down"
    reason = json.dumps({"reason": "it falls as it should" if falls else "the ball floats in the air"})
    physics = (None, "failed", "decoder gave up") if lost else (float(falls), "ok", None)
    like = (
        (0.2 + 0.1 * rng.random() + 0.02 * falls, "ok", None)
        if clip.seed % 7
        else (None, "failed", "no frames <to> see")
    )
    return [
        Score(clip.clip_id, "physics", "v1", *physics, reason),
        Score(clip.clip_id, "clip", "v1", *like, "{}"),
    ]


def write_clips(store: Store, policy: str, split: str, wanted: list[Wanted]) -> tuple[str, str]:
    """Commit one shard of clips with their scores; return both keys."""
    clips, media, scores = [], [], []
    for text, category, seed, falls in wanted:
        file = store.write_media(encode_mp4(ball(falls, seed), 8), "mp4")
        clip = Clip(
            clip_id=clip_id(policy, text, seed, {"steps": 10}, 4),
            prompt_id=prompt_id(text), prompt=text, category=category, split=split, policy_id=policy, seed=seed,
            width=64, height=64, frames=17, fps=8.0, sampler="euler", steps=10, guidance=3.0, batch_size=4,
            row_in_batch=len(clips) % 4, video_path=file.path, video_sha256=file.sha256, codec="libx264",
            latent_path="", latent_row=0, embed_row=0, device_kind="cpu", code_version="1",
        )  # fmt: skip
        clips.append(clip)
        media.append(file)
        scores += judge(clip, falls)
    made = store.commit(
        "generate", {"stage": "generate", "policy": policy, "split": split}, {"clips": clips}, media
    )
    judged = store.commit(
        "score", {"stage": "score", "clips": made.key}, {"scores": scores}, parents=[made.key]
    )
    return made.key, judged.key


def write_curation(store: Store, clip_key: str, score_key: str) -> str:
    result = curate(store, [clip_key], [score_key], CurateSettings(feedback="physics"))
    tables = result.tables
    question = {"stage": "curate", "clips": clip_key}
    return store.commit("curate", question, tables, (), [clip_key, score_key], result.report).key


def write_policy(store: Store, curate_key: str) -> str:
    rng = np.random.default_rng(0)
    curve = [
        {
            "step": step,
            "loss": 0.69 * float(np.exp(-step / 60)) + 0.05 * rng.random(),
            "rewards/margins": step / 40 + 0.2 * rng.random(),
            "rewards/accuracies": min(1.0, 0.5 + step / 200 + 0.05 * rng.random()),
            "gap/chosen": 0.0001 * step,
            "gap/rejected": 0.0004 * step,
            "grad_norm": 1 + rng.random(),
        }
        for step in range(100)
    ]
    row = Policy(
        TUNED, BASE, [], "dpo-anchor", "d1", "", "", 16, 16.0, ["to_q"], 100, "{}", json.dumps(curve)
    )
    late = {
        "gap/chosen": 0.009, "error/chosen": 0.259, "gap/rejected": 0.036, "error/rejected": 0.286, "displaced": 0.75,
    }  # fmt: skip
    return store.commit(
        "finetune", {"stage": "finetune"}, {"policies": [row]}, (), [curate_key], {"last_quarter": late}
    ).key


def write_evaluation(store: Store) -> str:
    """Both policies on the same held-out and unseen prompts; the tuned one fixes most clips and breaks some."""
    rows, parents = [], []
    for policy, good in ((BASE, "br"), (TUNED, "fr")):
        heldout = [
            (HOSTILE if (c, i) == ("falling down", 0) else f"a coloured ball number {i}, {c}", c, s, KINDS[2 * i + s] in good)
            for c in CATEGORIES for i in range(6) for s in range(2)
        ]  # fmt: skip
        unseen = [(f"a new thing {i}, {c}", c, 50 + i, i % 2 == 0) for c in CATEGORIES for i in range(2)]
        for split, wanted in (("heldout", heldout), ("unseen", unseen)):
            keys = write_clips(store, policy, split, wanted)
            clips = {clip.clip_id: clip for clip in store.read(keys[0], "clips")}
            parents += keys
            rows += [
                Evaluation(policy, clips[s.clip_id].prompt_id, clips[s.clip_id].category, split, clips[s.clip_id].seed,
                           s.reward, s.value, s.status, s.error, s.clip_id)
                for s in store.read(keys[1], "scores")
            ]  # fmt: skip
    return store.commit("evaluate", {"stage": "evaluate"}, {"evaluations": rows}, (), parents).key


def write_round(store: Store, round_id: str = ROUND, **changes: object) -> None:
    def compared(before: float, after: float, low: float, high: float, n: int) -> dict[str, Any]:
        gained = {"delta": after - before, "ci_low": low, "ci_high": high}
        return {"metric": "physics", "before": before, "after": after, "n": n} | gained

    def stage(key: str, seconds: float, shards: int, cached: int) -> dict[str, Any]:
        return {"key": key, "seconds": seconds, "shards": shards, "cached_shards": cached, "failed": 0}

    train = [(f"a ball to learn from, number {i}, {c}", c, 1000 + 10 * i + k, (i + k) % 3 == 0)
             for c in CATEGORIES for i in range(3) for k in range(4)]  # fmt: skip
    clip_key, score_key = write_clips(store, BASE, "train", train)
    curate_key = write_curation(store, clip_key, score_key)
    summary = {
        "round": round_id,
        "recipe": {
            "name": "mini", "seed": 0, "finetune": {"objective": "dpo-anchor", "beta": 500.0},
            "evaluate": {"prompts": "heldout", "allow_training_prompts": False},
        },
        "recipe_name": "mini",
        "feedback": "oracle",
        "objective": "dpo-anchor",
        "policy_before": BASE,
        "policy_after": TUNED,
        "primary": compared(5 / 12, 8 / 12, 0.11, 0.39, 60),
        "categories": {c: compared(5 / 12, 8 / 12, -0.08, 0.58, 12) for c in CATEGORIES},
        "also": {"unseen": compared(0.5, 0.5, 0.0, 0.0, 9)},
        "guards": {
            "motion": {"before": 1.31, "after": 1.42, "ok": True, "low": 0.9, "high": 1.2},
            "diversity": {
                "before": 0.8,
                "after": 0.5,
                "ok": False,
                "reason": "overall 0.62 times what it was",
                "low": 0.8,
            },
            "flicker": {"before": None, "after": None, "ok": None, "reason": "clips have <2 frames"},
        },
        "stages": {
            "generate": stage(clip_key, 61.2, 8, 0),
            "score": stage(score_key, 12.0, 8, 8),
            "curate": stage(curate_key, 0.4, 1, 0),
            "finetune": stage(write_policy(store, curate_key), 130.0, 1, 0),
            "evaluate": stage(write_evaluation(store), 95.0, 10, 4),
        },
        "verdict": "Not promoted: diversity is broken",
        "promoted": False,
    }  # fmt: skip
    store.write_file(f"rounds/{round_id}/summary.json", json.dumps(summary | changes).encode())


@pytest.fixture(scope="session")
def make_round() -> Callable[..., None]:
    """Writes a round of five stages into a store; keyword arguments replace keys of its summary."""
    return write_round


@pytest.fixture(scope="session")
def hostile() -> str:
    """The text of one held-out prompt."""
    return HOSTILE


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one round, not to be changed."""
    store = Store.open(tmp_path_factory.mktemp("report") / "store", create=True)
    write_round(store)
    return store
