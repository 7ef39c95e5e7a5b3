from __future__ import annotations

import json
from pathlib import Path

from data.text_limit import limit_of


def test_a_tokenizer_without_a_file_of_the_quick_kind_counts_too(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "ball"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    limit = limit_of(tmp_path, 6)
    assert limit is not None
    assert limit.cuts(["a ball a ball", "a ball a ball a", "ball"]) == {"a ball a ball a": 7}


def test_a_short_text_needs_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("damaged")
    limit = limit_of(tmp_path, 12)
    assert limit is not None
    assert limit.exceeded("ten signs.") is None


def test_an_empty_folder_holds_none(tmp_path: Path) -> None:
    assert limit_of(tmp_path, 6) is None
    assert limit_of(tmp_path / "nowhere", 6) is None
