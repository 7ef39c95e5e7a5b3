"""HPSv2.1 over frames: how much people prefer a picture for a prompt.

    value = mean over F frames of cos(image(frame), text(prompt))        in [-1, 1]

HPSv2.1 (Wu et al., 2023, arXiv 2306.09341) is open_clip's ViT-H-14 with other weights, its score the cosine
without the logit scale. See `rewards.similarity` for what it cannot see.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from data.settings import setting
from rewards.kind import RewardKind
from rewards.loading import HUB, local_folder, opening
from rewards.similarity import OpenClipReward, PreferenceSettings, preference_version

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


class Hpsv2Reward(OpenClipReward):
    """HPSv2.1 over frames; see the module's docstring.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name = "hpsv2"
    range = (-1.0, 1.0)

    def __init__(self, settings: Hpsv2Settings) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from safetensors.torch import load_file

        super().__init__(settings, preference_version(self.name, settings))
        folder = local_folder(settings.model)
        own = folder is not None and (folder / "open_clip_config.json").exists()
        architecture = f"local-dir:{folder}" if own else _ARCHITECTURE
        with opening(self.name, settings.model):
            file = _hub_file(settings) if folder is None else folder / _WEIGHTS
            self.model = open_clip.create_model(architecture, load_weights=False, device=self.device)
            self.model.load_state_dict(_unwrapped(load_file(file)), strict=True)
            self.transform = image_transform_v2(
                PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False
            )
            self.tokenize = open_clip.get_tokenizer(architecture)
        self.model.eval().requires_grad_(False)


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
    version=partial(preference_version, "hpsv2"),
    range=Hpsv2Reward.range,
    reads="single frames and the prompt",
)
