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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Busy, Clock, Result, clip_options, elapsed, options, write
from data.keys import digest
from data.prompts import load_prompts
from data.records import Clip
from data.store import Store
from data.threads import in_threads
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

Scores = dict[tuple[str, str], float | None]


def main() -> None:
    """See the module's docstring."""
    parser = options(__doc__)
    clip_options(parser)
    parser.add_argument("--clips", type=int, default=64, help="of ours; whole shards")
    parser.add_argument("--plain-clips", type=int, default=16)
    parser.add_argument("--shard", type=int, default=16, help="clips that ours scores together")
    parser.add_argument("--workers", type=int, default=2, help="of ours: one decodes while another scores")
    parser.add_argument("--updates", type=int, default=12, help="RAFT's refinement steps")
    parser.add_argument("--mini", action="store_true", help="the miniature's networks")
    parser.add_argument("--max-seconds", type=float, default=240.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(asked, Path(name))


def run(asked: argparse.Namespace, folder: Path) -> None:
    """Both sides over the same files."""
    clock = Clock(asked.max_seconds)
    clip_model, flow_model = Path("miniature/weights/clip"), Path("miniature/weights/raft")
    if not asked.mini:
        clip_model, flow_model = folder / "clip", folder / "raft"
        save_networks(clip_model, flow_model)
    clip = partial(ClipSettings, model=str(clip_model), device=asked.device)
    flow = partial(FlowSettings, model=str(flow_model), updates=asked.updates, device=asked.device)
    refs = [_reward("clip", clip()), _reward("flow", flow())]
    singles = [build_reward("clip", clip(batch_size=1)), build_reward("flow", flow(batch_size=1))]
    store = Store.open(folder / "store", create=True)
    keys = write_clips(store, asked)
    clock.say(f"{asked.clips} clips written, networks loaded")

    # Ours first warms up on one shard, plain on one clip: kernels are chosen and read once.
    units = [_shard(store, key, refs, asked.shard) for key in keys]
    units[0].run()
    rows: list[Clip] = [row for key in keys[1:] for row in store.read(key, "clips")]
    with Busy(asked.device) as busy:
        Runner(workers=asked.workers)(store, "score", units[1:])
    read = [row for unit in units[1:] for key in unit.keys for row in store.read(key, "scores")]
    scores: Scores = {(row.clip_id, row.reward): row.value for row in read}
    plain_clip(store, rows[0], singles)
    plain: Scores = {}
    with Busy(asked.device) as plain_busy:
        for row in rows[: asked.plain_clips]:
            plain |= plain_clip(store, row, singles)
            if clock.left < 0:
                break
    count = len(plain) // len(singles)
    gaps = {
        name: max(
            abs((value or 0.0) - (scores[clip_id, reward] or 0.0)) / max(1e-6, abs(value or 0.0))
            for (clip_id, reward), value in plain.items()
            if reward == name
        )
        for name in ("clip", "flow")
    }
    missing = [key for key, value in {**plain, **scores}.items() if value is None]
    sides = {"plain": plain_busy, "ours": busy}
    result = Result(
        "scoring",
        60 * count / plain_busy.seconds,
        60 * len(rows) / busy.seconds,
        "clips a minute, mp4 to scores of two rewards",
        more_is_better=True,
        libraries=("torch", "torchvision", "open_clip_torch", "av", "numpy"),
        shape={
            "clip": f"{asked.height}x{asked.width}x{asked.frames}",
            "clips": len(rows),
            "plain clips": count,
            "shard": asked.shard,
            "workers": asked.workers,
            "clip model": "the miniature's" if asked.mini else "ViT-B-32, random weights, 6 frames",
            "flow model": "the miniature's" if asked.mini else "RAFT large, random weights, 3 pairs",
            "updates": asked.updates,
        },
        equality={
            "largest relative gap of a score": gaps,
            "tolerance": TOLERANCE,
            "within tolerance": max(gaps.values()) <= TOLERANCE and not missing,
            "scores that failed": len(missing),
        },
        details={
            "GPU busy share": {side: one.share or one.why for side, one in sides.items()},
            "peak GiB": {side: one.peak_gib for side, one in sides.items()},
            "seconds": {side: one.seconds for side, one in sides.items()},
            "one part alone, seconds a clip": _parts(store, rows[: asked.shard], refs, asked.device),
        },
    )
    write(result, asked.out)


def plain_clip(store: Store, row: Clip, rewards: Sequence[Any]) -> Scores:
    """One clip the plain way: for each reward its file is read, decoded and judged alone."""
    return {(row.clip_id, reward.name): reward.score([_loaded(store, row)])[0].value for reward in rewards}


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


def drawn(height: int, width: int, frames: int, seed: int) -> NDArray[np.uint8]:
    """A textured field that drifts, and a disc on it that moves faster: motion for RAFT, edges for x264."""
    rng = np.random.default_rng(seed)
    field = np.kron(rng.random((height // 8 + 8, width // 8 + 8, 3)), np.ones((8, 8, 1)))
    speed, start = rng.integers(1, 4), rng.random(2)
    rows, columns = np.mgrid[:height, :width]
    pictures = []
    for t in range(frames):
        shift = int(t * speed) % 56
        picture = field[shift : shift + height, shift : shift + width].copy()
        y = (start[0] + 0.02 * t) % 1 * height
        x = (start[1] + 0.015 * speed * t) % 1 * width
        picture[(rows - y) ** 2 + (columns - x) ** 2 < (height / 8) ** 2] = (0.9, 0.1, 0.1)
        pictures.append(picture)
    return np.asarray(np.stack(pictures) * 255).round().astype(np.uint8)


def write_clips(store: Store, asked: argparse.Namespace) -> list[str]:
    """Shards of clips as the generate stage leaves them, and one more to warm up on; their keys."""
    prompts = load_prompts("train")
    geometry = (asked.height, asked.width, asked.frames)
    # A few scenes are enough: what a file holds twice is decoded twice.
    files = in_threads(lambda seed: encode_mp4(drawn(*geometry, seed), _FPS, _CODEC), list(range(8)))
    keys = []
    for shard in range(1 + max(1, asked.clips // asked.shard)):
        rows, media = [], []
        for place in range(asked.shard):
            index = shard * asked.shard + place
            video = store.write_media(files[index % len(files)], ".mp4")
            media.append(video)
            prompt = prompts[index % len(prompts)]
            rows.append(
                Clip(
                    clip_id=f"c{digest(['scoring', index])[:24]}", prompt_id=prompt.prompt_id,
                    prompt=prompt.text, category=prompt.category, split=prompt.split,
                    policy_id="drawn", seed=index, width=asked.width, height=asked.height,
                    frames=asked.frames, fps=float(_FPS), sampler="drawn", steps=1, guidance=1.0,
                    batch_size=asked.shard, row_in_batch=place, video_path=video.path,
                    video_sha256=video.sha256, codec=_CODEC.describe(), latent_path="", latent_row=0,
                    embed_row=0, device_kind="cpu", code_version="benchmark",
                )
            )  # fmt: skip
        question = {"stage": "generate", "version": 1, "benchmark": "scoring", "shard": shard}
        store.commit("generate", question, {"clips": rows}, media, info={"clips": len(rows)})
        keys.append(digest(question))
    return keys


def _loaded(store: Store, row: Clip) -> LoadedClip:
    frames, fps = decode_mp4(store.read_media(row.video_path))
    return LoadedClip(row.clip_id, row.prompt, frames, fps, row.category)


def _reward(name: str, settings: Any) -> RewardRef:
    return RewardRef(name, reward_version(name, settings), settings)


def _shard(store: Store, key: str, refs: Sequence[RewardRef], clips: int) -> ScoreShard:
    manifest = store.manifest(key)
    assert manifest is not None
    return ScoreShard(store.url, key, manifest.digest, tuple(refs), key[:8], clips)


def _parts(store: Store, rows: Sequence[Clip], refs: Sequence[RewardRef], device: str) -> dict[str, float]:
    """Seconds a clip of each part of ours by itself: where the time goes."""
    clips: list[LoadedClip] = []
    decode = elapsed(lambda: clips.extend(in_threads(partial(_loaded, store), list(rows))), device)
    found = {"decode, all cores": decode}
    for ref in refs:
        reward = build_reward(ref.name, ref.settings)
        reward.score(clips)
        found[ref.name] = elapsed(partial(reward.score, clips), device)
    return {name: round(seconds / len(rows), 4) for name, seconds in found.items()}


if __name__ == "__main__":
    main()
