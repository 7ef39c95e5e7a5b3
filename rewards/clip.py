"""CLIP reward: how well single frames match the prompt; and the base of every reward with two such encoders.

    score = mean over F frames of scale * cos(image(frame), text(prompt))        CLIP: scale 1, in [-1, 1]

CLIPScore without its rescaling (Hessel et al., 2021, arXiv 2104.08718, eq. 1) applied frame by frame, as
text-to-video papers do (Furuta et al., 2024, arXiv 2412.02617, section 4). Such a reward sees frames and
never their order: it cannot tell a fall from a rise, and a still can please it. That is a property of this
feedback and not a defect; `rewards.composite` mixes it with a motion floor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from data.device import resolve_device
from data.errors import ModelError
from data.model_files import read_json
from data.networks import network_line
from data.settings import Settings, setting
from data.text_limit import TextLimit, limit_of
from data.threads import in_threads
from data.weights import read_weights
from data.whole import building
from rewards.base import Judgement, LoadedClip, frame_indices, guarded
from rewards.kind import NetworkSettings, RewardKind, version_of
from rewards.loading import HUB, cached, local_folder, opening, weights_identity
from rewards.open_clip_files import check_open_clip, open_clip_stems

if TYPE_CHECKING:
    import torch

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1
CONTEXT: Final = 77
"""Tokens that CLIP's text encoder reads, where a model does not say another number."""
Frame = NDArray[np.uint8]  # [H, W, 3]


class FramesSettings(NetworkSettings):
    """Settings that all rewards with two encoders have."""

    frames: int = setting(
        8, "Frames", "Looked at, evenly spread over the clip, first and last included.", ge=1, le=1024
    )
    batch_size: int = setting(32, "Batch size", "Frames a forward pass: memory only.", cost_only=True, ge=1)


class ClipSettings(FramesSettings):
    """The CLIP reward: mean over frames of cosine(frame, prompt)."""

    model: str = setting(
        "ViT-B-32",
        "Model",
        "Folder with open_clip_config.json, safetensors and a tokenizer; or an open_clip architecture or hub "
        "id (hf-hub:org/name).",
        min_length=1,
    )
    pretrained: str = setting(
        "laion2b_s34b_b79k", "Weights", "Tag of an architecture's weights; folders and hub ids have none."
    )
    frames: int = setting(
        6, "Frames", "Looked at, evenly spread over the clip, first and last included.", ge=1, le=1024
    )
    batch_size: int = setting(96, "Batch size", "Frames a forward pass: memory only.", cost_only=True, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", "Precision", "16 bit: GPU only.")


class SimilarityReward(ABC):
    """Base of the rewards with two encoders; see the module's docstring. A class of its own loads its model.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name: str
    range = (-1.0, 1.0)
    scale = 1.0
    each = "scores"
    """What `detail` calls the frames' values."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.version = self.version_of(settings)
        self.device = resolve_device(settings.device)
        self.check(settings)
        with opening(self.name, settings.model):
            self.model: Any = self.load()
            self.limit = self.text_limit(settings)

    @classmethod
    @abstractmethod
    def version_of(cls, settings: Any) -> str:
        """Digest of weights, frame sampling and code; loads nothing. ModelError: there are no weights."""

    @classmethod
    @abstractmethod
    def text_limit(cls, settings: Any) -> TextLimit | None:
        """What its text encoder reads of a prompt; None: its tokenizer is not on this machine."""

    @classmethod
    @abstractmethod
    def check(cls, settings: Any) -> None:
        """Raise ModelError if weights that are on this machine do not fill the model; loads none."""

    @abstractmethod
    def load(self) -> Any:
        """The model, and whatever else the encoders need."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings [N, D]. What exceeds the model's context is cut by its tokenizer: `text_limit`."""

    @abstractmethod
    def encode_frames(self, frames: Sequence[Frame]) -> torch.Tensor:
        """Unit embeddings [N, D] of frames, uint8 [H, W, 3] each, preprocessed as the model wants."""

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One mean a clip; `detail` has the frame numbers seen and the value of each.

        Of a prompt that was cut it has `prompt_tokens` (how many it has) and `prompt_limit` (those read).
        """
        seen = [frame_indices(len(clip.frames), self.settings.frames) for clip in clips]
        prompts = sorted({clip.prompt for clip in clips})
        text = dict(zip(prompts, self.embed_texts(prompts), strict=True))
        cut = self.limit.cuts(prompts) if self.limit is not None else {}
        images = self.embed_frames(
            clip.frames[i] for clip, indices in zip(clips, seen, strict=True) for i in indices
        )
        ends = np.cumsum([len(indices) for indices in seen])[:-1]
        judgements = []
        for clip, indices, embedded in zip(clips, seen, np.split(images, ends), strict=True):
            values = [float(value) for value in self.scale * (embedded @ text[clip.prompt])]
            detail = {"frames": indices, self.each: values}
            if self.limit is not None and clip.prompt in cut:
                detail |= {"prompt_tokens": cut[clip.prompt], "prompt_limit": self.limit.tokens}
            judgements.append(Judgement(float(np.mean(values)), detail))
        return judgements

    @property
    def network(self) -> str:
        """How it computes."""
        return network_line(type(self.model).__name__, self.device, next(self.model.parameters()).dtype)

    def embed_texts(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """`encode_texts` in batches, float64 [N, D]."""
        return self._embedded(self.encode_texts, texts)

    def embed_frames(self, frames: Iterable[Frame]) -> NDArray[np.float64]:
        """`encode_frames` in batches, float64 [N, D]."""
        return self._embedded(self.encode_frames, frames)

    def _embedded(
        self, encode: Callable[[Sequence[Any]], torch.Tensor], items: Iterable[Any]
    ) -> NDArray[np.float64]:
        import torch

        rows, waiting = [], iter(items)
        with torch.inference_mode():
            while batch := list(islice(waiting, self.settings.batch_size)):
                rows.append(encode(batch).double().cpu().numpy())
        return np.concatenate(rows)

    @classmethod
    def kind(cls, settings: type[Settings]) -> RewardKind:
        """What the loop knows of it."""
        return RewardKind(
            cls.name,
            settings,
            cls,
            cls.version_of,
            cls.range,
            reads="single frames and the prompt",
            whole=cls.check,
            text_limit=cls.text_limit,
            network=lambda reward: reward.network,
        )


class OpenClipReward(SimilarityReward):
    """One whose model is open_clip's."""

    transform: Callable[[Any], torch.Tensor]
    tokenize: Callable[[Any], torch.Tensor]
    dtype: torch.dtype | None = None

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        found: torch.Tensor = self.model.encode_text(self.tokenize(texts).to(self.device), normalize=True)
        return found

    def encode_frames(self, frames: Sequence[Frame]) -> torch.Tensor:
        import torch
        from PIL import Image

        pixels = torch.stack(in_threads(lambda frame: self.transform(Image.fromarray(frame)), frames))
        found: torch.Tensor = self.model.encode_image(pixels.to(self.device, self.dtype), normalize=True)
        return found


def open_clip_limit(name: str) -> TextLimit | None:
    """What a model of open_clip reads of a prompt; None: its tokenizer is not on this machine.

    Args:
        name: folder with open_clip_config.json, hub id, or architecture.
    """
    folder = local_folder(name)
    if folder is not None and (folder / "tokenizer.json").is_file():
        with building(name):
            text = read_json(folder / "open_clip_config.json")["model_cfg"]["text_cfg"]
            length = text.get("context_length", CONTEXT)
        return limit_of(folder, length)
    if folder is None and name.startswith(HUB) and cached(name) is None:
        return None
    import open_clip

    tokenizer: Any = open_clip.get_tokenizer(name if folder is None else f"local-dir:{folder}")
    inner = getattr(tokenizer, "tokenizer", None)  # of transformers; open_clip's own adds its two when called
    if inner is None:
        return TextLimit(tokenizer.context_length, lambda text: len(tokenizer.encode(text)) + 2)
    return TextLimit(tokenizer.context_length, lambda text: len(inner(text, verbose=False).input_ids))


class ClipReward(OpenClipReward):
    """Mean cosine of frames and prompt."""

    name = "clip"
    each = "cosines"

    @classmethod
    def version_of(cls, settings: ClipSettings) -> str:
        stems = open_clip_stems(local_folder(settings.model))
        weights = weights_identity(cls.name, settings.model, settings.pretrained, stems=stems)
        return version_of(cls.name, _CODE, settings, weights, "model", "pretrained")

    @classmethod
    def check(cls, settings: ClipSettings) -> None:
        folder = local_folder(settings.model)
        if folder is not None:  # of published weights open_clip itself refuses those that do not fit
            weights = read_weights(folder, open_clip_stems(folder))
            check_open_clip(f"clip: {settings.model}", f"local-dir:{folder}", weights, convert=True)

    @classmethod
    def text_limit(cls, settings: ClipSettings) -> TextLimit | None:
        return open_clip_limit(settings.model)

    def load(self) -> Any:
        import open_clip

        folder = local_folder(self.settings.model)
        name = self.settings.model if folder is None else f"local-dir:{folder}"
        named = folder is None and not name.startswith(HUB)
        if named and name not in open_clip.list_models():
            raise ModelError(
                f"clip: {name!r} is neither a folder, nor a hub id ({HUB}org/name), nor an architecture of "
                "open_clip (its list_models() names them)"
            )
        precision = self.settings.precision
        model, self.transform = open_clip.create_model_from_pretrained(
            name, self.settings.pretrained if named else None, precision=precision, device=self.device
        )
        self.tokenize = open_clip.get_tokenizer(name)
        self.dtype = open_clip.get_input_dtype(precision)
        return model.eval().requires_grad_(False)


REWARD: Final = ClipReward.kind(ClipSettings)
