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

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from data.errors import ModelError
from data.keys import digest
from data.resources import find
from rewards.base import Judgement, LoadedClip, guarded
from rewards.loading import local_folder, open_pretrained, pinned_identity, resolve_device

if TYPE_CHECKING:
    import torch

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1
ASPECTS: Final = ("visual", "temporal", "dynamic", "alignment", "factual")
_PLACE: Final = re.compile(r"\{(?:text_)?prompt\}")
_IMAGE: Final = "<image>"


@dataclass(frozen=True)
class VideoScoreSettings:
    """Settings of `videoscore`.

    Attributes:
        model: a folder, or a hub id, "hf-hub:org/name".
        revision: commit of a hub id, 40 hex digits; ignored for folders.
        prompt: text file with the words of the checkpoint's card; "": `prompt.txt` in the folder.
        aspect: what the value is: "mean", "visual" (quality), "temporal" (consistency), "dynamic" (degree),
            "alignment" (with the prompt) or "factual" (consistency).
        frames: at most so many of a clip: every (T / frames)-th from the first on, as the authors sample.
        dtype: "bfloat16", "float16" or "float32".
        device: "auto", "cpu", "cuda", "cuda:1"; not part of the version.
    """

    model: str = "hf-hub:TIGER-Lab/VideoScore-v1.1"
    revision: str = ""
    prompt: str = ""
    aspect: str = "mean"
    frames: int = 48
    dtype: str = "bfloat16"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ModelError(f"videoscore: frames ({self.frames}) must be at least 1")
        for name, value, known in (
            ("aspect", self.aspect, ("mean", *ASPECTS)),
            ("dtype", self.dtype, ("bfloat16", "float16", "float32")),
        ):
            if value not in known:
                raise ModelError(f"videoscore.{name} is {value!r}: use one of {', '.join(known)}")


def videoscore_version(settings: VideoScoreSettings) -> str:
    """Digest of weights, prompt, frame sampling, aspect and code; loads nothing.

    Raises:
        ModelError: there is no such folder, it holds another model, a hub id has no commit, or the prompt is
            missing or has no place for the clip's own.
    """
    weights = pinned_identity("videoscore", settings.model, settings.revision)
    folder = local_folder(settings.model)
    if folder is not None:
        _check_folder(folder)
    asked = [_template(settings), settings.frames, settings.aspect, settings.dtype]
    return digest(["videoscore", _CODE, weights, asked])[:16]


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
        path = folder / "prompt.txt"
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
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, outputs = found.get("model_type"), len(found.get("id2label") or (0, 1))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"videoscore: {folder} holds no config.json of a model: {error}") from None
    if kind != "idefics2" or outputs != len(ASPECTS):
        raise ModelError(
            f"videoscore: {folder} holds a {kind} with {outputs} outputs, and VideoScore is an idefics2 with "
            f"{len(ASPECTS)}"
        )
