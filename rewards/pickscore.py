"""PickScore over frames: how much people prefer a picture for a prompt.

    value = mean over F frames of exp(logit scale) cos(image(frame), text(prompt))   in [-100, 100]

PickScore (Kirstain et al., 2023, arXiv 2305.01569, eq. 1) is transformers' CLIPModel of the size of ViT-H-14;
its score has the logit scale, about 100, so that differences are log-odds. See `rewards.similarity` for what
it cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from data.settings import setting
from rewards.kind import RewardKind
from rewards.loading import open_pretrained
from rewards.similarity import Frame, PreferenceSettings, SimilarityReward, preference_version

if TYPE_CHECKING:
    import torch

# CLIP's own limit of the learned logit scale (Radford et al., 2021, arXiv 2103.00020, section 2.5).
_MAX_SCALE: Final = 100.0


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


class PickScoreReward(SimilarityReward):
    """PickScore over frames; see the module's docstring.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name = "pickscore"
    range = (-_MAX_SCALE, _MAX_SCALE)

    def __init__(self, settings: PickScoreSettings) -> None:
        from transformers import CLIPModel, CLIPProcessor

        super().__init__(settings, preference_version(self.name, settings))
        self.model, self._processor = open_pretrained(
            CLIPModel, CLIPProcessor, self.name, settings.model, settings.revision, "float32"
        )
        self.model.to(self.device)
        self.scale = float(self.model.logit_scale.exp())

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """See `SimilarityReward.encode_texts`."""
        asked = self._processor(
            text=list(texts), padding=True, truncation=True, max_length=77, return_tensors="pt"
        )
        return _unit(self.model.get_text_features(**asked.to(self.device)))

    def encode_frames(self, frames: Sequence[Frame]) -> torch.Tensor:
        """See `SimilarityReward.encode_frames`."""
        asked = self._processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        return _unit(self.model.get_image_features(**asked.to(self.device)))


def _unit(found: Any) -> torch.Tensor:
    unit: torch.Tensor = found.pooler_output / found.pooler_output.norm(dim=-1, keepdim=True)
    return unit


REWARD: Final = RewardKind(
    name="pickscore",
    settings=PickScoreSettings,
    build=PickScoreReward,
    version=partial(preference_version, "pickscore"),
    range=PickScoreReward.range,
    reads="single frames and the prompt",
)
