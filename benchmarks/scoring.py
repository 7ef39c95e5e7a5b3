"""Scoring, ours against the plain way: clips a minute through decoding, CLIP and optical flow.

    python -m benchmarks.scoring --clips 64 --plain-clips 16              results/scoring.json

Plain asks one reward about one clip at a time: each decodes the file for itself, CLIP sees one frame and RAFT
one pair a forward pass. Ours is the score stage: files are decoded on all cores, once for both rewards, and
frames and pairs go through the networks in batches. The networks are ViT-B-32 and RAFT large with random
weights, made on the spot; `--mini` takes the miniature's own from this repository.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from benchmarks.workload import Busy, Clock
from data.keys import digest
from data.prompts import load_prompts
from data.records import Clip
from data.store import Store
from data.video import VideoSettings, decode_mp4, encode_mp4
from rewards import LoadedClip, build_reward, reward_version
from rewards.clip import ClipSettings
from rewards.flow import FlowSettings
from tasks.context import RewardRef
from tasks.score import ScoreShard
from tasks.units import Runner

# Kernels of another batch size round differently; a score is a mean of many such numbers.
TOLERANCE: Final = 1e-3
_FPS: Final = 16
_CODEC: Final = VideoSettings(crf=10, pix_fmt="yuv420p")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="scoring, ours against the plain way")
    parser.add_argument("--clips", type=int, default=64, help="of ours; whole shards")
    parser.add_argument("--plain-clips", type=int, default=16)
    parser.add_argument("--shard", type=int, default=16, help="clips that ours scores together")
    parser.add_argument("--workers", type=int, default=2, help="of ours: one decodes while another scores")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--updates", type=int, default=12, help="RAFT's refinement steps")
    parser.add_argument("--mini", action="store_true", help="the miniature's networks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--max-seconds", type=float, default=240.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(options, Path(name))


def run(options: argparse.Namespace, folder: Path) -> None:
    """Both sides over the same files."""
    clock = Clock(options.max_seconds)
    clip_model, flow_model = "miniature/weights/clip", "miniature/weights/raft"
    if not options.mini:
        clip_model, flow_model = str(folder / "clip"), str(folder / "raft")
        save_networks(Path(clip_model), Path(flow_model))
    refs = [
        _reward("clip", ClipSettings(model=clip_model, device=options.device)),
        _reward("flow", FlowSettings(model=flow_model, updates=options.updates, device=options.device)),
    ]
    singles = [
        build_reward("clip", ClipSettings(model=clip_model, device=options.device, batch_size=1)),
        build_reward(
            "flow",
            FlowSettings(model=flow_model, updates=options.updates, device=options.device, batch_size=1),
        ),
    ]
    store = Store.open(folder / "store", create=True)
    keys = write_clips(store, options)
    print(f"{options.clips} clips written, networks loaded: {clock.seconds:.1f} s", flush=True)

    # Ours first warms up on one shard, plain on one clip: kernels are chosen and read once.
    units = [_shard(store, key, refs, options.shard) for key in keys]
    units[0].run()
    rows: list[Clip] = [row for key in keys[1:] for row in store.read(key, "clips")]
    with Busy(options.device) as busy:
        begun = time.monotonic()
        Runner(workers=options.workers)(store, "score", units[1:])
        seconds = time.monotonic() - begun
    scores = {
        (row.clip_id, row.reward): row.value
        for unit in units[1:]
        for key in unit.keys
        for row in store.read(key, "scores")
    }
    plain_clip(store, rows[0], singles)
    plain: dict[tuple[str, str], float | None] = {}
    with Busy(options.device) as plain_busy:
        begun = time.monotonic()
        for row in rows[: options.plain_clips]:
            plain |= plain_clip(store, row, singles)
            if clock.left < 0:
                break
        plain_seconds = time.monotonic() - begun
    count = len(plain) // len(singles)
    gaps = {
        name: max(
            abs((value or 0.0) - (scores[clip, reward] or 0.0)) / max(1e-6, abs(value or 0.0))
            for (clip, reward), value in plain.items()
            if reward == name
        )
        for name in ("clip", "flow")
    }
    missing = [key for key, value in {**plain, **scores}.items() if value is None]
    minute, plain_minute = 60 * len(rows) / seconds, 60 * count / plain_seconds
    result = Result(
        name="scoring",
        device=device_name(),
        plain=plain_minute,
        ours=minute,
        ratio=minute / plain_minute,
        unit="clips a minute, mp4 to scores of two rewards",
        shape={
            "clip": f"{options.height}x{options.width}x{options.frames}",
            "clips": len(rows),
            "plain clips": count,
            "shard": options.shard,
            "workers": options.workers,
            "clip model": "the miniature's" if options.mini else "ViT-B-32, random weights, 6 frames",
            "flow model": "the miniature's" if options.mini else "RAFT large, random weights, 3 pairs",
            "updates": options.updates,
        },
        equality={
            "largest relative gap of a score": gaps,
            "tolerance": TOLERANCE,
            "within tolerance": max(gaps.values()) <= TOLERANCE and not missing,
            "scores that failed": len(missing),
        },
        command=command_line(),
        versions=versions("torch", "torchvision", "open_clip_torch", "av", "numpy"),
        details={
            "GPU busy share": {
                "plain": plain_busy.share or plain_busy.why,
                "ours": busy.share or busy.why,
            },
            "peak GiB": {"plain": plain_busy.peak_gib, "ours": busy.peak_gib},
            "seconds": {"plain": plain_seconds, "ours": seconds},
            "one part alone, seconds a clip": _parts(store, rows[: options.shard], refs),
        },
    )
    path = write(result, options.out)
    show(
        f"Scoring, {options.height}x{options.width}x{options.frames}, clip and flow",
        ["", "clips", "clips a minute", "ratio"],
        [
            ["plain", str(count), f"{plain_minute:.0f}", "1.00"],
            ["ours", str(len(rows)), f"{minute:.0f}", f"{minute / plain_minute:.2f}"],
        ],
    )
    print(f"gaps {gaps}, GPU busy {busy.share}, parts {result.details['one part alone, seconds a clip']}")
    print(f"{clock.seconds:.0f} s in all; written to {path}")


def plain_clip(store: Store, row: Clip, rewards: Sequence[Any]) -> dict[tuple[str, str], float | None]:
    """One clip the plain way: for each reward its file is read, decoded and judged alone."""
    found = {}
    for reward in rewards:
        frames, fps = decode_mp4(store.read_media(row.video_path))
        judged = reward.score([LoadedClip(row.clip_id, row.prompt, frames, fps, row.category)])
        found[row.clip_id, reward.name] = judged[0].value
    return found


def save_networks(clip: Path, flow: Path) -> None:
    """ViT-B-32 and RAFT large with random weights, in the folders that the rewards load."""
    import open_clip
    from safetensors.torch import save_file
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    for folder in (clip, flow):
        folder.mkdir(parents=True)
    network = open_clip.create_model("ViT-B-32", pretrained=None)
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (clip / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()},
        clip / "open_clip_model.safetensors",
    )
    (flow / "config.json").write_text(json.dumps({"architecture": "raft_large"}))
    save_file(dict(raft_large(weights=None).state_dict()), flow / "model.safetensors")


@dataclass(frozen=True)
class _Scene:
    """A textured field that drifts, and a disc on it that moves faster: motion for RAFT, edges for x264."""

    height: int
    width: int
    frames: int

    def clip(self, seed: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        noise = rng.random((self.height // 8 + 8, self.width // 8 + 8, 3))
        field = np.kron(noise, np.ones((8, 8, 1)))
        speed, start = rng.integers(1, 4), rng.random(2)
        rows, columns = np.mgrid[: self.height, : self.width]
        pictures = []
        for t in range(self.frames):
            shift = int(t * speed) % 56
            picture = field[shift : shift + self.height, shift : shift + self.width].copy()
            y = (start[0] + 0.02 * t) % 1 * self.height
            x = (start[1] + 0.015 * speed * t) % 1 * self.width
            picture[(rows - y) ** 2 + (columns - x) ** 2 < (self.height / 8) ** 2] = (0.9, 0.1, 0.1)
            pictures.append(picture)
        return np.asarray(np.stack(pictures) * 255).round().astype(np.uint8)


def write_clips(store: Store, options: argparse.Namespace) -> list[str]:
    """Shards of clips as the generate stage leaves them, and one more to warm up on; their keys."""
    from data.threads import in_threads

    scene = _Scene(options.height, options.width, options.frames)
    prompts = load_prompts("train")
    # A few scenes are enough: what a file holds twice is decoded twice.
    files = in_threads(lambda seed: encode_mp4(scene.clip(seed), _FPS, _CODEC), list(range(8)))
    keys = []
    for shard in range(1 + max(1, options.clips // options.shard)):
        rows, media = [], []
        for place in range(options.shard):
            index = shard * options.shard + place
            video = store.write_media(files[index % len(files)], ".mp4")
            media.append(video)
            prompt = prompts[index % len(prompts)]
            rows.append(
                Clip(
                    clip_id=f"c{digest(['scoring', index])[:24]}", prompt_id=prompt.prompt_id,
                    prompt=prompt.text, category=prompt.category, split=prompt.split,
                    policy_id="drawn", seed=index, width=options.width, height=options.height,
                    frames=options.frames, fps=float(_FPS), sampler="drawn", steps=1, guidance=1.0,
                    batch_size=options.shard, row_in_batch=place, video_path=video.path,
                    video_sha256=video.sha256, codec=_CODEC.describe(), latent_path="", latent_row=0,
                    embed_row=0, device_kind="cpu", code_version="benchmark",
                )
            )  # fmt: skip
        question = {"stage": "generate", "version": 1, "benchmark": "scoring", "shard": shard}
        store.commit("generate", question, {"clips": rows}, media, counts={"clips": len(rows)})
        keys.append(digest(question))
    return keys


def _reward(name: str, settings: Any) -> RewardRef:
    return RewardRef(name, reward_version(name, settings), settings)


def _shard(store: Store, key: str, refs: Sequence[RewardRef], clips: int) -> ScoreShard:
    manifest = store.manifest(key)
    assert manifest is not None
    return ScoreShard(str(store.root), key, manifest.digest, tuple(refs), key[:8], clips)


def _parts(store: Store, rows: Sequence[Clip], refs: Sequence[RewardRef]) -> dict[str, float]:
    """Seconds a clip of each part of ours by itself: where the time goes."""
    from data.threads import in_threads

    begun = time.monotonic()
    decoded = in_threads(lambda row: decode_mp4(store.read_media(row.video_path)), list(rows))
    found = {"decode, all cores": (time.monotonic() - begun) / len(rows)}
    clips = [
        LoadedClip(row.clip_id, row.prompt, frames, fps, row.category)
        for row, (frames, fps) in zip(rows, decoded, strict=True)
    ]
    for ref in refs:
        reward = build_reward(ref.name, ref.settings)
        reward.score(clips)
        begun = time.monotonic()
        reward.score(clips)
        found[ref.name] = (time.monotonic() - begun) / len(clips)
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
