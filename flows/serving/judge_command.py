"""The judge's server in a container: the command that a run would start it with.

    python -m flows.serving.judge_command recipes/wan2.1-1.3b-judge.yaml > docker-compose.judge.yml

docker-compose.yml holds the one of recipes/mini.yaml; a test keeps the two the same.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import yaml

from data.errors import ConfigError, VidloopError
from data.resources import INSTALLED
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from rewards.judge.server import command
from rewards.judge.settings import JudgeSettings

# Where the containers have our packages, and what reaches the judge from the others.
_PACKAGES: Final = "/opt/vidloop"
_URL: Final = "http://judge:8000/v1"
_PORT: Final = 8000


def judge_command(recipe: Recipe) -> list[str]:
    """The module and arguments after `python -P`, for a GPU, in the container `judge`."""
    judges = [said for said in recipe.rewards.values() if isinstance(said, JudgeSettings)]
    if len(judges) != 1:
        raise ConfigError(f"the recipe has {len(judges)} judges: a container serves one")
    served = judges[0].changed(url=judges[0].url or _URL)
    words = command(served, _PORT, host="0.0.0.0", cpu=False)  # noqa: S104  (no port of the container is published)
    return [_in_container(word) for word in words]


def override(recipe: Recipe) -> dict[str, Any]:
    """What a compose file must say to serve the recipe's judge instead."""
    escaped = [word.replace("$", "$$") for word in judge_command(recipe)]
    return {"services": {"judge": {"command": escaped}}}


def _in_container(word: str) -> str:
    root = str(INSTALLED)
    return _PACKAGES + word[len(root) :] if word == root or word.startswith(f"{root}/") else word


def main(arguments: list[str]) -> int:
    """Print the override for the recipe that `arguments` name; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m flows.serving.judge_command RECIPE", file=sys.stderr)
        return 2
    try:
        print(yaml.safe_dump(override(load_recipe(arguments[0])), sort_keys=False, width=100), end="")
    except VidloopError as error:
        print(f"vidloop: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
