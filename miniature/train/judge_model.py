"""The miniature judge: a Qwen2-VL of three million parameters with a tokenizer and processor of its own.

The classes are transformers' own, so transformers and vLLM load it as they load Qwen2-VL-7B. It sees a clip
as few tokens: a long temporal patch and 2 x 2 merged patches make 16 frames of 64 x 64 pixels eight tokens.
Few tokens decide whether it learns to judge in minutes or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# A turn: <|im_start|>role, newline, content, <|im_end|>, newline; media stand where the message has them.
CHAT_TEMPLATE: Final = (
    "{%- macro show(part) -%}"
    "{%- if part.type == 'video' or 'video_url' in part -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif part.type == 'image' or 'image_url' in part -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{- part.text -}}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}{{- show(part) -}}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
_HEAD: Final = 32  # width of an attention head
_MROPE: Final = [4, 6, 6]  # rotary frequencies of a head for time, height, width
# transformers' default of 0.02 is made for wide layers; at this width the attention would hardly start.
_INIT: Final = 0.06
_VOCABULARY: Final = 512


@dataclass(frozen=True)
class JudgeShape:
    """Size of the judge and of what it sees.

    Attributes:
        size: side of a frame, pixels; a multiple of patch * merge. Frames of that size are not resized.
        patch: side of a patch, pixels.
        merge: patches a side that make one token.
        frames: frames of a clip; a multiple of temporal_patch.
        temporal_patch: frames that make one patch.
        vision_width, vision_depth: of the vision tower; the width is a multiple of 32.
        width, depth: of the language model; the width is a multiple of 32.

    Raises:
        ValueError: grid_t > grid_h / merge. There transformers and vLLM give the text after the clip
            different positions (M-RoPE), so the two backends would not be the same judge.
    """

    size: int = 64
    patch: int = 16
    merge: int = 2
    frames: int = 16
    temporal_patch: int = 8
    vision_width: int = 160
    vision_depth: int = 2
    width: int = 160
    depth: int = 4

    def __post_init__(self) -> None:
        if self.size % (self.patch * self.merge) or self.frames % self.temporal_patch:
            raise ValueError(f"{self} does not divide into whole patches and tokens")
        if self.grid[0] > self.grid[1] // self.merge:
            raise ValueError(
                f"grid_t {self.grid[0]} is larger than grid_h / merge {self.grid[1] // self.merge}: "
                "transformers and vLLM would disagree on the positions of the text; take a longer temporal "
                "patch"
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches of a clip: (time, height, width)."""
        side = self.size // self.patch
        return self.frames // self.temporal_patch, side, side

    @property
    def tokens(self) -> int:
        """Vision tokens of a clip."""
        time, height, width = self.grid
        return time * height * width // self.merge**2


def build_judge(shape: JudgeShape, texts: Sequence[str], seed: int) -> tuple[Any, Any]:
    """A judge with random weights in float32, and its processor.

    Args:
        shape: sizes.
        texts: what the tokenizer's vocabulary is learned from; "yes" and "no" are single tokens in any case.
        seed: of the weights.

    Returns:
        (Qwen2VLForConditionalGeneration, Qwen2VLProcessor).
    """
    processor = build_processor(shape, texts)
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text = {
        "hidden_size": shape.width,
        "intermediate_size": 3 * shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.width // _HEAD,
        "num_key_value_heads": shape.width // _HEAD,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": _MROPE},
        "initializer_range": _INIT,
        "tie_word_embeddings": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {
        "depth": shape.vision_depth,
        "embed_dim": shape.vision_width,
        "hidden_size": shape.width,
        "num_heads": shape.vision_width // _HEAD,
        "mlp_ratio": 2,
        "patch_size": shape.patch,
        "spatial_merge_size": shape.merge,
        "temporal_patch_size": shape.temporal_patch,
        "initializer_range": _INIT,
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    return Qwen2VLForConditionalGeneration(config).float(), processor


def build_processor(shape: JudgeShape, texts: Sequence[str]) -> Any:
    """Tokenizer, chat template and frame preprocessing: frames of `shape.size` are patched, never resized."""
    pixels = {"shortest_edge": shape.size**2, "longest_edge": shape.size**2}
    common: dict[str, Any] = {
        "size": pixels,
        "patch_size": shape.patch,
        "merge_size": shape.merge,
        "temporal_patch_size": shape.temporal_patch,
    }
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**common),
        video_processor=Qwen2VLVideoProcessor(
            cap_pixels_per_frame=False, min_frames=2, do_sample_frames=False, **common
        ),
        tokenizer=build_tokenizer(texts),
        chat_template=CHAT_TEMPLATE,
    )


def build_tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level BPE in which "yes" and "no" are single tokens, and so is nearly every word of `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    often = ["yes", "no", "system", "user", "assistant"] * (len(texts) + 1)
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *often], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:]),
        clean_up_tokenization_spaces=False,
    )
    for word in ("yes", "no"):
        assert len(fast(word)["input_ids"]) == 1, f"{word} is not one token"
    return fast


def save_judge(model: Any, processor: Any, folder: Path, half: bool = True) -> int:
    """Writes the checkpoint as transformers and vLLM load it; returns the size of the weights in bytes.

    Raises:
        FloatingPointError: a weight is not finite in 16 bit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = model.to(torch.float16) if half else model
    if not all(bool(torch.isfinite(value).all()) for value in saved.state_dict().values()):
        raise FloatingPointError("the judge's weights are not all finite in 16 bit; lower the learning rate")
    saved.save_pretrained(folder)
    processor.save_pretrained(folder)
    _readable_json(folder)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def load_judge(folder: Path, device: str) -> tuple[Any, Any]:
    """(model in float32 on `device`, processor) of a saved judge."""
    model: torch.nn.Module = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), AutoProcessor.from_pretrained(folder)


def _readable_json(folder: Path) -> None:
    """JSON files end with a newline, as files in a repository do."""
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=2, ensure_ascii=False) + "\n")
