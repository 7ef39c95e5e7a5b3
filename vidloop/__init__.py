"""vidloop from Python: what is promised, in one place. Everything else may move between releases.

    import vidloop

    summary = vidloop.play_round("recipes/mini.yaml", "store", ["judge.backend=local"])
    store = vidloop.open_store("store")
    vidloop.query(store, "SELECT category, avg(value) FROM evaluations GROUP BY ALL")
    vidloop.write_report(store)

A plug-in (docs/add-a-reward.md, docs/add-an-objective.md) takes its types from here too. Importing this loads
neither torch nor Prefect; playing a round does, where something has to be computed.
"""

from data.errors import (
    ConfigError,
    DataError,
    ModelError,
    ServiceError,
    StageFailed,
    StoreError,
    UserError,
    VideoError,
    VidloopError,
)
from data.records import Clip, Evaluation, Example, Pair, Policy, Prompt, Score
from data.settings import Settings, setting
from data.store import Store
from data.version import VERSION as __version__
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from models.families.base import Family
from models.training.objectives import Compared, Objective
from rewards import (
    CannotJudge,
    Judgement,
    LoadedClip,
    NetworkSettings,
    Reward,
    RewardKind,
    guarded,
    per_clip,
    version_of,
)
from tasks.summary import RoundSummary
from vidloop.api import open_store, play_round, query, write_report

__all__ = [
    "CannotJudge",
    "Clip",
    "Compared",
    "ConfigError",
    "DataError",
    "Evaluation",
    "Example",
    "Family",
    "Judgement",
    "LoadedClip",
    "ModelError",
    "NetworkSettings",
    "Objective",
    "Pair",
    "Policy",
    "Prompt",
    "Recipe",
    "Reward",
    "RewardKind",
    "RoundSummary",
    "Score",
    "ServiceError",
    "Settings",
    "StageFailed",
    "Store",
    "StoreError",
    "UserError",
    "VideoError",
    "VidloopError",
    "__version__",
    "guarded",
    "load_recipe",
    "open_store",
    "per_clip",
    "play_round",
    "query",
    "setting",
    "version_of",
    "write_report",
]
