"""Remake: a clip made again from its id, by what its shard's question says, and compared with what was seen.

Clips are sampled in batches of a fixed shape, and the batch is part of their identity; so the whole batch is
made again, and the one clip is kept. Nothing is written into the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data.errors import DataError
from data.keys import bytes_digest, only_one
from data.records import Clip, Prompt
from data.store import Store
from data.store.manifest import Manifest
from data.video import VideoSettings, decode_mp4, encode_mp4
from models.families.settings import ModelSettings, SampleSettings
from tasks import fingerprints
from tasks.context import ClipJob, Generation, PolicyRef, open_sampler


@dataclass(frozen=True)
class Remade:
    """A clip made again.

    Attributes:
        clip: its row, as it was committed.
        video: the file that was made now.
        frames_sha256: digest of the decoded frames of that file.
        same_file: whether its bytes are those that the row names.
        same_frames: whether the stored file shows the same frames; None if the store no longer has it.
    """

    clip: Clip
    video: bytes
    frames_sha256: str
    same_file: bool
    same_frames: bool | None


def remake(
    store: Store, clip_id: str, model: ModelSettings, find_policy: Callable[[str], PolicyRef]
) -> Remade:
    """Make a clip of `store` again.

    Args:
        store: holds the clip's row; its video and latent may be gone.
        clip_id: which clip; the first digits will do where no other clip's id begins so.
        model: the base model, and where it runs; its family, dtype and frame rate must be the clip's.
        find_policy: the policy of an id; its adapter must be in the store.

    Raises:
        DataError: the store has no such clip, or `model` is not what it was made with.
    """
    manifest, clip = _find(store, clip_id)
    how, jobs = generation(store, manifest, model)
    batch = jobs + jobs[-1:] * (how.batch_size - len(jobs))
    policy = find_policy(clip.policy_id)
    if fingerprints.sampling(how, policy) != manifest.question["sampling"]:
        raise DataError(
            "the clip was made by a release that rounded its policy's adapter to the model's dtype: "
            "there is nothing to compare with"
        )
    with open_sampler(how, policy) as sampler:
        made = sampler.generate([job.prompt.text for job in batch], [job.seed for job in batch])
    video = encode_mp4(made.frames[clip.row_in_batch], how.fps, how.video)
    frames = frames_digest(video)
    same_frames = None
    if store.has(clip.video_path):
        same_frames = frames_digest(store.read_media(clip.video_path)) == frames
    return Remade(clip, video, frames, bytes_digest(video) == clip.video_sha256, same_frames)


def generation(
    store: Store, manifest: Manifest, model: ModelSettings
) -> tuple[Generation, tuple[ClipJob, ...]]:
    """How a committed shard was made, and its clips in batch order.

    Raises DataError: the shard was made with another model family, precision or frame rate than `model` has.
    """
    asked = manifest.question
    if asked["version"] != fingerprints.VERSIONS["generate"]:
        raise DataError(
            f"the clip was made by an earlier release (generate version {asked['version']}, this is "
            f"{fingerprints.VERSIONS['generate']}): there is nothing to compare with"
        )
    sampling = asked["sampling"]
    made_with = ModelSettings(path=model.path, **sampling["model"])
    for name in {**sampling["model"], **model.fingerprint()}:
        then, now = getattr(made_with, name), getattr(model, name)
        if then != now:
            raise DataError(
                f"the clip was made with {name} {then!r}, the recipe's is {now!r}: name the recipe that it "
                "was made with"
            )
    how = Generation(
        store.url,
        model,
        SampleSettings.model_validate(sampling["sample"]),
        VideoSettings.model_validate(sampling["video"]),
        sampling["fps"],
        asked["batch_size"],
    )
    prompts = [Prompt(*one) for one in asked["prompts"]]
    return how, tuple(ClipJob(prompts[row], seed) for row, seed in asked["clips"])


def frames_digest(video: bytes) -> str:
    """SHA-256 of the decoded frames of a file, uint8 RGB in row order. Raises VideoError."""
    return bytes_digest(decode_mp4(video)[0].tobytes())


def _find(store: Store, clip_id: str) -> tuple[Manifest, Clip]:
    found = {
        clip.clip_id: (manifest, clip)
        for manifest in store.manifests("generate")
        for clip in store.read(manifest.key, "clips")
        if clip.clip_id.startswith(clip_id)
    }
    name = only_one(clip_id, found)
    if name not in found:
        raise DataError(f"{store.url} holds no clip {clip_id}; `vidloop query 'FROM clips'` names them")
    return found[name]
