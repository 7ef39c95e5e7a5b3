"""The judge's server in a container: the command that a run would start it with.

    python -m flows.serving.judge_command recipes/wan2.1-1.3b-judge.yaml > docker-compose.judge.yml

docker-compose.yml holds the one of recipes/mini.yaml; a test keeps the two the same.
"""

from __future__ import annotations

import re
import sys
from typing import Final

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
    """The module and arguments after `python -P`, for a GPU, in the container `judge`.

    Raises:
        ConfigError: the recipe has no judge, or several.
    """
    judges = [said for said in recipe.rewards.values() if isinstance(said, JudgeSettings)]
    if len(judges) != 1:
        raise ConfigError(f"the recipe has {len(judges)} judges: a container serves one")
    served = judges[0].changed(url=judges[0].url or _URL)
    words = command(served, _PORT, host="0.0.0.0", cpu=False)  # noqa: S104  (no port of the container is published)
    return [re.sub(rf"^{re.escape(str(INSTALLED))}(?=/|$)", _PACKAGES, word) for word in words]


def main(arguments: list[str]) -> int:
    """Print what a compose file must say to serve the judge of the recipe that `arguments` name instead.

    Returns:
        The exit code.
    """
    if len(arguments) != 1:
        print("usage: python -m flows.serving.judge_command RECIPE", file=sys.stderr)
        return 2
    try:
        escaped = [word.replace("$", "$$") for word in judge_command(load_recipe(arguments[0]))]
        said = {"services": {"judge": {"command": escaped}}}
        print(yaml.safe_dump(said, sort_keys=False, width=100), end="")
    except VidloopError as error:
        print(f"vidloop: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
