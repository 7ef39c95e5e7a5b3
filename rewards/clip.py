"""CLIP reward: how well single frames match the prompt.

    score = mean over F frames of cos(image(frame), text(prompt))        in [-1, 1]

CLIPScore without its rescaling (Hessel et al., 2021, arXiv 2104.08718, eq. 1) applied frame by frame, as
text-to-video papers do (Furuta et al., 2024, arXiv 2412.02617, section 4). It sees frames, never their
order: it cannot tell a fall from a rise. That is a property of this feedback and not a defect.
"""

from __future__ import annotations

from typing import Final, Literal

from data.errors import ModelError
from data.settings import setting
from rewards.kind import RewardKind, version_of
from rewards.loading import HUB, local_folder, opening, weights_identity
from rewards.similarity import FramesSettings, OpenClipReward

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1


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


def clip_version(settings: ClipSettings) -> str:
    """Digest of weights, frame sampling and code; loads nothing. Raises ModelError for want of weights."""
    weights = weights_identity("clip", settings.model, settings.pretrained)
    return version_of("clip", _CODE, settings, weights, "model", "pretrained")


class ClipReward(OpenClipReward):
    """Mean cosine of frames and prompt; see the module's docstring for the equation.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name = "clip"
    range = (-1.0, 1.0)
    each = "cosines"

    def __init__(self, settings: ClipSettings) -> None:
        import open_clip

        super().__init__(settings, clip_version(settings))
        folder = local_folder(settings.model)
        name = settings.model if folder is None else f"local-dir:{folder}"
        named = folder is None and not name.startswith(HUB)
        if named and name not in open_clip.list_models():
            raise ModelError(
                f"clip: {name!r} is neither a folder, nor a hub id ({HUB}org/name), nor an architecture of "
                "open_clip (its list_models() names them)"
            )
        with opening(self.name, settings.model):
            self.model, self.transform = open_clip.create_model_from_pretrained(
                name, settings.pretrained if named else None, precision=settings.precision, device=self.device
            )
            self.tokenize = open_clip.get_tokenizer(name)
        self.model.eval().requires_grad_(False)
        self.dtype = open_clip.get_input_dtype(settings.precision)


REWARD: Final = RewardKind(
    name="clip",
    settings=ClipSettings,
    build=ClipReward,
    version=clip_version,
    range=ClipReward.range,
    reads="single frames and the prompt",
)
