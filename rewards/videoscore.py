"""VideoScore: a video reward model of five aspects, each a regression on people's marks from 1 to 4.

    value = mean of the aspects, or one of them    1 bad, 4 as a real video; not clipped: it may leave 1 to 4

VideoScore and VideoScore-v1.1 (He et al., 2024, arXiv 2406.15252) are transformers' Idefics2 with a linear
head of five outputs, read at the last token of a prompt that ends with the frames. The authors' class lives
in a training repository; what is needed of it is the head, so no code of a checkpoint is run. They look at up
to 16 (v1) or 48 (v1.1) frames in order, each as a picture.

The words in which a checkpoint is asked belong to it and stand on its card: `prompt` names a text file that
holds them, {prompt} or {text_prompt} where the clip's own stands. A folder may hold them as `prompt.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from data.device import resolve_device
from data.errors import ModelError
from data.json_text import parse_json
from data.networks import transformers_line
from data.resources import find
from data.settings import setting
from rewards.base import Judgement, LoadedClip, guarded
from rewards.kind import NetworkSettings, RewardKind, version_of
from rewards.loading import check_pretrained, local_folder, open_pretrained, pinned_identity

if TYPE_CHECKING:
    import torch

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1
ASPECTS: Final = ("visual", "temporal", "dynamic", "alignment", "factual")
_PLACE: Final = re.compile(r"\{(?:text_)?prompt\}")
_IMAGE: Final = "<image>"
_PROMPT: Final = "prompt.txt"


class VideoScoreSettings(NetworkSettings):
    """VideoScore, a model of people's marks of videos: five aspects from 1 to 4."""

    model: str = setting(
        "hf-hub:TIGER-Lab/VideoScore-v1.1",
        "Model",
        "Folder or hub id with an Idefics2 of five outputs in safetensors; a hub id needs its revision.",
        min_length=1,
    )
    revision: str = setting("", "Revision", "Commit of a hub id, 40 hex digits.")
    prompt: str = setting(
        "",
        "Prompt",
        "Text file with the words of the model's card, {prompt} in the place of the clip's own; empty: "
        "prompt.txt in the folder.",
    )
    aspect: Literal["mean", "visual", "temporal", "dynamic", "alignment", "factual"] = setting(
        "mean",
        "Aspect",
        "What the value is: quality, consistency in time, degree of motion, alignment with the prompt, "
        "factual consistency, or their mean; all five are kept.",
    )
    frames: int = setting(
        48, "Frames", "At most, at equal steps; 16 for VideoScore, 48 for v1.1.", ge=1, le=1024
    )
    dtype: Literal["float32", "bfloat16", "float16"] = setting("bfloat16", "Precision", "Of the model.")


def videoscore_version(settings: VideoScoreSettings) -> str:
    """Digest of weights, prompt, frame sampling, aspect and code; loads nothing.

    Raises:
        ModelError: there is no such folder, it holds another model, a hub id has no commit, or the prompt is
            missing or has no place for the clip's own.
    """
    weights = pinned_identity("videoscore", settings.model, settings.revision, _PROMPT)
    folder = local_folder(settings.model)
    if folder is not None:
        _check_folder(folder)
    content = [weights, _template(settings)]
    return version_of("videoscore", _CODE, settings, content, "model", "revision", "prompt")


class VideoScoreReward:
    """See the module's docstring.

    Raises:
        ModelError: the model or its prompt cannot be found or loaded.
    """

    name: Final = "videoscore"
    range: Final = (-float("inf"), float("inf"))

    def __init__(self, settings: VideoScoreSettings) -> None:
        from transformers import Idefics2Processor

        self.settings = settings
        self.version = videoscore_version(settings)
        self.device = resolve_device(settings.device)
        self._template = _template(settings)
        self.model, self._processor = open_pretrained(
            regressor(), Idefics2Processor, self.name, settings.model, settings.revision, settings.dtype
        )
        outputs = self.model.score.out_features
        if outputs != len(ASPECTS):
            raise ModelError(f"videoscore: {settings.model} has {outputs} outputs, not {len(ASPECTS)}")
        self.model.to(self.device)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One forward pass a clip; `detail` has the frame numbers seen and every aspect."""
        return [self._judge(clip) for clip in clips]

    def _judge(self, clip: LoadedClip) -> Judgement:
        import torch
        from PIL import Image

        seen = sampled(len(clip.frames), self.settings.frames)
        # The clip's prompt is data: a mark for a picture in it must not be taken for one.
        own = clip.prompt.replace(_IMAGE, "image")
        text = _PLACE.sub(lambda _: own, self._template) + f"{_IMAGE} " * len(seen)
        inputs = self._processor(
            text=text, images=[Image.fromarray(clip.frames[i]) for i in seen], return_tensors="pt"
        ).to(self.device, self.model.dtype)
        with torch.inference_mode():
            found = self.model(**inputs)[0].float().cpu().tolist()
        aspects = dict(zip(ASPECTS, found, strict=True))
        value = sum(found) / len(found) if self.settings.aspect == "mean" else aspects[self.settings.aspect]
        return Judgement(value, {"frames": seen, "aspects": aspects})


def regressor() -> Any:
    """The class of the checkpoints: Idefics2 with a linear head on the last token, logits [B, 5].

    Made when it is needed, because transformers is imported only then.
    """
    from torch import nn
    from transformers import Idefics2Model, Idefics2PreTrainedModel

    class Idefics2Regressor(Idefics2PreTrainedModel):  # type: ignore[misc]  # transformers has no types
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = Idefics2Model(config)
            self.score = nn.Linear(config.text_config.hidden_size, config.num_labels)
            self.post_init()

        def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
            # Prompts come one at a time, unpadded: the last token is the last of the prompt.
            hidden = self.model(**inputs, use_cache=False).last_hidden_state
            logits: torch.Tensor = self.score(hidden[:, -1])
            return logits

    return Idefics2Regressor


def sampled(total: int, most: int) -> list[int]:
    """The authors' choice: all frames, or `most` at equal steps from the first on, without the last."""
    return list(range(total)) if total <= most else [int(i * total / most) for i in range(most)]


def _template(settings: VideoScoreSettings) -> str:
    folder = local_folder(settings.model)
    if settings.prompt:
        path = find(settings.prompt)
    elif folder is not None:
        path = folder / _PROMPT
    else:
        raise ModelError(
            "videoscore.prompt: name a text file with the words of the model's card, {prompt} in the place "
            "of the clip's own"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"videoscore.prompt: {path} cannot be read as text: {error}") from None
    if not _PLACE.search(text):
        raise ModelError(f"videoscore.prompt: {path} has no {{prompt}}, the place of the clip's own")
    return text


def _check_folder(folder: Path) -> None:
    """Whether a folder can hold VideoScore, from its description alone. Raises ModelError."""
    try:
        found = parse_json((folder / "config.json").read_text(encoding="utf-8"))
        kind, outputs = found.get("model_type"), len(found.get("id2label") or (0, 1))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"videoscore: {folder} holds no config.json of a model: {error}") from None
    if kind != "idefics2" or outputs != len(ASPECTS):
        raise ModelError(
            f"videoscore: {folder} holds a {kind} with {outputs} outputs, and VideoScore is an idefics2 with "
            f"{len(ASPECTS)}"
        )


REWARD: Final = RewardKind(
    name="videoscore",
    settings=VideoScoreSettings,
    build=VideoScoreReward,
    version=videoscore_version,
    range=VideoScoreReward.range,
    reads="frames in order and the prompt",
    whole=lambda asked: check_pretrained(regressor(), "videoscore", asked.model, asked.revision),
    network=lambda reward: transformers_line(reward.model),
)
