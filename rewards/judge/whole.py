"""Whether a judge's weights fill its model, before a server is started for it or it is loaded here."""

from __future__ import annotations

from data.model_files import check_tokenizer
from data.weights import read_weights
from data.whole import STEMS, building
from rewards.judge.settings import JudgeSettings
from rewards.loading import at_hand, check_pretrained


def check_judge(settings: JudgeSettings) -> None:
    """Check the judge's weights and tokenizer, where they are on this machine; headers only.

    A server that is running holds its weights itself. Of a model that vLLM knows and transformers does not,
    only the files are looked at.

    Raises:
        ModelError: they are missing or not whole, or the weights do not fill the model.
    """
    ours = settings.in_process or settings.managed
    folder = at_hand(settings.model, settings.revision or None) if ours else None
    if folder is None:
        return
    read_weights(folder, STEMS)
    check_tokenizer(folder)
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as KNOWN

    if settings.managed:
        with building(f"judge: {settings.model}"):
            try:
                known = type(AutoConfig.from_pretrained(folder, local_files_only=True)) in KNOWN
            except ValueError:
                known = False  # code of its own, or newer than this library
        if not known:
            return
    check_pretrained(AutoModelForImageTextToText, "judge", settings.model, settings.revision)
