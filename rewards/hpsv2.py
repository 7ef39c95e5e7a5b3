"""HPSv2.1 over frames: how much people prefer a picture for a prompt.

    value = mean over F frames of cos(image(frame), text(prompt))        in [-1, 1]

HPSv2.1 (Wu et al., 2023, arXiv 2306.09341) is open_clip's ViT-H-14 with other weights, its score the cosine
without the logit scale. See `rewards.preference` for what it cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from data.device import resolve_device
from data.settings import setting
from rewards.base import Judgement, LoadedClip, guarded
from rewards.kind import RewardKind, always
from rewards.loading import HUB, local_folder, opening
from rewards.preference import Frames, PreferenceSettings, cosines, mean_over_frames, preference_version

if TYPE_CHECKING:
    import torch

# The architecture, where a folder does not say another; the weights file in a hub repository.
_ARCHITECTURE: Final = "ViT-H-14"
_WEIGHTS: Final = "model.safetensors"


class Hpsv2Settings(PreferenceSettings):
    """HPSv2.1, a model of what people prefer in pictures: mean over frames."""

    model: str = setting(
        "hf-hub:RE-N-Y/hpsv21",
        "Model",
        "Folder or hub id with the weights as model.safetensors, under open_clip's names or all after "
        "'model.'; a hub id needs its revision, a folder of another architecture open_clip_config.json. The "
        "authors' own file is a pickle, which is not read here.",
        min_length=1,
    )


def hpsv2_version(settings: Hpsv2Settings) -> str:
    """See `preference_version`."""
    return preference_version("hpsv2", settings)


class Hpsv2Reward:
    """HPSv2.1 over frames; see the module's docstring.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name: Final = "hpsv2"
    range: Final = (-1.0, 1.0)

    def __init__(self, settings: Hpsv2Settings) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from safetensors.torch import load_file

        self.settings = settings
        self.version = hpsv2_version(settings)
        self.device = resolve_device(settings.device)
        folder = local_folder(settings.model)
        own = folder is not None and (folder / "open_clip_config.json").exists()
        architecture = f"local-dir:{folder}" if own else _ARCHITECTURE
        with opening(self.name, settings.model):
            file = _hub_file(settings) if folder is None else folder / _WEIGHTS
            self.model = open_clip.create_model(architecture, load_weights=False, device=self.device)
            self.model.load_state_dict(_unwrapped(load_file(file)), strict=True)
            self._transform: Any = image_transform_v2(
                PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False
            )
            self._tokenize: Any = open_clip.get_tokenizer(architecture)
        self.model.eval().requires_grad_(False)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """Mean of the frames' scores; `detail` has the frame numbers seen and the score of each."""
        return mean_over_frames(clips, self.settings, self._scores)

    def _scores(self, frames: Frames, texts: Sequence[str], text_of: Sequence[int]) -> NDArray[np.float64]:
        import torch
        from PIL import Image

        pixels = torch.stack([self._transform(Image.fromarray(frame)) for frame in frames])
        with torch.inference_mode():
            images = self.model.encode_image(pixels.to(self.device), normalize=True)
            words = self.model.encode_text(self._tokenize(list(texts)).to(self.device), normalize=True)
        return cosines(images, words, text_of)


def _unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under open_clip's names: published copies hold the model as a part called `model`."""
    if all(name.startswith("model.") for name in state):
        return {name.removeprefix("model."): tensor for name, tensor in state.items()}
    return state


def _hub_file(settings: PreferenceSettings) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(settings.model.removeprefix(HUB), _WEIGHTS, revision=settings.revision))


REWARD: Final = RewardKind(
    name="hpsv2",
    settings=Hpsv2Settings,
    build=Hpsv2Reward,
    version=hpsv2_version,
    range=Hpsv2Reward.range,
    reads="single frames and the prompt",
    uses_gpu=always,
)
