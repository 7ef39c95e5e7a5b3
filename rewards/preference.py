"""HPSv2.1 and PickScore over frames: how much people prefer a picture for a prompt.

    hpsv2       mean over F frames of cos(image(frame), text(prompt))                      in [-1, 1]
    pickscore   mean over F frames of exp(logit scale) cos(image(frame), text(prompt))     in [-100, 100]

HPSv2.1 (Wu et al., 2023, arXiv 2306.09341) is open_clip's ViT-H-14 with other weights, its score the cosine
without the logit scale. PickScore (Kirstain et al., 2023, arXiv 2305.01569, eq. 1) is transformers' CLIPModel
of the same size; its score has the logit scale, about 100, so that differences are log-odds. `rewards.clip`
says what neither can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from data.networks import transformers_line
from data.settings import setting
from data.text_limit import TextLimit, limit_of
from data.weights import read_weights
from data.whole import STEMS
from rewards.clip import CONTEXT, Frame, FramesSettings, OpenClipReward, SimilarityReward, open_clip_limit
from rewards.kind import version_of
from rewards.loading import (
    HUB,
    at_hand,
    cached,
    check_pretrained,
    local_folder,
    open_pretrained,
    pinned_identity,
)
from rewards.open_clip_files import check_open_clip, without_part

if TYPE_CHECKING:
    import torch

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1
# Of HPSv2.1: its architecture, where a folder does not say another; the weights file in a hub repository.
_ARCHITECTURE: Final = "ViT-H-14"
_WEIGHTS: Final = "model.safetensors"
# CLIP's own limit of the learned logit scale (Radford et al., 2021, arXiv 2103.00020, section 2.5).
_MAX_SCALE: Final = 100.0


class PreferenceSettings(FramesSettings):
    """Settings of the models of what people prefer in pictures."""

    model: str = setting("", "Model", "Folder or hub id (hf-hub:org/name).", min_length=1)
    revision: str = setting("", "Revision", "Commit of a hub id, 40 hex digits.")


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


class PickScoreSettings(PreferenceSettings):
    """PickScore, a model of what people prefer in pictures: mean over frames."""

    model: str = setting(
        "hf-hub:yuvalkirstain/PickScore_v1",
        "Model",
        "Folder or hub id with a transformers CLIPModel and its processor.",
        min_length=1,
    )
    revision: str = setting(
        "a4e4367c6dfa7288a00c550414478f865b875800",
        "Revision",
        "Commit of a hub id, 40 hex digits.",
    )


class PreferenceReward(SimilarityReward):
    """One whose weights are a folder's, or a hub id's at a commit."""

    @classmethod
    def version_of(cls, settings: PreferenceSettings) -> str:
        weights = pinned_identity(cls.name, settings.model, settings.revision)
        return version_of(cls.name, _CODE, settings, weights, "model", "revision")


class Hpsv2Reward(PreferenceReward, OpenClipReward):
    """HPSv2.1 over frames."""

    name = "hpsv2"

    @classmethod
    def text_limit(cls, settings: Hpsv2Settings) -> TextLimit | None:
        own = _architecture(settings.model) != _ARCHITECTURE
        return open_clip_limit(settings.model if own else _ARCHITECTURE)

    @classmethod
    def check(cls, settings: Hpsv2Settings) -> None:
        folder = at_hand(settings.model, settings.revision or None)
        if folder is not None:
            architecture = _architecture(settings.model)
            weights = read_weights(folder, STEMS)
            check_open_clip(f"{cls.name}: {settings.model}", architecture, weights, convert=False)

    def load(self) -> Any:
        import open_clip
        from huggingface_hub import hf_hub_download
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from safetensors.torch import load_file

        name, revision = self.settings.model, self.settings.revision
        folder, architecture = local_folder(name), _architecture(name)
        if folder is None:
            file = Path(hf_hub_download(name.removeprefix(HUB), _WEIGHTS, revision=revision))
        else:
            file = folder / _WEIGHTS
        state = without_part(load_file(file))
        model = open_clip.create_model(architecture, load_weights=False, device=self.device)
        model.load_state_dict(state, strict=True)
        self.transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        self.tokenize = open_clip.get_tokenizer(architecture)
        return model.eval().requires_grad_(False)


def _architecture(model: str) -> str:
    """What open_clip builds: a folder's own architecture, or the one that was published."""
    folder = local_folder(model)
    own = folder is not None and (folder / "open_clip_config.json").exists()
    return f"local-dir:{folder}" if own else _ARCHITECTURE


class PickScoreReward(PreferenceReward):
    """PickScore over frames."""

    name = "pickscore"
    range = (-_MAX_SCALE, _MAX_SCALE)

    @classmethod
    def text_limit(cls, settings: PickScoreSettings) -> TextLimit | None:
        folder = local_folder(settings.model) or cached(settings.model, settings.revision)
        return limit_of(folder, CONTEXT) if folder is not None else None

    @classmethod
    def check(cls, settings: PickScoreSettings) -> None:
        from transformers import CLIPModel

        check_pretrained(CLIPModel, cls.name, settings.model, settings.revision)

    def load(self) -> Any:
        from transformers import CLIPModel, CLIPProcessor

        model, self._processor = open_pretrained(
            CLIPModel, CLIPProcessor, self.name, self.settings.model, self.settings.revision, "float32"
        )
        self.scale = float(model.logit_scale.exp())
        return model.to(self.device)

    @property
    def network(self) -> str:
        return transformers_line(self.model)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        asked = self._processor(
            text=list(texts), padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt"
        )
        return _unit(self.model.get_text_features(**asked.to(self.device)))

    def encode_frames(self, frames: Sequence[Frame]) -> torch.Tensor:
        asked = self._processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        return _unit(self.model.get_image_features(**asked.to(self.device)))


def _unit(found: Any) -> torch.Tensor:
    unit: torch.Tensor = found.pooler_output / found.pooler_output.norm(dim=-1, keepdim=True)
    return unit


REWARD: Final = (Hpsv2Reward.kind(Hpsv2Settings), PickScoreReward.kind(PickScoreSettings))
