"""The judge: a vision-language model that answers a rubric's yes/no questions about clips.

    LoadedClip -> frames (PNG) -> prompt (rubric, media, question) -> backend -> P(yes) -> Judgement

    rubric     what is asked, of which frames, how answers combine: a YAML file       <- open first
    judge      the reward: questions are its parts, each with a version of its own
    prompt, frames, answers    the same for both backends
    local      transformers in this process
    served     an OpenAI-compatible server: `asking` over `transport`
    server     vLLM started by the run; `supervisor` ends it with the run, whatever happens

What comes in: clips. What goes out: a value in [0, 1], or why there is none: a judge that is silent, refuses,
stammers or sends NaN has not judged. Heavy libraries are imported where they are used.
"""

from rewards.judge.judge import REWARD

__all__ = ["REWARD"]
