"""Qwen-VL models of a few hundred thousand random parameters, with tokenizer and processor, as any checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from miniature.train.judge_model import CHAT_TEMPLATE, JudgeShape, build_judge, build_tokenizer, save_judge

TEXTS = [
    "Answer yes or no.",
    "task: a red ball falls onto the floor and bounces?",
    "physics objects overall",
    "yes no Yes No",
]


def build_tiny_vlm(folder: Path, frames: int = 4, seed: int = 0) -> None:
    """Save the model, the same one every time for a seed; its weights are large enough for answers to differ."""
    shape = JudgeShape(
        size=32, patch=8, merge=2, frames=frames, temporal_patch=2, vision_width=64, vision_depth=1, width=64, depth=1
    )  # fmt: skip
    model, processor = build_judge(shape, TEXTS, seed=seed)
    save_judge(model, processor, folder, half=False)


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-vlm") / "judge"
    build_tiny_vlm(folder)
    return folder


def build_tiny_qwen(folder: Path, kind: str) -> None:
    """A Qwen2.5-VL or Qwen3-VL with random weights ("qwen2_5_vl", "qwen3_vl"): two layers, frames of 32 x 32."""
    import torch
    import transformers

    tokenizer = build_tokenizer([*TEXTS, "<0.1 seconds><2.3 seconds><4.5 seconds><6.7 seconds><8.9 seconds>"])
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    marks = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    text: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096,
        "initializer_range": 0.06, "tie_word_embeddings": False,
        "bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "patch_size": 8,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "initializer_range": 0.06,
    }  # fmt: skip
    frame = 32 * 32
    if kind == "qwen2_5_vl":
        name = "Qwen2_5_VL"
        text |= {"rope_parameters": rope}
        vision |= {"window_size": 32, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        pixels, videos = (frame, frame), transformers.Qwen2VLVideoProcessor
    else:
        name = "Qwen3VL"
        text |= {"rope_parameters": {**rope, "mrope_interleaved": True}, "head_dim": 32}
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        # Its budget is for all pixels of a video.
        pixels, videos = (frame, 16 * frame), transformers.Qwen3VLVideoProcessor
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config=vision, tie_word_embeddings=False,
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
        vision_start_token_id=marks["vision_start"], vision_end_token_id=marks["vision_end"],
    )  # fmt: skip
    patches = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    processor = getattr(transformers, f"{name}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(
            size={"shortest_edge": frame, "longest_edge": frame}, **patches
        ),
        video_processor=videos(
            size={"shortest_edge": pixels[0], "longest_edge": pixels[1]}, do_sample_frames=False, **patches
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).float()
    save_judge(model, processor, folder, half=False)


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl"])
def tiny_qwen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each class that the recipes of real judges use, named after it."""
    folder: Path = tmp_path_factory.mktemp("tiny-qwen") / request.param
    build_tiny_qwen(folder, request.param)
    return folder


def build_tiny_internvl(folder: Path) -> None:
    """An InternVL over Qwen2 with random weights: two layers each, four tokens for a frame of 32 x 32."""
    import torch
    import transformers

    marks = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    own = build_tokenizer(
        [*TEXTS, "Frame1: Frame2: Frame3: Frame4: Frame5: Frame6: Frame7: Frame8: Frame9: Frame0:"]
    )
    own.add_special_tokens({"additional_special_tokens": list(marks.values())})
    own.save_pretrained(folder)
    # The processor reads what its marks are from the tokenizer's file.
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, extra_special_tokens=marks)
    text: dict[str, Any] = {
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096, "initializer_range": 0.06, "tie_word_embeddings": False,
        "bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": [32, 32], "patch_size": [8, 8], "initializer_range": 0.06,
    }  # fmt: skip
    config = transformers.InternVLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=False, image_seq_length=4, downsample_ratio=0.5,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    template = CHAT_TEMPLATE
    for media, mark in (("video", "<video>"), ("image", "<IMG_CONTEXT>")):
        template = template.replace(f"<|vision_start|><|{media}_pad|><|vision_end|>", f"{mark}\n")
    processor = transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(size=size, crop_to_patches=False),
        video_processor=transformers.InternVLVideoProcessor(size=size, do_sample_frames=False),
        tokenizer=tokenizer, image_seq_length=4, chat_template=template,
    )  # fmt: skip
    torch.manual_seed(0)
    save_judge(transformers.InternVLForConditionalGeneration(config).float(), processor, folder, half=False)


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl", "internvl"])
def tiny_real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_qwen`, of every class that a shipped recipe's judge has."""
    folder: Path = tmp_path_factory.mktemp("tiny-real") / request.param
    if request.param == "internvl":
        build_tiny_internvl(folder)
    else:
        build_tiny_qwen(folder, request.param)
    return folder
