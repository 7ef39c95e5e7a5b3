"""The benchmark of curation, small: both sides curate what it builds, to the same parts."""

import json

from benchmarks.curation import main


def test_both_sides_give_the_same_parts(tmp_path, monkeypatch):
    sizes = ["--clips", "500", "--plain-clips", "240", "--per-prompt", "8", "--unit", "100", "--rewards", "2"]
    monkeypatch.setattr("sys.argv", ["curation", *sizes, "--out", str(tmp_path)])
    main()
    found = json.loads((tmp_path / "curation.json").read_text())
    assert found["equality"] == {"parts of the same digests": True}
    assert found["details"]["plain"]["outcome"] == found["details"]["ours"]["outcome"]
    assert "pairs from 30 of 30 prompts" in found["details"]["ours"]["outcome"]
    assert found["details"]["ours, 500 clips"]["outcome"].endswith("of 63 prompts")
