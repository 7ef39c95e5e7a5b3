"""Optical-flow reward: how much moves, and how fast.

    score = mean over pairs (t, t + s) of mean over the 5% fastest pixels of |flow| * fps / s / min(H, W)

in fractions of the short side a second. RAFT (Teed and Deng, 2020, arXiv 2003.12039) as in torchvision; the
mean of the top 5% is VBench's dynamic degree (Huang et al., 2024, arXiv 2311.17982) and the paper's flow
feedback (Furuta et al., 2024, arXiv 2412.02617, section 4). It rewards motion, right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from data.device import resolve_device
from data.errors import ModelError
from data.model_files import read_json
from data.networks import network_line
from data.settings import setting
from data.weights import check_keys, read_weights
from data.whole import STEMS
from rewards.base import CannotJudge, Judgement, LoadedClip, failed, guarded, known_fps, pair_starts
from rewards.kind import NetworkSettings, RewardKind, version_of
from rewards.loading import local_folder, opening, weights_identity

if TYPE_CHECKING:
    import torch
    from torchvision.models.optical_flow import RAFT

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1
_ARCHITECTURES: Final = ("raft_small", "raft_large")
_MIN_SIDE: Final = 128  # the correlation pyramid has nothing left at its top below this
_MULTIPLE: Final = 8  # the encoder's stride


class FlowSettings(NetworkSettings):
    """The optical-flow reward: speed of the fastest 5% of pixels by RAFT, in short sides a second."""

    model: str = setting(
        "raft_large",
        "Model",
        'Folder with config.json ({"architecture": "raft_small"}) and model.safetensors; or raft_small or '
        "raft_large, for torchvision's published weights.",
        min_length=1,
    )
    pretrained: str = setting(
        "", "Weights", "torchvision's name of an architecture's weights (C_T_V2); empty: its default."
    )
    stride: int = setting(2, "Stride", "Frames between the two images of a pair.", unit="frames", ge=1, le=64)
    pairs: int = setting(3, "Pairs", "Measured a clip, evenly spread over it.", ge=1, le=256)
    updates: int = setting(4, "Updates", "RAFT's refinement steps a pair (num_flow_updates).", ge=1, le=64)
    top: float = setting(0.05, "Top", "Share of the fastest pixels that is averaged.", gt=0.0, le=1.0)
    short_side: int = setting(
        0,
        "Short side",
        "Larger frames are shrunk to it first; 0: never. Smaller ones are always enlarged to 128, the least "
        "that RAFT takes; the result is in pixels of the clip all the same.",
        unit="px",
        ge=0,
        le=4096,
    )
    batch_size: int = setting(24, "Batch size", "Pairs a forward pass: memory only.", cost_only=True, ge=1)

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        if self.short_side and self.short_side < _MIN_SIDE:
            raise ValueError(
                f"short_side is {self.short_side}; RAFT needs {_MIN_SIDE} or more (0 keeps the size)"
            )
        return self


def flow_version(settings: FlowSettings) -> str:
    """Digest of weights, pair sampling and code; loads nothing. Raises ModelError for want of weights."""
    weights = weights_identity("flow", settings.model, settings.pretrained)
    return version_of("flow", _CODE, settings, weights, "model", "pretrained")


class FlowReward:
    """Speed of the fastest pixels; see the module's docstring for the equation.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name: Final = "flow"
    range: Final = (0.0, float("inf"))

    def __init__(self, settings: FlowSettings) -> None:
        self.settings = settings
        self.version = flow_version(settings)
        self.device = resolve_device(settings.device)
        self.model = (
            load_raft(settings.model, settings.pretrained).to(self.device).eval().requires_grad_(False)
        )

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One speed a clip; `detail` has the pairs of frame numbers and the speed of each.

        A clip of unknown frame rate, or with no more frames than the stride, has no value.
        """
        judgements: dict[int, Judgement] = {}
        jobs: dict[tuple[int, ...], list[tuple[int, int]]] = {}  # by shape: (clip, first frame)
        for place, clip in enumerate(clips):
            try:
                starts = self._starts(clip)
            except CannotJudge as error:
                judgements[place] = failed(str(error))
            else:
                jobs.setdefault(clip.frames.shape[1:], []).extend((place, start) for start in starts)
        stride = self.settings.stride
        moved: dict[int, dict[int, float]] = {}  # by clip: by first frame
        for some in jobs.values():
            for at in range(0, len(some), self.settings.batch_size):
                batch = some[at : at + self.settings.batch_size]
                first = np.stack([clips[place].frames[start] for place, start in batch])
                second = np.stack([clips[place].frames[start + stride] for place, start in batch])
                for (place, start), length in zip(batch, self._fastest(first, second), strict=True):
                    moved.setdefault(place, {})[start] = length
        for place, lengths in moved.items():
            clip = clips[place]
            scale = known_fps(clip) / stride / min(clip.frames.shape[1:3])
            speeds = [length * scale for length in lengths.values()]
            pairs = [(start, start + stride) for start in lengths]
            detail = {"pairs": pairs, "n_pairs": len(speeds), "speeds": speeds, "fps": clip.fps}
            judgements[place] = Judgement(float(np.mean(speeds)), detail)
        return [judgements[place] for place in range(len(clips))]

    def flow(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> torch.Tensor:
        """Flow from `first` to `second`, both uint8 [B, H, W, 3], in pixels of those frames.

        Returns float32 [B, 2, H', W'] (x to the right, y down) on RAFT's grid and the reward's device.
        """
        import torch

        height, width = first.shape[1:3]
        size = working_size(height, width, self.settings.short_side)
        with torch.inference_mode():
            images = [
                raft_input(torch.from_numpy(frames).to(self.device), size) for frames in (first, second)
            ]
            flow: torch.Tensor = self.model(*images, num_flow_updates=self.settings.updates)[-1]
            return flow * flow.new_tensor([width / size[1], height / size[0]]).view(1, 2, 1, 1)

    def _fastest(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> list[float]:
        """Mean length of the top share of flow vectors of each pair, in pixels of the frames."""
        speed = self.flow(first, second).norm(dim=1).flatten(1)
        count = max(1, round(self.settings.top * speed.shape[1]))
        return [float(value) for value in speed.topk(count, dim=1).values.double().mean(dim=1).cpu()]

    def _starts(self, clip: LoadedClip) -> list[int]:
        stride = self.settings.stride
        if len(clip.frames) <= stride:
            raise CannotJudge(f"the clip has {len(clip.frames)} frames, a stride of {stride} needs more")
        known_fps(clip)
        return pair_starts(len(clip.frames), stride, self.settings.pairs)


def working_size(height: int, width: int, short_side: int = 0) -> tuple[int, int]:
    """(H', W') at which RAFT sees frames: shrunk to `short_side` if larger, at least 128, multiples of 8."""
    short = min(height, width)
    target = min(short, short_side) if short_side else short
    scale = max(target, _MIN_SIDE) / short
    fitted = [max(_MIN_SIDE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (height, width)]
    return fitted[0], fitted[1]


def raft_input(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H', W'] in [-1, 1], resized bilinearly, as RAFT expects it."""
    from torch.nn import functional

    images = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
    if images.shape[-2:] == size:
        return images
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def load_raft(name: str, pretrained: str = "") -> RAFT:
    """torchvision's RAFT from a folder of ours, or with its published weights. Raises ModelError."""
    from safetensors.torch import load_file
    from torchvision.models import get_model_weights, optical_flow

    check_raft(name)
    folder = local_folder(name)
    with opening("flow", name):
        architecture = _architecture(name)
        model: RAFT = getattr(optical_flow, architecture)()
        if folder is not None:
            state = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
        else:
            choices = get_model_weights(architecture)
            weights = choices[pretrained] if pretrained else choices.DEFAULT
            state = weights.get_state_dict(check_hash=True, weights_only=True)
        model.load_state_dict(state)
    return model


def check_raft(name: str) -> None:
    """Check that the weights of a folder of ours fill RAFT; headers only. Raises ModelError."""
    import torch
    from torchvision.models import optical_flow

    folder = local_folder(name)
    if folder is None:
        return  # torchvision checks the hash of what it publishes
    architecture = _architecture(name)
    with torch.device("meta"):
        model: RAFT = getattr(optical_flow, architecture)()
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    check_keys(f"flow: {name} ({architecture})", read_weights(folder, STEMS).shapes, wanted)


def _architecture(name: str) -> str:
    folder = local_folder(name)
    with opening("flow", name):
        if folder is not None:
            name = str(read_json(folder / "config.json").get("architecture"))
    if name not in _ARCHITECTURES:
        said = f"{name!r} is no folder" if folder is None else f"{folder}/config.json says {name!r}"
        raise ModelError(f"flow: {said}, and is none of {', '.join(_ARCHITECTURES)}")
    return name


REWARD: Final = RewardKind(
    name="flow",
    settings=FlowSettings,
    build=FlowReward,
    version=flow_version,
    range=FlowReward.range,
    reads="frames in order and their rate",
    whole=lambda settings: check_raft(settings.model),
    network=lambda reward: network_line(type(reward.model).__name__, reward.device, "float32", ""),
)
