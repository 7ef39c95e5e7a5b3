"""What a recipe says of the stages beyond their components' own settings, which these extend."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from data.curation import SelectionSettings
from data.settings import Settings, Several, setting
from data.video import VideoSettings
from models.families.settings import SampleSettings

RoundId = Annotated[str, Field(pattern=r"^\d{8}T\d{6}-[0-9a-f]{8}$")]


def _one_or_more(said: Any) -> Any:
    return [said] if isinstance(said, str) else said


class BestOfSettings(Settings):
    """Best of N as a policy: of so many clips for a prompt and seed, the one that a reward prefers."""

    # The key is `from`, which Python keeps for itself.
    model_config = ConfigDict(serialize_by_alias=True)

    best_of: int = setting(
        ..., "Best of", "Clips to choose from, for each that is kept.", unit="clips", ge=2, le=1024
    )
    by: str | None = setting(
        None, "By", "Name of the reward that chooses, or of a kind; null: the one that teaches.", min_length=1
    )
    source: str | None = setting(
        None,
        "From",
        "The policy that is sampled: base, champion, or a policy id; of a baseline also candidate. null: "
        "base; of a baseline the policy that the round starts from.",
        alias="from",
        min_length=1,
    )


class GenerateSettings(SampleSettings):
    """Stage 1: clips from the policy."""

    prompts: str = setting(
        "train",
        "Prompts",
        "A set (train, dev, heldout, unseen; real-train, real-heldout) or a file.",
        min_length=1,
    )
    prompt_ids: Several[str] | None = setting(
        None,
        "Only these prompts",
        "Ids of prompts in the set; null: all. `improve` writes its choice here.",
        formerly="only",
        min_length=1,
    )
    clips_per_prompt: int = setting(8, "Clips per prompt", "Seeds a prompt.", ge=1, le=10_000)
    batch_size: int = setting(
        16,
        "Batch size",
        "Clips sampled together: one shard, and part of a clip's identity.",
        ge=1,
        le=1024,
    )
    fps: int = setting(
        8,
        "Frames per second",
        "Written into the file; LTX-Video's network is told it too.",
        unit="frames/s",
        ge=1,
        le=120,
    )
    video: VideoSettings = setting(VideoSettings(), "Video file", "How clips are written.")


class ClipsSettings(Settings):
    """Which clips teach: those that the policy makes, sets from outside, or both."""

    imported: Annotated[Several[str], BeforeValidator(_one_or_more)] = setting(
        (),
        "Imported sets",
        "Names of sets that `vidloop import clips` made; they take the place of stage 1's clips.",
    )
    generated: bool = setting(
        False, "Generated too", "Says that the policy makes clips as well, where sets are imported."
    )

    @property
    def makes(self) -> bool:
        """Whether the policy makes clips."""
        return self.generated or not self.imported


class ScoreSettings(Settings):
    """Stage 2: rewards over the stored files."""

    rewards: Several[str] | None = setting(
        None,
        "Rewards",
        "Names of the rewards that score the training clips; null: all that `rewards` names.",
        min_length=1,
    )
    max_failed_share: float = setting(
        0.05,
        "Failures allowed",
        "Share of clips a reward may fail on before the stage stops.",
        ge=0.0,
        le=1.0,
    )


class CurateStageSettings(SelectionSettings):
    """Stage 3: what is worth learning from."""

    include_rounds: Several[RoundId] = setting(
        (),
        "Earlier rounds",
        "Rounds of the same store whose clips are learned from too. `improve` writes them here.",
        formerly="rounds",
    )
    weight: Literal["objective", "uniform", "reward", "exp"] = setting(
        "objective",
        "Weight",
        "1, r', or exp(r'/beta)/Z; objective: reward for rwr, exp for rwr-exp, else uniform.",
    )


class EvaluateSettings(Settings):
    """Stage 5: before against after, on the same prompts and seeds."""

    metric: str = setting(
        "physics",
        "Metric",
        "Name of a reward that was not the training feedback, or of a kind.",
        min_length=1,
    )
    same_as_feedback: bool = setting(
        False,
        "Metric is the feedback",
        "Says that judging by the training feedback, by what chooses the best of N, or by a judge of the "
        "same weights, is on purpose.",
    )
    flow_may_decide: bool = setting(
        False,
        "Motion may decide",
        "Says that a metric of kind flow or motion is on purpose: it rewards motion, right or wrong.",
    )
    prompts: str = setting("heldout", "Prompts", "A set or a file; the primary one.", min_length=1)
    allow_training_prompts: bool = setting(
        False,
        "Training prompts",
        "Says that examining on prompts that also train, or trained the policy that the round starts from, "
        "is on purpose; reports then call them so.",
    )
    clips: int = setting(
        400, "Clips", "Clips per policy in all, spread evenly over the prompts.", ge=1, le=1_000_000
    )
    confirm_clips: int | None = setting(
        None,
        "Clips of a confirmation",
        "Clips per policy, on seeds of their own, that join the gate's where its yes is confirmed (rounds of "
        "`improve` and nights); null: as many as `clips`. More find a small gain sooner.",
        ge=1,
        le=1_000_000,
    )
    also: Several[str] = setting(("unseen",), "Also", "Sets reported apart; they never decide.")
    also_clips: int = setting(80, "Clips of each other set", "Per policy.", ge=1, le=1_000_000)
    guards: Several[str] = setting(
        ("motion", "own_motion", "tempo", "diversity", "sharpness", "grain", "flicker", "colour", "luma"),
        "Guards",
        "What must stay as it is (docs/guards.md): names of rewards or of kinds, and diversity.",
    )
    beside: Several[str] = setting(
        (),
        "Beside",
        "Names of rewards, or of kinds, that measure both policies too and decide nothing.",
    )
    baselines: Several[BestOfSettings] = setting(
        (),
        "Baselines",
        "Best-of-N policies (keys best_of, by, from) shown beside both policies on the primary prompts, with "
        "their cost; they decide nothing.",
    )
