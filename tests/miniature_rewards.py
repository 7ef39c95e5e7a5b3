"""What the miniature's recipe says of the rewards that have weights: small networks, trained on its world."""

from typing import Any

CLIP = {"model": "miniature/weights/clip"}
FLOW = {"model": "miniature/weights/raft"}
JUDGE = {"model": "miniature/weights/judge", "rubric": "miniature/rubrics/world.yaml"}
SETTINGS: dict[str, dict[str, Any]] = {"clip": CLIP, "flow": FLOW, "judge": JUDGE}
