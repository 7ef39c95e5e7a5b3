"""A word-level tokenizer for the captions of the world, as transformers and open_clip read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD: Final = "<pad>"
UNKNOWN: Final = "<unk>"
EOS_ID: Final = 1


def build_tokenizer(words: Sequence[str], eos: str, longest: int) -> PreTrainedTokenizerFast:
    """One token a word, lower case, split at spaces and punctuation; any other word is `<unk>`.

    `eos` closes a text (CLIP's text tower reads its summary there); no text is longer than `longest` tokens.
    """
    special = (PAD, eos, UNKNOWN)  # ids 0, 1, 2
    vocabulary = {word: index for index, word in enumerate((*special, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, EOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=eos,
        unk_token=UNKNOWN,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )
