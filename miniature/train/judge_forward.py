"""The judge's forward pass for training: many questions about many clips at once.

The same modules as Qwen2VLForConditionalGeneration, called in batches: the class patches one clip after the
other and attends within each temporal patch in a Python loop. `tests/miniature/train/test_train_judge.py`
holds it to the class's own forward pass, fed by the processor.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn import functional

from miniature.train.judge_model import JudgeShape
from rewards.judge.processing import Processing
from rewards.judge.rubric import Rubric

# Of the processor (CLIP's, which Qwen2-VL uses).
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
_ROPE_BASE: Final = 10000.0


class JudgeForward:
    """Hidden states of questions about clips.

    Attributes:
        yes, no: token ids of the answers.
        tail: tokens between a question and its answer.
    """

    def __init__(self, model: Any, processor: Any, shape: JudgeShape, rubric: Rubric) -> None:

        self.model = model
        self.shape = shape
        device = next(model.parameters()).device
        tokenizer = processor.tokenizer
        self.yes, self.no = (int(tokenizer(word)["input_ids"][0]) for word in ("yes", "no"))
        processing = Processing.of(processor, rubric)
        # The conversation around a mark tells what stands before the question and what after it.
        before, after = processing.text("\x00").split("\x00")
        pad = "<|video_pad|>"
        head = tokenizer(before.replace(pad, pad * shape.tokens), add_special_tokens=False)["input_ids"]
        self.tail: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
        self._head = torch.tensor(head, device=device)
        self._video = self._head == tokenizer.convert_tokens_to_ids(pad)
        self._cos, self._sin = (part.to(device) for part in self._vision_rotation())

    def __call__(self, frames: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states of the questions' tokens.

        Args:
            frames: float [B, F, 3, S, S] in [0, 1].
            ids: [B, Q, W], padded at the right: under a causal mask nothing looks at the padding.

        Returns:
            [B, Q, W, D].
        """
        language = self.model.model.language_model
        batch, asked, width = ids.shape
        head = language.embed_tokens(self._head)[None].repeat(batch, 1, 1)
        head[:, self._video] = self.vision(frames).to(head.dtype)
        head = head[:, None].expand(-1, asked, -1, -1).flatten(0, 1)
        embedded = torch.cat([head, language.embed_tokens(ids.flatten(0, 1).long())], dim=1)
        positions = self._positions(width)[:, None].expand(3, len(embedded), -1)
        hidden = language(
            inputs_embeds=embedded, position_ids=positions, attention_mask=None, use_cache=False
        ).last_hidden_state
        found: torch.Tensor = hidden[:, len(self._head) :].unflatten(0, (batch, asked))
        return found

    def vision(self, frames: torch.Tensor) -> torch.Tensor:
        """Vision tokens [B, tokens, D] of frames [B, F, 3, S, S] in [0, 1]."""
        tower = self.model.model.visual
        patches = self.patches(frames)
        hidden = functional.linear(patches, tower.patch_embed.proj.weight.flatten(1))
        for block in tower.blocks:
            hidden = hidden + self._attention(block.attn, block.norm1(hidden))
            hidden = hidden + block.mlp(block.norm2(hidden))
        tokens: torch.Tensor = tower.merger(hidden.flatten(0, 1)).unflatten(0, (len(frames), -1))
        return tokens

    def patches(self, frames: torch.Tensor) -> torch.Tensor:
        """Normalised patches [B, patches, 3 * temporal_patch * patch^2], in the processor's order."""
        shape = self.shape
        (time, high, wide), merge, side = shape.grid, shape.merge, shape.patch
        mean, std = (torch.tensor(v, device=frames.device)[:, None, None] for v in (MEAN, STD))
        pixels = (frames - mean) / std
        pixels = pixels.reshape(
            len(frames), time, shape.temporal_patch, 3, high // merge, merge, side, wide // merge, merge, side
        )
        # time, then blocks of merge x merge patches; within a patch: channel, frame, row, column.
        pixels = pixels.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        return pixels.reshape(len(frames), time * high * wide, -1)

    def _attention(self, attention: Any, hidden: torch.Tensor) -> torch.Tensor:
        """Attention of patches to those of the same time; hidden [B, T h w, D]."""
        batch, count, width = hidden.shape
        time, heads = self.shape.grid[0], attention.num_heads
        qkv = attention.qkv(hidden).view(batch, time, count // time, 3, heads, width // heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)  # [B, T, heads, h w, D / heads]
        query, key = (self._rotate(part) for part in (query, key))
        seen = functional.scaled_dot_product_attention(query, key, value)
        found: torch.Tensor = attention.proj(seen.transpose(2, 3).reshape(batch, count, width))
        return found

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:

        left, right = x.float().chunk(2, dim=-1)
        turned = torch.cat([-right, left], dim=-1)
        return (x.float() * self._cos + turned * self._sin).to(x.dtype)

    def _vision_rotation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [h w, D / heads] of the patches of one time, in the order of `patches`."""
        _, high, wide = self.shape.grid
        merge = self.shape.merge
        dim = self.model.config.vision_config.embed_dim // self.model.config.vision_config.num_heads
        rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        at = [
            part.reshape(high // merge, merge, wide // merge, merge).transpose(1, 2).flatten()
            for part in (rows, columns)
        ]
        frequency = 1.0 / _ROPE_BASE ** (torch.arange(0, dim // 2, 2).float() / (dim // 2))
        angle = torch.cat([part[:, None].float() * frequency for part in at], dim=1)
        angle = torch.cat([angle, angle], dim=1)
        return angle.cos(), angle.sin()

    def _positions(self, width: int) -> torch.Tensor:
        """M-RoPE positions [3, head + width]: text counts up, the clip's tokens have time, row and column."""
        (time, high, wide), merge = self.shape.grid, self.shape.merge
        high, wide = high // merge, wide // merge
        first = int(self._video.nonzero()[0])
        clip = torch.cartesian_prod(torch.arange(time), torch.arange(high), torch.arange(wide)).T + first
        after = first + max(high, wide)
        rest = len(self._head) - first - self.shape.tokens + width
        parts = [torch.arange(first).expand(3, -1), clip, (torch.arange(rest) + after).expand(3, -1)]
        return torch.cat(parts, dim=1).to(self._head.device)
