"""Models of the classes that judge pictures and videos, with tiny random weights: HPSv2, PickScore, VideoScore."""

from __future__ import annotations

import shutil
from pathlib import Path

from rewards.videoscore import ASPECTS, regressor
from tests.miniature_rewards import CLIP

ROOT = Path(__file__).resolve().parents[1]
TEXT = "a red ball moves to the left"
VIDEOSCORE_PROMPT = 'Mark these frames of a video that was made from the text "{text_prompt}" .\n'


def build_hpsv2(folder: Path) -> Path:
    """An open_clip model as published copies of HPSv2.1 hold it: safetensors, every name after `model.`."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    for name in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / CLIP["model"] / name, folder)
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(
        {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def build_pickscore(folder: Path) -> Path:
    """A CLIPModel of transformers with its processor, as PickScore is published."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
    )

    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *TEXT.split(), "blue"])}
    tokens = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = CLIPModel(
        CLIPConfig(
            text_config=size
            | {"vocab_size": len(words), "max_position_embeddings": 77, "bos_token_id": 1, "eos_token_id": 2},
            vision_config=size | {"image_size": 32, "patch_size": 8},
            projection_dim=16,
            logit_scale_init_value=4.0,
        )
    )
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def build_videoscore(folder: Path) -> Path:
    """As the published checkpoints: `model.*` of an Idefics2, `score.*` of the head, and the card's words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        Idefics2Config,
        Idefics2ImageProcessor,
        Idefics2Processor,
        PreTrainedTokenizerFast,
    )

    words = [
        "<unk>",
        "<s>",
        "</s>",
        *VIDEOSCORE_PROMPT.split(),
        "a",
        "red",
        "blue",
        "ball",
        "moves",
        "to",
        "the",
        "left",
        '"',
    ]
    ids = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokens = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    images = Idefics2ImageProcessor(size={"shortest_edge": 16, "longest_edge": 32}, do_image_splitting=False)
    processor = Idefics2Processor(images, tokenizer, image_seq_len=3)
    config = Idefics2Config(
        text_config={
            "model_type": "mistral", "vocab_size": len(processor.tokenizer), "hidden_size": 32, "intermediate_size": 37,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 4,
            "image_size": 32, "patch_size": 8, "initializer_range": 0.2,
        },
        perceiver_config={
            "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        image_token_id=processor.image_token_id,
        num_labels=len(ASPECTS),
    )  # fmt: skip
    torch.manual_seed(0)
    model = regressor()(config)
    torch.nn.init.normal_(model.score.weight, std=1.0)
    torch.nn.init.normal_(model.score.bias, mean=2.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "prompt.txt").write_text(VIDEOSCORE_PROMPT)
    return folder
