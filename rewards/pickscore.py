"""PickScore over frames: how much people prefer a picture for a prompt.

    value = mean over F frames of exp(logit scale) cos(image(frame), text(prompt))   in [-100, 100]

PickScore (Kirstain et al., 2023, arXiv 2305.01569, eq. 1) is transformers' CLIPModel of the size of ViT-H-14;
its score has the logit scale, about 100, so that differences are log-odds. See `rewards.preference` for what
it cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.device import resolve_device
from data.settings import setting
from rewards.base import Judgement, LoadedClip, guarded
from rewards.kind import RewardKind, always
from rewards.loading import open_pretrained
from rewards.preference import Frames, PreferenceSettings, cosines, mean_over_frames, preference_version

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


def pickscore_version(settings: PickScoreSettings) -> str:
    """See `preference_version`."""
    return preference_version("pickscore", settings)


class PickScoreReward:
    """PickScore over frames; see the module's docstring.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name: Final = "pickscore"
    range: Final = (-_MAX_SCALE, _MAX_SCALE)

    def __init__(self, settings: PickScoreSettings) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.settings = settings
        self.version = pickscore_version(settings)
        self.device = resolve_device(settings.device)
        self.model, self._processor = open_pretrained(
            CLIPModel, CLIPProcessor, self.name, settings.model, settings.revision, "float32"
        )
        self.model.to(self.device)
        self.scale = float(self.model.logit_scale.exp())

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """Mean of the frames' scores; `detail` has the frame numbers seen and the score of each."""
        return mean_over_frames(clips, self.settings, self._scores)

    def _scores(self, frames: Frames, texts: Sequence[str], text_of: Sequence[int]) -> NDArray[np.float64]:
        import torch

        asked = self._processor(
            text=list(texts), images=list(frames), padding=True, truncation=True, max_length=77,
            return_tensors="pt", input_data_format="channels_last",
        ).to(self.device)  # fmt: skip
        with torch.inference_mode():
            found = self.model(**asked)
        return self.scale * cosines(found.image_embeds, found.text_embeds, text_of)


REWARD: Final = RewardKind(
    name="pickscore",
    settings=PickScoreSettings,
    build=PickScoreReward,
    version=pickscore_version,
    range=PickScoreReward.range,
    reads="single frames and the prompt",
    uses_gpu=always,
)
