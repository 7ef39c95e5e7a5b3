"""What a judge says of prompts by their text alone: asked once, kept in the store, the same for every clip.

A unit holds the answers about one prompt by one judge. Clips of a prompt that are scored in another shard,
for another policy or in a later round are asked the same questions, also where an answer near the middle
would come out otherwise a second time.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any, Final

from data.keys import digest
from data.records import PromptAnswer, prompt_id
from data.store import Store
from rewards import Judgement, LoadedClip, PartedReward
from tasks import fingerprints
from tasks.units import holds

STAGE: Final = "score-prompts"
# Threads that score shards of one prompt wait for its answers, and do not ask too.
_ASKING: Final = threading.Lock()


def settle(store: Store, judge: PartedReward, clips: Iterable[LoadedClip]) -> None:
    """Have `judge` know the answers about these clips' prompts that are in the store, and ask for the rest.

    A prompt about which not everything was answered is not kept: it may be another time.
    """
    if not judge.prompt_version:
        return
    with _ASKING:
        first = {clip.prompt: clip for clip in clips}
        missing = [clip for prompt, clip in first.items() if not _recall(store, judge, prompt)]
        for prompt, answers in judge.ask_prompts(missing).items():
            if all(answer.value is not None for answer in answers.values()):
                rows = [
                    PromptAnswer(
                        prompt_id=prompt_id(prompt),
                        reward=part,
                        reward_version=judge.prompt_version,
                        value=answer.value,
                        detail=json.dumps(answer.detail, sort_keys=True, allow_nan=False),
                    )
                    for part, answer in answers.items()
                    if answer.value is not None
                ]
                store.commit(STAGE, _question(judge, prompt), {"prompt_answers": rows})
                _recall(store, judge, prompt)  # the first that were kept, should others have asked too


def _recall(store: Store, judge: PartedReward, prompt: str) -> bool:
    """Whether the answers about a prompt are in the store; `judge` knows them then."""
    key = digest(_question(judge, prompt))
    if not holds(store, key, "answers about a prompt"):
        return False
    rows: list[PromptAnswer] = store.read(key, "prompt_answers")
    judge.recall({prompt: {row.reward: Judgement(row.value, json.loads(row.detail)) for row in rows}})
    return True


def _question(judge: PartedReward, prompt: str) -> dict[str, Any]:
    return {
        "stage": STAGE,
        "version": fingerprints.VERSIONS["score"],
        "reward": judge.name,
        "reward_version": judge.prompt_version,
        "prompt": prompt,
    }
